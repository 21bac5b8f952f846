//! Calls of functions in the text of an answer, as the chat template has the model write them:
//! `<tool_call>\n{"name": …, "arguments": …}\n</tool_call>`. Text comes in as it is generated, pieces go out as soon as
//! it is clear what they are.

use serde_json::Value;

/// Tells calls from text. How the answer is cut into pieces makes no difference to what comes out, all pieces joined.
#[derive(Debug, Default)]
pub(crate) struct ToolCalls {
    place: Place,
    /// Text that may still become something else.
    held: String,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text beside calls.
    Text(String),
    /// A call begins. Its arguments follow.
    Call {
        /// The function's name.
        name: String,
    },
    /// More of the JSON text of the arguments of the call that began last.
    Arguments(String),
}

/// Where in the answer its end is.
#[derive(Debug, Default)]
enum Place {
    /// Outside of calls.
    #[default]
    Text,
    /// In a call whose arguments have not begun.
    Head,
    /// In the arguments.
    Arguments(Nesting),
    /// Between the arguments and the end of the call.
    Tail,
    /// In the white space after a call, which belongs to nothing.
    After,
}

/// How far a JSON object is from its end.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

const OPENING: &str = "<tool_call>";
const CLOSING: &str = "</tool_call>";

impl ToolCalls {
    /// Takes the next text.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(&mut pieces) {}
        pieces
    }

    /// What was held back, when no more text comes. A call that is not there to its end is text, as far as nothing
    /// of it has come out.
    pub(crate) fn finish(&mut self) -> Vec<Piece> {
        let held = std::mem::take(&mut self.held);
        let mut pieces = Vec::new();
        match std::mem::take(&mut self.place) {
            Place::Text => say(&mut pieces, held),
            Place::Head => whole_call(&mut pieces, &held, ""),
            Place::Arguments(_) | Place::Tail | Place::After => {}
        }
        pieces
    }

    /// Goes on by one place. False when the rest has to wait for more.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match &mut self.place {
            Place::Text => match self.held.find(OPENING) {
                Some(at) => {
                    // The line break before a call belongs to neither.
                    say(pieces, self.held[..at].trim_end().to_owned());
                    self.held.drain(..at + OPENING.len());
                    self.place = Place::Head;
                    true
                }
                None => {
                    let certain = certain_text(&self.held);
                    say(pieces, self.held.drain(..certain).collect());
                    false
                }
            },
            Place::Head => {
                if let Some((name, consumed)) = head(&self.held) {
                    self.held.drain(..consumed);
                    pieces.push(Piece::Call { name });
                    self.place = Place::Arguments(Nesting::default());
                    return true;
                }
                // Something in another order is taken as a whole.
                let Some(at) = self.held.find(CLOSING) else { return false };
                whole_call(pieces, &self.held[..at], CLOSING);
                self.held.drain(..at + CLOSING.len());
                self.place = Place::After;
                true
            }
            Place::Arguments(nesting) => {
                let end = self.held.bytes().position(|byte| nesting.ends_with(byte));
                let arguments: String = match end {
                    Some(at) => self.held.drain(..=at).collect(),
                    None => std::mem::take(&mut self.held),
                };
                if !arguments.is_empty() {
                    pieces.push(Piece::Arguments(arguments));
                }
                if end.is_some() {
                    self.place = Place::Tail;
                }
                end.is_some()
            }
            Place::Tail => {
                let Some(at) = self.held.find(CLOSING) else { return false };
                self.held.drain(..at + CLOSING.len());
                self.place = Place::After;
                true
            }
            Place::After => {
                self.held.drain(..self.held.len() - self.held.trim_start().len());
                if self.held.is_empty() {
                    return false;
                }
                self.place = Place::Text;
                true
            }
        }
    }
}

impl Nesting {
    /// Takes a byte; true when the object is complete with it. Quotes, braces and brackets are single bytes in UTF-8,
    /// and no part of another character looks like them.
    fn ends_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth == 0
    }
}

fn say(pieces: &mut Vec<Piece>, text: String) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
}

/// How many bytes at the start of a text are certainly text: what is before white space and the start of a call at its
/// end.
fn certain_text(text: &str) -> usize {
    let longest = (1..OPENING.len()).rev().find(|length| text.ends_with(&OPENING[..*length])).unwrap_or(0);
    text[..text.len() - longest].trim_end().len()
}

/// Reads `{"name": "…", "arguments": ` before a `{`, with any white space. Gives the name and where the arguments
/// start.
fn head(text: &str) -> Option<(String, usize)> {
    let rest = expect(text, "{")?;
    let rest = expect(rest, "\"name\"")?;
    let rest = expect(rest, ":")?.trim_start();
    let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    let name = strings.next()?.ok()?;
    let rest = expect(&rest[strings.byte_offset()..], ",")?;
    let rest = expect(rest, "\"arguments\"")?;
    let rest = expect(rest, ":")?.trim_start();
    rest.starts_with('{').then(|| (name, text.len() - rest.len()))
}

fn expect<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.trim_start().strip_prefix(word)
}

