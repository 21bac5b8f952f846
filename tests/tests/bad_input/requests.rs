//! Broken requests: bodies, messages, parameters, methods and paths.

use serde_json::{Value, json};

use super::{Refused, Server, invalid};

/// How the good request is spoiled.
enum Fault {
    /// The body is this.
    Body(fn() -> Vec<u8>),
    /// This key has this JSON text.
    With(&'static str, &'static str),
    /// The only message is this JSON text.
    Message(&'static str),
    /// It goes to this method and path.
    To(&'static str, &'static str),
}

use Fault::{Body, Message, To, With};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn each_broken_request_is_refused_with_its_reason() {
    let server = Server::start();
    let mut wrong = String::new();
    for (name, fault, expected) in REQUESTS {
        let mut good =
            json!({"model": "eye", "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]});
        let sent = match fault {
            Body(body) => ("POST", CHAT, body()),
            With(key, value) => {
                good[*key] = serde_json::from_str(value).unwrap();
                ("POST", CHAT, good.to_string().into_bytes())
            }
            Message(message) => {
                good["messages"] = Value::Array(vec![serde_json::from_str(message).unwrap()]);
                ("POST", CHAT, good.to_string().into_bytes())
            }
            To(method, path) => (*method, *path, good.to_string().into_bytes()),
        };
        server.check(name, sent, *expected, &mut wrong).await;
    }
    assert!(wrong.is_empty(), "of {} requests:\n{wrong}", REQUESTS.len());
    server.still_answers().await;
}

/// A long text in a good request: about one token for each word.
fn words(count: usize) -> Vec<u8> {
    let text = "1 ".repeat(count);
    json!({"model": "eye", "messages": [{"role": "user", "content": text}]}).to_string().into_bytes()
}

const NOT_JSON: Refused = invalid("Required body invalid, please check the request body format.");
const NOT_FOUND: Refused =
    Refused { status: 404, code: "not_found", message: "There is no such path on this server." };
const NO_MODEL: Refused = Refused { status: 400, code: "", message: "you must provide a model parameter." };

/// What is wrong, what is sent, and what the client reads.
#[rustfmt::skip]
const REQUESTS: &[(&str, Fault, Refused)] = &[
    // The body.
    ("nothing", Body(Vec::new), NOT_JSON),
    ("no JSON", Body(|| b"model=eye&messages=Hi".to_vec()), NOT_JSON),
    ("half of it", Body(|| br#"{"model": "eye", "messages": [{"role": "#.to_vec()), NOT_JSON),
    ("not a number", Body(|| br#"{"model": "eye", "temperature": NaN, "messages": []}"#.to_vec()), NOT_JSON),
    ("infinity", Body(|| br#"{"model": "eye", "temperature": 1e999, "messages": []}"#.to_vec()), NOT_JSON),
    ("not UTF-8", Body(|| b"{\"model\": \"\xff\"}".to_vec()), NOT_JSON),
    ("a list", Body(|| b"[]".to_vec()), NOT_JSON),
    ("a text", Body(|| b"\"Hi\"".to_vec()), NOT_JSON),
    ("lists in lists", Body(|| "[".repeat(200_000).into_bytes()), NOT_JSON),
    ("objects in objects", Body(|| format!("{}1{}", "{\"a\":".repeat(200_000), "}".repeat(200_000)).into_bytes()), NOT_JSON),
    ("more than 64 MiB", Body(|| vec![b' '; (64 << 20) + 1]), Refused { status: 413, code: "request_too_large", message: "The request body is too large: at most 67108864 bytes are accepted." }),
    // The model and the messages.
    ("no model", With("model", "null"), NO_MODEL),
    ("a model without name", With("model", r#""""#), NO_MODEL),
    ("a model that is a number", With("model", "7"), invalid("'model' must be String")),
    ("an unknown model", With("model", r#""gpt-4o""#), Refused { status: 404, code: "model_not_found", message: "The model `gpt-4o` does not exist or you do not have access to it." }),
    ("no messages", With("messages", "null"), invalid(r#"Either "prompt" or "messages" must exist and cannot both be none."#)),
    ("an empty list of messages", With("messages", "[]"), invalid("[] is too short - 'messages'")),
    ("messages that are a text", With("messages", r#""Hi""#), invalid("'messages' must be Array")),
    ("a message that is a text", Message(r#""Hi""#), invalid("'messages.0' must be Object")),
    ("nobody asks", Message(r#"{"role": "system", "content": "Be brief."}"#), invalid("The input messages do not contain elements with the role of user.")),
    ("nobody speaks", Message(r#"{"content": "Hi"}"#), invalid("'messages.0.role' must be one of system, user, assistant, tool and developer")),
    ("somebody else speaks", Message(r#"{"role": "robot", "content": "Hi"}"#), invalid("'messages.0.role' must be one of system, user, assistant, tool and developer")),
    ("a result that nobody asked for", Message(r#"{"role": "tool", "content": "4"}"#), invalid(r#"messages with role "tool" must be a response to a preceeding message with "tool_calls"."#)),
    ("no content", Message(r#"{"role": "user"}"#), invalid("'messages.0.content' is required")),
    ("content that is a number", Message(r#"{"role": "user", "content": 5}"#), invalid("'messages.0.content' must be String or Array")),
    ("a part that is a number", Message(r#"{"role": "user", "content": [5]}"#), invalid("'messages.0.content.0' must be String or Object")),
    ("a part of no kind", Message(r#"{"role": "user", "content": [{}]}"#), invalid("'messages.0.content.0.type' must be one of text, image_url, image, video_url and video")),
    ("a part of another kind", Message(r#"{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}"#), invalid("'messages.0.content.0.type' must be one of text, image_url, image, video_url and video")),
    ("a text part without text", Message(r#"{"role": "user", "content": [{"type": "text"}]}"#), invalid("'messages.0.content.0.text' must be String")),
    ("a picture without address", Message(r#"{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}"#), invalid("'messages.0.content.0.image_url.url' must be String")),
    ("a picture of too few pixels", Message(r#"{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:;base64,"}, "min_pixels": 1}]}"#), invalid("Range of min_pixels should be [3136, 12845056]")),
    ("limits the wrong way round", Message(r#"{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:;base64,"}, "min_pixels": 9000, "max_pixels": 8000}]}"#), invalid("min_pixels (9000) must not exceed max_pixels (8000)")),
    ("a video", Message(r#"{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "data:;base64,"}}]}"#), invalid("Decoding a video file ('messages.0.content.0.video_url'; send its frames as a list of images instead) is not supported by this server yet.")),
    ("more tokens than the context has", Body(|| words(40_000)), invalid("Range of input length should be [1, 32767]")),
    ("far more tokens than the context has", Body(|| words(10_000_000)), invalid("Range of input length should be [1, 32767]")),
    // Parameters.
    ("a temperature of 2", With("temperature", "2"), invalid("Temperature should be in [0.0, 2.0)")),
    ("a negative temperature", With("temperature", "-0.1"), invalid("Temperature should be in [0.0, 2.0)")),
    ("a temperature in words", With("temperature", r#""warm""#), invalid("'temperature' must be Float")),
    ("a temperature that is not a number", With("temperature", r#""NaN""#), invalid("'temperature' must be Float")),
    ("a top_p of 0", With("top_p", "0"), invalid("Range of top_p should be (0.0, 1.0]")),
    ("a top_p above 1", With("top_p", "1.5"), invalid("Range of top_p should be (0.0, 1.0]")),
    ("a negative top_k", With("top_k", "-1"), invalid("Parameter top_k be greater than or equal to 0")),
    ("half a top_k", With("top_k", "1.5"), invalid("'top_k' must be Integer")),
    ("a min_p above 1", With("min_p", "2"), invalid("Range of min_p should be [0.0, 1.0]")),
    ("a repetition penalty of 0", With("repetition_penalty", "0"), invalid("Repetition_penalty should be greater than 0.0")),
    ("a presence penalty above 2", With("presence_penalty", "2.5"), invalid("Presence_penalty should be in [-2.0, 2.0]")),
    ("a frequency penalty below -2", With("frequency_penalty", "-2.5"), invalid("Frequency_penalty should be in [-2.0, 2.0]")),
    ("no tokens", With("max_tokens", "0"), invalid("Range of max_tokens should be [1, 8192]")),
    ("more tokens than there may be", With("max_tokens", "8193"), invalid("Range of max_tokens should be [1, 8192]")),
    ("tokens for giants", With("max_completion_tokens", "1e300"), invalid("Range of max_tokens should be [1, 8192]")),
    ("a negative seed", With("seed", "-1"), invalid("Range of seed should be [0, 2147483647]")),
    ("a seed beyond the largest", With("seed", "2147483648"), invalid("Range of seed should be [0, 2147483647]")),
    ("an empty stop", With("stop", r#"["\n", ""]"#), invalid("'stop' must not contain an empty string")),
    ("stops of two kinds", With("stop", r#"["\n", 13]"#), invalid("'stop' must be String, or Array of String, of Integer or of Array of Integer, without mixing")),
    ("no answer", With("n", "0"), invalid("Range of n should be [1, 4]")),
    ("five answers", With("n", "5"), invalid("Range of n should be [1, 4]")),
    ("six likely tokens", With("top_logprobs", "6"), invalid("Range of top_logprobs should be [0, 5]")),
    ("perhaps a stream", With("stream", r#""perhaps""#), invalid("'stream' must be Boolean")),
    ("stream options that are a list", With("stream_options", "[]"), invalid("'stream_options' must be Object")),
    ("an unknown response format", With("response_format", r#"{"type": "xml"}"#), invalid("'response_format.type' must be one of text, json_object and json_schema")),
    ("tools that are an object", With("tools", "{}"), invalid("'tools' must be Array")),
    ("a logit bias that is a list", With("logit_bias", "[1]"), invalid("'logit_bias' must be Object")),
    // Methods and paths.
    ("a question by GET", To("GET", CHAT), Refused { status: 405, code: "method_not_allowed", message: "Request method 'GET' is not supported." }),
    ("DELETE", To("DELETE", "/compatible-mode/v1/chat/completions"), Refused { status: 405, code: "method_not_allowed", message: "Request method 'DELETE' is not supported." }),
    ("POST to the list", To("POST", "/v1/models"), Refused { status: 405, code: "method_not_allowed", message: "Request method 'POST' is not supported." }),
    ("no path", To("GET", "/v1"), NOT_FOUND),
    ("another path", To("POST", "/v1/completions"), NOT_FOUND),
    ("a path out of the house", To("GET", "/v1/../../etc/passwd"), NOT_FOUND),
    ("an unknown model's entry", To("GET", "/v1/models/gpt-4o"), Refused { status: 404, code: "model_not_found", message: "The model `gpt-4o` does not exist or you do not have access to it." }),
];
