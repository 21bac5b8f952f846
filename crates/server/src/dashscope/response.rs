//! The JSON of answers and of a stream's events, in the order of keys that the hosted service uses.

use ocellus_engine::{MediaSize, PromptTokens, Started, TokenLogprob};
use serde_json::{Map, Value, json};

use crate::extension::Extension;
use crate::openai::{Answer, Call, Logprobs, ToolCall};

/// A whole answer.
pub(crate) fn whole(frame: &Frame, answers: &[Answer]) -> Value {
    let choice = |(index, answer): (usize, &Answer)| {
        let mut part = text_part(&answer.text);
        part.extend(frame.image_hw());
        let mut message = json!({"role": "assistant", "content": [part]});
        add_calls(&mut message, &whole_calls(&answer.calls));
        let mut choice = json!({"finish_reason": answer.finish_reason(), "message": message});
        frame.add(&mut choice, index, &answer.logprobs);
        choice
    };
    let choices: Vec<Value> = answers.iter().enumerate().map(choice).collect();
    let output_tokens = answers.iter().map(|answer| answer.finished.completion_tokens).sum();
    let mut whole = json!({
        "output": {"choices": choices},
        "usage": usage(&frame.prompt, output_tokens),
        "request_id": frame.request_id,
    });
    if let Some(extension) = &frame.extension {
        whole["ocellus"] = json!(extension);
    }
    whole
}

/// What one event of a stream tells about one choice.
pub(crate) struct Step<'a> {
    pub(crate) choice: usize,
    /// The parts of the message.
    pub(crate) content: Vec<Map<String, Value>>,
    /// Calls of functions, or parts of one.
    pub(crate) calls: Vec<ToolCall<'a>>,
    /// The text `null` as long as there is more to come.
    pub(crate) finish_reason: &'static str,
    /// Tokens generated for this choice so far.
    pub(crate) output_tokens: usize,
    /// Of the tokens of this event's text.
    pub(crate) logprobs: &'a [TokenLogprob],
}

/// One event of a stream. The first one carries the extension.
pub(crate) fn event(frame: &mut Frame, step: &Step<'_>) -> Value {
    let mut message = json!({"content": step.content, "role": "assistant"});
    add_calls(&mut message, &step.calls);
    let mut choice = json!({"message": message, "finish_reason": step.finish_reason});
    frame.add(&mut choice, step.choice, step.logprobs);
    let mut event = json!({
        "output": {"choices": [choice]},
        "usage": usage(&frame.prompt, step.output_tokens),
        "request_id": frame.request_id,
    });
    if let Some(extension) = frame.extension.take() {
        event["ocellus"] = json!(extension);
    }
    event
}

/// What is the same in everything that one request is answered.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) request_id: String,
    prompt: PromptTokens,
    extras: Extras,
    /// `[height, width]` of each picture as the model sees it, when the client wants to know.
    image_hw: Option<Value>,
    extension: Option<Extension>,
}

/// What a client wants beside one text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extras {
    /// Choices.
    pub(crate) n: usize,
    /// Calls are looked for.
    pub(crate) tools: bool,
    /// Tells an answer without tokens from one whose log-probabilities nobody wants.
    pub(crate) logprobs: bool,
    pub(crate) image_hw: bool,
}

impl Frame {
    pub(crate) fn new(
        request_id: String,
        started: &Started,
        extension: Option<Extension>,
        extras: Extras,
    ) -> Self {
        let picture = |media: &&MediaSize| media.frames == 1;
        let sizes = started.media.iter().filter(picture).map(|media| json!([media.seen.0, media.seen.1]));
        Self {
            request_id,
            prompt: started.prompt,
            image_hw: extras.image_hw.then(|| sizes.collect()),
            extras,
            extension,
        }
    }

    pub(crate) fn extras(&self) -> Extras {
        self.extras
    }

    /// The `image_hw` of the message's last part.
    pub(crate) fn image_hw(&self) -> Option<(String, Value)> {
        self.image_hw.clone().map(|sizes| ("image_hw".to_owned(), sizes))
    }

    /// What a choice has only where it was asked for.
    fn add(&self, choice: &mut Value, index: usize, tokens: &[TokenLogprob]) {
        if self.extras.n > 1 {
            choice["index"] = index.into();
        }
        if self.extras.logprobs {
            choice["logprobs"] = json!(Logprobs::new(tokens));
        }
    }
}

/// Calls with all of their arguments.
pub(crate) fn whole_calls(calls: &[Call]) -> Vec<ToolCall<'_>> {
    let calls = calls.iter().enumerate();
    calls.map(|(index, call)| ToolCall::new(index, call, &call.arguments)).collect()
}

fn add_calls(message: &mut Value, calls: &[ToolCall<'_>]) {
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
}

/// `{"text":…}`.
pub(crate) fn text_part(text: &str) -> Map<String, Value> {
    Map::from_iter([("text".to_owned(), Value::from(text))])
}

/// Pictures and clips are counted where there are any.
fn usage(prompt: &PromptTokens, output_tokens: usize) -> Value {
    let media = [("image_tokens", prompt.image), ("video_tokens", prompt.video)];
    let media = || media.into_iter().filter(|(_, tokens)| *tokens > 0);
    let mut usage = json!({"input_tokens": prompt.total(), "output_tokens": output_tokens});
    let mut details = json!({"text_tokens": prompt.text});
    for (name, tokens) in media() {
        usage[name] = tokens.into();
        details[name] = tokens.into();
    }
    usage["total_tokens"] = (prompt.total() + output_tokens).into();
    usage["input_tokens_details"] = details;
    usage["output_tokens_details"] = json!({"text_tokens": output_tokens});
    usage
}
