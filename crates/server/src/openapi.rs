//! `/openapi.json`: the whole surface as an OpenAPI 3.1 document.
//!
//! The dialects take one thing in many spellings (numbers as text, contents as text or lists, parameters in several
//! places), so bodies are read by hand and not derived from types; this document is written by hand beside them. Tests
//! hold it to the code: every route and every name that is looked up in a body must be here, and each range given here
//! is tried on the server, at its ends and beyond them.

use serde_json::{Map, Value, json};

use crate::conversation::MOST_MEDIA;

/// The document for a server with this bound on answers.
pub(crate) fn document(max_completion_tokens: usize) -> Value {
    let mut paths = Map::new();
    for prefix in ["/v1", "/compatible-mode/v1"] {
        let mut add = |path: &str, item: Value| paths.insert(format!("{prefix}{path}"), item);
        add(
            "/chat/completions",
            json!({"post": operation("Answers a conversation, whole or as server-sent events.", &Body {
                request: "ChatRequest", answer: "ChatCompletion", error: "Error", streams: true,
            })}),
        );
        add(
            "/tokens/estimate",
            json!({"post": operation("Counts tokens without running the model.", &Body {
                request: "EstimateRequest", answer: "Estimate", error: "Error", streams: false,
            })}),
        );
        add("/models", json!({"get": reading("All names that the model answers to.", "ModelList")}));
        let mut model = reading("One of these names.", "Model");
        model["parameters"] =
            json!([{"name": "name", "in": "path", "required": true, "schema": {"type": "string"}}]);
        add("/models/{name}", json!({"get": model}));
    }
    let mut generation = operation(
        "Answers a conversation in DashScope's own dialect.",
        &Body { request: "GenerationRequest", answer: "Generation", error: "NativeError", streams: true },
    );
    generation["parameters"] = json!([{
        "name": "X-DashScope-SSE", "in": "header", "schema": {"type": "string", "enum": ["enable", "disable"]},
        "description": "`enable` streams the answer.",
    }]);
    paths
        .insert("/api/v1/services/aigc/multimodal-generation/generation".into(), json!({"post": generation}));
    paths.insert("/api/v1/uploads".into(), uploads());
    let open = |description: &str, kind: &str| {
        json!({"get": {"summary": description, "security": [], "responses": {
            "200": {"description": "As it says.", "content": {kind: {}}},
            "503": {"description": "Not ready: the model is being loaded, or the server is stopping."},
        }}})
    };
    paths.insert("/health".into(), open("The process is alive.", "application/json"));
    paths.insert("/ready".into(), open("The model is loaded and requests are answered.", "application/json"));
    paths.insert("/metrics".into(), open("Numbers for Prometheus.", "text/plain"));
    paths.insert("/openapi.json".into(), open("This document.", "application/json"));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ocellus",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Qwen2.5-VL in the dialects of OpenAI's chat completions and of DashScope. Keys that are \
                            not listed are ignored, and a key whose value is null counts as absent. Numbers and \
                            booleans may be given as text.",
        },
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas(max_completion_tokens),
        },
    })
}

/// A call with a JSON body: names of schemas.
struct Body {
    request: &'static str,
    answer: &'static str,
    error: &'static str,
    streams: bool,
}

fn operation(summary: &str, body: &Body) -> Value {
    let mut content = json!({"application/json": {"schema": reference(body.answer)}});
    if body.streams {
        content["text/event-stream"] = json!({"schema": {"type": "string"}});
    }
    let error = json!({"description": "Refused; the message says why.",
        "content": {"application/json": {"schema": reference(body.error)}}});
    let mut responses = json!({"200": {"description": "The answer.", "content": content}});
    for status in ["400", "401", "404", "408", "413", "429", "500", "503"] {
        responses[status] = error.clone();
    }
    json!({
        "summary": summary,
        "requestBody": {"required": true, "content": {"application/json": {"schema": reference(body.request)}}},
        "responses": responses,
    })
}

fn reading(summary: &str, answer: &str) -> Value {
    let error =
        json!({"description": "Refused.", "content": {"application/json": {"schema": reference("Error")}}});
    json!({"summary": summary, "responses": {
        "200": {"description": "The answer.", "content": {"application/json": {"schema": reference(answer)}}},
        "401": error, "404": error,
    }})
}

