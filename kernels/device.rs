//! Where tensors live. Only this crate matches on it.

use std::sync::Arc;

use crate::{
    Error, Result,
    cuda::{Driver, Gpu},
};

/// How exact the arithmetic between weights is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// All of it in f32.
    Exact,
    /// Factors of products in bf16, sums in f32.
    Bf16,
}

/// A place that holds tensors and computes on them.
#[derive(Clone, Debug)]
pub struct Device {
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// The processor, or Apple's GPU.
    Candle(candle_core::Device),
    /// One of NVIDIA's GPUs.
    Cuda(Arc<Gpu>),
}

impl Device {
    /// The device that a user names: `auto` (the best that works), `cpu`, or `metal` on Apple machines.
    ///
    /// # Errors
    /// [`Error::Device`] when it is unknown or can't be had; `auto` always finds one.
    pub fn open(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(metal().unwrap_or_else(|_| Self::cpu())),
            "cpu" => Ok(Self::cpu()),
            "metal" => metal(),
            _ => Err(Error::Device {
                name: name.to_owned(),
                reason: "unknown; one of auto, cpu, metal".to_owned(),
            }),
        }
    }

    /// The processor.
    pub fn cpu() -> Self {
        Self::from_candle(candle_core::Device::Cpu)
    }

    /// The CUDA device behind `driver`.
    pub fn with_driver(driver: Arc<dyn Driver>) -> Self {
        Self::from_gpu(Arc::new(Gpu::new(driver)))
    }

    /// The device whose memory is the host's: where weights are packed.
    pub fn host() -> Self {
        Self::cpu()
    }

    /// The name that [`Device::open`] takes.
    pub fn name(&self) -> &'static str {
        match self.place {
            Place::Candle(candle_core::Device::Cpu) => "cpu",
            Place::Candle(candle_core::Device::Cuda(_)) | Place::Cuda(_) => "cuda",
            Place::Candle(candle_core::Device::Metal(_)) => "metal",
        }
    }

    pub(crate) fn from_candle(candle: candle_core::Device) -> Self {
        Self { place: Place::Candle(candle) }
    }

    pub(crate) fn from_gpu(gpu: Arc<Gpu>) -> Self {
        Self { place: Place::Cuda(gpu) }
    }

    /// Whether tensors lie in the host's memory, where our own processor kernels can read them.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self.place, Place::Candle(candle_core::Device::Cpu))
    }

    /// The CUDA device, if it is one.
    pub(crate) fn gpu(&self) -> Option<&Arc<Gpu>> {
        match &self.place {
            Place::Cuda(gpu) => Some(gpu),
            Place::Candle(_) => None,
        }
    }

    /// Where candle computes the references of this device's operations.
    pub(crate) fn candle(&self) -> candle_core::Device {
        match &self.place {
            Place::Candle(device) => device.clone(),
            Place::Cuda(_) => candle_core::Device::Cpu,
        }
    }
}

/// Apple's GPU through candle's Metal backend. Unverified: it has never been run by us.
#[cfg(target_os = "macos")]
fn metal() -> Result<Device> {
    let candle = candle_core::Device::new_metal(0)
        .map_err(|e| Error::Device { name: "metal".to_owned(), reason: e.to_string() })?;
    Ok(Device::from_candle(candle))
}

#[cfg(not(target_os = "macos"))]
fn metal() -> Result<Device> {
    Err(Error::Device {
        name: "metal".to_owned(),
        reason: "this build is not for an Apple machine".to_owned(),
    })
}