/// A call that is there as a whole; anything else is text, tags and all.
fn whole_call(pieces: &mut Vec<Piece>, body: &str, closing: &str) {
    let call: Value = serde_json::from_str(body).unwrap_or_default();
    match (&call["name"], &call["arguments"]) {
        (Value::String(name), arguments @ (Value::Object(_) | Value::Null)) => {
            let arguments = if arguments.is_null() { "{}".to_owned() } else { arguments.to_string() };
            pieces.extend([Piece::Call { name: name.clone() }, Piece::Arguments(arguments)]);
        }
        _ => pieces.push(Piece::Text(format!("{OPENING}{body}{closing}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.into())
    }

    fn call(name: &str) -> Piece {
        Piece::Call { name: name.into() }
    }

    fn arguments(json: &str) -> Piece {
        Piece::Arguments(json.into())
    }

    /// Joins what is alike and follows on another.
    fn joined(pieces: impl IntoIterator<Item = Piece>) -> Vec<Piece> {
        let mut joined: Vec<Piece> = Vec::new();
        for piece in pieces {
            match (joined.last_mut(), piece) {
                (Some(Piece::Text(before)), Piece::Text(more))
                | (Some(Piece::Arguments(before)), Piece::Arguments(more)) => before.push_str(&more),
                (_, piece) => joined.push(piece),
            }
        }
        joined
    }

    /// Whole, character by character, and in two pieces cut anywhere.
    #[track_caller]
    fn check(answer: &str, expected: &[Piece]) {
        let read = |parts: &[&str]| {
            let mut calls = ToolCalls::default();
            let mut pieces: Vec<Piece> = parts.iter().flat_map(|part| calls.push(part)).collect();
            pieces.extend(calls.finish());
            joined(pieces)
        };
        assert_eq!(read(&[answer]), expected, "{answer}");
        let characters: Vec<String> = answer.chars().map(String::from).collect();
        assert_eq!(read(&characters.iter().map(String::as_str).collect::<Vec<_>>()), expected, "{answer}");
        for (at, _) in answer.char_indices() {
            assert_eq!(read(&[&answer[..at], &answer[at..]]), expected, "{answer} cut at {at}");
        }
    }

    const LOOK: &str =
        "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": [1, \"}\\\"]\"]}}\n</tool_call>";

    #[test]
    fn calls_and_text() {
        let look = [call("look"), arguments("{\"at\": [1, \"}\\\"]\"]}")];
        check("", &[]);
        check(" plain <tool_ text \n", &[text(" plain <tool_ text \n")]);
        check(LOOK, &look);
        check(&format!("{LOOK}\n{LOOK}\n"), &[look.clone(), look.clone()].concat());
        check(
            &format!("I look.\n\n{LOOK}\nDone: é\n"),
            &[&[text("I look.")][..], &look, &[text("Done: é\n")]].concat(),
        );
        check(&format!("a < {LOOK}"), &[&[text("a <")][..], &look].concat());
    }

    #[test]
    fn calls_that_end_early() {
        check(
            "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"x",
            &[call("look"), arguments("{\"at\": \"x")],
        );
        check("<tool_call>\n{\"name\": \"look\", \"arguments\": {}}", &[call("look"), arguments("{}")]);
        check("<tool_call>\n{\"name\": \"lo", &[text("<tool_call>\n{\"name\": \"lo")]);
        check("so <tool_cal", &[text("so <tool_cal")]);
    }

    #[test]
    fn calls_written_in_other_ways() {
        let look = [call("look"), arguments("{\"at\":1}")];
        check("<tool_call>{\"name\":\"look\",\"arguments\":{\"at\":1}}</tool_call>", &look);
        check("<tool_call>{\"arguments\": {\"at\": 1}, \"name\": \"look\"}</tool_call>", &look);
        check("<tool_call>\n{\"name\": \"look\"}\n</tool_call>", &[call("look"), arguments("{}")]);
        check(
            "<tool_call>{\"name\": \"l\\u00e9\", \"arguments\": {}}</tool_call>",
            &[call("lé"), arguments("{}")],
        );
        for broken in
            ["", "look", "{\"name\": 7, \"arguments\": {}}", "{\"name\": \"look\", \"arguments\": [1]}", "[]"]
        {
            let answer = format!("<tool_call>{broken}</tool_call>");
            check(&answer, &[text(&answer)]);
        }
    }

    #[test]
    fn pieces_come_as_soon_as_they_are_clear() {
        let mut calls = ToolCalls::default();
        assert_eq!(calls.push("Look"), [text("Look")]);
        assert_eq!(calls.push("ing \n"), [text("ing")]);
        assert_eq!(calls.push("<tool_call>"), []);
        assert_eq!(calls.push("\n{\"name\": \"look\", \"arguments\":"), []);
        assert_eq!(calls.push(" {\"a"), [call("look"), arguments("{\"a")]);
        assert_eq!(calls.push("t\": 1}"), [arguments("t\": 1}")]);
        assert_eq!(calls.push("}\n</tool_call>"), []);
        assert_eq!(calls.finish(), []);
    }
}
