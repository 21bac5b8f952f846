//! Sequences of token ids end an answer; no token that may still become part of one is let out.

use std::collections::VecDeque;

/// Looks for sequences of token ids in an answer that comes token by token. `T` is what travels with a token.
///
/// The answer ends where the first sequence is complete; when several are complete at the same token, the longest
/// counts. Its tokens never come out.
#[derive(Debug)]
pub(crate) struct StopIds<T> {
    sequences: Vec<Vec<u32>>,
    /// The end of the answer so far, which may be the start of a sequence.
    held: VecDeque<(u32, T)>,
}

/// What a token of the answer let out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReleasedIds<T> {
    /// What came with tokens that are certainly no part of a sequence.
    pub(crate) tokens: Vec<T>,
    /// A sequence is complete. The answer ends.
    pub(crate) stopped: bool,
}

impl<T> StopIds<T> {
    /// Looks for these sequences. Empty ones are ignored.
    pub(crate) fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let sequences = sequences.into_iter().filter(|sequence| !sequence.is_empty());
        let sequences = sequences.map(<[u32]>::to_vec).collect();
        Self { sequences, held: VecDeque::new() }
    }

    /// Takes the next token. Time grows with the bytes of all sequences times the longest, which the one who asks
    /// for them has to bound.
    pub(crate) fn push(&mut self, id: u32, token: T) -> ReleasedIds<T> {
        self.held.push_back((id, token));
        // What is held starts with the longest possible match, so a complete sequence is at its end.
        let complete = self.sequences.iter().filter(|sequence| self.ends_with(sequence)).map(Vec::len).max();
        let keep = match complete {
            Some(length) => length,
            None => self.sequences.iter().map(|sequence| self.longest_start(sequence)).max().unwrap_or(0),
        };
        let released = self.held.len() - keep;
        let tokens = self.held.drain(..released).map(|(_, token)| token).collect();
        if complete.is_some() {
            self.held.clear();
        }
        ReleasedIds { tokens, stopped: complete.is_some() }
    }

    /// What was held back, when no more tokens come.
    pub(crate) fn finish(&mut self) -> Vec<T> {
        self.held.drain(..).map(|(_, token)| token).collect()
    }

    fn ends_with(&self, ids: &[u32]) -> bool {
        let from = self.held.len().checked_sub(ids.len());
        from.is_some_and(|from| self.held.range(from..).map(|(id, _)| id).eq(ids))
    }

    /// How many of a sequence's first tokens, but not all, are the last ones of what is held.
    fn longest_start(&self, sequence: &[u32]) -> usize {
        let longest = (sequence.len() - 1).min(self.held.len());
        (1..=longest).rev().find(|length| self.ends_with(&sequence[..*length])).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as it reads: at each token, is a sequence complete?
    fn cut(answer: &[u32], stops: &[Vec<u32>]) -> (Vec<u32>, bool) {
        for end in 1..=answer.len() {
            let complete = stops.iter().filter(|stop| !stop.is_empty() && answer[..end].ends_with(stop));
            if let Some(longest) = complete.map(Vec::len).max() {
                return (answer[..end - longest].to_vec(), true);
            }
        }
        (answer.to_vec(), false)
    }

    fn check(answer: &[u32], stops: &[Vec<u32>]) {
        let mut matcher = StopIds::new(stops.iter().map(Vec::as_slice));
        let longest = stops.iter().map(Vec::len).max().unwrap_or(0);
        let (mut found, mut stopped) = (Vec::new(), false);
        for (index, id) in answer.iter().enumerate() {
            let released = matcher.push(*id, *id);
            found.extend(released.tokens);
            stopped = released.stopped;
            if stopped {
                break;
            }
            assert!(index + 1 - found.len() < longest.max(1), "{answer:?} {stops:?} holds back too much");
        }
        found.extend(matcher.finish());
        assert_eq!((found, stopped), cut(answer, stops), "{answer:?} {stops:?}");
        assert!(matcher.finish().is_empty());
    }

    #[test]
    fn cuts_before_the_first_complete_sequence() {
        let tables: [(&[u32], &[&[u32]]); 10] = [
            (&[], &[&[1]]),
            (&[1, 2, 3], &[]),
            (&[1, 2, 3], &[&[]]),
            (&[1, 2, 3], &[&[2]]),
            (&[1, 2, 3], &[&[1], &[3]]),
            (&[1, 2, 1, 2, 3], &[&[1, 2, 3]]),
            (&[1, 1, 1, 2], &[&[1, 1, 2]]),
            (&[1, 2], &[&[1, 2, 3]]),
            (&[1, 2, 3, 4], &[&[1, 2, 3, 4], &[2, 3]]), // The shorter one is complete first.
            (&[9, 1, 2, 3], &[&[3], &[1, 2, 3], &[2, 3]]), // All complete at once: the longest.
        ];
        for (answer, stops) in tables {
            check(answer, &stops.iter().map(|stop| stop.to_vec()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn equals_the_rule_for_any_answer() {
        let ids = |most| proptest::collection::vec(0..3u32, 0..most);
        proptest::proptest!(|(answer in ids(24), stops in proptest::collection::vec(ids(5), 0..4))| {
            check(&answer, &stops);
        });
    }
}
