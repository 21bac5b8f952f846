//! Every operation of a device against the processor's reference, on fresh random inputs over sizes that hurt: the test
//! that a user's own machine can run.
//!
//! **How it is strict.** Inputs come of a seed that is another one each time. What the device computes lies in memory
//! that was filled with NaN before, ends in front of a guard whose bytes are looked at afterwards, and every call's status
//! is checked. A difference is held against a tolerance that its operation explains; NaN is never within one. Whatever
//! fails is told, and the rest still runs.
//!
//! An operation that has no kernel on the device is computed by the reference itself and agrees; [`Outcome::kernels`]
//! tells how many launches there were.

mod attention;
mod choice;
mod elements;
mod guard;
mod products;

use std::{
    fmt::Display,
    sync::{Arc, atomic::Ordering},
};

use crate::{DType, Device, Result, Tensor};
use guard::Guard;

/// Which numbers are drawn, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The same seed gives the same inputs.
    pub seed: u64,
    /// How often each case is repeated, with other numbers each time.
    pub rounds: usize,
    /// Leaves out the cases that compute much, for devices that are only emulated.
    pub short: bool,
}

/// Multiplications, or numbers moved, of the largest cases that a short test has: what an emulated device computes in a
/// moment.
const SHORT_WORK: usize = 500_000;
/// How many times more the processor itself computes in that time.
const HOST_IS_FASTER: usize = 32;

/// What came of one operation's cases.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The operation.
    pub operation: &'static str,
    /// How many cases there were.
    pub cases: usize,
    /// How many numbers were compared.
    pub numbers: usize,
    /// How many kernels were launched; `None` where that is not counted.
    pub kernels: Option<usize>,
    /// The largest difference as a part of what its tolerance allows, with the case that had it.
    pub worst: Option<Worst>,
    /// How much may differ and why.
    pub tolerance: &'static str,
    /// What does not hold, a sentence each.
    pub faults: Vec<String>,
}

/// The difference that came closest to its tolerance.
#[derive(Clone, Debug, PartialEq)]
pub struct Worst {
    /// The difference.
    pub difference: f32,
    /// What the tolerance allows there.
    pub allowed: f32,
    /// Where it was.
    pub case: String,
}

/// The device with every operation on memory that is filled with NaN and guarded, for a whole model: slower, and what is
/// computed is the same. Devices other than CUDA's stay as they are.
pub fn guarded(device: &Device) -> Device {
    match device.gpu() {
        Some(gpu) => Device::with_driver(Arc::new(Guard::new(gpu.shared_driver()))),
        None => device.clone(),
    }
}

/// Tests all operations of `device`, and tells `done` of each as soon as it is known.
///
/// # Errors
/// When the processor's side fails, which says nothing of the device. What the device does wrong is in the outcomes.
pub fn run(device: &Device, options: Options, done: &mut dyn FnMut(&Outcome)) -> Result<Vec<Outcome>> {
    run_some(device, options, &|_| true, done)
}

