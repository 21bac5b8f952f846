//! Times of the same thing, measured many times over.

use std::time::Instant;

use ocellus_kernels::Device;
use serde_json::{Value, json};

/// The middle of some measurements, and how far they lie apart. Seconds, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of the measurements are below.
    pub median: f64,
    /// A tenth of them is below.
    pub p10: f64,
    /// A tenth of them is above.
    pub p90: f64,
    /// How many there are.
    pub n: usize,
}

impl Spread {
    /// The spread of `values`; all of it is zero when there are none.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| quantile(&values, share);
        Self { median: at(0.5), p10: at(0.1), p90: at(0.9), n: values.len() }
    }

    /// Each measurement turned into `amount` by the second. What was slow is low then, so the ends change places.
    pub fn rate(self, amount: f64) -> Self {
        let rate = |seconds: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        Self { median: rate(self.median), p10: rate(self.p90), p90: rate(self.p10), n: self.n }
    }

    /// Every number times `factor`.
    pub fn scaled(self, factor: f64) -> Self {
        Self { median: self.median * factor, p10: self.p10 * factor, p90: self.p90 * factor, n: self.n }
    }

    /// Median and both ends, for three columns of a table.
    pub fn cells(self) -> [Value; 3] {
        [json!(self.median), json!(self.p10), json!(self.p90)]
    }
}

/// The value below which `share` of the sorted `values` lie, with a straight line between neighbours.
fn quantile(values: &[f64], share: f64) -> f64 {
    let place = share * values.len().saturating_sub(1) as f64;
    let below = place.floor() as usize;
    match (values.get(below), values.get(below + 1)) {
        (Some(low), Some(high)) => low + (high - low) * (place - below as f64),
        (Some(only), None) => *only,
        _ => 0.0,
    }
}

/// The same for work that `device` does, which may go on when the call returns.
pub(crate) fn timed_on<T>(
    device: &Device,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(f64, T)> {
    timed(|| {
        let result = work()?;
        device.synchronize()?;
        Ok(result)
    })
}

/// The seconds that `work` takes, with what it gives.
pub(crate) fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let started = Instant::now();
    let result = work()?;
    Ok((started.elapsed().as_secs_f64(), result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let spread = Spread::of((0..=10).rev().map(f64::from).collect());
        assert_eq!((spread.p10, spread.median, spread.p90, spread.n), (1.0, 5.0, 9.0, 11));
        let two = Spread::of(vec![2.0, 1.0]);
        assert_eq!(two.median, 1.5);
        assert!((two.p10 - 1.1).abs() < 1e-12 && (two.p90 - 1.9).abs() < 1e-12);
        assert_eq!(Spread::of(vec![3.0]), Spread { median: 3.0, p10: 3.0, p90: 3.0, n: 1 });
        assert_eq!(Spread::of(Vec::new()).median, 0.0);
    }

    #[test]
    fn the_slowest_time_is_the_lowest_rate() {
        let rate = Spread { median: 2.0, p10: 1.0, p90: 4.0, n: 3 }.rate(8.0);
        assert_eq!((rate.median, rate.p10, rate.p90), (4.0, 2.0, 8.0));
        assert_eq!(Spread::of(Vec::new()).rate(1.0).median, 0.0);
    }
}
