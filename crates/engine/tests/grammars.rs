//! Answers of a real, if tiny and random, model that must follow a grammar: whatever it would rather say, what comes
//! out validates, or was cut at the limit of tokens.

#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use ocellus_engine::{
    Constraint, Engine, Event, FinishReason, Function, Logprob, Message, Options, Request, Role, Sampling,
    Source, Stop,
};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let source = Source::folder(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nano"));
        let options = Options { context_tokens: Some(1024), ..Options::default() };
        Engine::load(&source, &options, &|_| {}).unwrap()
    })
}

/// A request whose answer is drawn from the whole vocabulary, so that every allowed token has its chance.
fn request(constraint: Constraint, seed: u64) -> Request {
    Request {
        messages: vec![Message::text(Role::User, "Answer in JSON.")],
        sampling: Sampling { temperature: 1.0, seed: Some(seed), ..Sampling::default() },
        max_tokens: Some(160),
        constraint: Some(constraint),
        ..Request::default()
    }
}

fn answer(request: Request) -> Result<(String, FinishReason), String> {
    let mut events = engine().submit(request);
    let mut text = String::new();
    while let Some(event) = events.blocking_next() {
        match event {
            Event::Started(_) => {}
            Event::Text(delta) => text.push_str(&delta.text),
            Event::Finished(finished) => return Ok((text, finished.reason)),
            Event::Failed(error) => return Err(error.to_string()),
        }
    }
    panic!("the answer has no end");
}

/// Writes schemas that can be met.
struct Schemas {
    random: ChaCha8Rng,
}

impl Schemas {
    fn below(&mut self, n: u32) -> u32 {
        self.random.next_u32() % n
    }

    /// `depth`: how deep arrays and objects may still nest.
    fn schema(&mut self, depth: u32) -> Value {
        match self.below(if depth == 0 { 8 } else { 13 }) {
            0 => json!({"type": "boolean"}),
            1 => json!({"type": "null"}),
            2 => {
                let minimum = self.below(100) as i32 - 50;
                json!({"type": "integer", "minimum": minimum, "maximum": minimum + self.below(20) as i32})
            }
            3 => json!({"type": "integer", "multipleOf": 1 + self.below(9), "minimum": 0, "maximum": 1000}),
            4 => json!({"type": "number", "minimum": -1, "exclusiveMaximum": 1 + self.below(9)}),
            5 => {
                let least = self.below(3);
                json!({"type": "string", "minLength": least, "maxLength": least + self.below(6)})
            }
            6 => json!({"type": "string", "pattern": format!("^[a-f]{{{}}}(-[0-9]+)?$", 1 + self.below(4))}),
            7 => {
                let values = [json!("tree"), json!(7), json!(null), json!("é😀"), json!({"a": [1.5]})];
                json!({"enum": values[..1 + self.below(5) as usize]})
            }
            8 => {
                let least = self.below(2);
                json!({"type": "array", "items": self.schema(depth - 1), "minItems": least,
                    "maxItems": least + self.below(3)})
            }
            9 => json!({"type": "array", "prefixItems": [self.schema(depth - 1), self.schema(depth - 1)],
                "items": false, "minItems": 2}),
            10 => json!({"anyOf": [self.schema(depth - 1), self.schema(depth - 1)]}),
            _ => self.object(depth),
        }
    }

    fn object(&mut self, depth: u32) -> Value {
        let names = ["a", "name", "bbox_2d", "größe", "x y"];
        let mut properties = Map::new();
        let mut required = Vec::new();
        for name in &names[..1 + self.below(4) as usize] {
            properties.insert((*name).into(), self.schema(depth.saturating_sub(1)));
            if self.below(3) > 0 {
                required.push(*name);
            }
        }
        json!({"type": "object", "properties": properties, "required": required,
            "additionalProperties": false})
    }
}

#[test]
fn answers_to_two_hundred_schemas_validate() {
    let mut schemas = Schemas { random: ChaCha8Rng::seed_from_u64(20) };
    let (mut whole, mut cut) = (0, 0);
    for seed in 0..200 {
        let schema = schemas.schema(2);
        let validator = jsonschema::validator_for(&schema).unwrap();
        let constraint = Constraint::JsonSchema { schema: schema.clone(), strict: true };
        let (text, reason) = answer(request(constraint, seed)).unwrap_or_else(|e| panic!("{schema}: {e}"));
        match reason {
            FinishReason::Stop => {
                let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{schema}: {e}: {text}"));
                assert!(validator.is_valid(&value), "{schema}: {text}");
                whole += 1;
            }
            FinishReason::Length => cut += 1,
        }
    }
    // Random text is long; but were most answers cut, this would prove little.
    assert!(whole > 150, "{whole} whole, {cut} cut");
}

