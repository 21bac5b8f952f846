//! The shape an answer must have: `response_format`, `tools` and `tool_choice`, checked and put into the engine's words.

use std::collections::HashSet;

use ocellus_engine::{Constraint, Function};
use serde_json::{Value, json};

use crate::Refusal;
use crate::definition::{MESSAGES, PARALLEL_TOOL_CALLS, RESPONSE_FORMAT, STRICT, TOOL_CHOICE, TOOLS};
use crate::parameter::Fields;

/// What a request says about the shape of its answer, after every check that needs no model. Whether a schema can be
/// followed is the engine's to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Structure {
    /// The functions as they came, for the prompt. Empty when none may be called.
    pub(crate) tools: Vec<Value>,
    /// What the answer has to be.
    pub(crate) constraint: Option<Constraint>,
}

/// Most functions of a request, and their bytes as JSON, all together.
const MOST_TOOLS: usize = 128;
const MOST_TOOL_BYTES: usize = 256 * 1024;

/// Longest name of a function.
const LONGEST_NAME: usize = 64;

/// Most calls in an answer that must call.
const MOST_CALLS: usize = 8;

impl Structure {
    /// Reads the three parameters. A call that must happen goes before a format; a format goes before a call that may.
    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, Refusal> {
        let format = response_format(fields)?;
        let (tools, functions) = tools(fields)?;
        let (tools, calls) = match tool_choice(fields)? {
            Choice::None => (Vec::new(), None),
            Choice::Auto => (tools, None),
            _ if tools.is_empty() => {
                return Err(bad("'tool_choice' is only allowed when 'tools' are specified"));
            }
            Choice::Required => {
                let alone = !fields.boolean(&PARALLEL_TOOL_CALLS)?;
                (tools, Some((functions, if alone { 1 } else { MOST_CALLS })))
            }
            Choice::Named(name) => {
                let Some(function) = functions.into_iter().find(|function| function.name == name) else {
                    return Err(bad(format!("'tool_choice' names '{name}', which is not in 'tools'")));
                };
                (tools, Some((vec![function], 1)))
            }
        };
        let calls = calls.map(|(functions, most)| Constraint::ToolCalls { functions, most });
        Ok(Self { tools, constraint: calls.or(format) })
    }
}

/// `tool_choice`.
enum Choice {
    Auto,
    None,
    Required,
    Named(String),
}

fn tool_choice(fields: &Fields<'_>) -> Result<Choice, Refusal> {
    let wrong = || {
        bad(
            "'tool_choice' must be \"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": \
             {\"name\": …}}",
        )
    };
    match fields.get(TOOL_CHOICE.name) {
        None => Ok(Choice::Auto),
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" => Ok(Choice::Auto),
            "none" => Ok(Choice::None),
            "required" => Ok(Choice::Required),
            _ => Err(wrong()),
        },
        Some(choice) => match (&choice["type"], &choice["function"]["name"]) {
            (Value::String(kind), Value::String(name)) if kind == "function" => {
                Ok(Choice::Named(name.clone()))
            }
            _ => Err(wrong()),
        },
    }
}

/// The functions as they came, and what the engine has to know to enforce a call of one.
fn tools(fields: &Fields<'_>) -> Result<(Vec<Value>, Vec<Function>), Refusal> {
    let tools = match fields.get(TOOLS.name) {
        None => return Ok((Vec::new(), Vec::new())),
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err(wrong_type("tools", "Array")),
    };
    if tools.len() > MOST_TOOLS {
        return Err(bad(format!("'tools' must have at most {MOST_TOOLS} entries")));
    }
    if tools.iter().map(|tool| tool.to_string().len()).sum::<usize>() > MOST_TOOL_BYTES {
        return Err(bad(format!("'tools' must have at most {MOST_TOOL_BYTES} bytes")));
    }
    let functions = tools.iter().enumerate().map(|(index, tool)| function(&format!("tools.{index}"), tool));
    let functions: Vec<Function> = functions.collect::<Result<_, _>>()?;
    let mut names = HashSet::new();
    if let Some(twice) = functions.iter().find(|function| !names.insert(&function.name)) {
        return Err(bad(format!("'tools' has two functions named '{}'", twice.name)));
    }
    Ok((tools.clone(), functions))
}

