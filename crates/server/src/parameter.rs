//! The parameters both dialects share: read once from JSON, checked once, true from then on.
//!
//! The hosted service takes numbers and booleans as text too ("0", "True"), and a key whose value is null counts as
//! absent. [`Fields`] knows the spellings, [`Parameters`] the ranges.

use ocellus_engine::Sampling;
use serde_json::{Map, Value};

use crate::Refusal;

/// How to answer, after every check.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameters {
    /// How the next token is chosen.
    pub(crate) sampling: Sampling,
    /// Most tokens of the answer.
    pub(crate) max_tokens: usize,
    /// Texts that end the answer; none is empty.
    pub(crate) stop: Vec<String>,
    /// Log-probabilities of each token and of so many likelier ones.
    pub(crate) logprobs: Option<usize>,
    /// Pictures may take 16,384 tokens in place of 1,280.
    pub(crate) high_resolution: bool,
}

/// What differs between models and routes.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// Taken for what a request leaves out.
    pub(crate) sampling: Sampling,
    /// Most tokens an answer may have.
    pub(crate) max_completion_tokens: usize,
    /// Largest seed: 2^31-1 on the compatible route, 2^63-1 on the native one.
    pub(crate) largest_seed: u64,
}

/// More stop texts than this, or longer ones, serve nobody, and each new token is compared with all of them.
const MOST_STOPS: usize = 64;
const LONGEST_STOP_BYTES: usize = 1024;

impl Parameters {
    /// Reads and checks every shared parameter. Those whose feature is missing are refused by name, never ignored.
    pub(crate) fn read(fields: &Fields<'_>, bounds: &Bounds) -> Result<Self, Refusal> {
        refuse_missing_features(fields)?;
        Ok(Self {
            sampling: sampling(fields, bounds)?,
            max_tokens: max_tokens(fields, bounds.max_completion_tokens)?,
            stop: stop(fields)?,
            logprobs: logprobs(fields)?,
            high_resolution: fields.boolean("vl_high_resolution_images")?.unwrap_or(false),
        })
    }
}

fn sampling(fields: &Fields<'_>, bounds: &Bounds) -> Result<Sampling, Refusal> {
    let mut sampling = bounds.sampling.clone();
    let penalty = |value: f64| (-2.0..=2.0).contains(&value);

    let phrase = "Temperature should be in [0.0, 2.0)";
    if let Some(value) = fields.float_in("temperature", |value| (0.0..2.0).contains(&value), phrase)? {
        sampling.temperature = value as f32;
    }
    let phrase = "Range of top_p should be (0.0, 1.0]";
    if let Some(value) = fields.float_in("top_p", |value| value > 0.0 && value <= 1.0, phrase)? {
        // A positive f64 may be zero as f32; both mean "only the likeliest".
        sampling.top_p = (value as f32).max(f32::MIN_POSITIVE);
    }
    let phrase = "Parameter top_k be greater than or equal to 0";
    match fields.integer_in("top_k", 0, i128::MAX, phrase)? {
        // The hosted service switches it off above 100, and for an explicit null.
        Some(value) => sampling.top_k = usize::try_from(value).ok().filter(|k| *k <= 100).unwrap_or(0),
        None if fields.is_null("top_k") => sampling.top_k = 0,
        None => {}
    }
    let phrase = "Range of min_p should be [0.0, 1.0]";
    if let Some(value) = fields.float_in("min_p", |value| (0.0..=1.0).contains(&value), phrase)? {
        sampling.min_p = value as f32;
    }
    let phrase = "Repetition_penalty should be greater than 0.0";
    if let Some(value) = fields.float_in("repetition_penalty", |value| value > 0.0, phrase)? {
        // Beyond a factor of a million the order of the tokens no longer changes, and products would overflow.
        sampling.repetition_penalty = value.clamp(1e-6, 1e6) as f32;
    }
    let phrase = "Presence_penalty should be in [-2.0, 2.0]";
    if let Some(value) = fields.float_in("presence_penalty", penalty, phrase)? {
        sampling.presence_penalty = value as f32;
    }
    let phrase = "Frequency_penalty should be in [-2.0, 2.0]";
    if let Some(value) = fields.float_in("frequency_penalty", penalty, phrase)? {
        sampling.frequency_penalty = value as f32;
    }
    let phrase = format!("Range of seed should be [0, {}]", bounds.largest_seed);
    if let Some(value) = fields.integer_in("seed", 0, i128::from(bounds.largest_seed), &phrase)? {
        sampling.seed = u64::try_from(value).ok();
    }
    Ok(sampling)
}

