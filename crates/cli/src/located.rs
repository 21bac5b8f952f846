//! What an answer locates: boxes and points with their labels, in the three spellings that the model has.
//!
//! JSON objects with `bbox_2d` or `point_2d`, with or without a fence around them; `<points x1="…" y1="…" alt="…">`; and
//! QwenVL HTML's `data-bbox="x1 y1 x2 y2"`. Everything else in the answer is skipped, and so is what is broken.

use serde_json::Value;

/// A place that an answer names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Located {
    pub(crate) place: Place,
    /// What is there, as the answer calls it; may be empty.
    pub(crate) label: String,
}

/// Pixels of the picture that the model saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    Box { x1: f64, y1: f64, x2: f64, y2: f64 },
    Point { x: f64, y: f64 },
}

/// More would be no drawing any more.
const MOST: usize = 4096;
/// Longer names are cut.
const LONGEST_LABEL: usize = 80;

/// All places of an answer, in its order.
pub(crate) fn located(answer: &str) -> Vec<Located> {
    let mut found = Vec::new();
    let mut rest = answer;
    while let Some(at) = rest.find(['{', '[', '<']) {
        rest = &rest[at..];
        if found.len() >= MOST {
            break;
        }
        let taken = if rest.starts_with('<') { tag(rest, &mut found) } else { json(rest, &mut found) };
        rest = &rest[taken.max(1)..];
    }
    found.truncate(MOST);
    found
}

/// Reads one JSON value at the start of `text`: how many bytes it has, 0 if it is none.
fn json(text: &str, found: &mut Vec<Located>) -> usize {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => {
            collect(&value, found);
            values.byte_offset()
        }
        // An answer that was cut off: the objects within it are read one by one.
        _ => 0,
    }
}

fn collect(value: &Value, found: &mut Vec<Located>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        Value::Object(fields) => {
            let numbers = |names: [&str; 2]| {
                let list = names.iter().find_map(|name| fields.get(*name))?.as_array()?;
                list.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>()
            };
            let place = numbers(["bbox_2d", "bbox"])
                .as_deref()
                .and_then(boxed)
                .or_else(|| numbers(["point_2d", "point"]).as_deref().and_then(point));
            match place {
                Some(place) => {
                    let names = ["label", "text_content", "text", "name", "description"];
                    let label = names.iter().find_map(|name| fields.get(*name)?.as_str()).unwrap_or_default();
                    found.push(Located { place, label: cut(label) });
                }
                None => fields.values().for_each(|value| collect(value, found)),
            }
        }
        _ => {}
    }
}

/// Reads one tag at the start of `text`: how many bytes it has, 0 if it is none.
fn tag(text: &str, found: &mut Vec<Located>) -> usize {
    let Some((inside, end)) = opening_tag(text) else { return 0 };
    let name_end = inside.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(inside.len());
    let (name, attributes) = inside.split_at(name_end);
    let attributes: Vec<(&str, &str)> = attributes_of(attributes).collect();
    let get = |name: &str| attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    if let Some(corners) = get("data-bbox") {
        let numbers: Option<Vec<f64>> = corners.split_whitespace().map(|word| word.parse().ok()).collect();
        if let Some(place) = numbers.as_deref().and_then(boxed) {
            found.push(Located { place, label: cut(name) });
        }
    } else if matches!(name, "points" | "point") {
        let label = get("alt").unwrap_or_default();
        for i in 1..=MOST {
            let number = |axis: &str| get(&format!("{axis}{i}"))?.trim().parse::<f64>().ok();
            let (Some(x), Some(y)) = (number("x"), number("y")) else { break };
            if let Some(place) = point(&[x, y]) {
                found.push(Located { place, label: cut(label) });
            }
        }
    }
    end
}

