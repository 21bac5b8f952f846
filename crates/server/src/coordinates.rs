//! `"coordinates": "original"`: boxes and points of an answer in pixels of the picture that was sent, in place of the
//! resized one that the model saw.
//!
//! Three spellings are known: JSON lists behind the keys `bbox_2d`, `bbox`, `point_2d` and `point`, the attributes
//! `x1`, `y1`, … of `<points …>` and `<point …>`, and QwenVL HTML's `data-bbox="x1 y1 x2 y2"`. All other text stays as
//! it is. The text is read character by character and only a number that may still grow is held back, so a streamed
//! answer is the whole one cut into pieces.
//!
//! An answer doesn't say which picture a box is in. With several pictures the coordinates are therefore turned only
//! when all have the same scale; otherwise the request is refused.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use ocellus_engine::{Event, MediaSize, Started, TextDelta};
use serde_json::Value;

use crate::Refusal;
use crate::answer::BoxEvents;
use crate::definition::COORDINATES;
use crate::parameter::Fields;

/// In which pixels boxes and points of the answer are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Coordinates {
    /// Of the resized picture, as the model writes them.
    #[default]
    Seen,
    /// Of the upright picture that was sent.
    Original,
}

impl Coordinates {
    /// Reads the parameter `coordinates`.
    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, Refusal> {
        match fields.get(COORDINATES.name) {
            None => Ok(Self::Seen),
            Some(Value::String(text)) if text == "seen" => Ok(Self::Seen),
            Some(Value::String(text)) if text == "original" => Ok(Self::Original),
            Some(_) => {
                Err(Refusal::BadValue { message: "'coordinates' must be one of seen and original".into() })
            }
        }
    }

    /// The rest of an answer's events, rewritten if that was asked for.
    ///
    /// # Errors
    /// [`Refusal::BadValue`] when pictures of different scale make it unknown what a coordinate means.
    pub(crate) fn apply(self, events: BoxEvents, started: &Started) -> Result<BoxEvents, Refusal> {
        let Some(first) = started.media.first().filter(|_| self == Self::Original) else { return Ok(events) };
        if !started.media.iter().all(|media| same_scale(media, first)) {
            let message = "'coordinates' can be \"original\" only when all images and videos have the same scale; \
                           send them one by one";
            return Err(Refusal::BadValue { message: message.into() });
        }
        let rewriter = Rewriter::new(Scale::of(first));
        Ok(Box::pin(Rewritten { events, rewriter, completion_tokens: 0, queue: VecDeque::new() }))
    }
}

/// Exactly, on both axes: `a/b == c/d` as `a*d == c*b`.
fn same_scale(one: &MediaSize, other: &MediaSize) -> bool {
    let same = |(original, seen): (usize, usize), (other_original, other_seen): (usize, usize)| {
        original as u128 * other_seen as u128 == other_original as u128 * seen as u128
    };
    same((one.original.0, one.seen.0), (other.original.0, other.seen.0))
        && same((one.original.1, one.seen.1), (other.original.1, other.seen.1))
}

/// From seen pixels to original ones: each axis as a fraction.
#[derive(Clone, Copy, Debug)]
struct Scale {
    x: (f64, f64),
    y: (f64, f64),
}

impl Scale {
    fn of(media: &MediaSize) -> Self {
        let fraction = |original: usize, seen: usize| (original as f64, seen.max(1) as f64);
        Self { x: fraction(media.original.1, media.seen.1), y: fraction(media.original.0, media.seen.0) }
    }

