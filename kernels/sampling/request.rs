//! What one sequence asks for, in the numbers that the reference and the kernels compute with.

use super::{ONE, Settings};

/// 2⁵³, by which [`Request::number`] and [`Request::top_p`] are divided.
pub(super) const CERTAIN: u64 = 1 << 53;

/// The sequence is there: a batch may have rows that are not.
pub(super) const ACTIVE: u32 = 1;
/// It draws; otherwise the likeliest token is taken.
pub(super) const RANDOM: u32 = 2;
/// It has penalties, so that its tokens are counted.
pub(super) const PENALIZED: u32 = 4;
/// It has biases.
pub(super) const BIASED: u32 = 8;
/// Only some tokens are allowed.
pub(super) const RESTRICTED: u32 = 16;

/// Below this temperature the likeliest token is taken: dividing by less would only round.
const GREEDY_BELOW: f32 = 1e-5;
/// Bins of the kernels for each natural logarithm.
const BINS: f32 = 32.0;

/// See `Request` in sampling.cu, whose layout it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C)]
pub(super) struct Request {
    /// 53 random bits.
    pub(super) number: u64,
    pub(super) inverse_temperature: f64,
    /// In units of 2⁻⁵³; [`CERTAIN`] and more cut nothing.
    pub(super) top_p: u64,
    /// In units of a weight; 0 cuts nothing.
    pub(super) min_p: u64,
    pub(super) repetition_penalty: f32,
    pub(super) presence_penalty: f32,
    pub(super) frequency_penalty: f32,
    /// Bins for each unit of a logit.
    pub(super) bins: f32,
    /// 0 cuts nothing.
    pub(super) top_k: u32,
    pub(super) flags: u32,
    pub(super) slot: u32,
    pub(super) unused: u32,
}

impl Request {
    /// What `settings` ask for with the random bits `number`. The caller sets what the settings don't tell: the slot,
    /// [`BIASED`] and [`RESTRICTED`].
    pub(super) fn new(settings: &Settings, number: u64) -> Self {
        let Settings {
            temperature,
            top_p,
            top_k,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
        } = *settings;
        // Written so that a NaN is greedy.
        let random = if temperature >= GREEDY_BELOW { RANDOM } else { 0 };
        let penalized = repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0;
        Self {
            number: number & (CERTAIN - 1),
            inverse_temperature: f64::from(temperature).recip(),
            // Rounded up where the number is not a multiple of the unit; below zero and NaN are told apart first.
            top_p: if top_p < 1.0 { (f64::from(top_p) * CERTAIN as f64).ceil() as u64 } else { CERTAIN },
            min_p: if min_p > 0.0 { (f64::from(min_p) * ONE as f64).ceil() as u64 } else { 0 },
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            bins: BINS / temperature,
            top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
            flags: ACTIVE | random | if penalized { PENALIZED } else { 0 },
            slot: 0,
            unused: 0,
        }
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether top-k or top-p may take something away.
    pub(super) fn cuts(&self) -> bool {
        self.top_k != 0 || self.top_p < CERTAIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_integers() {
        let request = |settings: Settings| Request::new(&settings, u64::MAX);
        let neutral = request(Settings::default());
        assert_eq!((neutral.number, neutral.flags, neutral.cuts()), (CERTAIN - 1, ACTIVE, false));
        let warm = Settings { temperature: 0.5, ..Settings::default() };
        let found = request(Settings { top_p: 0.5, min_p: 0.25, top_k: usize::MAX, ..warm });
        assert_eq!((found.top_p, found.min_p, found.top_k), (1 << 52, 1 << 38, u32::MAX));
        assert!(found.has(RANDOM) && found.cuts() && !found.has(PENALIZED));
        assert_eq!((found.inverse_temperature, found.bins), (2.0, 64.0));
        for top_p in [1.0, 2.0, f32::NAN] {
            assert_eq!(request(Settings { top_p, ..warm }).top_p, CERTAIN, "{top_p}");
        }
        for top_p in [0.0, -1.0, f32::NEG_INFINITY] {
            assert_eq!(request(Settings { top_p, ..warm }).top_p, 0, "{top_p}");
        }
        for temperature in [0.0, 9e-6, -1.0, f32::NAN] {
            assert!(!request(Settings { temperature, ..warm }).has(RANDOM), "{temperature}");
        }
        assert_eq!(request(Settings { temperature: f32::INFINITY, ..warm }).inverse_temperature, 0.0);
        for settings in [
            Settings { repetition_penalty: 1.1, ..warm },
            Settings { presence_penalty: -0.1, ..warm },
            Settings { frequency_penalty: 0.1, ..warm },
        ] {
            assert!(request(settings).has(PENALIZED), "{settings:?}");
        }
    }
}
