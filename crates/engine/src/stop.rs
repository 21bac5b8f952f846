//! Stop texts end an answer wherever they come, also across tokens; nothing that may still become one is let
//! out.

/// Looks for stop texts in an answer that comes in pieces. How it is cut into pieces makes no difference.
///
/// The answer ends where the first stop text is complete, and is cut where that one starts; when several are
/// complete at the same character, the longest counts. Time is one step for each byte and stop text (Knuth,
/// Morris and Pratt, "Fast pattern matching in strings", 1977), and never more text is held back than the
/// longest stop text has.
#[derive(Debug, Default)]
pub(crate) struct StopMatcher {
    patterns: Vec<Pattern>,
    /// The end of the answer so far, which may be the start of a stop text.
    held: String,
    stopped: bool,
}

/// What a piece of the answer let out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Released {
    /// Text that is certainly no part of a stop text; it may be empty.
    pub(crate) text: String,
    /// A stop text is complete. The answer ends, and later pieces are ignored.
    pub(crate) stopped: bool,
}

/// A stop text and how much of it the end of the answer matches.
#[derive(Debug)]
struct Pattern {
    bytes: Vec<u8>,
    /// For each length of a match, the next shorter one that ends at the same place.
    fallback: Vec<usize>,
    /// Bytes of the pattern that the end of the answer matches; fewer than all.
    matched: usize,
}

impl StopMatcher {
    /// Looks for these texts. Empty ones are ignored.
    pub(crate) fn new<'a>(stops: impl IntoIterator<Item = &'a str>) -> Self {
        let patterns = stops.into_iter().filter(|stop| !stop.is_empty()).map(Pattern::new).collect();
        Self { patterns, held: String::new(), stopped: false }
    }

    /// Takes the next piece of the answer.
    pub(crate) fn push(&mut self, text: &str) -> Released {
        if self.stopped {
            return Released { text: String::new(), stopped: true };
        }
        let seen_before = self.held.len();
        self.held.push_str(text);
        for (offset, byte) in text.bytes().enumerate() {
            let complete = self.patterns.iter_mut().filter_map(|pattern| pattern.advance(byte)).max();
            if let Some(length) = complete {
                let mut text = std::mem::take(&mut self.held);
                text.truncate(seen_before + offset + 1 - length);
                self.stopped = true;
                return Released { text, stopped: true };
            }
        }
        // Stop texts and pieces are whole characters, so a match starts where a character does.
        let hold = self.patterns.iter().map(|pattern| pattern.matched).max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - hold);
        Released { text: std::mem::replace(&mut self.held, held), stopped: false }
    }

    /// What was held back, when no more pieces come.
    pub(crate) fn finish(&mut self) -> String {
        self.stopped = true;
        std::mem::take(&mut self.held)
    }
}

impl Pattern {
    fn new(stop: &str) -> Self {
        let bytes = stop.as_bytes().to_vec();
        let mut pattern = Self { fallback: vec![0; bytes.len() + 1], bytes, matched: 0 };
        // The fallbacks are the matches of the pattern against itself, one byte behind.
        for index in 1..pattern.bytes.len() {
            pattern.advance(pattern.bytes[index]);
            pattern.fallback[index + 1] = pattern.matched;
        }
        pattern.matched = 0;
        pattern
    }

    /// Takes a byte. Returns the length of the pattern when it is complete.
    fn advance(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.fallback[self.matched];
        }
        if self.bytes[self.matched] == byte {
            self.matched += 1;
        }
        if self.matched < self.bytes.len() {
            return None;
        }
        self.matched = self.fallback[self.matched];
        Some(self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as it reads: at each character, is a stop text complete?
    fn cut(answer: &str, stops: &[String]) -> (String, bool) {
        for end in (1..=answer.len()).filter(|end| answer.is_char_boundary(*end)) {
            let complete =
                stops.iter().filter(|stop| !stop.is_empty() && answer[..end].ends_with(stop.as_str()));
            if let Some(longest) = complete.map(String::len).max() {
                return (answer[..end - longest].to_owned(), true);
            }
        }
        (answer.to_owned(), false)
    }

    fn check(pieces: &[&str], stops: &[&str]) {
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        let answer = pieces.concat();
        let (expected, expected_stop) = cut(&answer, &stops);
        let mut matcher = StopMatcher::new(stops.iter().map(String::as_str));
        let (mut text, mut came) = (String::new(), 0);
        let mut stopped = false;
        for piece in pieces {
            let released = matcher.push(piece);
            came += piece.len();
            text.push_str(&released.text);
            stopped = released.stopped;
            assert!(expected.starts_with(&text), "{pieces:?} {stops:?} let out {text:?}");
            if !stopped {
                assert!(came - text.len() < longest.max(1), "{pieces:?} {stops:?} holds back too much");
            }
        }
        text.push_str(&matcher.finish());
        assert_eq!((text, stopped), (expected, expected_stop), "{pieces:?} {stops:?}");
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn cuts_before_the_first_complete_stop_text() {
        let tables: [(&[&str], &[&str]); 14] = [
            (&[], &["x"]),
            (&["no stop"], &[]),
            (&["no stop"], &[""]),
            (&["one END two"], &["END"]),
            (&["one E", "N", "D two"], &["END"]),
            (&["one E", "N", "E", "ND two"], &["END"]),
            (&["ends in EN"], &["END"]),
            (&["END"], &["END"]),
            (&["aab", "aaab"], &["aaab"]),
            (&["abababc"], &["ababc"]),
            (&["abcd"], &["abcd", "bc"]),     // "bc" is complete first.
            (&["xabc"], &["c", "abc", "bc"]), // All complete at once: the longest.
            (&["中", "文", "。END"], &["文。"]),
            (&["é", "è"], &["è", "é\u{301}"]), // These share their first byte.
        ];
        for (pieces, stops) in tables {
            check(pieces, stops);
        }
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop_text() {
        let mut matcher = StopMatcher::new(["\n\nUser:"]);
        let released: Vec<String> =
            ["Yes.\n", "\n", "\n", "Us", "ed"].map(|piece| matcher.push(piece).text).into();
        assert_eq!(released, ["Yes.", "", "\n", "", "\n\nUsed"]);
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn ignores_what_comes_after() {
        let mut matcher = StopMatcher::new(["b"]);
        assert_eq!(matcher.push("abc"), Released { text: "a".to_owned(), stopped: true });
        assert_eq!(matcher.push("def"), Released { text: String::new(), stopped: true });
        assert_eq!(matcher.finish(), "");
    }

    #[test]
    fn is_quick_for_stop_texts_that_almost_match() {
        let stops: Vec<String> = (1..=16).map(|n| format!("{}b", "a".repeat(n * 500))).collect();
        let mut matcher = StopMatcher::new(stops.iter().map(String::as_str));
        let released = matcher.push(&"a".repeat(100_000));
        assert_eq!(released.text.len(), 100_000 - 8000);
        assert_eq!(matcher.finish().len(), 8000);
    }

    #[test]
    fn equals_the_rule_for_any_pieces() {
        let words = |n| proptest::collection::vec("[abé]{0,6}", 0..n);
        proptest::proptest!(|(pieces in words(12), stops in words(4))| {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            check(&pieces, &stops);
        });
    }
}