    /// A number in its own notation: whole numbers stay whole, others keep their decimals.
    fn apply(&self, axis: Axis, number: &str) -> Option<String> {
        let (original, seen) = match axis {
            Axis::X => self.x,
            Axis::Y => self.y,
        };
        let digits = number.strip_prefix('-').unwrap_or(number);
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !plain(whole) || !plain(decimals) || digits.ends_with('.') {
            return None;
        }
        let value = number.parse::<f64>().ok()? * original / seen;
        let n_decimals = decimals.len();
        // Halves away from zero, as people round; formatting alone would round them to even.
        let text =
            if n_decimals == 0 { format!("{:.0}", value.round()) } else { format!("{value:.n_decimals$}") };
        // Only the sign of a zero.
        let is_zero = text.bytes().all(|byte| matches!(byte, b'-' | b'0' | b'.'));
        Some(if is_zero { text.trim_start_matches('-').to_owned() } else { text })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    X,
    Y,
}

impl Axis {
    fn other(self) -> Self {
        match self {
            Self::X => Self::Y,
            Self::Y => Self::X,
        }
    }
}

/// Longer ones are no coordinates.
const LONGEST_NUMBER: usize = 24;
/// As much text as the longest opening, `"point_2d"`, `<points`, ` data-bbox`, with what stands before it.
const RECENT: usize = 12;

/// The text of one answer as it comes in.
#[derive(Debug)]
struct Rewriter {
    scale: Scale,
    place: Place,
    /// The last characters of plain text, ASCII only; others stand for no opening.
    recent: String,
    /// A number that may still grow.
    number: String,
}

/// Where in the text the next character is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Anywhere.
    Text,
    /// Behind a key such as `"bbox_2d"`.
    Key,
    /// Behind its colon.
    Colon,
    /// Inside of its list, so many brackets deep; the next number is on this axis.
    List { depth: u8, axis: Axis },
    /// Behind `data-bbox`.
    Attribute,
    /// Behind its `=`.
    Equals,
    /// Inside of its quotes.
    Corners { quote: char, axis: Axis },
    /// Inside of a `<points …>` tag, between attributes or in an attribute's name.
    Tag,
    /// Behind the `=` of an attribute of the tag, with its axis if it has one.
    TagEquals { axis: Option<Axis> },
    /// Inside of the quotes of such an attribute.
    TagValue { quote: char, axis: Option<Axis> },
}

impl Rewriter {
    fn new(scale: Scale) -> Self {
        Self { scale, place: Place::Text, recent: String::new(), number: String::new() }
    }

    /// More text in, as much as is certain out.
    fn push(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 8);
        for character in text.chars() {
            self.take(character, &mut out);
        }
        out
    }

    /// The end of the text: what was held back.
    fn finish(&mut self) -> String {
        let mut out = String::new();
        if let Some(axis) = self.axis() {
            self.release(axis, &mut out);
        }
        self.place = Place::Text;
        out
    }

    /// The axis of a number that would stand here.
    fn axis(&self) -> Option<Axis> {
        match self.place {
            Place::List { axis, .. } | Place::Corners { axis, .. } => Some(axis),
            Place::TagValue { axis, .. } => axis,
            _ => None,
        }
    }

    fn take(&mut self, character: char, out: &mut String) {
        if let Some(axis) = self.axis() {
            if matches!(character, '0'..='9' | '.' | '-' | '+' | 'e' | 'E')
                && self.number.len() < LONGEST_NUMBER
            {
                self.number.push(character);
                return;
            }
            if !self.number.is_empty() {
                self.release(axis, out);
                match &mut self.place {
                    Place::List { axis, .. } | Place::Corners { axis, .. } => *axis = axis.other(),
                    _ => {}
                }
            }
        }
        out.push(character);
        self.advance(character);
    }

    /// Writes the number that was held back, turned if it is one.
    fn release(&mut self, axis: Axis, out: &mut String) {
        match self.scale.apply(axis, &self.number) {
            Some(turned) if self.number.len() < LONGEST_NUMBER => out.push_str(&turned),
            _ => out.push_str(&self.number),
        }
        self.number.clear();
    }

    /// Follows a character that is no part of a number.
    fn advance(&mut self, character: char) {
        let space = character.is_ascii_whitespace();
        self.place = match self.place {
            Place::Text => return self.search(character),
            Place::Key if space => Place::Key,
            Place::Key if character == ':' => Place::Colon,
            Place::Colon if space => Place::Colon,
            Place::Colon if character == '[' => Place::List { depth: 1, axis: Axis::X },
            Place::List { depth, axis } if character == '[' && depth < u8::MAX => {
                Place::List { depth: depth + 1, axis }
            }
            Place::List { depth, axis } if character == ']' && depth > 1 => {
                Place::List { depth: depth - 1, axis }
            }
            Place::List { .. } if space || character == ',' => self.place,
            Place::Attribute if space => Place::Attribute,
            Place::Attribute if character == '=' => Place::Equals,
            Place::Equals if space => Place::Equals,
            Place::Equals if matches!(character, '"' | '\'') => {
                Place::Corners { quote: character, axis: Axis::X }
            }
            Place::Corners { .. } if space || matches!(character, ',' | '(' | ')' | '[' | ']') => self.place,
            Place::Tag if character == '=' => {
                let axis = attribute_axis(&self.recent);
                Place::TagEquals { axis }
            }
            Place::Tag if !matches!(character, '>' | '<') => {
                self.remember(character);
                Place::Tag
            }
            Place::TagEquals { axis } if matches!(character, '"' | '\'') => {
                Place::TagValue { quote: character, axis }
            }
            Place::TagEquals { axis } if space => Place::TagEquals { axis },
            Place::TagValue { quote, .. } if character == quote => {
                self.recent.clear();
                Place::Tag
            }
            // In a text such as `alt` everything may stand, in a coordinate spaces alone.
            Place::TagValue { axis, .. } if axis.is_none() || space => self.place,
            _ => {
                // Nothing of what was expected, or its regular end: plain text again, in which this character may
                // open something.
                self.place = Place::Text;
                self.recent.clear();
                return self.search(character);
            }
        };
    }

    /// Looks for an opening that ends with this character.
    fn search(&mut self, character: char) {
        let is_tag = self.recent.ends_with("<points") || self.recent.ends_with("<point");
        if is_tag && character.is_ascii_whitespace() {
            self.recent.clear();
            self.place = Place::Tag;
            return;
        }
        self.remember(character);
        const KEYS: [&str; 4] = ["bbox_2d", "bbox", "point_2d", "point"];
        if matches!(character, '"' | '\'') {
            let before = &self.recent[..self.recent.len() - 1];
            if KEYS.iter().any(|key| before.strip_suffix(key).is_some_and(|rest| rest.ends_with(character))) {
                self.place = Place::Key;
            }
        } else if let Some(before) = self.recent.strip_suffix("data-bbox")
            && before.ends_with(|before: char| before.is_ascii_whitespace() || matches!(before, '"' | '\''))
        {
            self.place = Place::Attribute;
        }
    }

    fn remember(&mut self, character: char) {
        if self.recent.len() >= RECENT {
            self.recent.remove(0);
        }
        // One byte for each, so that the lines above may cut where they like.
        self.recent.push(if character.is_ascii() { character } else { '\0' });
    }
}

