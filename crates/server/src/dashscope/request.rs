//! The body of `POST …/multimodal-generation/generation`: bytes in, a checked request out.

use serde_json::{Map, Value};

use crate::conversation::{Conversation, DEFAULT_FRAME_RATE};
use crate::coordinates::Coordinates;
use crate::definition::{FPS, INCREMENTAL_OUTPUT, MESSAGES, VL_ENABLE_IMAGE_HW_OUTPUT};
use crate::parameter::{Bounds, Fields, Parameters};
use crate::structure::Structure;
use crate::{ModelNames, Refusal};

/// A request in which nothing is left to check but the files it names.
#[derive(Clone, Debug)]
pub(crate) struct GenerationRequest {
    pub(crate) conversation: Conversation,
    pub(crate) parameters: Parameters,
    pub(crate) coordinates: Coordinates,
    pub(crate) structure: Structure,
    /// How many answers; 1 where functions may be called, as at the hosted service.
    pub(crate) n: usize,
    /// `incremental_output`: a stream's events carry new text only, not all text so far. Default false.
    pub(crate) incremental: bool,
    /// `vl_enable_image_hw_output`: tell the sizes at which the model saw the pictures. Default false.
    pub(crate) image_hw: bool,
}

/// Largest seed on this route.
pub(crate) const LARGEST_SEED: u64 = i64::MAX as u64;

impl GenerationRequest {
    /// Parses and checks a body. The model's name is looked at first, then parameters, then messages.
    pub(crate) fn parse(body: &[u8], names: &ModelNames, bounds: &Bounds) -> Result<Self, Refusal> {
        // The parser stops at 128 levels, so deep nesting is an error and not the end of the stack.
        let body: Value = serde_json::from_slice(body).map_err(|_| Refusal::BodyMalformed)?;
        let fields = Fields::new(body.as_object().ok_or(Refusal::BodyMalformed)?);
        names.requested(&fields)?;
        let input = object(&fields, "input", "input")?.ok_or(Refusal::InputMissing)?;
        let parameters = gathered(input, &fields)?;
        let gathered = Fields::new(&parameters);
        let parameters = Parameters::read(&gathered, bounds)?;
        let structure = Structure::read(&gathered)?;
        let n = if structure.tools.is_empty() { parameters.n } else { 1 };
        let messages = Fields::new(input).get(MESSAGES.name);
        // The SDK puts here what it is called with beside the messages.
        let frame_rate = gathered.number(&FPS)?.unwrap_or(DEFAULT_FRAME_RATE);
        Ok(Self {
            conversation: Conversation::read_at_rate(messages, parameters.high_resolution, frame_rate)?,
            parameters,
            coordinates: Coordinates::read(&gathered)?,
            structure,
            n,
            incremental: gathered.boolean(&INCREMENTAL_OUTPUT)?,
            image_hw: gathered.boolean(&VL_ENABLE_IMAGE_HW_OUTPUT)?,
        })
    }
}

/// All parameters in one object. They belong under `parameters`, but the service's own examples also put them under
/// `input` and under `input.parameters`. The most proper place wins; a null there is as good as nothing.
fn gathered(input: &Map<String, Value>, body: &Fields<'_>) -> Result<Map<String, Value>, Refusal> {
    let misplaced = input.iter().filter(|(name, _)| !matches!(name.as_str(), "messages" | "parameters"));
    let nested = object(&Fields::new(input), "parameters", "input.parameters")?;
    let proper = object(body, "parameters", "parameters")?;
    let mut gathered = Map::new();
    for (name, value) in misplaced.chain(nested.into_iter().flatten()).chain(proper.into_iter().flatten()) {
        if !value.is_null() || !gathered.contains_key(name) {
            gathered.insert(name.clone(), value.clone());
        }
    }
    Ok(gathered)
}

/// The object under a key; `at` is its full name, for messages.
fn object<'a>(
    fields: &Fields<'a>,
    key: &str,
    at: &'static str,
) -> Result<Option<&'a Map<String, Value>>, Refusal> {
    match fields.get(key) {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(Refusal::WrongType { name: at.into(), expected: "Object" }),
    }
}

#[cfg(test)]
mod tests {
    use ocellus_engine::Sampling;
    use serde_json::json;

    use super::*;
    use crate::Dialect;

    fn parse(body: &Value) -> Result<GenerationRequest, Refusal> {
        let sampling = Sampling { top_k: 20, ..Sampling::default() };
        let bounds = Bounds { sampling, max_completion_tokens: 8192, largest_seed: LARGEST_SEED };
        GenerationRequest::parse(body.to_string().as_bytes(), &ModelNames::own("eye"), &bounds)
    }

    /// A request with these keys in its input, and these parameters.
    fn body(input: Value, parameters: Value) -> Value {
        let mut body = json!({"model": "eye", "input": {"messages": [{"role": "user", "content": "Hi"}]}});
        body["input"].as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        body["parameters"] = parameters;
        body
    }

    #[track_caller]
    fn refused(body: &Value, status: u16, code: &str, message: &str) {
        let refusal = parse(body).map(drop).expect_err(&body.to_string());
        let answer = refusal.body(Dialect::Native, "");
        let read = (refusal.status().as_u16(), answer["code"].as_str(), answer["message"].as_str());
        assert_eq!(read, (status, Some(code), Some(message)), "{body}");
    }