/// The same for the operations whose names `wanted` says yes to.
///
/// # Errors
/// As [`run`].
pub fn run_some(
    device: &Device,
    options: Options,
    wanted: &dyn Fn(&str) -> bool,
    done: &mut dyn FnMut(&Outcome),
) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let operations: &[(&'static str, &'static str, Cases)] = &[
        ("conversion", "exact: rounding to nearest even", elements::conversion),
        ("rms_norm", elements::ROUNDED_ALONE, elements::rms_norm),
        ("add", "exact: one rounding to f32 on both sides", elements::add),
        ("gelu", elements::GELU_WHY, elements::gelu),
        ("silu_mul", elements::SILU_WHY, elements::silu_mul),
        ("rows", "exact: rows are only moved", elements::rows),
        ("embedding", "exact: rows are only widened", elements::embedding),
        ("linear bf16", products::WHY, products::bf16),
        ("linear int8", products::QUANTIZED_WHY, products::int8),
        ("linear int4", products::QUANTIZED_WHY, products::int4),
        ("linear swiglu", products::SWIGLU_WHY, products::swiglu),
        ("linear company", "exact: a token's sums are made in one order", products::company),
        ("attention varlen", attention::WHY, attention::varlen),
        ("attention causal", attention::WHY, attention::causal),
        ("top_k", "exact: the same entries in the same order", choice::top_k),
        ("sampling", "exact: weights are integers, so the same token", choice::sampling),
    ];
    for (index, &(operation, tolerance, cases)) in operations.iter().enumerate() {
        if !wanted(operation) {
            continue;
        }
        let outcome = test(device, options, (index as u64, operation, tolerance), cases)?;
        done(&outcome);
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// Runs all cases of one operation.
type Cases = fn(&mut Bench) -> Result<()>;

fn test(
    device: &Device,
    options: Options,
    (index, operation, tolerance): (u64, &'static str, &'static str),
    cases: Cases,
) -> Result<Outcome> {
    let guard = device.gpu().map(|gpu| Arc::new(Guard::new(gpu.shared_driver())));
    let on_device = guard.clone().map_or_else(|| device.clone(), |guard| Device::with_driver(guard));
    let mut bench = Bench {
        device: on_device,
        host: Device::host(),
        short: options.short,
        numbers: Numbers::new(options.seed.wrapping_mul(0x0100_0000_01B3).wrapping_add(index)),
        outcome: Outcome {
            operation,
            cases: 0,
            numbers: 0,
            kernels: None,
            worst: None,
            tolerance,
            faults: Vec::new(),
        },
    };
    for _ in 0..options.rounds {
        cases(&mut bench)?;
    }
    if let Err(error) = bench.device.synchronize() {
        bench.fault("at the end", error);
    }
    let Bench { device: last, mut outcome, .. } = bench;
    // What the device still keeps is given back here, and with it the last guards are looked at.
    drop(last);
    if let Some(guard) = guard {
        outcome.kernels = Some(guard.launches.load(Ordering::Relaxed));
        outcome.faults.extend(guard.faults());
    }
    Ok(outcome)
}

/// How far a found number may be from the expected one: `absolute + relative * |expected|`.
#[derive(Clone, Copy, Debug)]
struct Tolerance {
    absolute: f32,
    relative: f32,
}

impl Tolerance {
    const EXACT: Self = Self { absolute: 0.0, relative: 0.0 };
}

/// Half a unit in the last place of bf16 is 2⁻⁸ of a number at most, and a hair for what comes before the rounding.
const BF16: f32 = 1.0 / 250.0;

/// Where the cases of one operation put what they find.
struct Bench {
    /// What is tested.
    device: Device,
    /// Where the reference computes.
    host: Device,
    short: bool,
    numbers: Numbers,
    outcome: Outcome,
}

/// A tensor on the host and the same numbers on the device.
struct Pair {
    host: Tensor,
    device: Tensor,
}

impl Bench {
    /// Whether a case of so many multiplications, or numbers moved, is to be run.
    fn has_time(&self, work: usize) -> bool {
        let most = if self.is_narrow() { SHORT_WORK } else { HOST_IS_FASTER * SHORT_WORK };
        !self.short || work <= most
    }

    /// Numbers in `[-1, 1)` times `scale`, in f32.
    fn pair(&mut self, shape: &[usize], scale: f32) -> Result<Pair> {
        let values = self.values(shape, scale);
        self.put(values, shape)
    }

    /// Numbers that bf16 holds exactly: f32 on the host, and what activations are on the device.
    fn activations(&mut self, shape: &[usize], scale: f32) -> Result<Pair> {
        let values =
            self.values(shape, scale).into_iter().map(|x| half::bf16::from_f32(x).to_f32()).collect();
        let Pair { host, device } = self.put(values, shape)?;
        let device = if self.is_narrow() { device.to_dtype(DType::BF16)? } else { device };
        Ok(Pair { host, device })
    }

    fn put(&self, values: Vec<f32>, shape: &[usize]) -> Result<Pair> {
        Ok(Pair {
            device: Tensor::from_f32(values.clone(), shape, &self.device)?,
            host: Tensor::from_f32(values, shape, &self.host)?,
        })
    }

    fn values(&mut self, shape: &[usize], scale: f32) -> Vec<f32> {
        (0..shape.iter().product()).map(|_| self.numbers.signed() * scale).collect()
    }

    /// Whether activations on the device are bf16.
    fn is_narrow(&self) -> bool {
        self.device.gpu().is_some()
    }

    /// Where results are rounded to bf16, what that may change, and `before` alone elsewhere.
    fn rounded(&self, before: Tolerance) -> Tolerance {
        let relative = if self.is_narrow() { BF16 } else { 0.0 };
        Tolerance { relative: before.relative + relative, ..before }
    }

    /// Holds what the device found against what is expected.
    fn compare(
        &mut self,
        case: impl Display,
        found: Result<Tensor>,
        expected: &Tensor,
        tolerance: Tolerance,
    ) -> Result<()> {
        self.outcome.cases += 1;
        let expected_values = expected.to_f32_vec()?;
        let found = found.and_then(|found| Ok((found.shape().to_vec(), found.to_f32_vec()?)));
        let (shape, found) = match found {
            Ok(found) => found,
            Err(error) => {
                self.fault(case, error);
                return Ok(());
            }
        };
        if shape != expected.shape() {
            self.fault(case, format_args!("the shape is {shape:?}, expected {:?}", expected.shape()));
            return Ok(());
        }
        self.outcome.numbers += found.len();
        let mut told = false;
        for (i, (&found, &expected)) in found.iter().zip(&expected_values).enumerate() {
            let difference = (found - expected).abs();
            let allowed = tolerance.absolute + tolerance.relative * expected.abs();
            // NaN is within nothing.
            if (difference.is_nan() || difference > allowed) && !told {
                told = true;
                let message =
                    format!("element {i} of {shape:?} is {found}, expected {expected} within {allowed:e}");
                self.fault(&case, message);
            }
            self.worst(&case, difference, allowed);
        }
        Ok(())
    }

    /// Holds lists against each other that must be equal.
    fn equal<T: PartialEq + std::fmt::Debug>(
        &mut self,
        case: impl Display,
        found: Result<Vec<T>>,
        expected: &[T],
    ) {
        self.outcome.cases += 1;
        self.outcome.numbers += expected.len();
        match found {
            Ok(found) if found == expected => {}
            Ok(found) => {
                let first = found.iter().zip(expected).position(|(a, b)| a != b);
                let first = first.unwrap_or_else(|| found.len().min(expected.len()));
                let (found, expected) = (found.get(first), expected.get(first));
                self.fault(case, format_args!("entry {first} is {found:?}, expected {expected:?}"));
            }
            Err(error) => self.fault(case, error),
        }
    }

    fn worst(&mut self, case: &impl Display, difference: f32, allowed: f32) {
        let share = |difference: f32, allowed: f32| match (difference, allowed) {
            (difference, _) if difference.is_nan() => f32::INFINITY,
            (0.0, _) => 0.0,
            (difference, 0.0) => difference * f32::MAX,
            (difference, allowed) => difference / allowed,
        };
        let is_worse = match &self.outcome.worst {
            None => true,
            Some(worst) => share(difference, allowed) > share(worst.difference, worst.allowed),
        };
        if is_worse {
            self.outcome.worst = Some(Worst { difference, allowed, case: case.to_string() });
        }
    }

    fn fault(&mut self, case: impl Display, fault: impl Display) {
        // A broken kernel fails everywhere; the first few cases tell as much as all.
        const MOST: usize = 8;
        if self.outcome.faults.len() < MOST {
            self.outcome.faults.push(format!("{}, {case}: {fault}", self.outcome.operation));
        }
    }
}

/// Random numbers that a seed decides (splitmix64).
struct Numbers {
    state: u64,
}

impl Numbers {
    fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In `[-1, 1)`.
    fn signed(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        (self.bits() % n.max(1) as u64) as usize
    }

    /// `0 .. n` in disorder.
    fn shuffled(&mut self, n: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            all.swap(i, self.below(i + 1));
        }
        all
    }
}

#[cfg(test)]
mod tests;