/// Two names for one thing; both are checked, the newer one wins.
fn max_tokens(fields: &Fields<'_>, most: usize) -> Result<usize, Refusal> {
    let phrase = format!("Range of max_tokens should be [1, {most}]");
    let old = fields.integer_in("max_tokens", 1, most as i128, &phrase)?;
    let new = fields.integer_in("max_completion_tokens", 1, most as i128, &phrase)?;
    Ok(new.or(old).and_then(|value| usize::try_from(value).ok()).unwrap_or(most))
}

fn stop(fields: &Fields<'_>) -> Result<Vec<String>, Refusal> {
    let stops: Vec<String> = match fields.get("stop") {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Some(Value::Array(items)) if items.iter().all(|item| item.is_i64() || item.is_array()) => {
            return Err(Refusal::NotSupported { what: "'stop' given as token ids".into() });
        }
        Some(_) => {
            let expected = "String, or Array of String, without mixing";
            return Err(Refusal::WrongType { name: "stop".into(), expected });
        }
    };
    if stops.iter().any(String::is_empty) {
        return Err(bad("'stop' must not contain an empty string"));
    }
    if stops.len() > MOST_STOPS || stops.iter().any(|text| text.len() > LONGEST_STOP_BYTES) {
        return Err(bad(format!(
            "'stop' must have at most {MOST_STOPS} entries of at most {LONGEST_STOP_BYTES} bytes"
        )));
    }
    Ok(stops)
}

/// `top_logprobs` alone has no effect, as at the hosted service, but its range holds anyway.
fn logprobs(fields: &Fields<'_>) -> Result<Option<usize>, Refusal> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer_in("top_logprobs", 0, 5, "Range of top_logprobs should be [0, 5]")?.unwrap_or(0);
    Ok(wanted.then(|| usize::try_from(top).unwrap_or(0)))
}

/// Parameters that change the answer in a way this server can't yet: a wrong value gets its own message, a right one
/// an honest refusal, and the values that ask for nothing special pass.
fn refuse_missing_features(fields: &Fields<'_>) -> Result<(), Refusal> {
    let missing = |what: &str| Err(Refusal::NotSupported { what: what.into() });
    if fields.integer_in("n", 1, 4, "Range of n should be [1, 4]")?.is_some_and(|n| n > 1) {
        return missing("'n' above 1");
    }
    match fields.get("response_format") {
        None => {}
        Some(Value::Object(format)) => match format.get("type").and_then(Value::as_str) {
            Some("text") => {}
            Some(kind @ ("json_object" | "json_schema")) => {
                return missing(&format!("'response_format' of type '{kind}'"));
            }
            _ => return Err(bad("'response_format.type' must be one of text, json_object and json_schema")),
        },
        Some(_) => return Err(Refusal::WrongType { name: "response_format".into(), expected: "Object" }),
    }
    match fields.get("tools") {
        None => {}
        Some(Value::Array(tools)) if tools.is_empty() => {}
        Some(Value::Array(_)) => return missing("'tools'"),
        Some(_) => return Err(Refusal::WrongType { name: "tools".into(), expected: "Array" }),
    }
    match fields.get("tool_choice") {
        None => {}
        Some(Value::String(choice)) if matches!(choice.as_str(), "none" | "auto") => {}
        Some(Value::String(choice)) if choice == "required" => return missing("'tool_choice'"),
        Some(Value::Object(_)) => return missing("'tool_choice'"),
        Some(_) => {
            return Err(bad("'tool_choice' must be \"none\", \"auto\" or an object that names a function"));
        }
    }
    match fields.get("logit_bias") {
        None => {}
        Some(Value::Object(biases)) if biases.is_empty() => {}
        Some(Value::Object(_)) => return missing("'logit_bias'"),
        Some(_) => return Err(Refusal::WrongType { name: "logit_bias".into(), expected: "Object" }),
    }
    Ok(())
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::BadValue { message: message.into() }
}