    #[test]
    fn bodies_that_are_no_requests() {
        let malformed = "Required body invalid, please check the request body format.";
        for broken in [json!(null), json!([]), json!("x")] {
            refused(&broken, 400, "InvalidParameter", malformed);
        }
        refused(&json!({}), 400, "BadRequest.EmptyModel", "you must provide a model parameter.");
        refused(&json!({"model": 7}), 400, "InvalidParameter", "'model' must be String");
        refused(&json!({"model": "Eye"}), 404, "ModelNotFound", "Model not exist.");
        let missing = "Required input parameter missing from request.";
        for input in [json!({"model": "eye"}), json!({"model": "eye", "input": null})] {
            refused(&input, 400, "BadRequest.EmptyInput", missing);
        }
        refused(&json!({"model": "eye", "input": []}), 400, "InvalidParameter", "'input' must be Object");
        refused(
            &json!({"model": "eye", "input": {}}),
            400,
            "InvalidParameter",
            "Either \"prompt\" or \"messages\" must exist and cannot both be none.",
        );
        refused(&body(json!({}), json!("x")), 400, "InvalidParameter", "'parameters' must be Object");
        refused(
            &body(json!({"parameters": []}), json!({})),
            400,
            "InvalidParameter",
            "'input.parameters' must be Object",
        );
    }

    #[test]
    fn parameters_may_be_missing() {
        let mut without = body(json!({}), json!({}));
        without.as_object_mut().unwrap().remove("parameters");
        for body in [without, body(json!({}), json!(null)), body(json!({"parameters": null}), json!({}))] {
            let request = parse(&body).unwrap();
            assert_eq!((request.incremental, request.image_hw), (false, false), "{body}");
            assert_eq!((request.parameters.sampling.top_k, request.parameters.max_tokens), (20, 8192));
        }
    }

    #[test]
    fn the_most_proper_place_wins() {
        #[track_caller]
        fn check(input: Value, parameters: Value, expected: (f32, usize)) {
            let body = body(input, parameters);
            let sampling = parse(&body).unwrap().parameters.sampling;
            assert_eq!((sampling.temperature, sampling.top_k), expected, "{body}");
        }
        check(json!({"temperature": "0.5", "top_k": "1"}), json!(null), (0.5, 1));
        check(json!({"parameters": {"temperature": 0.25, "top_k": 2}}), json!({}), (0.25, 2));
        let both = json!({"temperature": "0.5", "top_k": "1", "parameters": {"temperature": "0.25"}});
        check(both.clone(), json!({}), (0.25, 1));
        check(both.clone(), json!({"temperature": 0.75, "top_k": 3}), (0.75, 3));
        check(both, json!({"temperature": null, "top_k": null}), (0.25, 1));
        // An explicit null of its own switches top_k off.
        check(json!({}), json!({"top_k": null}), (0.0, 0));
    }

    #[test]
    fn the_rate_of_frames() {
        let read = |part: Value, parameters: Value| {
            let mut body = body(json!({}), parameters);
            let mut content = json!({"video": vec!["data:;base64,aGk="; 4]});
            content.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
            body["input"]["messages"][0]["content"] = json!([content]);
            parse(&body).map(|request| format!("{:?}", request.conversation))
        };
        #[track_caller]
        fn check(read: Result<String, Refusal>, rate: &str) {
            let read = read.unwrap();
            assert!(read.contains(&format!("fps: {rate},")), "{rate}: {read}");
        }
        check(read(json!({}), json!({})), "2.0");
        check(read(json!({}), json!({"fps": "0.5"})), "0.5");
        check(read(json!({"fps": 4}), json!({"fps": 0.5})), "4.0");
        let outside = Refusal::BadValue { message: "Range of fps should be [0.1, 10.0]".into() };
        assert_eq!(read(json!({}), json!({"fps": 11})), Err(outside));
    }

    #[test]
    fn the_route_s_own_parameters() {
        let flags = |value: Value| {
            let request = parse(&body(json!({}), value))?;
            Ok((request.incremental, request.image_hw, request.parameters.high_resolution))
        };
        let wrong = |name: &str| Err(Refusal::WrongType { name: name.into(), expected: "Boolean" });
        assert_eq!(flags(json!({"incremental_output": true})), Ok((true, false, false)));
        assert_eq!(flags(json!({"incremental_output": "False"})), Ok((false, false, false)));
        assert_eq!(flags(json!({"vl_enable_image_hw_output": "True"})), Ok((false, true, false)));
        assert_eq!(flags(json!({"vl_high_resolution_images": "True"})), Ok((false, false, true)));
        assert_eq!(flags(json!({"result_format": "text", "enable_search": 1})), Ok((false, false, false)));
        assert_eq!(flags(json!({"incremental_output": 1})), wrong("incremental_output"));
        assert_eq!(flags(json!({"vl_enable_image_hw_output": []})), wrong("vl_enable_image_hw_output"));
        assert_eq!(flags(json!({"vl_high_resolution_images": "yes"})), wrong("vl_high_resolution_images"));
    }

    #[test]
    fn seeds_have_sixty_three_bits() {
        let seed = |value: Value| parse(&body(json!({"seed": value}), json!({})));
        assert_eq!(seed(json!("3407")).unwrap().parameters.sampling.seed, Some(3407));
        assert_eq!(seed(json!(i64::MAX)).unwrap().parameters.sampling.seed, Some(LARGEST_SEED));
        refused(
            &body(json!({"seed": 1u64 << 63}), json!({})),
            400,
            "InvalidParameter",
            "Range of seed should be [0, 9223372036854775807]",
        );
    }
}