/// `{"type":"function","function":{"name":n,"description":d,"parameters":{…},"strict":b}}`.
fn function(at: &str, tool: &Value) -> Result<Function, Refusal> {
    let tool = Fields::new(tool.as_object().ok_or_else(|| wrong_type(at, "Object"))?);
    if tool.get("type").is_none_or(|kind| kind != "function") {
        return Err(bad(format!("'{at}.type' must be \"function\"")));
    }
    let at = format!("{at}.function");
    let function = tool.get("function").and_then(Value::as_object);
    let function = Fields::new(function.ok_or_else(|| wrong_type(&at, "Object"))?);
    let name = match function.get("name") {
        Some(Value::String(name)) if is_name(name) => name.clone(),
        Some(Value::String(_)) => {
            return Err(bad(format!(
                "'{at}.name' must have 1 to {LONGEST_NAME} letters, digits, underscores and dashes"
            )));
        }
        _ => return Err(wrong_type(&format!("{at}.name"), "String")),
    };
    if function.get("description").is_some_and(|text| !text.is_string()) {
        return Err(wrong_type(&format!("{at}.description"), "String"));
    }
    let parameters = match function.get("parameters") {
        // A function without parameters.
        None => json!({"type": "object", "properties": {}, "additionalProperties": false}),
        Some(Value::Object(schema)) => {
            let mut schema = schema.clone();
            // Arguments are an object, also where the schema doesn't say so.
            let kind = schema.entry("type").or_insert_with(|| "object".into());
            if kind != "object" {
                return Err(bad(format!("'{at}.parameters.type' must be \"object\"")));
            }
            Value::Object(schema)
        }
        Some(_) => return Err(wrong_type(&format!("{at}.parameters"), "Object")),
    };
    Ok(Function { name, parameters, strict: function.boolean(&STRICT)? })
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(fits)
}

fn response_format(fields: &Fields<'_>) -> Result<Option<Constraint>, Refusal> {
    let format = match fields.get(RESPONSE_FORMAT.name) {
        None => return Ok(None),
        Some(Value::Object(format)) => Fields::new(format),
        Some(_) => return Err(wrong_type("response_format", "Object")),
    };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") if mentions_json(fields.get(MESSAGES.name)) => Ok(Some(Constraint::JsonObject)),
        // The hosted service's sentence, word for word. A model that isn't told of JSON fills it with white space.
        Some("json_object") => Err(bad("'messages' must contain the word 'json' in some form, to use \
                                        'response_format' of type 'json_object'.")),
        Some("json_schema") => json_schema(&format).map(Some),
        _ => Err(bad("'response_format.type' must be one of text, json_object and json_schema")),
    }
}

/// `{"type":"json_schema","json_schema":{"name":n,"schema":{…},"strict":b}}`.
fn json_schema(format: &Fields<'_>) -> Result<Constraint, Refusal> {
    const AT: &str = "response_format.json_schema";
    let object = format.get("json_schema").and_then(Value::as_object);
    let fields = Fields::new(object.ok_or_else(|| wrong_type(AT, "Object"))?);
    if fields.get("name").is_some_and(|name| !name.is_string()) {
        return Err(wrong_type(&format!("{AT}.name"), "String"));
    }
    let schema = match fields.get("schema") {
        Some(schema @ Value::Object(_)) => schema.clone(),
        _ => return Err(wrong_type(&format!("{AT}.schema"), "Object")),
    };
    Ok(Constraint::JsonSchema { schema, strict: fields.boolean(&STRICT)? })
}

/// Whether the text of any message has the word, in any case.
fn mentions_json(messages: Option<&Value>) -> bool {
    let has_word = |text: &Value| text.as_str().is_some_and(|text| text.to_lowercase().contains("json"));
    let in_part = |part: &Value| has_word(part) || has_word(&part["text"]);
    let in_content = |content: &Value| {
        has_word(content) || content.as_array().is_some_and(|parts| parts.iter().any(in_part))
    };
    let messages = messages.and_then(Value::as_array);
    messages.is_some_and(|messages| messages.iter().any(|message| in_content(&message["content"])))
}