/// A JSON object read by key. Null is absent everywhere; unknown keys are never looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>) -> Self {
        Self { map }
    }

    /// A value that is there and not null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether the key is there with an explicit null.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(Value::is_null)
    }

    /// `true`, `"true"`, `"True"`.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let value = match self.get(name) {
            None => return Ok(None),
            Some(Value::Bool(value)) => Some(*value),
            Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("true") => Some(true),
            Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("false") => Some(false),
            Some(_) => None,
        };
        value.map(Some).ok_or_else(|| Refusal::WrongType { name: name.into(), expected: "Boolean" })
    }

    /// A finite number within a range, or the range's own message.
    pub(crate) fn float_in(
        &self,
        name: &str,
        in_range: impl Fn(f64) -> bool,
        phrase: &str,
    ) -> Result<Option<f64>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => number.as_f64(),
            // Rust also reads "inf" and "nan", which are no JSON numbers.
            Value::String(text) => text.trim().parse::<f64>().ok().filter(|number| number.is_finite()),
            _ => None,
        };
        let number = number.ok_or_else(|| Refusal::WrongType { name: name.into(), expected: "Float" })?;
        if in_range(number) { Ok(Some(number)) } else { Err(bad(phrase)) }
    }

    /// A whole number within `least..=most`, or the range's own message. `3.0` and `"3"` are whole.
    pub(crate) fn integer_in(
        &self,
        name: &str,
        least: i128,
        most: i128,
        phrase: &str,
    ) -> Result<Option<i128>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        // Every f64 that is a whole number becomes one here; those beyond i128 saturate, far outside of any range.
        let whole = |number: f64| (number.is_finite() && number.fract() == 0.0).then_some(number as i128);
        let number = match value {
            Value::Number(number) => number
                .as_i64()
                .map(i128::from)
                .or_else(|| number.as_u64().map(i128::from))
                .or_else(|| number.as_f64().and_then(whole)),
            Value::String(text) => {
                let text = text.trim();
                text.parse::<i128>().ok().or_else(|| text.parse::<f64>().ok().and_then(whole))
            }
            _ => None,
        };
        let number = number.ok_or_else(|| Refusal::WrongType { name: name.into(), expected: "Integer" })?;
        if (least..=most).contains(&number) { Ok(Some(number)) } else { Err(bad(phrase)) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bounds() -> Bounds {
        let sampling = Sampling { repetition_penalty: 1.05, top_k: 7, ..Sampling::default() };
        Bounds { sampling, max_completion_tokens: 8192, largest_seed: (1 << 31) - 1 }
    }

    fn read(json: &Value) -> Result<Parameters, Refusal> {
        Parameters::read(&Fields::new(json.as_object().unwrap()), &bounds())
    }

    #[track_caller]
    fn check(json: Value, expected: impl Fn(&mut Parameters)) {
        let mut parameters = Parameters {
            sampling: bounds().sampling,
            max_tokens: 8192,
            stop: Vec::new(),
            logprobs: None,
            high_resolution: false,
        };
        expected(&mut parameters);
        assert_eq!(read(&json), Ok(parameters), "{json}");
    }

    #[track_caller]
    fn refused(json: Value, message: &str) {
        let refusal = read(&json).expect_err(&json.to_string());
        assert_eq!(refusal.status(), 400, "{json}");
        let body = refusal.body(crate::Dialect::Compatible, "");
        assert_eq!(body["error"]["message"], message, "{json}");
        assert_eq!(body["error"]["code"], "invalid_parameter_error", "{json}");
    }

    #[test]
    fn absent_and_null_mean_the_model_s_own() {
        check(json!({}), |_| {});
        check(
            json!({"temperature": null, "top_p": null, "seed": null, "stop": null, "max_tokens": null, "n": null,
                   "tools": null, "logprobs": null, "response_format": null, "logit_bias": null}),
            |_| {},
        );
        check(json!({"metadata": {"a": 1}, "user": "me", "enable_thinking": true, "store": false}), |_| {});
        check(json!({"top_k": null}), |p| p.sampling.top_k = 0);
    }

    #[test]
    fn numbers_and_booleans_come_as_text_too() {
        check(json!({"temperature": "0", "top_k": "1", "seed": "3407"}), |p| {
            p.sampling = Sampling { temperature: 0.0, top_k: 1, seed: Some(3407), ..p.sampling.clone() };
        });
        check(json!({"vl_high_resolution_images": "True"}), |p| p.high_resolution = true);
        check(json!({"vl_high_resolution_images": "false"}), |_| {});
        check(json!({"seed": 3407.0}), |p| p.sampling.seed = Some(3407));
        check(json!({"temperature": " 1.5 "}), |p| p.sampling.temperature = 1.5);
        refused(json!({"temperature": "hot"}), "'temperature' must be Float");
        refused(json!({"temperature": "nan"}), "'temperature' must be Float");
        refused(json!({"temperature": "inf"}), "'temperature' must be Float");
        refused(json!({"temperature": true}), "'temperature' must be Float");
        refused(json!({"temperature": [1]}), "'temperature' must be Float");
        refused(json!({"seed": 1.5}), "'seed' must be Integer");
        refused(json!({"seed": {}}), "'seed' must be Integer");
        refused(json!({"seed": ""}), "'seed' must be Integer");
        refused(json!({"vl_high_resolution_images": 1}), "'vl_high_resolution_images' must be Boolean");
    }

    #[test]
    fn ranges_end_where_the_hosted_service_s_do() {
        check(json!({"temperature": 0}), |p| p.sampling.temperature = 0.0);
        check(json!({"temperature": 1.99}), |p| p.sampling.temperature = 1.99);
        refused(json!({"temperature": 2}), "Temperature should be in [0.0, 2.0)");
        refused(json!({"temperature": -0.1}), "Temperature should be in [0.0, 2.0)");
        check(json!({"top_p": 1}), |p| p.sampling.top_p = 1.0);
        check(json!({"top_p": 1e-300}), |p| p.sampling.top_p = f32::MIN_POSITIVE);
        refused(json!({"top_p": 0}), "Range of top_p should be (0.0, 1.0]");
        refused(json!({"top_p": 1.0001}), "Range of top_p should be (0.0, 1.0]");
        check(json!({"top_k": 100}), |p| p.sampling.top_k = 100);
        check(json!({"top_k": 101}), |p| p.sampling.top_k = 0);
        check(json!({"top_k": 1e30}), |p| p.sampling.top_k = 0);
        refused(json!({"top_k": -1}), "Parameter top_k be greater than or equal to 0");
        check(json!({"min_p": 1}), |p| p.sampling.min_p = 1.0);
        refused(json!({"min_p": 1.1}), "Range of min_p should be [0.0, 1.0]");
        check(json!({"repetition_penalty": 1e300}), |p| p.sampling.repetition_penalty = 1e6);
        check(json!({"repetition_penalty": 1e-300}), |p| p.sampling.repetition_penalty = 1e-6);
        refused(json!({"repetition_penalty": 0}), "Repetition_penalty should be greater than 0.0");
        check(json!({"presence_penalty": -2}), |p| p.sampling.presence_penalty = -2.0);
        refused(json!({"presence_penalty": 2.1}), "Presence_penalty should be in [-2.0, 2.0]");
        refused(json!({"frequency_penalty": -2.1}), "Frequency_penalty should be in [-2.0, 2.0]");
        check(json!({"seed": 2147483647}), |p| p.sampling.seed = Some(2_147_483_647));
        refused(json!({"seed": 2147483648u64}), "Range of seed should be [0, 2147483647]");
        refused(json!({"seed": u64::MAX}), "Range of seed should be [0, 2147483647]");
        refused(json!({"seed": -1}), "Range of seed should be [0, 2147483647]");
        check(json!({"max_tokens": 1}), |p| p.max_tokens = 1);
        check(json!({"max_tokens": 5, "max_completion_tokens": 7}), |p| p.max_tokens = 7);
        refused(json!({"max_tokens": 0}), "Range of max_tokens should be [1, 8192]");
        refused(json!({"max_tokens": 8193}), "Range of max_tokens should be [1, 8192]");
        refused(json!({"max_completion_tokens": 1e300}), "Range of max_tokens should be [1, 8192]");
        refused(
            json!({"max_tokens": 0, "max_completion_tokens": 7}),
            "Range of max_tokens should be [1, 8192]",
        );
        refused(json!({"n": 0}), "Range of n should be [1, 4]");
        refused(json!({"n": 5}), "Range of n should be [1, 4]");
        check(json!({"logprobs": true, "top_logprobs": 5}), |p| p.logprobs = Some(5));
        check(json!({"logprobs": "true"}), |p| p.logprobs = Some(0));
        check(json!({"top_logprobs": 5}), |_| {});
        refused(json!({"logprobs": true, "top_logprobs": 6}), "Range of top_logprobs should be [0, 5]");
        refused(json!({"logprobs": 5}), "'logprobs' must be Boolean");
    }

    #[test]
    fn stop_is_a_text_or_texts() {
        check(json!({"stop": "end"}), |p| p.stop = vec!["end".into()]);
        check(json!({"stop": ["a", "b"]}), |p| p.stop = vec!["a".into(), "b".into()]);
        check(json!({"stop": []}), |_| {});
        refused(json!({"stop": ""}), "'stop' must not contain an empty string");
        refused(json!({"stop": ["a", 1]}), "'stop' must be String, or Array of String, without mixing");
        refused(json!({"stop": ["a", null]}), "'stop' must be String, or Array of String, without mixing");
        refused(json!({"stop": {"a": 1}}), "'stop' must be String, or Array of String, without mixing");
        refused(json!({"stop": [1, 2]}), "'stop' given as token ids is not supported by this server yet.");
        refused(
            json!({"stop": [[1], [2]]}),
            "'stop' given as token ids is not supported by this server yet.",
        );
        refused(json!({"stop": vec!["a"; 65]}), "'stop' must have at most 64 entries of at most 1024 bytes");
        refused(
            json!({"stop": "a".repeat(1025)}),
            "'stop' must have at most 64 entries of at most 1024 bytes",
        );
    }

    #[test]
    fn what_is_missing_is_refused_by_name() {
        check(json!({"n": 1, "response_format": {"type": "text"}, "tools": [], "logit_bias": {}}), |_| {});
        check(json!({"tool_choice": "auto"}), |_| {});
        refused(json!({"n": 2}), "'n' above 1 is not supported by this server yet.");
        refused(
            json!({"response_format": {"type": "json_object"}}),
            "'response_format' of type 'json_object' is not supported by this server yet.",
        );
        refused(
            json!({"response_format": {"type": "json_schema", "json_schema": {}}}),
            "'response_format' of type 'json_schema' is not supported by this server yet.",
        );
        let message = "'response_format.type' must be one of text, json_object and json_schema";
        refused(json!({"response_format": {"type": "xml"}}), message);
        refused(json!({"response_format": {}}), message);
        refused(json!({"response_format": "text"}), "'response_format' must be Object");
        refused(json!({"tools": [{"type": "function"}]}), "'tools' is not supported by this server yet.");
        refused(json!({"tools": {}}), "'tools' must be Array");
        refused(json!({"tool_choice": "required"}), "'tool_choice' is not supported by this server yet.");
        refused(
            json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
            "'tool_choice' is not supported by this server yet.",
        );
        refused(
            json!({"tool_choice": "never"}),
            "'tool_choice' must be \"none\", \"auto\" or an object that names a function",
        );
        refused(json!({"logit_bias": {"1": 5}}), "'logit_bias' is not supported by this server yet.");
        refused(json!({"logit_bias": []}), "'logit_bias' must be Object");
    }
}
