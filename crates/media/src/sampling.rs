//! How many frames of a clip are looked at, and which: functions of numbers alone.

use crate::Error;

/// How many of `total_frames` frames, recorded at `video_fps` per second, are sampled.
///
/// [`FrameCount::Utils`] is `smart_nframes` of qwen-vl-utils 0.0.14 (`vision_process.py`), [`FrameCount::Hosted`] the
/// hosted guide's calculator. Where the hosted rule would leave less than one step of a clip because it drops the last
/// part of a second, the part is kept: a clip of half a second is a clip.
///
/// # Errors
/// [`Error::Sampling`] when a rate or a limit makes no sense, or when the clip has fewer frames than one step.
pub fn smart_nframes(total_frames: usize, video_fps: f64, sampling: &Sampling) -> Result<usize, Error> {
    let &Sampling { rule, fps, min_frames, max_frames, multiple } = sampling;
    for (name, rate) in [("the clip's frame rate", video_fps), ("fps", fps)] {
        if !rate.is_finite() || rate <= 0.0 {
            return Err(refuse(name, rate, "a positive number of frames per second"));
        }
    }
    if multiple == 0 {
        return Err(refuse("the frames of one step", multiple, "1 at least"));
    }
    if total_frames < multiple || total_frames > LARGEST_COUNT {
        let expected = format!("{multiple} (the frames of one step) to {LARGEST_COUNT}");
        return Err(refuse("the clip's number of frames", total_frames, &expected));
    }
    // `ceil_by_factor(min_frames)` and `floor_by_factor(max_frames)`.
    let least = min_frames.min(LARGEST_COUNT).div_ceil(multiple) * multiple;
    let most = max_frames.min(total_frames) / multiple * multiple;
    if most == 0 {
        return Err(refuse(
            "max_frames",
            max_frames,
            &format!("{multiple} (the frames of one step) at least"),
        ));
    }
    let clamp = |n: f64| n.max(least as f64).min(most as f64);
    let total = total_frames as f64;
    match rule {
        FrameCount::Utils => {
            let n = clamp(total / video_fps * fps).min(total);
            // At least one step remains, because both limits are whole steps and `most` is one at least.
            Ok((n / multiple as f64).floor() as usize * multiple)
        }
        FrameCount::Hosted => {
            let duration = total / video_fps;
            let whole = duration.trunc();
            let seconds = if duration - whole > 1.0 / fps { duration } else { whole };
            let counted = (seconds * video_fps).ceil();
            let counted = if counted < multiple as f64 { total } else { counted };
            let n = clamp(counted / video_fps * fps).min(counted);
            Ok(n.trunc() as usize)
        }
    }
}

/// The places, from zero, of the `n_frames` frames that are sampled of `total_frames`, in rising order. A place may
/// occur twice when more frames are wanted than there are.
///
/// # Errors
/// [`Error::Sampling`] when there are no frames, none are wanted, or a count is absurdly large.
pub fn frame_indices(total_frames: usize, n_frames: usize, rule: IndexRule) -> Result<Vec<usize>, Error> {
    for (name, count) in [("the clip's number of frames", total_frames), ("the number of frames", n_frames)] {
        if count == 0 || count > LARGEST_COUNT {
            return Err(refuse(name, count, &format!("1 to {LARGEST_COUNT}")));
        }
    }
    let last = total_frames - 1;
    let index = |frame: usize| match rule {
        IndexRule::Utils if n_frames == 1 => 0.0,
        IndexRule::Utils => {
            let step = f64::from(last as f32 / (n_frames - 1) as f32);
            // PyTorch fills the second half from the end, each value with a single rounding (fused multiply-add).
            let exact = if frame < n_frames / 2 {
                step * frame as f64
            } else {
                last as f64 - step * (n_frames - frame - 1) as f64
            };
            (exact as f32).round_ties_even()
        }
        IndexRule::Transformers => ((frame as f64 * (total_frames as f64 / n_frames as f64)) as f32).floor(),
    };
    Ok((0..n_frames).map(|frame| (index(frame) as usize).min(last)).collect())
}

/// How frames are counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The version of the rule.
    pub rule: FrameCount,
    /// Frames wanted per second of the clip.
    pub fps: f64,
    /// The least frames; rounded up to whole steps.
    pub min_frames: usize,
    /// The most frames; rounded down to whole steps, and never more than the clip has.
    pub max_frames: usize,
    /// Frames of one step in time of the model.
    pub multiple: usize,
}

/// Which version of the count is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameCount {
    /// The whole clip counts; the result is a multiple of the step.
    Utils,
    /// A last part of a second counts only when it is longer than the time between two samples; the result may be odd.
    Hosted,
}

/// Which frames are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IndexRule {
    /// Evenly from the first to the last, both included: `torch.linspace(0, total - 1, n).round()` in f32
    /// (qwen-vl-utils).
    Utils,
    /// The first of each of `n` equal stretches: `arange(0, total, total / n).int()` (Transformers 4.49,
    /// `video_utils.py`), without the surplus index that its f32 steps sometimes yield.
    Transformers,
}

/// Counts up to this are exact in f32, in which the rules compute.
const LARGEST_COUNT: usize = 1 << 24;

