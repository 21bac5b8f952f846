//! The body of `POST …/chat/completions`: bytes in, a checked request out.

use serde_json::Value;

use crate::conversation::Conversation;
use crate::coordinates::Coordinates;
use crate::definition::{INCLUDE_USAGE, MESSAGES, STREAM, STREAM_OPTIONS};
use crate::parameter::{Bounds, Fields, Parameters};
use crate::structure::Structure;
use crate::{ModelNames, Refusal};

/// A request in which nothing is left to check but the files it names.
#[derive(Clone, Debug)]
pub(crate) struct ChatRequest {
    /// The name asked for, which the answer repeats.
    pub(crate) model: String,
    pub(crate) conversation: Conversation,
    pub(crate) parameters: Parameters,
    pub(crate) coordinates: Coordinates,
    pub(crate) structure: Structure,
    /// How many answers; 1 where functions may be called, as at the hosted service.
    pub(crate) n: usize,
    /// Answer as an event stream.
    pub(crate) stream: bool,
    /// End the event stream with the usage. Never without being asked: programs index `choices[0]` of every chunk.
    pub(crate) include_usage: bool,
}

/// Largest seed on this route.
pub(crate) const LARGEST_SEED: u64 = (1 << 31) - 1;

impl ChatRequest {
    /// Parses and checks a body. The model's name is looked at first, then parameters, then messages.
    pub(crate) fn parse(body: &[u8], names: &ModelNames, bounds: &Bounds) -> Result<Self, Refusal> {
        // The parser stops at 128 levels, so deep nesting is an error and not the end of the stack.
        let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::BodyMalformed)?;
        let fields = Fields::new(body.as_object().ok_or(Refusal::BodyMalformed)?);
        let model = names.requested(&fields)?;
        let parameters = Parameters::read(&fields, bounds)?;
        let structure = Structure::read(&fields)?;
        let n = if structure.tools.is_empty() { parameters.n } else { 1 };
        let include_usage = match fields.get(STREAM_OPTIONS.name) {
            None => false,
            Some(Value::Object(options)) => Fields::new(options).boolean(&INCLUDE_USAGE)?,
            Some(_) => {
                return Err(Refusal::WrongType { name: STREAM_OPTIONS.name.into(), expected: "Object" });
            }
        };
        Ok(Self {
            model,
            conversation: Conversation::read(fields.get(MESSAGES.name), parameters.high_resolution)?,
            parameters,
            coordinates: Coordinates::read(&fields)?,
            structure,
            n,
            stream: fields.boolean(&STREAM)?,
            include_usage,
        })
    }
}

#[cfg(test)]
mod tests {
    use ocellus_engine::Sampling;
    use serde_json::json;

    use super::*;
    use crate::Dialect;

    fn parse(body: &[u8]) -> Result<ChatRequest, Refusal> {
        let bounds =
            Bounds { sampling: Sampling::default(), max_completion_tokens: 8192, largest_seed: LARGEST_SEED };
        ChatRequest::parse(body, &ModelNames::own("eye").with_hosted_names(), &bounds)
    }

    #[track_caller]
    fn refused(body: &[u8], status: u16, message: &str) {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let refusal = parse(body).expect_err(&shown);
        let answer = refusal.body(Dialect::Compatible, "");
        assert_eq!(
            (refusal.status().as_u16(), answer["error"]["message"].as_str()),
            (status, Some(message)),
            "{shown}"
        );
    }

    #[test]
    fn bodies_that_are_no_requests() {
        let malformed = "Required body invalid, please check the request body format.";
        for body in [
            "",
            " ",
            "null",
            "[]",
            "7",
            "\"x\"",
            "{",
            "{\"a\":1,}",
            "{}}",
            "// x\n{}",
            "{\"a\":NaN}",
            "{'a':1}",
        ] {
            refused(body.as_bytes(), 400, malformed);
        }
        refused(b"{\"model\":\"\xff\"}", 400, malformed);
        refused(b"{\"model\":\"\\ud800\"}", 400, malformed);
        refused(b"{\"a\":1e999}", 400, malformed);
        refused("[".repeat(200_000).as_bytes(), 400, malformed);
        refused(format!("{}{}", "{\"a\":".repeat(200_000), "}".repeat(200_000)).as_bytes(), 400, malformed);
    }

    #[test]
    fn models() {
        refused(b"{}", 400, "you must provide a model parameter.");
        refused(br#"{"model":null}"#, 400, "you must provide a model parameter.");
        refused(br#"{"model":""}"#, 400, "you must provide a model parameter.");
        refused(br#"{"model":7}"#, 400, "'model' must be String");
        let unknown = "The model `Eye` does not exist or you do not have access to it.";
        refused(br#"{"model":"Eye"}"#, 404, unknown);
        for name in ["eye", "qwen-vl-max", "qwen-vl-plus-0125", "qwen2.5-vl-72b-instruct"] {
            let body = json!({"model": name, "messages": [{"role": "user", "content": "Hi"}]});
            assert_eq!(parse(body.to_string().as_bytes()).unwrap().model, name);
        }
    }

    #[test]
    fn the_route_s_own_parameters() {
        let parse_with = |key: &str, value: Value| {
            let mut body = json!({"model": "eye", "messages": [{"role": "user", "content": "Hi"}]});
            body[key] = value;
            parse(body.to_string().as_bytes())
        };
        let flags = |chat: ChatRequest| (chat.stream, chat.include_usage);
        assert_eq!(parse_with("user", json!("me")).map(flags), Ok((false, false)));
        assert_eq!(parse_with("stream", json!("true")).map(flags), Ok((true, false)));
        assert_eq!(parse_with("stream", json!(null)).map(flags), Ok((false, false)));
        assert_eq!(
            parse_with("stream_options", json!({"include_usage": true})).map(flags),
            Ok((false, true))
        );
        assert_eq!(parse_with("stream_options", json!({})).map(flags), Ok((false, false)));
        let wrong = |name: &str, expected| Refusal::WrongType { name: name.into(), expected };
        assert_eq!(parse_with("stream", json!(1)).map(flags), Err(wrong("stream", "Boolean")));
        assert_eq!(
            parse_with("stream_options", json!(true)).map(flags),
            Err(wrong("stream_options", "Object"))
        );
        assert_eq!(
            parse_with("stream_options", json!({"include_usage": []})).map(flags),
            Err(wrong("include_usage", "Boolean"))
        );
        assert_eq!(parse_with("temperature", json!(3)).map(flags).unwrap_err().status(), 400);
        assert_eq!(parse_with("messages", json!(null)).map(flags), Err(Refusal::MessagesMissing));
    }
}
