//! A computation whose operations are the same at each call, such as a decode step: on a device that can, it is recorded
//! once and then replayed, which asks far less of the host than to start each operation anew.
//!
//! What changes from call to call must lie in memory that the operations read, an [`Input`] or a
//! [`crate::step::Bucket`], and be put there before the call: a recording holds on to its arguments.

use crate::{
    Device, Error, Result, Storage, Tensor,
    cuda::{CudaTensor, Recording},
    error::argument,
};

/// A computation that may have been recorded, with its result.
///
/// The result lies in the same memory after each call, so it is read or copied before the next one. What the computation
/// reads, weights and caches among them, must live as long as this.
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
        Self { state: if device.records() { State::Cold } else { State::Direct } }
    }

    /// Calls `compute`, or does again what it did. It may not read tensors back, nor put numbers on the device.
    ///
    /// # Errors
    /// As `compute`, and when the device fails.
    pub fn run<E: From<Error>>(
        &mut self,
        device: &Device,
        mut compute: impl FnMut() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let Some(gpu) = device.gpu() else { return compute() };
        match &self.state {
            State::Direct => return compute(),
            State::Cold => {
                let outcome = compute()?;
                self.state = State::Warm;
                return Ok(outcome);
            }
            State::Warm => match Recording::new(gpu, &mut compute) {
                Ok((recording, outcome)) => self.state = State::Recorded(recording, outcome),
                Err(_) => {
                    // What is wrong with the computation shows again.
                    let outcome = compute()?;
                    tracing::warn!("a computation can't be recorded and is started operation by operation");
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

/// A tensor in a place of its own, which recorded computations read at each replay.
#[derive(Debug)]
pub struct Input {
    tensor: Tensor,
}

impl Input {
    /// Zeros of f32.
    ///
    /// # Errors
    /// [`Error::Memory`] or [`Error::Cuda`] when the device has no room.
    pub fn zeros(shape: &[usize], device: &Device) -> Result<Self> {
        Ok(Self { tensor: Tensor::zeros(shape, device)? })
    }

    /// Replaces the first rows by those of `rows`; the others stay.
    ///
    /// # Errors
    /// [`Error::Argument`] when they don't fit, or lie on another device.
    pub fn set(&mut self, rows: &Tensor) -> Result<()> {
        let (to, from) = (self.tensor.shape(), rows.shape());
        if to.get(1..) != from.get(1..)
            || rows.dim(0) > self.tensor.dim(0)
            || rows.dtype() != self.tensor.dtype()
        {
            return Err(argument("graph", "rows", from, format!("rows of {to:?}")));
        }
        match (self.tensor.storage(), rows.storage()) {
            (Storage::Cuda(to), Storage::Cuda(from)) => to.overwrite(from),
            _ if rows.dim(0) == self.tensor.dim(0) => {
                self.tensor = rows.clone();
                Ok(())
            }
            _ => {
                let rest = self.tensor.narrow(0, rows.dim(0), self.tensor.dim(0) - rows.dim(0))?;
                self.tensor = crate::rows::concat(&[rows.clone(), rest])?;
                Ok(())
            }
        }
    }

    /// What it holds.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }
}

/// A copy of `x` in memory of its own, for a result that the next call writes over.
///
/// # Errors
/// When the device has no room.
pub fn copied(x: &Tensor) -> Result<Tensor> {
    match x.storage() {
        Storage::Cuda(x) => {
            let copy: CudaTensor = x.gpu().uninitialised(x.shape(), x.dtype())?;
            copy.overwrite(x)?;
            Ok(copy.into())
        }
        // Nobody writes over these.
        Storage::Host(_) | Storage::Candle(_) => Ok(x.clone()),
    }
}