fn refuse(name: &'static str, value: impl std::fmt::Debug, expected: &str) -> Error {
    Error::Sampling { name, value: format!("{value:?}"), expected: expected.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(total, clip's rate, fps, count)` by the two rules with 4 frames at least and steps of 2; the limits of their
    /// sources (768 and 512 frames).
    #[test]
    fn frame_counts() {
        let check = |total, video_fps, fps, utils: usize, hosted: usize| {
            let count = |rule, max_frames| {
                let sampling = Sampling { rule, fps, min_frames: 4, max_frames, multiple: 2 };
                smart_nframes(total, video_fps, &sampling).unwrap()
            };
            let counts = (count(FrameCount::Utils, 768), count(FrameCount::Hosted, 512));
            assert_eq!(counts, (utils, hosted), "{total} frames of {video_fps}, {fps} wanted");
        };
        check(37138, 29.97, 4.0, 768, 512);
        check(37157, 30.0, 4.0, 768, 512);
        check(29761, 30.0, 0.1, 98, 99);
        check(5053, 29.97, 2.0, 336, 337);
        check(1975, 24.0, 0.5, 40, 41);
        check(7063, 29.97, 2.0, 470, 471);
        check(30182, 23.976, 0.5, 628, 512);
        check(38828, 29.97, 0.5, 646, 512);
        check(36576, 29.97, 0.5, 610, 512);
        check(29, 25.0, 0.5, 4, 4);
        check(34, 24.0, 0.1, 4, 4);
        check(33, 8.0, 2.0, 8, 8);
        check(35, 1.0, 4.0, 34, 34);
        check(62, 10.0, 0.1, 4, 4);
        check(46, 24.0, 0.1, 4, 4);
        check(3381, 23.976, 2.0, 282, 282);
        check(44, 23.976, 1.0, 4, 4);
        check(66, 30.0, 10.0, 22, 22);
        check(43, 30.0, 0.1, 4, 4);
        check(81, 1.0, 0.1, 8, 8);
    }

    #[test]
    fn a_last_part_of_a_second_is_kept_when_there_is_nothing_else() {
        let sampling =
            Sampling { rule: FrameCount::Hosted, fps: 1.0, min_frames: 4, max_frames: 512, multiple: 2 };
        assert_eq!(smart_nframes(22, 30.0, &sampling).unwrap(), 4);
        assert_eq!(smart_nframes(2, 30.0, &sampling).unwrap(), 2);
    }

    #[test]
    fn counts_that_make_no_sense_are_refused() {
        let good =
            Sampling { rule: FrameCount::Utils, fps: 2.0, min_frames: 4, max_frames: 768, multiple: 2 };
        let check = |total, video_fps, sampling: Sampling, words: &str| {
            for rule in [FrameCount::Utils, FrameCount::Hosted] {
                let message =
                    smart_nframes(total, video_fps, &Sampling { rule, ..sampling }).unwrap_err().to_string();
                assert!(message.contains(words), "{message}");
            }
        };
        check(0, 30.0, good, "the clip's number of frames is 0, expected 2");
        check(1, 30.0, good, "the clip's number of frames is 1");
        check(usize::MAX, 30.0, good, "the clip's number of frames");
        check(30, 0.0, good, "the clip's frame rate is 0.0, expected a positive number");
        check(30, f64::NAN, good, "the clip's frame rate is NaN");
        check(30, 30.0, Sampling { fps: -1.0, ..good }, "fps is -1.0");
        check(30, 30.0, Sampling { fps: f64::INFINITY, ..good }, "fps is inf");
        check(30, 30.0, Sampling { max_frames: 1, ..good }, "max_frames is 1, expected 2");
        check(30, 30.0, Sampling { multiple: 0, ..good }, "the frames of one step is 0");
        for rate in [f64::MIN_POSITIVE, f64::MAX] {
            for rule in [FrameCount::Utils, FrameCount::Hosted] {
                let sampling =
                    Sampling { rule, fps: f64::MAX / rate.max(1.0), min_frames: usize::MAX, ..good };
                assert_eq!(smart_nframes(30, rate, &sampling).unwrap(), 30);
            }
        }
    }

    #[test]
    fn frame_places() {
        let check = |total, n, utils: &[usize], transformers: &[usize]| {
            assert_eq!(frame_indices(total, n, IndexRule::Utils).unwrap(), utils, "{total} {n}");
            assert_eq!(
                frame_indices(total, n, IndexRule::Transformers).unwrap(),
                transformers,
                "{total} {n}"
            );
        };
        check(24, 6, &[0, 5, 9, 14, 18, 23], &[0, 4, 8, 12, 16, 20]);
        check(37, 4, &[0, 12, 24, 36], &[0, 9, 18, 27]);
        check(2, 2, &[0, 1], &[0, 1]);
        check(9, 1, &[0], &[0]);
        check(1, 3, &[0, 0, 0], &[0, 0, 0]);
        // Half-way places go to the even neighbour: 0.5, 1.5, 2.5.
        check(4, 7, &[0, 0, 1, 2, 2, 2, 3], &[0, 0, 1, 1, 2, 2, 3]);
        // Here f32 steps of Transformers' arange yield an index more than was asked for.
        assert_eq!(frame_indices(1166, 232, IndexRule::Transformers).unwrap().len(), 232);
        for (total, n) in [(0, 1), (1, 0), (usize::MAX, 1), (1, usize::MAX)] {
            assert!(frame_indices(total, n, IndexRule::Utils).is_err());
        }
    }

    #[test]
    fn places_rise_and_stay_within_the_clip() {
        for total in [1, 2, 3, 97, 1 << 20, LARGEST_COUNT] {
            for n in [1, 2, 3, 64, 768] {
                for rule in [IndexRule::Utils, IndexRule::Transformers] {
                    let places = frame_indices(total, n, rule).unwrap();
                    assert_eq!(places.len(), n);
                    assert!(
                        places.is_sorted() && places.iter().all(|&place| place < total),
                        "{total} {n} {rule:?}"
                    );
                }
            }
        }
    }
}
