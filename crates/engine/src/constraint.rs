//! Answers that must follow a grammar: a JSON schema or calls of functions become a set of allowed tokens for each
//! step. Compiled where requests are prepared, followed on the device's thread.

use std::{
    fmt::{self, Write},
    sync::OnceLock,
};

use llguidance::{
    Matcher, ParserFactory,
    api::{GrammarWithLexer, TopLevelGrammar},
    earley::SlicedBiasComputer,
};
use serde_json::{Value, json};
use toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokRxInfo, TokTrie};

use crate::{Error, Tokenizer};

/// What an answer has to be. It may still be cut where the limit of tokens is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema accepts.
    JsonSchema {
        /// The schema, as an object.
        schema: Value,
        /// Refuse a schema with a keyword that can't be enforced. Otherwise such a keyword has no effect.
        strict: bool,
    },
    /// Calls of these functions and nothing else.
    ToolCalls {
        /// At least one.
        functions: Vec<Function>,
        /// Most calls, at least one.
        most: usize,
    },
}

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The schema of its arguments, as an object.
    pub parameters: Value,
    /// As [`Constraint::JsonSchema`]'s.
    pub strict: bool,
}

/// Largest schemas of a request, all together, as compact JSON.
const MOST_SCHEMA_BYTES: usize = 64 * 1024;

/// White space between the tokens of JSON. Without a bound, a model that likes to indent would never come back.
const WHITE_SPACE: &str = r"[\x20\x0A\x0D\x09]{1,24}";

/// The vocabulary as the grammars see it; made when the first grammar is needed, because most servers never do.
#[derive(Default)]
pub(crate) struct Grammars {
    factory: OnceLock<Result<ParserFactory, Error>>,
}

/// What a grammar is written over.
#[derive(Clone, Copy)]
pub(crate) struct Vocabulary<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    /// Tokens that end an answer; allowed where the grammar is satisfied.
    pub(crate) eos_token_ids: &'a [u32],
}

/// The grammar of one answer, and how far the answer is in it.
pub(crate) struct Grammar {
    matcher: Matcher,
}

/// The tokens that may come next.
pub(crate) struct Allowed(SimpleVob);

impl Grammars {
    /// Compiles a constraint. Errors: [`Error::InvalidRequest`] for a schema that is too large, that nothing can
    /// satisfy, or, where it is strict, that says what can't be enforced.
    pub(crate) fn compile(
        &self,
        constraint: &Constraint,
        vocabulary: Vocabulary<'_>,
    ) -> Result<Grammar, Error> {
        let grammar = constraint.grammar()?;
        let factory = self.factory.get_or_init(|| factory(vocabulary)).as_ref().map_err(Clone::clone)?;
        let parser = factory.create_parser(grammar).map_err(|error| refusal(&error))?;
        let mut grammar = Grammar { matcher: Matcher::new(Ok(parser)) };
        // What can't even start is found here, before pictures are decoded for it.
        grammar.allowed()?;
        Ok(grammar)
    }
}

impl Grammar {
    /// The tokens that may come next: at least one.
    pub(crate) fn allowed(&mut self) -> Result<Allowed, Error> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(|error| refusal(&error))?;
        if allowed.is_zero() {
            return Err(Error::InvalidRequest("no token can continue the required format".to_owned()));
        }
        Ok(Allowed(allowed))
    }

    /// Takes the chosen token in, which was allowed. True when the answer is complete and nothing can follow.
    pub(crate) fn advance(&mut self, id: u32) -> Result<bool, Error> {
        self.matcher.consume_token(id).map_err(|error| refusal(&error))?;
        let reason = self.matcher.stop_reason();
        // A parser that gave up has stopped too, but its answer is not complete.
        if reason.is_ok() { Ok(self.matcher.is_stopped()) } else { Err(refusal(&reason)) }
    }
}

impl Allowed {
    /// Whether a token may come. Ids beyond the vocabulary may not.
    pub(crate) fn has(&self, id: u32) -> bool {
        (id as usize) < self.0.len() && self.0.is_allowed(id)
    }
}

