//! The tables against the readers of requests.

use super::*;
use crate::dashscope::GenerationRequest;
use crate::openai::ChatRequest;
use crate::{Dialect, ModelNames, Refusal, estimate};

fn bounds() -> Bounds {
    Bounds { sampling: Default::default(), max_completion_tokens: 64, largest_seed: 99 }
}

/// What a reader made of a request, to be compared.
type Read = Result<String, Refusal>;

fn read_chat(body: &Value) -> Read {
    let request = ChatRequest::parse(body.to_string().as_bytes(), &ModelNames::own("eye"), &bounds());
    request.map(|request| format!("{request:?}"))
}

fn read_generation(body: &Value) -> Read {
    let request = GenerationRequest::parse(body.to_string().as_bytes(), &ModelNames::own("eye"), &bounds());
    request.map(|request| format!("{request:?}"))
}

fn read_medium(item: &Value) -> Read {
    estimate::size("media.0", item, false).map(|size| format!("{size:?}"))
}

/// A conversation about a clip, so that each parameter has something to say.
fn messages() -> Value {
    json!([{"role": "user", "content": [{"video": vec!["data:;base64,aGk="; 4]}, {"text": "Hi"}]}])
}

/// Functions, one of which must be called: without them some parameters are not looked at.
fn functions() -> Value {
    json!({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"})
}

fn joined(objects: [&Value; 2]) -> Value {
    objects.into_iter().filter_map(Value::as_object).flat_map(Map::clone).collect()
}

/// Everything in the table is read: each value is refused that no kind of parameter takes, by the parameter's name, and
/// a default that is written out changes nothing.
#[track_caller]
fn check(table: Map<String, Value>, reads: impl Fn(&str, Value) -> [Read; 2]) {
    for (name, schema) in table {
        let [refused, _] = reads(&name, json!([{"x": "y"}]));
        let refusal = refused.expect_err(&name);
        let message = refusal.body(Dialect::Compatible, "")["error"]["message"].to_string();
        assert!(message.contains(&name), "{name}: {message}");
        if let Some(default) = schema.get("default") {
            let [written, absent] = reads(&name, default.clone());
            assert!(written.is_ok(), "{name}: {written:?}");
            assert_eq!(written, absent, "{name}");
        }
    }
}

#[test]
fn a_chat_takes_what_its_table_has() {
    let body = joined([&json!({"model": "eye", "messages": messages()}), &functions()]);
    check(chat(&bounds()), |name, value| {
        [read_chat(&joined([&body, &json!({name: value})])), read_chat(&body)]
    });
}

#[test]
fn a_generation_takes_what_its_table_has() {
    let body = |parameters: &Value| {
        let parameters = joined([&functions(), parameters]);
        json!({"model": "eye", "input": {"messages": messages()}, "parameters": parameters})
    };
    check(generation(&bounds()), |name, value| {
        [read_generation(&body(&json!({name: value}))), read_generation(&body(&json!({})))]
    });
}

#[test]
fn an_estimate_takes_what_its_table_has() {
    let sides = json!({"height": 280, "width": 280});
    let clip = json!({"type": "video", "total_frames": 40, "frame_rate": 10});
    check(medium(), |name, value| {
        let of_a_clip = ["total_frames", "frame_rate", "fps"].contains(&name);
        let item = if of_a_clip { joined([&sides, &clip]) } else { sides.clone() };
        [read_medium(&joined([&item, &json!({name: value})])), read_medium(&item)]
    });
}

#[test]
fn a_name_is_in_the_table_of_its_dialect_only() {
    let (chat, generation) = (chat(&bounds()), generation(&bounds()));
    for (name, in_chat, in_generation) in [
        (TEMPERATURE.name, true, true),
        (STREAM.name, true, false),
        (STREAM_OPTIONS.name, true, false),
        (INCREMENTAL_OUTPUT.name, false, true),
        (VL_ENABLE_IMAGE_HW_OUTPUT.name, false, true),
        (FPS.name, false, true),
    ] {
        assert_eq!(
            (chat.contains_key(name), generation.contains_key(name)),
            (in_chat, in_generation),
            "{name}"
        );
        // What the other dialect takes is ignored here, as every unknown name is.
        let body = json!({"model": "eye", "messages": messages(), name: []});
        assert_eq!(read_chat(&body).is_err(), in_chat, "{name}");
        let body = json!({"model": "eye", "input": {"messages": messages()}, "parameters": {name: []}});
        assert_eq!(read_generation(&body).is_err(), in_generation, "{name}");
    }
}

#[test]
fn a_schema_has_the_bounds_of_its_range() {
    #[track_caller]
    fn check(definition: &dyn Described, expected: Value) {
        let mut schema = definition.schema();
        let schema = schema.as_object_mut().unwrap();
        for other in ["type", "description"] {
            schema.remove(other).unwrap();
        }
        assert_eq!(*schema, *expected.as_object().unwrap(), "{}", definition.name());
    }
    check(&TEMPERATURE, json!({"minimum": 0.0, "exclusiveMaximum": 2.0}));
    check(&TOP_P, json!({"exclusiveMinimum": 0.0, "maximum": 1.0}));
    check(&TOP_K, json!({"minimum": 0}));
    check(&REPETITION_PENALTY, json!({"exclusiveMinimum": 0.0}));
    check(&FPS, json!({"minimum": 0.1, "maximum": 10.0, "default": 2.0}));
    check(&MIN_PIXELS, json!({"minimum": 3136, "maximum": 12_845_056}));
    check(&max_tokens(8192), json!({"minimum": 1, "maximum": 8192, "default": 8192}));
    check(&seed((1 << 31) - 1), json!({"minimum": 0, "maximum": 2_147_483_647}));
    // Readers for which every number is a float would take it for 2^63, which is refused.
    check(&seed(i64::MAX as u64), json!({"minimum": 0}));
    check(&PARALLEL_TOOL_CALLS, json!({"default": true}));
}

#[test]
fn a_range_reads_as_the_hosted_service_writes_it() {
    #[track_caller]
    fn check<T: crate::kind::Numeric>(definition: &Ranged<T>, complaint: &str) {
        assert_eq!(definition.complaint(), complaint);
    }
    check(&TEMPERATURE, "Temperature should be in [0.0, 2.0)");
    check(&TOP_P, "Range of top_p should be (0.0, 1.0]");
    check(&TOP_K, "Parameter top_k be greater than or equal to 0");
    check(&REPETITION_PENALTY, "Repetition_penalty should be greater than 0.0");
    check(&seed(i64::MAX as u64), "Range of seed should be [0, 9223372036854775807]");
    check(&FPS, "Range of fps should be [0.1, 10.0]");
    check(&BIAS, "The values of 'logit_bias' should be in [-100.0, 100.0]");
    check(&MIN_PIXELS, "Range of min_pixels should be [3136, 12845056]");
    assert_eq!(format!("{}", FRAME_RATE.range), "(0, 1000]");
}