fn wrong_type(name: &str, expected: &'static str) -> Refusal {
    Refusal::WrongType { name: name.into(), expected }
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::BadValue { message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &Value) -> Result<Structure, Refusal> {
        Structure::read(&Fields::new(json.as_object().unwrap()))
    }

    #[track_caller]
    fn check(json: Value, constraint: Option<Constraint>) {
        assert_eq!(read(&json).map(|structure| structure.constraint), Ok(constraint), "{json}");
    }

    #[track_caller]
    fn refused(json: Value, message: &str) {
        let body = read(&json).expect_err(&json.to_string()).body(crate::Dialect::Compatible, "");
        assert_eq!(body["error"]["message"], message, "{json}");
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {"properties": {}}}})
    }

    fn called(name: &str) -> Function {
        Function { name: name.into(), parameters: json!({"properties": {}, "type": "object"}), strict: false }
    }

    #[test]
    fn formats() {
        check(json!({}), None);
        check(json!({"response_format": null}), None);
        check(json!({"response_format": {"type": "text"}}), None);
        let schema = |strict| Constraint::JsonSchema { schema: json!({"type": "null"}), strict };
        let format = |json_schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": json_schema}});
        check(format(json!({"name": "n", "schema": {"type": "null"}, "strict": true})), Some(schema(true)));
        check(format(json!({"schema": {"type": "null"}})), Some(schema(false)));
        refused(format(json!(null)), "'response_format.json_schema' must be Object");
        refused(format(json!({"name": "n"})), "'response_format.json_schema.schema' must be Object");
        refused(format(json!({"name": 7})), "'response_format.json_schema.name' must be String");
        refused(format(json!({"schema": {}, "strict": 7})), "'strict' must be Boolean");
        let message = "'response_format.type' must be one of text, json_object and json_schema";
        refused(json!({"response_format": {"type": "xml"}}), message);
        refused(json!({"response_format": {}}), message);
        refused(json!({"response_format": "text"}), "'response_format' must be Object");
    }

    #[test]
    fn any_json_has_to_be_asked_for_in_words() {
        let with = |content: Value| json!({"response_format": {"type": "json_object"}, "messages": [{"content": "x"}, {"content": content}]});
        for content in
            [json!("as JSON, please"), json!(["x", "json"]), json!([{"text": "x"}, {"text": "my.Json"}])]
        {
            check(with(content), Some(Constraint::JsonObject));
        }
        let message = "'messages' must contain the word 'json' in some form, to use 'response_format' of type \
                       'json_object'.";
        for content in [
            json!("jso n"),
            json!(null),
            json!([]),
            json!([{"image": "data:,json"}]),
            json!({"text": "json"}),
        ] {
            refused(with(content), message);
        }
        refused(json!({"response_format": {"type": "json_object"}}), message);
    }

    #[test]
    fn choices_of_functions() {
        let tools = json!([tool("look"), tool("stop")]);
        let with = |choice: Value| json!({"tools": tools, "tool_choice": choice});
        let calls = |names: &[&str], most| {
            Some(Constraint::ToolCalls { functions: names.iter().map(|name| called(name)).collect(), most })
        };
        check(with(json!(null)), None);
        check(with(json!("auto")), None);
        check(with(json!("none")), None);
        check(with(json!("required")), calls(&["look", "stop"], 8));
        check(with(json!({"type": "function", "function": {"name": "stop"}})), calls(&["stop"], 1));
        let mut alone = with(json!("required"));
        alone["parallel_tool_calls"] = json!(false);
        check(alone, calls(&["look", "stop"], 1));
        // A call that must happen wins over a format, which wins over one that may.
        let format = json!({"type": "json_schema", "json_schema": {"schema": {}}});
        check(
            json!({"tools": tools, "response_format": format}),
            Some(Constraint::JsonSchema { schema: json!({}), strict: false }),
        );
        check(
            json!({"tools": tools, "response_format": format, "tool_choice": "required"}),
            calls(&["look", "stop"], 8),
        );

        assert_eq!(read(&with(json!("auto"))).unwrap().tools, tools.as_array().unwrap().clone());
        assert!(read(&with(json!("none"))).unwrap().tools.is_empty());
        refused(
            with(json!({"type": "function", "function": {"name": "run"}})),
            "'tool_choice' names 'run', which is not in 'tools'",
        );
        let message = "'tool_choice' must be \"none\", \"auto\", \"required\" or {\"type\": \"function\", \
                       \"function\": {\"name\": …}}";
        for choice in [
            json!("never"),
            json!(7),
            json!([]),
            json!({}),
            json!({"type": "function"}),
            json!({"type": "tool", "function": {"name": "look"}}),
            json!({"type": "function", "function": {"name": 7}}),
        ] {
            refused(with(choice), message);
        }
        let message = "'tool_choice' is only allowed when 'tools' are specified";
        refused(json!({"tool_choice": "required"}), message);
        refused(json!({"tool_choice": "required", "tools": []}), message);
        refused(json!({"tool_choice": {"type": "function", "function": {"name": "look"}}}), message);
        check(json!({"tool_choice": "auto"}), None);
        check(json!({"tool_choice": "none"}), None);
    }

    #[test]
    fn functions() {
        let with = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
        for good in [
            json!({"name": "a"}),
            json!({"name": "a-B_7", "description": "d", "parameters": null}),
            json!({"name": "a", "parameters": {"type": "object"}, "strict": true}),
        ] {
            check(with(good), None);
        }
        let name = "'tools.0.function.name' must have 1 to 64 letters, digits, underscores and dashes";
        for wrong in ["", "a b", "a\"", "é", &"a".repeat(65)] {
            refused(with(json!({"name": wrong})), name);
        }
        refused(with(json!({})), "'tools.0.function.name' must be String");
        refused(
            with(json!({"name": "a", "description": 7})),
            "'tools.0.function.description' must be String",
        );
        refused(with(json!({"name": "a", "parameters": []})), "'tools.0.function.parameters' must be Object");
        refused(
            with(json!({"name": "a", "parameters": {"type": "string"}})),
            "'tools.0.function.parameters.type' must be \"object\"",
        );
        refused(with(json!({"name": "a", "strict": 7})), "'strict' must be Boolean");
        refused(with(json!("a")), "'tools.0.function' must be Object");
        refused(json!({"tools": {}}), "'tools' must be Array");
        refused(json!({"tools": ["a"]}), "'tools.0' must be Object");
        refused(json!({"tools": [{"function": {"name": "a"}}]}), "'tools.0.type' must be \"function\"");
        refused(json!({"tools": [tool("a"), tool("b"), tool("a")]}), "'tools' has two functions named 'a'");
        let many: Vec<Value> = (0..129).map(|n| tool(&format!("f{n}"))).collect();
        refused(json!({"tools": many}), "'tools' must have at most 128 entries");
        refused(
            with(json!({"name": "a", "description": "d".repeat(256 * 1024)})),
            "'tools' must have at most 262144 bytes",
        );
    }
}
