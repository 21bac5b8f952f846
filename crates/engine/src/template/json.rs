//! JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it, because the model has only seen tools
//! in this spelling: `", "` and `": "` between items, keys in their own order, floats as `repr` writes them.

use serde_json::{Number, Value};

/// Writes a value. Integers beyond 64 bits are floats here, while Python would keep their digits.
pub(super) fn python_style(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (index, (key, field)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_string(out, key);
                out.push_str(": ");
                write_value(out, field);
            }
            out.push('}');
        }
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
}

fn write_number(out: &mut String, number: &Number) {
    match number.as_f64() {
        Some(float) if number.is_f64() => write_float(out, float),
        _ => out.push_str(&number.to_string()),
    }
}

/// The shortest digits that give the same float back, with an exponent below -4 and from 16 on
/// (CPython, `float_repr` with format `r`).
fn write_float(out: &mut String, float: f64) {
    // Both languages agree on the shortest digits; `{:e}` brings them as `-1.234e5`.
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        // Not finite, which JSON can't express and a parsed value never is.
        out.push_str("null");
        return;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = float.to_string();
        out.push_str(&plain);
        if !plain.contains('.') {
            out.push_str(".0");
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        out.push_str(&format!("{digits}e{sign}{:02}", exponent.abs()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: &str) {
        let value: Value = serde_json::from_str(json).unwrap();
        assert_eq!(python_style(&value), expected, "for {json}");
    }

    #[test]
    fn writes_floats_as_python_does() {
        // Made with `python3 -c "import json; print(json.dumps(json.loads(...)))"`.
        for (json, expected) in [
            ("1.0", "1.0"),
            ("-0.0", "-0.0"),
            ("1e5", "100000.0"),
            ("1e-7", "1e-07"),
            ("1.5e-7", "1.5e-07"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("0.000123456", "0.000123456"),
            ("1e15", "1000000000000000.0"),
            ("9999999999999998.0", "9999999999999998.0"),
            ("1e16", "1e+16"),
            ("1.2345e16", "1.2345e+16"),
            ("123456789012345680.0", "1.2345678901234568e+17"),
            ("1e22", "1e+22"),
            ("1e100", "1e+100"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("0.1", "0.1"),
            ("3.141592653589793", "3.141592653589793"),
            ("2.5", "2.5"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
        ] {
            check(json, expected);
        }
    }

    #[test]
    fn keeps_order_and_characters() {
        check(
            r#"{"b":1,"a":[true,false,null,{}],"":[]}"#,
            r#"{"b": 1, "a": [true, false, null, {}], "": []}"#,
        );
        check(r#""<é>&'\/ \u4e2d \ud83d\ude00""#, r#""<é>&'/ 中 😀""#);
        check(
            r#""\"\\\n\r\t\b\f\u0000\u001f\u007f\u2028""#,
            "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}\u{2028}\"",
        );
    }
}