fn uploads() -> Value {
    let error = json!({"description": "Refused.", "content": {"application/json": {"schema": reference("NativeError")}}});
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    json!({
        "get": {
            "summary": "A permission to upload local files, as DashScope's SDK asks for it (`action=getPolicy`).",
            "parameters": [query("action"), query("model")],
            "responses": {"200": {"description": "The permission."}, "400": error, "401": error},
        },
        "post": {
            "summary": "Uploads a file with such a permission.",
            "security": [],
            "requestBody": {"required": true, "content": {"multipart/form-data": {"schema": {"type": "object"}}}},
            "responses": {"200": {"description": "Kept."}, "400": error, "403": error, "409": error, "413": error},
        },
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A schema's properties.
type Properties = Map<String, Value>;

/// How many answers, and which shape they must have.
fn structure_parameters() -> Properties {
    fields(json!({
        "n": integer("Answers; 1 where functions may be called.", json!({"minimum": 1, "maximum": 4})),
        "response_format": {"type": ["object", "null"], "properties": {
            "type": {"type": "string", "enum": ["text", "json_object", "json_schema"]},
            "json_schema": {"type": "object", "properties": {
                "name": {"type": "string"}, "schema": {"type": "object"}, "strict": boolean("Accepted; always so."),
            }},
        }},
        "tools": {"type": ["array", "null"], "items": {"type": "object", "properties": {
            "type": {"const": "function"},
            "function": {"type": "object", "properties": {
                "name": {"type": "string"}, "description": {"type": "string"}, "parameters": {"type": "object"},
            }},
        }}},
        "tool_choice": {"description": "\"none\", \"auto\", \"required\", or a function by its name."},
        "parallel_tool_calls": boolean("With false an answer that must call a function calls one."),
    }))
}

fn schemas(max_completion_tokens: usize) -> Value {
    let shared = || {
        let mut shared = shared_parameters(max_completion_tokens);
        shared.extend(structure_parameters());
        shared
    };
    let object = |required: &[&str], properties: Properties| json!({"type": "object", "required": required, "properties": properties});

    let mut chat = fields(json!({
        "model": {"type": "string", "description": "A name that the model answers to."},
        "messages": messages(),
        "stream": boolean("Answer as server-sent events."),
        "stream_options": {"type": ["object", "null"], "properties": {
            "include_usage": boolean("End the stream with the usage."),
        }},
    }));
    chat.extend(shared());

    let mut native = shared();
    native.extend(fields(json!({
        "incremental_output": boolean("Stream only what is new, in place of everything so far."),
        "vl_enable_image_hw_output": boolean("Add the sizes of the pictures that the model saw."),
    })));
    let generation = fields(json!({
        "model": {"type": "string", "description": "A name that the model answers to."},
        "input": object(&["messages"], fields(json!({"messages": messages()}))),
        "parameters": {"type": ["object", "null"], "properties": native},
    }));

    let estimate = fields(json!({
        "media": {"type": "array", "maxItems": MOST_MEDIA, "items": {"type": "object", "required": ["height", "width"],
            "properties": {
                "type": {"enum": ["image", "video"], "description": "`image` when absent."},
                "height": {"type": "integer", "minimum": 1},
                "width": {"type": "integer", "minimum": 1},
                "min_pixels": pixels(),
                "max_pixels": pixels(),
                "total_frames": {"type": "integer", "minimum": 1, "description": "Of a video file."},
                "frame_rate": {"type": "number", "exclusiveMinimum": 0, "maximum": 1000,
                    "description": "Of a video file."},
                "fps": frames_per_second(),
            }}},
        "vl_high_resolution_images": boolean("As in a request."),
    }));

    let size = json!({"type": "object", "properties": {"height": {"type": "integer"}, "width": {"type": "integer"}}});
    let seen = json!({
        "kind": {"enum": ["image", "video"]},
        "original": size,
        "seen": size,
        "scale": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
            "description": "Original pixels of one seen pixel."},
        "tokens": {"type": "integer"},
        "frames": {"type": "integer"},
    });
    let mut counted = fields(seen.clone());
    counted.insert("tokens_with_markers".into(), json!({"type": "integer"}));
    json!({
        "ChatRequest": object(&["model", "messages"], chat),
        "GenerationRequest": object(&["model", "input"], generation),
        "EstimateRequest": {"anyOf": [object(&["media"], estimate), reference("ChatRequest")]},
        "Estimate": object(&["object", "image_tokens", "video_tokens", "media"], fields(json!({
            "object": {"const": "tokens.estimate"},
            "prompt_tokens": {"type": "integer"},
            "text_tokens": {"type": "integer"},
            "image_tokens": {"type": "integer"},
            "video_tokens": {"type": "integer"},
            "media": {"type": "array", "items": {"type": "object", "properties": counted}},
        }))),
        "ChatCompletion": object(&["choices", "object", "usage", "created", "model", "id"], fields(json!({
            "choices": {"type": "array"},
            "object": {"const": "chat.completion"},
            "usage": {"type": "object"},
            "created": {"type": "integer"},
            "system_fingerprint": {"type": "null"},
            "model": {"type": "string"},
            "id": {"type": "string"},
            "ocellus": reference("Extension"),
        }))),
        "Generation": object(&["output", "usage", "request_id"], fields(json!({
            "output": {"type": "object"},
            "usage": {"type": "object"},
            "request_id": {"type": "string"},
            "ocellus": reference("Extension"),
        }))),
        "Extension": {"type": "object", "description": "How large pictures and clips were, and were seen.",
            "properties": {"media": {"type": "array", "items": {"type": "object", "properties": seen}}}},
        "ModelList": {"type": "object", "properties": {
            "object": {"const": "list"}, "data": {"type": "array", "items": reference("Model")},
        }},
        "Model": {"type": "object", "properties": {
            "id": {"type": "string"}, "object": {"const": "model"}, "created": {"type": "integer"},
            "owned_by": {"type": "string"},
        }},
        "Error": object(&["error", "request_id"], fields(json!({
            "error": {"type": "object", "properties": {
                "message": {"type": "string"}, "type": {"type": "string"}, "param": {"type": "null"},
                "code": {"type": ["string", "null"]},
            }},
            "request_id": {"type": "string"},
        }))),
        "NativeError": object(&["code", "message", "request_id"], fields(json!({
            "code": {"type": "string"}, "message": {"type": "string"}, "request_id": {"type": "string"},
        }))),
    })
}

/// What both dialects know.
fn shared_parameters(max_completion_tokens: usize) -> Properties {
    let tokens = || json!({"minimum": 1, "maximum": max_completion_tokens});
    let penalty = || json!({"minimum": -2, "maximum": 2});
    fields(json!({
        "temperature": number("0 takes the likeliest token.", json!({"minimum": 0, "exclusiveMaximum": 2})),
        "top_p": number("Only the likeliest tokens of this share.", json!({"exclusiveMinimum": 0, "maximum": 1})),
        "top_k": integer("Only so many tokens; 0, null and more than 100 switch it off.", json!({"minimum": 0})),
        "min_p": number("Only tokens of this share of the likeliest one's.", json!({"minimum": 0, "maximum": 1})),
        "repetition_penalty": number("Over prompt and answer; 1 switches it off.", json!({"exclusiveMinimum": 0})),
        "presence_penalty": number("For tokens that are in the answer.", penalty()),
        "frequency_penalty": number("For each time a token is in the answer.", penalty()),
        "max_tokens": integer("The longest answer.", tokens()),
        "max_completion_tokens": integer("The same; it wins.", tokens()),
        "seed": integer("The same seed gives the same answer.", json!({"minimum": 0})),
        "stop": {"description": "A text, texts, token ids, or lists of token ids that end the answer."},
        "logprobs": boolean("Tell how likely the tokens were."),
        "top_logprobs": integer("And so many others.", json!({"minimum": 0, "maximum": 5})),
        "logit_bias": {"type": ["object", "null"], "description": "Token ids and what is added to their logits.",
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
        "vl_high_resolution_images": boolean("Pictures may take 16384 tokens in place of 1280."),
        "coordinates": {"enum": ["seen", "original", null],
            "description": "`original` turns boxes and points of the answer into pixels of the picture that was sent."},
    }))
}

fn messages() -> Value {
    let url = json!({"description": "http(s) or data URL."});
    let part = json!({"type": ["object", "string"], "properties": {
        "type": {"type": "string", "enum": ["text", "image_url", "image", "video_url", "video"]},
        "text": {"type": "string"},
        "image_url": {"type": ["object", "string"], "properties": {"url": url}},
        "image": url,
        "video_url": {"type": ["object", "string"], "properties": {"url": url}},
        "video": {"description": "4 to 512 frames, or a file.", "type": ["array", "string"]},
        "fps": frames_per_second(),
        "min_pixels": pixels(),
        "max_pixels": pixels(),
    }});
    json!({"type": "array", "minItems": 1, "items": {"type": "object", "required": ["role"], "properties": {
        "role": {"type": "string", "enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {"type": ["string", "array", "null"], "items": part},
        "tool_calls": {"type": ["array", "null"], "items": {"type": "object", "properties": {
            "function": {"type": "object", "properties": {
                "name": {"type": "string"}, "arguments": {"type": ["string", "object", "null"]},
            }},
        }}},
    }}})
}

fn pixels() -> Value {
    integer("How small or large the model may see it.", json!({"minimum": 3136, "maximum": 12_845_056}))
}

fn frames_per_second() -> Value {
    number("Frames for each second.", json!({"minimum": 0.1, "maximum": 10}))
}

fn boolean(description: &str) -> Value {
    json!({"type": ["boolean", "string", "null"], "description": description})
}

fn number(description: &str, range: Value) -> Value {
    with_range(json!({"type": ["number", "string", "null"], "description": description}), range)
}

fn integer(description: &str, range: Value) -> Value {
    with_range(json!({"type": ["integer", "string", "null"], "description": description}), range)
}

fn with_range(schema: Value, range: Value) -> Value {
    let mut schema = fields(schema);
    schema.extend(fields(range));
    Value::Object(schema)
}

/// The keys of a literal object.
fn fields(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The sources in which bodies are read and routes are named.
    const SOURCES: [&str; 10] = [
        include_str!("lib.rs"),
        include_str!("parameter.rs"),
        include_str!("structure.rs"),
        include_str!("conversation.rs"),
        include_str!("coordinates.rs"),
        include_str!("estimate.rs"),
        include_str!("model_name.rs"),
        include_str!("openai/request.rs"),
        include_str!("openai/route.rs"),
        include_str!("dashscope/request.rs"),
    ];

    /// Every key of every `properties` below.
    fn names<'a>(value: &'a Value, found: &mut HashSet<&'a str>) {
        match value {
            Value::Object(object) => {
                if let Some(Value::Object(properties)) = object.get("properties") {
                    found.extend(properties.keys().map(String::as_str));
                }
                object.values().for_each(|inner| names(inner, found));
            }
            Value::Array(items) => items.iter().for_each(|inner| names(inner, found)),
            _ => {}
        }
    }

    /// The texts between the quotes behind each occurrence of `call`, tests aside.
    fn quoted<'a>(source: &'a str, call: &str) -> Vec<&'a str> {
        let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        code.split(call)
            .skip(1)
            .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
            .collect()
    }

    #[test]
    fn every_name_that_is_looked_up_is_described() {
        let document = document(8192);
        let mut described = HashSet::new();
        names(&document, &mut described);
        let mut looked_up = 0;
        for source in SOURCES {
            for call in ["fields.get(", ".boolean(", ".float_in(", ".integer_in(", "gathered.get("] {
                for name in quoted(source, call) {
                    looked_up += 1;
                    assert!(described.contains(name), "{name} is read from a body and not described");
                }
            }
        }
        assert!(looked_up > 30, "only {looked_up} names were found in the sources");
    }

    #[test]
    fn every_route_is_described() {
        let document = document(8192);
        let paths = document["paths"].as_object().unwrap();
        let routes: Vec<&str> = SOURCES.iter().flat_map(|source| quoted(source, ".route(")).collect();
        assert!(routes.len() >= 7, "{routes:?}");
        for route in routes {
            let route = route.replace("{*name}", "{name}");
            assert!(paths.keys().any(|path| path.ends_with(&route)), "{route}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(value: &Value, schemas: &Value) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(reference)) = object.get("$ref") {
                        let name = reference.strip_prefix("#/components/schemas/").unwrap();
                        assert!(schemas[name].is_object(), "{name}");
                    }
                    object.values().for_each(|inner| check(inner, schemas));
                }
                Value::Array(items) => items.iter().for_each(|inner| check(inner, schemas)),
                _ => {}
            }
        }
        let document = document(8192);
        check(&document, &document["components"]["schemas"]);
    }
}