/// `x`, `x1`, `y2`, …, at the end of a tag's text.
fn attribute_axis(text: &str) -> Option<Axis> {
    let name = text.trim_end().rsplit(|character: char| character.is_ascii_whitespace()).next()?;
    let (axis, rest) = match name.as_bytes() {
        [b'x', rest @ ..] => (Axis::X, rest),
        [b'y', rest @ ..] => (Axis::Y, rest),
        _ => return None,
    };
    rest.iter().all(u8::is_ascii_digit).then_some(axis)
}

/// The events of an answer with its text rewritten.
struct Rewritten {
    events: BoxEvents,
    rewriter: Rewriter,
    /// Of the last text.
    completion_tokens: usize,
    /// What comes next, before the engine is asked again.
    queue: VecDeque<Event>,
}

impl Stream for Rewritten {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = &mut *self;
        if let Some(event) = this.queue.pop_front() {
            return Poll::Ready(Some(event));
        }
        let event = match this.events.as_mut().poll_next(context) {
            Poll::Ready(Some(event)) => event,
            other => return other,
        };
        Poll::Ready(Some(match event {
            Event::Text(mut delta) => {
                // A delta whose text is held back goes on with its log-probabilities, which are of tokens and stay.
                delta.text = this.rewriter.push(&delta.text);
                this.completion_tokens = delta.completion_tokens;
                Event::Text(delta)
            }
            Event::Finished(finished) => {
                let text = this.rewriter.finish();
                if text.is_empty() {
                    Event::Finished(finished)
                } else {
                    this.queue.push_back(Event::Finished(finished));
                    let completion_tokens = this.completion_tokens;
                    Event::Text(TextDelta { text, completion_tokens, ..TextDelta::default() })
                }
            }
            other => other,
        }))
    }
}

#[cfg(test)]
mod tests;