#[test]
fn greedy_and_biased_answers_follow_too() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["n"], "additionalProperties": false});
    let validator = jsonschema::validator_for(&schema).unwrap();
    // Every bias is against the end of the answer and for tokens that have no place in it.
    let logit_bias = (0..50).map(|id| (id, 100.0)).collect();
    let samplings = [
        Sampling::default(),
        Sampling { temperature: 1.9, top_k: 1, ..Sampling::default() },
        Sampling { temperature: 1.0, top_p: 0.01, seed: Some(5), ..Sampling::default() },
        Sampling { logit_bias, repetition_penalty: 1.5, ..Sampling::default() },
    ];
    for sampling in samplings {
        let constraint = Constraint::JsonSchema { schema: schema.clone(), strict: true };
        let request = Request { sampling: sampling.clone(), ..request(constraint, 0) };
        let (text, reason) = answer(request).unwrap();
        assert_eq!(reason, FinishReason::Stop, "{sampling:?}: {text}");
        assert!(validator.is_valid(&serde_json::from_str(&text).unwrap()), "{sampling:?}: {text}");
    }
}

#[test]
fn a_required_function_is_always_called() {
    let function = |name: &str, parameters| Function { name: name.into(), parameters, strict: true };
    let functions = vec![
        function(
            "look",
            json!({"type": "object", "properties": {"at": {"enum": ["left", "right"]}},
                "required": ["at"], "additionalProperties": false}),
        ),
        function("stop", json!({"type": "object", "properties": {}, "additionalProperties": false})),
    ];
    for seed in 0..20 {
        let constraint = Constraint::ToolCalls { functions: functions.clone(), most: 1 };
        let (text, reason) = answer(request(constraint, seed)).unwrap();
        let call = text.strip_prefix("<tool_call>\n").and_then(|text| text.strip_suffix("\n</tool_call>"));
        let call: Value = serde_json::from_str(call.unwrap_or_else(|| panic!("{text}"))).unwrap();
        let arguments = &call["arguments"];
        match call["name"].as_str() {
            Some("look") => assert!(arguments["at"] == "left" || arguments["at"] == "right", "{text}"),
            Some("stop") => assert_eq!(*arguments, json!({}), "{text}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(reason, FinishReason::Stop);
    }
}

#[test]
fn refuses_before_it_starts() {
    let impossible = json!({"type": "integer", "minimum": 5, "maximum": 3});
    let constraint = Constraint::JsonSchema { schema: impossible, strict: true };
    assert!(answer(request(constraint, 0)).unwrap_err().contains("can't be followed"));
    let mut request = request(Constraint::JsonObject, 0);
    request.sampling.logit_bias = vec![(u32::MAX, 1.0)];
    assert!(answer(request.clone()).unwrap_err().contains("there is no token 4294967295"));
    request.sampling.logit_bias = Vec::new();
    request.stop = vec![Stop::Ids(vec![0, 1 << 30])];
    assert!(answer(request).unwrap_err().contains("there is no token 1073741824"));
}

/// The text of an answer without a grammar, the tokens that made it, and why it ended.
fn tokens(stop: &[Stop]) -> (String, Vec<Logprob>, FinishReason) {
    let request = Request {
        constraint: None,
        max_tokens: Some(24),
        logprobs: Some(0),
        stop: stop.to_vec(),
        ..request(Constraint::JsonObject, 9)
    };
    let mut events = engine().submit(request);
    let (mut text, mut tokens) = (String::new(), Vec::new());
    loop {
        match events.blocking_next().unwrap() {
            Event::Text(delta) => {
                text.push_str(&delta.text);
                tokens.extend(delta.logprobs.into_iter().map(|token| token.chosen));
            }
            Event::Finished(finished) => return (text, tokens, finished.reason),
            Event::Started(_) => {}
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

fn bytes_of(tokens: &[Logprob]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.bytes.clone()).collect()
}

#[test]
fn token_ids_end_an_answer_before_them() {
    let (_, all, _) = tokens(&[]);
    assert_eq!(all.len(), 24);
    let stop: Vec<u32> = all[10..13].iter().map(|token| token.id).collect();
    // The same ids may come earlier by chance.
    let ids: Vec<u32> = all.iter().map(|token| token.id).collect();
    let at = ids.windows(3).position(|window| window == stop).unwrap();
    let (text, found, reason) = tokens(&[Stop::Ids(stop)]);
    assert_eq!(reason, FinishReason::Stop);
    assert_eq!(text, String::from_utf8_lossy(&bytes_of(&all[..at])));
    assert_eq!(found, all[..at]);
}

#[test]
fn log_probabilities_end_where_the_text_does() {
    let (whole, all, _) = tokens(&[]);
    assert_eq!(String::from_utf8_lossy(&bytes_of(&all)), whole);
    let characters: Vec<char> = whole.chars().collect();
    for start in (0..characters.len() - 5).step_by(3) {
        let stop: String = characters[start..start + 4].iter().collect();
        if stop.contains(char::REPLACEMENT_CHARACTER) {
            continue;
        }
        let (text, found, reason) = tokens(&[Stop::Text(stop.clone())]);
        assert_eq!((text.as_str(), reason), (&whole[..whole.find(&stop).unwrap()], FinishReason::Stop));
        let n = found.len();
        assert_eq!(found, all[..n], "{stop:?}");
        // Exactly the tokens that begin in the text, as long as every byte before was a character's.
        if !text.contains(char::REPLACEMENT_CHARACTER) {
            assert!(n == 0 || bytes_of(&all[..n - 1]).len() < text.len(), "{stop:?}: too many");
            assert!(bytes_of(&found).starts_with(text.as_bytes()), "{stop:?}: too few");
        }
    }
}
