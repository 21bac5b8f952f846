//! NVIDIA's GPUs: memory, launches, and the tensors that lie there.
//!
//! Nothing here needs a toolkit, neither to build nor to run. Kernels are `.cu` files beside their operation that share
//! `device.cuh`; their PTX is made by `scripts/make-ptx`, lies in `ptx/` and is part of the binary; the machine's driver
//! compiles it for the device at hand. All of this crate's own code talks to [`Driver`], which the emulator in
//! `emulator/` implements as well: it compiles the very same `.cu` files for the processor.
//!
//! Everything that an operation asks for runs on one stream, in the order in which it was asked for. Memory that is
//! dropped may therefore be used again at once.

mod buffer;
mod driver;
pub(crate) mod elements;
mod failure;
mod gpu;
mod modules;
mod nvidia;
mod pool;
mod ptx;
mod recording;
mod tensor;

pub(crate) use buffer::DeviceBuffer;
pub use driver::{Argument, Driver, Facts, Function, Launch, Memory, TileMap, Tiles};
pub use failure::Failure;
pub(crate) use gpu::{Gpu, fall_back};
use modules::Module;
pub(crate) use nvidia::Nvidia;
pub(crate) use recording::Recording;
pub(crate) use tensor::CudaTensor;