/// What is between `<` and `>`, and where the tag ends. A `>` within quotes ends nothing.
fn opening_tag(text: &str) -> Option<(&str, usize)> {
    let mut quote = None;
    for (at, c) in text.char_indices().skip(1) {
        match (quote, c) {
            (None, '>') => return Some((&text[1..at], at + 1)),
            (None, '<') => return None,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    None
}

/// Names and values of `name="value"` or `name='value'`, with whitespace between them.
fn attributes_of(mut text: &str) -> impl Iterator<Item = (&str, &str)> {
    std::iter::from_fn(move || {
        loop {
            let (before, after) = text.split_once('=')?;
            let name = before.split_whitespace().last().unwrap_or_default();
            let after = after.trim_start();
            let Some(quote) = after.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
                text = after;
                continue;
            };
            let (value, rest) = after[1..].split_once(quote)?;
            text = rest;
            return Some((name, value));
        }
    })
}

fn boxed(numbers: &[f64]) -> Option<Place> {
    let &[x1, y1, x2, y2] = numbers else { return None };
    numbers.iter().all(|n| n.is_finite()).then(|| Place::Box {
        x1: x1.min(x2),
        y1: y1.min(y2),
        x2: x1.max(x2),
        y2: y1.max(y2),
    })
}

fn point(numbers: &[f64]) -> Option<Place> {
    let &[x, y] = numbers else { return None };
    (x.is_finite() && y.is_finite()).then_some(Place::Point { x, y })
}

fn cut(label: &str) -> String {
    label.chars().filter(|c| !c.is_control()).take(LONGEST_LABEL).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(answer: &str) -> Vec<String> {
        let show = |Located { place, label }: Located| match place {
            Place::Box { x1, y1, x2, y2 } => format!("{label}: {x1} {y1} {x2} {y2}"),
            Place::Point { x, y } => format!("{label}: {x} {y}"),
        };
        located(answer).into_iter().map(show).collect()
    }

    #[track_caller]
    fn check(answer: &str, expected: &[&str]) {
        assert_eq!(said(answer), expected, "{answer}");
    }

    #[test]
    fn each_spelling() {
        check(
            "Here:\n```json\n[\n\t{\"bbox_2d\": [1, 2, 30, 40], \"label\": \"red cup\"},\n\t{\"bbox_2d\": [9, 8, 7.5, 6]}\n]\n```",
            &["red cup: 1 2 30 40", ": 7.5 6 9 8"],
        );
        check(r#"{"point_2d": [5, 6], "label": "eye"} and {"point": [7, 8]}"#, &["eye: 5 6", ": 7 8"]);
        check(r#"{"cakes": [{"bbox": [1, 2, 3, 4], "text_content": "Total"}]}"#, &["Total: 1 2 3 4"]);
        check(
            r#"<points x1="302" y1='90' x2="7" y2="8" alt="the hero">the hero</points>"#,
            &["the hero: 302 90", "the hero: 7 8"],
        );
        check(
            "```html\n<html><body>\n<h2 data-bbox=\"91 95 223 120\"> 1 > 0</h2>\n<p data-bbox=\"1 2 3\">x</p></body></html>",
            &["h2: 91 95 223 120"],
        );
    }

    #[test]
    fn broken_and_cut_off() {
        check("", &[]);
        check("nothing [here] {at} <all", &[]);
        // A list that ends in the middle still has its whole objects.
        check(
            r#"[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7, 8], "label": "b"}, {"bbox_2d": [9, 1"#,
            &["a: 1 2 3 4", "b: 5 6 7 8"],
        );
        check(r#"{"bbox_2d": [1, 2, 3]} {"bbox_2d": "none"} {"point_2d": [1, null]}"#, &[]);
        check("<points x1=\"a\" y1=\"2\">", &[]);
        check("<points x1=3 y1=\"2\">", &[]);
        check("<p data-bbox=\"1 2 3 4", &[]);
        check("a < b <p data-bbox='1 2 3 4'>", &["p: 1 2 3 4"]);
    }

    #[test]
    fn bounded_whatever_comes() {
        for hostile in ["[", "{\"a\":", "<", "<p data-bbox=\"1 2 3 4\">", "<points x1=\"1\" y1=\"1\">"] {
            assert!(located(&hostile.repeat(20_000)).len() <= MOST);
        }
        assert_eq!(
            located(&format!(r#"{{"point": [1, 2], "label": "{}"}}"#, "ä".repeat(500)))[0]
                .label
                .chars()
                .count(),
            80
        );
    }
}