impl Constraint {
    fn grammar(&self) -> Result<TopLevelGrammar, Error> {
        let grammar = match self {
            Self::JsonObject => {
                let schema = checked_schema(&json!({"type": "object"}), false)?;
                GrammarWithLexer::from_json_schema(schema)
            }
            Self::JsonSchema { schema, strict } => {
                check_size([schema])?;
                GrammarWithLexer::from_json_schema(checked_schema(schema, *strict)?)
            }
            Self::ToolCalls { functions, most } => {
                check_size(functions.iter().map(|function| &function.parameters))?;
                GrammarWithLexer::from_lark(calls(functions, *most)?)
            }
        };
        Ok(TopLevelGrammar::from_grammar(grammar))
    }
}

/// The grammar of calls as the chat template writes them.
fn calls(functions: &[Function], most: usize) -> Result<String, Error> {
    if functions.is_empty() || most == 0 {
        return Err(Error::InvalidRequest("a call of a function is required, but there is none".to_owned()));
    }
    let names: Vec<String> = (0..functions.len()).map(|index| format!("call_{index}")).collect();
    let further = match most {
        1 => String::new(),
        _ => format!(" (\"\\n\" call){{0,{}}}", most - 1),
    };
    let mut lark = format!("start: call{further}\ncall: {}\n", names.join(" | "));
    for (index, function) in functions.iter().enumerate() {
        let schema = checked_schema(&function.parameters, function.strict)?;
        let opening =
            format!("<tool_call>\n{{\"name\": {}, \"arguments\": ", Value::String(function.name.clone()));
        // Writing to a string can't fail.
        let _ = writeln!(
            lark,
            "call_{index}: {} arguments_{index} {}\narguments_{index}: %json {schema}",
            Value::String(opening),
            Value::String("}\n</tool_call>".to_owned()),
        );
    }
    Ok(lark)
}

fn check_size<'a>(schemas: impl IntoIterator<Item = &'a Value>) -> Result<(), Error> {
    let bytes: usize = schemas.into_iter().map(|schema| schema.to_string().len()).sum();
    if bytes > MOST_SCHEMA_BYTES {
        return Err(Error::InvalidRequest(format!(
            "the schema has {bytes} bytes, at most {MOST_SCHEMA_BYTES} are accepted"
        )));
    }
    Ok(())
}

/// The schema with our own compile options in place of whatever a client put there.
fn checked_schema(schema: &Value, strict: bool) -> Result<Value, Error> {
    let mut schema = schema.clone();
    let Some(object) = schema.as_object_mut() else {
        return Err(Error::InvalidRequest("the schema must be a JSON object".to_owned()));
    };
    object.insert(
        "x-guidance".to_owned(),
        json!({"lenient": !strict, "whitespace_flexible": true, "whitespace_pattern": WHITE_SPACE}),
    );
    Ok(schema)
}

/// The tree of all tokens. Special tokens have no bytes, so no grammar ever allows them, except where an answer may
/// end.
fn factory(vocabulary: Vocabulary<'_>) -> Result<ParserFactory, Error> {
    let Vocabulary { tokenizer, eos_token_ids } = vocabulary;
    let size = eos_token_ids.iter().map(|id| *id as usize + 1).fold(tokenizer.vocab_size(), usize::max);
    let words: Vec<Vec<u8>> =
        (0..size as u32).map(|id| tokenizer.token_bytes(id).unwrap_or_default().to_vec()).collect();
    let Some(first) = eos_token_ids.first() else {
        return Err(Error::Internal("no token ends an answer, so no grammar can end one".to_owned()));
    };
    let trie = TokTrie::from(&TokRxInfo::new(size as u32, *first), &words).with_eos_tokens(eos_token_ids);
    let environment: toktrie::TokEnv = std::sync::Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new(
        &environment,
        InferenceCapabilities::default(),
        &SlicedBiasComputer::json_slices(),
    )
    .map_err(|error| Error::Internal(format!("the vocabulary of the grammars: {error}")))?;
    factory.quiet();
    // Its errors go to the one who sent the schema, who has no use for the parser's state.
    factory.limits_mut().verbose_errors = false;
    Ok(factory)
}

/// The compiler's and the parser's errors are about the schema: what it says or how large it is.
fn refusal(error: &impl fmt::Display) -> Error {
    const LONGEST: usize = 300;
    let text = error.to_string();
    let first_line = text.lines().next().unwrap_or_default();
    let end = first_line.floor_char_boundary(LONGEST);
    Error::InvalidRequest(format!("the schema can't be followed: {}", &first_line[..end]))
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").field("made", &self.factory.get().is_some()).finish()
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").field("complete", &self.matcher.is_stopped()).finish()
    }
}

#[cfg(test)]
mod tests;
