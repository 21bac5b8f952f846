//! What can go wrong between the host and a CUDA device: each cause has its own variant, so that its message names
//! what to do about it.

/// Why a CUDA device could not be had, or did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// NVIDIA's driver library is not on this machine.
    #[error("NVIDIA's driver library (libcuda.so.1) was not found: is the driver installed?")]
    NoDriver,
    /// The driver's version is below the oldest that works.
    #[error(
        "the driver supports CUDA {found}, at least {needed} is needed: update NVIDIA's driver to 550 or newer"
    )]
    DriverTooOld {
        /// The CUDA version that the driver gives, such as `12.2`.
        found: String,
        /// The oldest CUDA version that works.
        needed: String,
    },
    /// There is a driver, and no device that it may use.
    #[error("the driver sees no CUDA device{0}")]
    NoDevice(String),
    /// There are devices, and not the one that was asked for.
    #[error("there is no CUDA device {index}, there are {count}")]
    NoSuchDevice {
        /// The number that was asked for, from 0 on.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The device can't do what the kernels need.
    #[error("{name} has compute capability {major}.{minor}, at least 8.0 (Ampere) is needed")]
    DeviceTooOld {
        /// What the device calls itself.
        name: String,
        /// The generation.
        major: u32,
        /// The variant of the generation.
        minor: u32,
    },
    /// Another process holds the device for itself.
    #[error("the CUDA device is held by another process (it is in an exclusive or prohibited compute mode)")]
    Busy,
    /// The device has no room.
    #[error("{bytes} bytes do not fit in the CUDA device's memory: {free} of {total} bytes are free")]
    OutOfMemory {
        /// How much was asked for.
        bytes: usize,
        /// What is free.
        free: usize,
        /// What the device has.
        total: usize,
    },
    /// No kernel has this name.
    #[error("there is no CUDA kernel called {0}")]
    NoKernel(String),
    /// The driver did not take a kernel's code.
    #[error("the driver could not load the CUDA module {module}: {log}")]
    Module {
        /// The module, as its source file is called.
        module: String,
        /// What the driver's compiler says.
        log: String,
    },
    /// A launch that the device can't do.
    #[error("CUDA kernel {kernel}: {reason}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// What is wrong.
        reason: String,
    },
    /// A copy that reaches outside of a buffer.
    #[error("CUDA copy of {bytes} bytes at {start} of a buffer of {length}")]
    Range {
        /// Where the copy begins.
        start: usize,
        /// How much is copied.
        bytes: usize,
        /// What there is.
        length: usize,
    },
    /// Another call of the driver failed.
    #[error("{call} failed: {code}")]
    Call {
        /// The call.
        call: &'static str,
        /// What the driver says.
        code: String,
    },
}
