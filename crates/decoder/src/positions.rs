//! Multimodal rotary positions (M-RoPE): for each token its position in time, height and width.
//!
//! The rule is the one that the model was trained with (`get_rope_index` of Transformers 4.49): the seconds
//! between frames are not rounded, and the text after a picture or clip goes on at the largest position so
//! far plus one. Later releases of the library disagree for clips; still pictures are the same in all.

/// A stretch of a prompt, as positions see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Span {
    /// So many tokens of text, markers included.
    Text(usize),
    /// The tokens of a picture or clip, time step by time step, row by row.
    Vision {
        /// Time steps; 1 for a picture.
        t: usize,
        /// Rows of tokens (merged patches).
        h: usize,
        /// Columns of tokens.
        w: usize,
        /// Seconds from one time step to the next; of no effect on a picture.
        seconds_per_step: f32,
    },
}

/// Positions of a prompt's tokens, and where decoding goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Time, height and width of each token.
    pub tokens: Vec<[u32; 3]>,
    /// The position on all axes of the first generated token; each further one is one later.
    pub next: u32,
}

impl Positions {
    /// Positions of a prompt. `tokens_per_second` is the step of the time axis per second of a clip.
    pub fn new(spans: &[Span], tokens_per_second: usize) -> Self {
        let mut tokens = Vec::new();
        let mut next = 0u32;
        for span in spans {
            match *span {
                Span::Text(n) => {
                    for _ in 0..n {
                        tokens.push([next; 3]);
                        next = next.saturating_add(1);
                    }
                }
                Span::Vision { t, h, w, seconds_per_step } => {
                    let start = next;
                    for step in 0..t {
                        let time =
                            start.saturating_add(time_offset(step, seconds_per_step, tokens_per_second));
                        for (y, x) in (0..h as u32).flat_map(|y| (0..w as u32).map(move |x| (y, x))) {
                            let position = [time, start.saturating_add(y), start.saturating_add(x)];
                            tokens.push(position);
                            let largest = position.into_iter().max().unwrap_or(start);
                            next = next.max(largest.saturating_add(1));
                        }
                    }
                }
            }
        }
        Self { tokens, next }
    }

    /// What is added to a generated token's index to get its position (the reference's `mrope_position_deltas`).
    pub fn delta(&self) -> i64 {
        i64::from(self.next) - self.tokens.len() as i64
    }
}

/// The products are rounded to f32 one by one and then cut, as the reference does: 1.9999 a step gives
/// 0, 1, 3, 5.
fn time_offset(step: usize, seconds_per_step: f32, tokens_per_second: usize) -> u32 {
    (step as f32 * seconds_per_step * tokens_per_second as f32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spans: &[Span], expected: &[[u32; 3]], next: u32) {
        let positions = Positions::new(spans, 2);
        assert_eq!(positions.tokens, expected, "{spans:?}");
        assert_eq!(positions.next, next, "{spans:?}");
    }

    fn clip(t: usize, h: usize, w: usize, seconds_per_step: f32) -> Span {
        Span::Vision { t, h, w, seconds_per_step }
    }

    #[test]
    fn text_is_the_same_on_all_axes() {
        check(&[Span::Text(0)], &[], 0);
        check(&[Span::Text(2), Span::Text(1)], &[[0; 3], [1; 3], [2; 3]], 3);
    }

    #[test]
    fn text_goes_on_after_the_largest_axis() {
        check(
            &[Span::Text(1), clip(1, 1, 3, 9.0), Span::Text(1)],
            &[[0; 3], [1, 1, 1], [1, 1, 2], [1, 1, 3], [4; 3]],
            5,
        );
        check(&[clip(1, 3, 1, 0.0), Span::Text(1)], &[[0; 3], [0, 1, 0], [0, 2, 0], [3; 3]], 4);
        check(&[clip(2, 1, 1, 4.0), Span::Text(1)], &[[0; 3], [8, 0, 0], [9; 3]], 10);
    }

    #[test]
    fn time_is_cut_not_rounded() {
        let times = |seconds, n| {
            let positions = Positions::new(&[clip(n, 1, 1, seconds)], 2);
            positions.tokens.iter().map(|p| p[0]).collect::<Vec<_>>()
        };
        assert_eq!(times(0.999_95, 4), [0, 1, 3, 5]);
        assert_eq!(times(0.5, 4), [0, 1, 2, 3]);
        assert_eq!(times(0.2, 6), [0, 0, 0, 1, 1, 2]);
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let positions = Positions::new(&[clip(2, 1, 1, f32::MAX), Span::Text(2)], 1000);
        assert_eq!(positions.next, u32::MAX);
        assert_eq!(Positions::new(&[clip(3, 1, 1, f32::NAN)], 2).tokens[2], [0; 3]);
    }

    #[test]
    fn delta_leads_from_index_to_position() {
        let positions = Positions::new(&[Span::Text(3), clip(1, 4, 4, 1.0), Span::Text(1)], 2);
        assert_eq!(positions.delta() + positions.tokens.len() as i64, i64::from(positions.next));
    }
}
