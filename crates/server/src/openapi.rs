//! `/openapi.json`: the whole surface as an OpenAPI 3.1 document.
//!
//! What requests take is generated from the [`definition`]s by which they are read. Routes and answers are written by
//! hand beside the code; tests hold them to it: every route and every name that is looked up in a body must be here, and
//! each range given here is tried on the server, at its ends and beyond them.

use serde_json::{Map, Value, json};

use crate::definition::{self, MEDIA, MESSAGES, MODEL};
use crate::kind::properties;
use crate::parameter::Bounds;

/// The document for a server with these bounds, for each dialect.
pub(crate) fn document(compatible: &Bounds, native: &Bounds) -> Value {
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
    // An asynchronous call, which only other models of the hosted service answer.
    generation["responses"]["403"] = generation["responses"]["400"].clone();
    generation["parameters"] = json!([{
        "name": "X-DashScope-SSE", "in": "header", "schema": {"type": "string", "enum": ["enable", "disable"]},
        "description": "`enable` streams the answer.",
    }]);
    paths
        .insert("/api/v1/services/aigc/multimodal-generation/generation".into(), json!({"post": generation}));
    paths.insert(
        "/api/v1/tokens/estimate".into(),
        json!({"post": operation("Counts tokens without running the model.", &Body {
            request: "EstimateRequest", answer: "Estimate", error: "NativeError", streams: false,
        })}),
    );
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
            "schemas": schemas(compatible, native),
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
        "401": error, "404": error, "500": error, "503": error,
    }})
}

fn uploads() -> Value {
    let error = json!({"description": "Refused.", "content": {"application/json": {"schema": reference("NativeError")}}});
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let permission = json!({"description": "The permission.",
        "content": {"application/json": {"schema": reference("UploadPermission")}}});
    json!({
        "get": {
            "summary": "A permission to upload local files, as DashScope's SDK asks for it (`action=getPolicy`).",
            "parameters": [query("action"), query("model")],
            "responses": {"200": permission, "400": error, "401": error, "404": error, "500": error, "503": error},
        },
        "post": {
            "summary": "Uploads a file with such a permission.",
            "security": [],
            "requestBody": {"required": true, "content": {"multipart/form-data": {"schema": {"type": "object"}}}},
            "responses": {"200": {"description": "Kept."}, "400": error, "403": error, "408": error, "409": error,
                "413": error, "429": error, "500": error, "503": error},
        },
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A schema's properties.
type Properties = Map<String, Value>;

fn schemas(compatible: &Bounds, native: &Bounds) -> Value {
    let object = |required: &[&str], properties: Properties| json!({"type": "object", "required": required, "properties": properties});
    let input = json!({
        "type": "object",
        "required": [MESSAGES.name],
        "properties": properties(&[&MESSAGES]),
        "description": "Parameters that stand here, or here under `parameters`, count as well.",
    });
    let mut generation = properties(&[&MODEL]);
    generation.insert("input".into(), input);
    generation.insert(
        "parameters".into(),
        json!({"type": ["object", "null"], "properties": definition::generation(native)}),
    );

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
        "ChatRequest": object(&[MODEL.name, MESSAGES.name], definition::chat(compatible)),
        "GenerationRequest": object(&[MODEL.name, "input"], generation),
        "EstimateRequest": {"anyOf": [object(&[MEDIA.name], definition::estimate()), reference("ChatRequest"), reference("GenerationRequest")]},
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
        "UploadPermission": object(&["request_id", "data"], fields(json!({
            "request_id": {"type": "string"},
            "data": upload_permission(),
        }))),
        "ModelList": {"type": "object", "required": ["object", "data"], "properties": {
            "object": {"const": "list"}, "data": {"type": "array", "items": reference("Model")},
        }},
        "Model": {"type": "object", "required": ["id", "object", "created", "owned_by"], "properties": {
            "id": {"type": "string"}, "object": {"const": "model"}, "created": {"type": "integer"},
            "owned_by": {"type": "string"},
        }},
        "Error": object(&["error", "request_id"], fields(json!({
            "error": {"type": "object", "required": ["message", "type", "param", "code"], "properties": {
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

/// What a form for a file must repeat, and the bounds of the file.
fn upload_permission() -> Value {
    let texts = [
        "policy",
        "signature",
        "upload_dir",
        "upload_host",
        "oss_access_key_id",
        "x_oss_object_acl",
        "x_oss_forbid_overwrite",
    ];
    let numbers = ["expire_in_seconds", "max_file_size_mb", "capacity_limit_mb"];
    let entry = |kind: &'static str| move |name: &&str| (String::from(*name), json!({"type": kind}));
    let properties: Properties =
        texts.iter().map(entry("string")).chain(numbers.iter().map(entry("integer"))).collect();
    let names: Vec<&String> = properties.keys().collect();
    json!({"type": "object", "required": names, "properties": properties})
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
    const SOURCES: [&str; 11] = [
        include_str!("lib.rs"),
        include_str!("parameter.rs"),
        include_str!("definition.rs"),
        include_str!("structure.rs"),
        include_str!("conversation.rs"),
        include_str!("coordinates.rs"),
        include_str!("estimate.rs"),
        include_str!("model_name.rs"),
        include_str!("openai/request.rs"),
        include_str!("openai/route.rs"),
        include_str!("dashscope/request.rs"),
    ];

    fn whole() -> Value {
        let bounds = Bounds { sampling: Default::default(), max_completion_tokens: 8192, largest_seed: 7 };
        document(&bounds, &bounds)
    }

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
        let document = whole();
        let mut described = HashSet::new();
        names(&document, &mut described);
        let mut looked_up = 0;
        for source in SOURCES {
            for call in ["fields.get(", "gathered.get(", "function.get(", "name: "] {
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
        let document = whole();
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
        let document = whole();
        check(&document, &document["components"]["schemas"]);
    }
}
