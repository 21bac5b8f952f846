//! Grammars over a vocabulary of bytes and a few merges.

use super::*;
use crate::tokenizer::tests::byte_tokenizer;

/// An answer that the grammar accepts as a whole, token by token.
struct Walk {
    grammar: Grammar,
    tokenizer: Tokenizer,
    eos: u32,
}

impl Walk {
    fn new(constraint: &Constraint) -> Result<Self, Error> {
        let tokenizer = byte_tokenizer(&[("{", "\""), ("t", "r"), ("\"", ":")]);
        let eos = tokenizer.control("<|im_end|>").unwrap();
        let vocabulary = Vocabulary { tokenizer: &tokenizer, eos_token_ids: &[eos] };
        let grammar = Grammars::default().compile(constraint, vocabulary)?;
        Ok(Self { grammar, tokenizer, eos })
    }

    /// Whether the text is allowed up to its end, and whether the answer may end there.
    fn follow(mut self, text: &str) -> (bool, bool) {
        let mut complete = false;
        for id in self.tokenizer.encode_rendered(text).unwrap() {
            if complete || !self.grammar.allowed().unwrap().has(id) {
                return (false, false);
            }
            complete = self.grammar.advance(id).unwrap();
        }
        (true, complete || self.grammar.allowed().unwrap().has(self.eos))
    }
}

#[track_caller]
fn check(constraint: &Constraint, whole: &[&str], parts: &[&str], wrong: &[&str]) {
    let follow = |text: &str| Walk::new(constraint).unwrap().follow(text);
    for text in whole {
        assert_eq!(follow(text), (true, true), "{text}");
    }
    for text in parts {
        assert_eq!(follow(text), (true, false), "{text}");
    }
    for text in wrong {
        assert_eq!(follow(text), (false, false), "{text}");
    }
}

fn schema(schema: Value) -> Constraint {
    Constraint::JsonSchema { schema, strict: true }
}

#[track_caller]
fn refused(constraint: &Constraint, part_of_message: &str) {
    match Walk::new(constraint).map(|_| ()) {
        Err(Error::InvalidRequest(message)) => {
            assert!(message.contains(part_of_message), "{message:?} lacks {part_of_message:?}");
        }
        other => panic!("{other:?}, expected a refusal with {part_of_message:?}"),
    }
}

#[test]
fn any_object() {
    check(
        &Constraint::JsonObject,
        &["{}", "{\"a\": [1, true, null], \"b\": {\"c\": \"é\"}}", "{\n  \"tree\": 1.5e3\n}"],
        &["", "{", "{\"", "{\"a\":1"],
        &["[]", "7", "{a", "{}}", "<|im_end|>", "{\"a\": \"\n"],
    );
    // Indentation ends some time.
    let spaces = format!("{{{}", " ".repeat(25));
    check(&Constraint::JsonObject, &[], &[&spaces[..25]], &[&spaces]);
}

#[test]
fn a_schema() {
    let constraint = schema(json!({
        "type": "object",
        "properties": {
            "kind": {"enum": ["tree", "truck"]},
            "sides": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 2},
        },
        "required": ["kind"],
        "additionalProperties": false,
    }));
    check(
        &constraint,
        &["{\"kind\":\"tree\"}", "{\"kind\": \"truck\", \"sides\": [1,20]}"],
        &["{\"kind\":\"tr"],
        &[
            "{\"kind\":\"trx",
            "{}",
            "{\"sides\"",
            "{\"kind\":\"tree\",\"x\"",
            "{\"kind\":\"tree\",\"sides\":[1,2,3",
        ],
    );
    check(&schema(json!({"type": "string", "maxLength": 1})), &["\"\"", "\"é\""], &["\"a"], &["\"ab", "a"]);
    check(
        &schema(json!({"$ref": "#/$defs/list", "$defs": {"list": {"type": "array", "maxItems": 1,
        "items": {"$ref": "#/$defs/list"}}}})),
        &["[]", "[[[]]]"],
        &["[["],
        &["[[],", "{"],
    );
}

#[test]
fn calls_of_functions() {
    let function = |name: &str, parameters| Function { name: name.into(), parameters, strict: true };
    let functions = vec![
        function(
            "look",
            json!({"type": "object", "properties": {"at": {"type": "integer"}},
            "required": ["at"], "additionalProperties": false}),
        ),
        function("stop", json!({"type": "object", "properties": {}, "additionalProperties": false})),
    ];
    let look = "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": 3}}\n</tool_call>";
    let stop = "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>";
    let both = format!("{look}\n{stop}");
    let thrice = format!("{both}\n{stop}");
    let wrong = look.replace("\"at\": 3", "");
    let cut = &look[..look.len() - 1];
    check(
        &Constraint::ToolCalls { functions: functions.clone(), most: 2 },
        &[look, stop, &both],
        &["", cut, "<tool_call>"],
        &["Sure.", &thrice, &wrong, "<tool_call>\n{\"name\": \"run\""],
    );
    check(
        &Constraint::ToolCalls { functions: functions[..1].to_vec(), most: 1 },
        &[look],
        &[],
        &[stop, &both],
    );
    refused(&Constraint::ToolCalls { functions: Vec::new(), most: 1 }, "there is none");
}

#[test]
fn refuses_what_nothing_can_follow() {
    refused(&schema(json!([])), "must be a JSON object");
    refused(&schema(json!({"type": "integer", "minimum": 5, "maximum": 3})), "can't be followed");
    refused(&schema(json!({"allOf": [{"type": "string"}, {"type": "integer"}]})), "can't be followed");
    refused(&schema(json!({"type": "string", "pattern": 7})), "can't be followed");
    refused(&schema(json!({"type": "string", "pattern": "("})), "can't be followed");
    refused(&schema(json!({"$ref": "#/$defs/missing"})), "can't be followed");
    refused(&schema(json!({"$ref": "http://127.0.0.1:1/schema.json"})), "can't be followed");
    let unknown = json!({"type": "object", "not": {}});
    refused(&schema(unknown.clone()), "not");
    assert!(Walk::new(&Constraint::JsonSchema { schema: unknown, strict: false }).is_ok());
}

#[test]
fn refuses_what_is_too_large_in_bounded_time() {
    let started = std::time::Instant::now();
    refused(&schema(json!({"type": "object", "description": "x".repeat(MOST_SCHEMA_BYTES)})), "bytes");
    let choices = json!({"anyOf": (0..40).map(|n| json!({"type": "object", "properties":
        {format!("p{n}"): {"type": "integer"}}})).collect::<Vec<_>>()});
    refused(&schema(json!({"allOf": vec![choices; 6]})), "can't be followed");
    // Some of these could be followed; none may take long to be found out about.
    let patterns = [
        "(a|b)*a".to_owned() + &"(a|b)".repeat(2000),
        format!("{}a{}", "(".repeat(20_000), ")".repeat(20_000)),
        "((a{0,1000}){0,1000}){0,1000}".to_owned(),
    ];
    for pattern in patterns {
        let _ = Walk::new(&schema(json!({"type": "string", "pattern": pattern})));
    }
    let items = json!({"type": "string", "minLength": 1_000_000});
    let _ = Walk::new(&schema(json!({"type": "array", "items": items, "minItems": 1_000_000_000u64})));
    let nested =
        (0..120).fold(json!({"type": "integer"}), |inner, _| json!({"type": "array", "items": inner}));
    assert!(Walk::new(&schema(nested)).is_ok());
    let seconds = started.elapsed().as_secs_f64();
    assert!(seconds < 20.0, "{seconds} s");
}
