//! The parameters both dialects share: read once from JSON, checked once, true from then on.
//!
//! The hosted service takes numbers and booleans as text too ("0", "True"), and a key whose value is null counts as
//! absent. [`Fields`] reads by key, the [`definition`](crate::definition)s know spellings and ranges.

use ocellus_engine::{Sampling, Stop};
use serde_json::{Map, Value};

use crate::Refusal;
use crate::definition::{
    self, BIAS, FREQUENCY_PENALTY, LOGIT_BIAS, LOGPROBS, MIN_P, N, PRESENCE_PENALTY, REPETITION_PENALTY,
    STOP, TEMPERATURE, TOP_K, TOP_LOGPROBS, TOP_P, VL_HIGH_RESOLUTION_IMAGES, max_completion_tokens, seed,
};
use crate::kind::{Boolean, Numeric, Ranged};

/// How to answer, after every check.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parameters {
    /// How the next token is chosen.
    pub(crate) sampling: Sampling,
    /// Most tokens of the answer.
    pub(crate) max_tokens: usize,
    /// What ends the answer; none is empty.
    pub(crate) stop: Vec<Stop>,
    /// How many answers.
    pub(crate) n: usize,
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
const LONGEST_STOP_IDS: usize = 64;

/// Tokens whose logits a request may change.
const MOST_BIASES: usize = 300;

impl Parameters {
    /// Reads and checks every shared parameter.
    pub(crate) fn read(fields: &Fields<'_>, bounds: &Bounds) -> Result<Self, Refusal> {
        Ok(Self {
            sampling: sampling(fields, bounds)?,
            max_tokens: max_tokens(fields, bounds.max_completion_tokens)?,
            stop: stop(fields)?,
            n: n(fields)?,
            logprobs: logprobs(fields)?,
            high_resolution: fields.boolean(&VL_HIGH_RESOLUTION_IMAGES)?,
        })
    }
}

fn sampling(fields: &Fields<'_>, bounds: &Bounds) -> Result<Sampling, Refusal> {
    let mut sampling = bounds.sampling.clone();
    if let Some(value) = fields.number(&TEMPERATURE)? {
        sampling.temperature = value as f32;
    }
    if let Some(value) = fields.number(&TOP_P)? {
        // A positive f64 may be zero as f32; both mean "only the likeliest".
        sampling.top_p = (value as f32).max(f32::MIN_POSITIVE);
    }
    match fields.number(&TOP_K)? {
        // The hosted service switches it off above 100, and for an explicit null.
        Some(value) => sampling.top_k = usize::try_from(value).ok().filter(|k| *k <= 100).unwrap_or(0),
        None if fields.is_null(TOP_K.name) => sampling.top_k = 0,
        None => {}
    }
    if let Some(value) = fields.number(&MIN_P)? {
        sampling.min_p = value as f32;
    }
    if let Some(value) = fields.number(&REPETITION_PENALTY)? {
        // Beyond a factor of a million the order of the tokens no longer changes, and products would overflow.
        sampling.repetition_penalty = value.clamp(1e-6, 1e6) as f32;
    }
    if let Some(value) = fields.number(&PRESENCE_PENALTY)? {
        sampling.presence_penalty = value as f32;
    }
    if let Some(value) = fields.number(&FREQUENCY_PENALTY)? {
        sampling.frequency_penalty = value as f32;
    }
    sampling.logit_bias = logit_bias(fields)?;
    if let Some(value) = fields.number(&seed(bounds.largest_seed))? {
        sampling.seed = u64::try_from(value).ok();
    }
    Ok(sampling)
}

/// Two names for one thing; both are checked, the newer one wins.
fn max_tokens(fields: &Fields<'_>, most: usize) -> Result<usize, Refusal> {
    let old = fields.number(&definition::max_tokens(most))?;
    let new = fields.number(&max_completion_tokens(most))?;
    Ok(new.or(old).and_then(|value| usize::try_from(value).ok()).unwrap_or(most))
}

/// `{"id": bias}`. Whether the ids exist is the engine's to say.
fn logit_bias(fields: &Fields<'_>) -> Result<Vec<(u32, f32)>, Refusal> {
    let map = match fields.get(LOGIT_BIAS.name) {
        None => return Ok(Vec::new()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Refusal::WrongType { name: LOGIT_BIAS.name.into(), expected: "Object" }),
    };
    if map.len() > MOST_BIASES {
        return Err(bad(format!("'logit_bias' must have at most {MOST_BIASES} entries")));
    }
    let biases = Fields::new(map);
    let mut read: Vec<(u32, f32)> = Vec::with_capacity(map.len());
    for key in map.keys() {
        let id = key.parse::<u32>().map_err(|_| bad("The keys of 'logit_bias' must be token ids"))?;
        let Some(bias) = biases.number_at(key, &BIAS, || BIAS.complaint())? else { continue };
        // "7" and "007" are different keys.
        if read.iter().any(|(known, _)| *known == id) {
            return Err(bad(format!("'logit_bias' names token {id} twice")));
        }
        read.push((id, bias as f32));
    }
    Ok(read)
}

