//! Where tensors live. Only this crate matches on it.

use std::sync::Arc;

use crate::{
    Error, Result,
    cuda::{Driver, Failure, Gpu, Nvidia},
    peak,
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
    /// The device that a user names: `auto` (the best that works), `cpu`, `cuda` or `cuda:1` for NVIDIA's GPUs, or
    /// `metal` on Apple machines.
    ///
    /// # Errors
    /// [`Error::Device`] when it is unknown or can't be had; `auto` always finds one, and says why it is not a GPU.
    pub fn open(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::best()),
            "cpu" => Ok(Self::cpu()),
            "metal" => metal(),
            _ => match cuda_index(name) {
                Some(index) => Self::nvidia(index)
                    .map_err(|failure| Error::Device { name: name.to_owned(), reason: failure.to_string() }),
                None => Err(Error::Device {
                    name: name.to_owned(),
                    reason: "unknown; one of auto, cpu, cuda, cuda:1, metal".to_owned(),
                }),
            },
        }
    }

    /// Apple's GPU, or the processor. NVIDIA's are taken by name only, as long as no such GPU has run our kernels: an
    /// answer must not change with a driver's presence before the self-test has passed on one.
    fn best() -> Self {
        if let Ok(device) = metal() {
            return device;
        }
        match Nvidia::open(0) {
            Ok(_) => {
                tracing::warn!(
                    "computing on the processor: the NVIDIA GPU is used with --device cuda, which has not been verified \
                     on one yet (ocellus self-test --device cuda)"
                );
                Self::cpu()
            }
            // Most machines have no such GPU, which is no news to anybody.
            Err(reason @ Failure::NoDriver) => {
                tracing::info!("computing on the processor: {reason}");
                Self::cpu()
            }
            Err(reason) => {
                tracing::warn!("computing on the processor: {reason}");
                Self::cpu()
            }
        }
    }

    fn nvidia(index: usize) -> std::result::Result<Self, Failure> {
        Ok(Self::with_driver(Arc::new(Nvidia::open(index)?)))
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

    /// Whether computations that are the same at each call gain by being recorded, see [`crate::graph`].
    pub fn records(&self) -> bool {
        self.gpu().is_some()
    }

    /// Whether tokens are best chosen where their logits lie, by [`crate::sampling::Sampler`]: to read the logits back
    /// would take longer than to choose. Where the host has them at hand, a sampler there need not look at all of them.
    pub fn chooses_tokens(&self) -> bool {
        self.gpu().is_some()
    }

    /// Whether pictures are embedded faster together than one after another: on the host each is enough for all cores.
    pub fn gains_by_batches(&self) -> bool {
        self.gpu().is_some()
    }

    /// Bytes of the last cache before the memory that tensors lie in; `None` where nobody tells.
    pub fn cache_bytes(&self) -> Option<usize> {
        match self.gpu() {
            Some(gpu) => Some(gpu.driver().facts().cache_bytes as usize).filter(|&bytes| bytes > 0),
            None => peak::last_level_cache_bytes(),
        }
    }

    /// Bytes of the device's own memory that are free; `None` where tensors lie in the host's.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn free_memory(&self) -> Result<Option<usize>> {
        match self.gpu() {
            Some(gpu) => Ok(Some(gpu.driver().memory()?.free)),
            None => Ok(None),
        }
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

    /// Waits until everything that was asked for is done, which on the processor it is when a call returns.
    ///
    /// # Errors
    /// When something asked for earlier has failed.
    pub fn synchronize(&self) -> Result<()> {
        match self.gpu() {
            Some(gpu) => Ok(gpu.driver().synchronize()?),
            None => Ok(()),
        }
    }

    /// Whether tensors lie in the host's memory, where our own processor kernels can read them.
    pub fn is_host(&self) -> bool {
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

/// The number in `cuda` or `cuda:1`.
fn cuda_index(name: &str) -> Option<usize> {
    match name.strip_prefix("cuda")? {
        "" => Some(0),
        rest => rest.strip_prefix(':')?.parse().ok(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let table = [
            ("cuda", Some(0)),
            ("cuda:0", Some(0)),
            ("cuda:12", Some(12)),
            ("cuda:", None),
            ("cuda1", None),
            ("cuda:-1", None),
            ("gpu", None),
        ];
        for (name, expected) in table {
            assert_eq!(cuda_index(name), expected, "{name}");
        }
        let message = Device::open("gpu").unwrap_err().to_string();
        assert_eq!(message, "device \"gpu\": unknown; one of auto, cpu, cuda, cuda:1, metal");
    }

    #[test]
    fn there_is_always_a_best_device() {
        assert!(["cpu", "cuda", "metal"].contains(&Device::open("auto").unwrap().name()));
    }
}
