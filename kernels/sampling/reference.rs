//! The choice of a token, as its definition reads: sorts and sums over the whole vocabulary.

use super::{
    Choice, ONE, SEEN_TIMES,
    request::{CERTAIN, PENALIZED, RANDOM, Request},
};

/// A row of logits and what changes them.
pub(super) struct Row<'a> {
    pub(super) request: Request,
    /// `(vocabulary)`
    pub(super) logits: &'a [f32],
    /// Added to the logits of these tokens.
    pub(super) biases: &'a [(u32, f32)],
    /// `(vocabulary)`, counts of tokens as [`super::Sampler`] keeps them; read where there are penalties.
    pub(super) seen: &'a [u16],
    /// A bit for each token that may come.
    pub(super) allowed: Option<&'a [u32]>,
}

/// Chooses a token.
pub(super) fn choose(row: &Row<'_>) -> Choice {
    let logits = adjusted(row);
    let possible = logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
    // The first of the largest.
    let best = possible.reduce(|best, other| if other.1 > best.1 { other } else { best });
    let Some((best, &max)) = best else {
        let first = (0..row.logits.len() as u32).find(|id| is_allowed(row.allowed, *id));
        return Choice { id: first.unwrap_or(0), drawn: false };
    };
    if !row.request.has(RANDOM) || max == f32::INFINITY {
        return Choice { id: best as u32, drawn: false };
    }
    Choice { id: draw(&row.request, &logits, max), drawn: true }
}

fn adjusted(row: &Row<'_>) -> Vec<f32> {
    let Request { repetition_penalty, presence_penalty, frequency_penalty, .. } = row.request;
    let mut logits = row.logits.to_vec();
    for (id, bias) in row.biases {
        if let Some(logit) = logits.get_mut(*id as usize) {
            *logit += bias;
        }
    }
    if row.request.has(PENALIZED) {
        for (logit, &seen) in logits.iter_mut().zip(row.seen).filter(|(_, seen)| **seen != 0) {
            *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            let times = seen & SEEN_TIMES;
            if times > 0 {
                *logit -= frequency_penalty * f32::from(times) + presence_penalty;
            }
        }
    }
    for (id, logit) in logits.iter_mut().enumerate() {
        if !is_allowed(row.allowed, id as u32) {
            *logit = f32::NEG_INFINITY;
        }
    }
    logits
}

fn is_allowed(allowed: Option<&[u32]>, id: u32) -> bool {
    allowed.is_none_or(|words| words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 != 0))
}

fn draw(request: &Request, logits: &[f32], max: f32) -> u32 {
    struct Candidate {
        id: usize,
        logit: f32,
        weight: u64,
    }
    let candidate = |(id, &logit): (usize, &f32)| Candidate {
        id,
        logit,
        weight: weight(logit, max, request.inverse_temperature),
    };
    let mut candidates: Vec<Candidate> =
        logits.iter().enumerate().map(candidate).filter(|candidate| candidate.weight > 0).collect();
    if request.cuts() {
        // Stable, so that equals stay in the order of ids. What weighs something is no NaN.
        candidates.sort_by(|a, b| b.logit.partial_cmp(&a.logit).unwrap_or(std::cmp::Ordering::Equal));
        if request.top_k > 0 {
            candidates.truncate(request.top_k as usize);
        }
        if request.top_p < CERTAIN {
            let total: u64 = candidates.iter().map(|candidate| candidate.weight).sum();
            let wanted = (u128::from(request.top_p) * u128::from(total)).div_ceil(u128::from(CERTAIN)).max(1);
            let mut sum = 0;
            let reached = candidates.iter().position(|candidate| {
                sum += u128::from(candidate.weight);
                sum >= wanted
            });
            candidates.truncate(reached.map_or(candidates.len(), |last| last + 1));
        }
        candidates.sort_by_key(|candidate| candidate.id);
    }
    candidates.retain(|candidate| candidate.weight >= request.min_p || candidate.logit == max);
    let total: u64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let target = u128::from(request.number) * u128::from(total) / u128::from(CERTAIN);
    let mut sum = 0;
    let drawn = candidates.iter().find(|candidate| {
        sum += u128::from(candidate.weight);
        sum > target
    });
    drawn.map_or(0, |candidate| candidate.id as u32)
}

/// `e^((logit - max) / temperature)` in units of 2⁻⁴⁰, rounded to nearest: between 0 and [`ONE`].
///
/// The argument is split into a multiple of ln 2 and the rest, whose exponential is Taylor's polynomial of degree 11:
/// its error is below 7e-15. Every operation is one that IEEE 754 rounds exactly, so that all devices agree.
pub(super) fn weight(logit: f32, max: f32, inverse_temperature: f64) -> u64 {
    if logit.is_nan() || logit == f32::NEG_INFINITY {
        return 0;
    }
    if logit == max {
        return ONE;
    }
    let x = (f64::from(logit) - f64::from(max)) * inverse_temperature;
    // Half of a unit is e^-28.4.
    if x.is_nan() || x <= -29.0 {
        return 0;
    }
    // Towards zero, which is upwards here.
    let k = x.mul_add(std::f64::consts::LOG2_E, -0.5) as i32;
    let rest = f64::from(k).mul_add(-0.693_147_180_369_123_8, x);
    let rest = f64::from(k).mul_add(-1.908_214_929_270_587_7e-10, rest);
    let mut e = 1.0 / 39_916_800.0;
    for factorial in [3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0] {
        e = rest.mul_add(e, 1.0 / factorial);
    }
    let mantissa = (e * (1u64 << 52) as f64) as u64;
    let shift = 12 - k;
    (mantissa + (1 << (shift - 1))) >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_exponentials() {
        for i in 0..300_000 {
            let logit = -(i as f32) * 1e-4 * (1.0 + i as f32 * 1e-9);
            let found = weight(logit, 0.0, 1.0) as f64;
            let expected = f64::from(logit).exp() * ONE as f64;
            // Half a unit for the rounding, and the polynomial's error.
            assert!((found - expected).abs() <= 0.5001 + expected * 1e-14, "{logit}: {found}, {expected}");
        }
        assert_eq!(weight(1e-30, 1e-30, 1e5), ONE);
        assert_eq!(weight(0.0, 1e-30, 1.0), ONE);
        assert_eq!(weight(-5.0, 1.0, 0.0), ONE);
        assert_eq!(weight(f32::INFINITY, f32::INFINITY, 1.0), ONE);
        for (logit, max) in
            [(f32::NAN, 0.0), (f32::NEG_INFINITY, 0.0), (-29.0, 0.0), (f32::MIN, f32::MAX), (1.0, f32::NAN)]
        {
            assert_eq!(weight(logit, max, 1.0), 0, "{logit}, {max}");
        }
        assert_eq!(weight(f32::NEG_INFINITY, 0.0, 0.0), 0);
    }

    #[test]
    fn more_likely_tokens_never_weigh_less() {
        let mut before = 0;
        for i in 0..2_000_000u32 {
            let logit = -f32::from_bits(0x41f0_0000 - i * 100);
            let weight = weight(logit, 0.0, 1.0);
            assert!(weight >= before, "{logit}");
            before = weight;
        }
    }
}
