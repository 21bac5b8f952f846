//! A computation whose operations are the same at each call, such as a decode step: on a device that can, it is recorded
//! once and then replayed, which asks far less of the host than to start each operation anew.
//!
//! What changes from call to call must lie in memory that the operations read, and be put there before the call: a
//! recording holds on to its arguments.

use crate::{Device, Error, cuda::Recording};

/// A computation that may have been recorded, with its result.
///
/// The result lies in the same memory after each call, so it is read before the next one. What the computation reads,
/// weights and caches among them, must live as long as this.
#[derive(Debug)]
pub struct Graph<T> {
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    /// On the host, or where recording has failed: computed anew each time.
    Direct,
    /// Not yet computed: the first time loads kernels and finds memory, which can't be recorded.
    Cold,
    /// Computed once.
    Warm,
    Recorded(Recording, T),
}

impl<T: Clone> Graph<T> {
    /// A computation on `device` that has not been called yet.
    pub fn new(device: &Device) -> Self {
        Self { state: if device.gpu().is_some() { State::Cold } else { State::Direct } }
    }

    /// Calls `compute`, or does again what it did. It may not read tensors back, nor put numbers on the device.
    ///
    /// # Errors
    /// As `compute`, and when the device fails.
    pub fn run<E: From<Error>>(
        &mut self,
        device: &Device,
        compute: impl Fn() -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(gpu) = device.gpu() else { return compute() };
        match &self.state {
            State::Direct => return compute(),
            State::Cold => {
                let outcome = compute()?;
                self.state = State::Warm;
                return Ok(outcome);
            }
            State::Warm => match Recording::new(gpu, &compute) {
                Ok((recording, outcome)) => self.state = State::Recorded(recording, outcome),
                Err(_) => {
                    // What is wrong with the computation shows again.
                    let outcome = compute()?;
                    tracing::warn!("a decode step can't be recorded and is started operation by operation");
                    self.state = State::Direct;
                    return Ok(outcome);
                }
            },
            State::Recorded(..) => {}
        }
        let State::Recorded(recording, outcome) = &self.state else { return compute() };
        recording.replay()?;
        Ok(outcome.clone())
    }

    /// Whether it is replayed from now on.
    pub fn is_recorded(&self) -> bool {
        matches!(self.state, State::Recorded(..))
    }
}