/// A text, texts, token ids that each end the answer, or lists of token ids that end it together.
fn stop(fields: &Fields<'_>) -> Result<Vec<Stop>, Refusal> {
    let wrong = || {
        let expected = "String, or Array of String, of Integer or of Array of Integer, without mixing";
        Refusal::WrongType { name: STOP.name.into(), expected }
    };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let stops: Vec<Stop> = match fields.get(STOP.name) {
        None => Vec::new(),
        Some(Value::String(text)) => vec![Stop::Text(text.clone())],
        Some(Value::Array(items)) => {
            let texts = || items.iter().map(|item| item.as_str().map(Stop::from)).collect::<Option<_>>();
            let ids = || items.iter().map(|item| Some(Stop::Ids(vec![id(item)?]))).collect();
            let lists = || {
                let list = |item: &Value| item.as_array()?.iter().map(id).collect::<Option<Vec<u32>>>();
                items.iter().map(|item| list(item).map(Stop::Ids)).collect()
            };
            texts().or_else(ids).or_else(lists).ok_or_else(wrong)?
        }
        Some(_) => return Err(wrong()),
    };
    let mut too_long = stops.len() > MOST_STOPS;
    for stop in &stops {
        match stop {
            Stop::Text(text) if text.is_empty() => {
                return Err(bad("'stop' must not contain an empty string"));
            }
            Stop::Ids(ids) if ids.is_empty() => return Err(bad("'stop' must not contain an empty list")),
            Stop::Text(text) => too_long |= text.len() > LONGEST_STOP_BYTES,
            Stop::Ids(ids) => too_long |= ids.len() > LONGEST_STOP_IDS,
        }
    }
    if too_long {
        return Err(bad(format!(
            "'stop' must have at most {MOST_STOPS} entries of at most {LONGEST_STOP_BYTES} bytes or \
             {LONGEST_STOP_IDS} token ids"
        )));
    }
    Ok(stops)
}

fn n(fields: &Fields<'_>) -> Result<usize, Refusal> {
    let n = fields.number(&N)?;
    Ok(n.and_then(|n| usize::try_from(n).ok()).unwrap_or(1))
}

/// `top_logprobs` alone has no effect, as at the hosted service, but its range holds anyway.
fn logprobs(fields: &Fields<'_>) -> Result<Option<usize>, Refusal> {
    let wanted = fields.boolean(&LOGPROBS)?;
    let top = fields.number(&TOP_LOGPROBS)?.unwrap_or(0);
    Ok(wanted.then(|| usize::try_from(top).unwrap_or(0)))
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

    /// A switch, or what holds without it.
    pub(crate) fn boolean(&self, definition: &Boolean) -> Result<bool, Refusal> {
        self.get(definition.name).map_or(Ok(definition.default), |value| definition.read(value))
    }

    /// A number within its range, or the range's own message.
    pub(crate) fn number<T: Numeric>(&self, definition: &Ranged<T>) -> Result<Option<T>, Refusal> {
        self.number_at(definition.name, definition, || definition.complaint())
    }

    /// The same under another key, or with another message.
    pub(crate) fn number_at<T: Numeric>(
        &self,
        key: &str,
        definition: &Ranged<T>,
        complaint: impl FnOnce() -> String,
    ) -> Result<Option<T>, Refusal> {
        self.get(key).map(|value| definition.read(key, value, complaint)).transpose()
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
            n: 1,
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
    fn stop_is_texts_or_token_ids() {
        check(json!({"stop": "end"}), |p| p.stop = vec!["end".into()]);
        check(json!({"stop": ["a", "b"]}), |p| p.stop = vec!["a".into(), "b".into()]);
        check(json!({"stop": []}), |_| {});
        check(json!({"stop": [7, 151643]}), |p| p.stop = vec![Stop::Ids(vec![7]), Stop::Ids(vec![151643])]);
        check(json!({"stop": [[7, 8], [9]]}), |p| p.stop = vec![Stop::Ids(vec![7, 8]), Stop::Ids(vec![9])]);
        refused(json!({"stop": ""}), "'stop' must not contain an empty string");
        refused(json!({"stop": [[1], []]}), "'stop' must not contain an empty list");
        let mixed =
            "'stop' must be String, or Array of String, of Integer or of Array of Integer, without mixing";
        for stop in [
            json!(["a", 1]),
            json!(["a", null]),
            json!({"a": 1}),
            json!(7),
            json!([1, [2]]),
            json!([1.5]),
            json!([-1]),
            json!([4294967296u64]),
            json!([["a"]]),
            json!([[1], "a"]),
        ] {
            refused(json!({"stop": stop}), mixed);
        }
        let too_long = "'stop' must have at most 64 entries of at most 1024 bytes or 64 token ids";
        refused(json!({"stop": vec!["a"; 65]}), too_long);
        refused(json!({"stop": "a".repeat(1025)}), too_long);
        refused(json!({"stop": vec![1; 65]}), too_long);
        refused(json!({"stop": [vec![1; 65]]}), too_long);
    }

    #[test]
    fn logit_bias_is_a_map_of_ids() {
        check(json!({"logit_bias": {}}), |_| {});
        check(json!({"logit_bias": {"7": -100, "0": "0.5", "9": null}}), |p| {
            p.sampling.logit_bias = vec![(7, -100.0), (0, 0.5)];
        });
        refused(json!({"logit_bias": []}), "'logit_bias' must be Object");
        refused(json!({"logit_bias": {"a": 1}}), "The keys of 'logit_bias' must be token ids");
        refused(json!({"logit_bias": {"-1": 1}}), "The keys of 'logit_bias' must be token ids");
        refused(json!({"logit_bias": {"7": 1, "007": 2}}), "'logit_bias' names token 7 twice");
        let range = "The values of 'logit_bias' should be in [-100.0, 100.0]";
        refused(json!({"logit_bias": {"7": 100.1}}), range);
        refused(json!({"logit_bias": {"7": "-101"}}), range);
        refused(json!({"logit_bias": {"7": []}}), "'7' must be Float");
        let many: Map<String, Value> = (0..301).map(|id| (id.to_string(), json!(1))).collect();
        refused(json!({"logit_bias": many}), "'logit_bias' must have at most 300 entries");
    }
}
