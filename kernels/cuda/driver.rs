//! What the rest of this crate needs of a CUDA driver, as a trait: NVIDIA's own implements it on a machine with a GPU,
//! and an emulator on every other, so that all that lies above is the same code in both.

use std::fmt;

use super::Failure;

/// A CUDA device and its driver. Everything is ordered as it is asked for, on one stream of computation, unless a
/// method says otherwise.
#[allow(unsafe_code)]
pub trait Driver: fmt::Debug + Send + Sync {
    /// What the device is and what it can hold.
    fn facts(&self) -> &Facts;

    /// What is free and what there is, in bytes.
    ///
    /// # Errors
    /// [`Failure::Call`] when the device is lost.
    fn memory(&self) -> Result<Memory, Failure>;

    /// The address of `bytes` new bytes, aligned to 256 (to 16 where [`Facts::exact_allocations`]). Their values are
    /// arbitrary.
    ///
    /// # Errors
    /// [`Failure::OutOfMemory`].
    fn allocate(&self, bytes: usize) -> Result<u64, Failure>;

    /// Gives memory back once everything that was asked for before is done.
    ///
    /// # Errors
    /// [`Failure::Call`] when something asked for earlier has failed.
    ///
    /// # Safety
    /// `address` is from [`Driver::allocate`], and nobody uses it after this.
    unsafe fn free(&self, address: u64) -> Result<(), Failure>;

    /// Copies from the host; `from` may be changed as soon as this returns.
    ///
    /// # Errors
    /// [`Failure::Call`] when something asked for earlier has failed.
    ///
    /// # Safety
    /// `to` begins as many bytes of allocated memory.
    unsafe fn upload(&self, from: &[u8], to: u64) -> Result<(), Failure>;

    /// Copies `bytes` bytes to the device that `fill(start, piece)` writes: pieces come in order, each a whole multiple of
    /// `unit` bytes but for the last. While one is written, the device may fetch the one before.
    ///
    /// # Errors
    /// [`Failure::Call`] when something asked for earlier has failed.
    ///
    /// # Safety
    /// `to` begins as many bytes of allocated memory.
    unsafe fn upload_with(
        &self,
        to: u64,
        bytes: usize,
        unit: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), Failure>;

    /// Copies to the host, when everything asked for before is done.
    ///
    /// # Errors
    /// [`Failure::Call`] when something asked for earlier has failed.
    ///
    /// # Safety
    /// `from` begins as many bytes of allocated memory.
    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<(), Failure>;

    /// Copies within the device.
    ///
    /// # Errors
    /// [`Failure::Call`] when something asked for earlier has failed.
    ///
    /// # Safety
    /// Both addresses begin `bytes` bytes of allocated memory, which do not overlap.
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), Failure>;

    /// Sets each byte to `value`.
    ///
    /// # Errors
    /// [`Failure::Call`] when something asked for earlier has failed.
    ///
    /// # Safety
    /// `to` begins `bytes` bytes of allocated memory.
    unsafe fn fill(&self, to: u64, value: u8, bytes: usize) -> Result<(), Failure>;

    /// The kernel called `name`, loaded.
    ///
    /// # Errors
    /// [`Failure::NoKernel`], or [`Failure::Module`] when the driver does not take its code.
    fn function(&self, name: &str) -> Result<Function, Failure>;

    /// Starts a kernel.
    ///
    /// # Errors
    /// [`Failure::Launch`], or [`Failure::Call`] when something asked for earlier has failed.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and it reads and writes allocated memory only.
    unsafe fn launch(
        &self,
        function: &Function,
        launch: Launch,
        arguments: &[Argument],
    ) -> Result<(), Failure>;

    /// What Hopper's hardware is told to copy tiles of a matrix by.
    ///
    /// # Errors
    /// [`Failure::Call`] where the device or its driver has no such copies, or not of this matrix.
    fn tile_map(&self, tiles: Tiles) -> Result<TileMap, Failure> {
        Err(Failure::Call {
            call: "tile_map",
            code: format!("this driver has no copies of tiles: {tiles:?}"),
        })
    }

    /// Waits until everything asked for is done.
    ///
    /// # Errors
    /// [`Failure::Call`] when something asked for earlier has failed.
    fn synchronize(&self) -> Result<(), Failure>;

    /// Whether to wait for each kernel, so that an error names the one that made it. Slow, for tests.
    fn check_launches(&self, on: bool);

    /// From here to [`Driver::end_recording`], launches, copies and fills on the device are not done but recorded.
    ///
    /// # Errors
    /// [`Failure::Call`] when a recording is under way.
    fn begin_recording(&self) -> Result<(), Failure>;

    /// Ends the recording that was begun, and gives its handle.
    ///
    /// # Errors
    /// [`Failure::Call`] when none was begun, or something in it can't be recorded.
    fn end_recording(&self) -> Result<u64, Failure>;

    /// Does everything that was recorded, with the same arguments.
    ///
    /// # Errors
    /// As the calls that were recorded.
    ///
    /// # Safety
    /// `recording` is from [`Driver::end_recording`], and all memory that it uses is still allocated.
    unsafe fn replay(&self, recording: u64) -> Result<(), Failure>;

    /// Gives a recording back.
    ///
    /// # Errors
    /// [`Failure::Call`] when something asked for earlier has failed.
    ///
    /// # Safety
    /// `recording` is from [`Driver::end_recording`], and nobody uses it after this.
    unsafe fn forget(&self, recording: u64) -> Result<(), Failure>;
}

/// What a device is and what it can hold.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What it calls itself.
    pub name: String,
    /// Its place among the devices, from 0 on.
    pub index: usize,
    /// Compute capability: 8.0 is Ampere, 9.0 Hopper.
    pub capability: (u32, u32),
    /// The CUDA version that its driver gives: `(12, 4)`.
    pub driver: (u32, u32),
    /// How many multiprocessors it has.
    pub multiprocessors: u32,
    /// The most shared memory that one block may have, in bytes.
    pub shared_bytes_per_block: u32,
    /// The most shared memory that the blocks of one multiprocessor may have together, in bytes.
    pub shared_bytes_per_multiprocessor: u32,
    /// The second-level cache, in bytes.
    pub cache_bytes: u32,
    /// Whether each buffer gets an allocation of its own and exact length, so that what reaches outside of it is
    /// found. Otherwise memory is taken in size classes and used again.
    pub exact_allocations: bool,
}

/// Free and total memory of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What nobody has.
    pub free: usize,
    /// What there is.
    pub total: usize,
}

/// A loaded kernel: its name, and what its driver knows it by.
#[derive(Clone, Debug)]
pub struct Function {
    /// The kernel.
    pub name: String,
    /// The driver's handle.
    pub handle: u64,
}

/// A matrix of bf16 in the device's memory and how it is cut into tiles, which are 64 columns wide and lie in shared
/// memory with the swizzle of 128 bytes. What a tile has outside of the matrix becomes zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// A multiple of 16.
    pub address: u64,
    /// Rows of the matrix.
    pub rows: u32,
    /// Columns of the matrix, and of its rows in memory: a multiple of 8.
    pub columns: u32,
    /// Rows of a tile, up to 256.
    pub tile_rows: u32,
}

impl Tiles {
    /// Columns of a tile.
    pub const COLUMNS: u32 = 64;
}

/// A driver's own form of [`Tiles`], which a kernel takes by value.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct TileMap(pub [u64; 16]);

// SAFETY: it is sixteen integers of 8 bytes, which 128 bytes hold without gaps.
#[allow(unsafe_code)]
unsafe impl bytemuck::NoUninit for TileMap {}

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z; a multiple of 32 in all.
    pub block: [u32; 3],
    /// Dynamic shared memory of each block, in bytes.
    pub shared_bytes: u32,
}

/// One argument of a kernel, as it lies in memory.
#[derive(Clone, Copy)]
pub struct Argument {
    words: [u64; Self::WORDS],
    size: usize,
}

impl Argument {
    const WORDS: usize = 16;

    /// A 32-bit unsigned integer.
    pub fn u32(value: u32) -> Self {
        Self::of(value)
    }

    /// A 32-bit signed integer.
    pub fn i32(value: i32) -> Self {
        Self::of(value)
    }

    /// A 32-bit floating point number.
    pub fn f32(value: f32) -> Self {
        Self::of(value)
    }

    /// An address in the device's memory.
    pub fn address(value: u64) -> Self {
        Self::of(value)
    }

    /// The pointer to nothing.
    pub fn null() -> Self {
        Self::of(0u64)
    }

    /// A `#[repr(C)]` structure of at most 128 bytes that the kernel takes by value; its layout is the same in C.
    pub fn of<T: bytemuck::NoUninit>(value: T) -> Self {
        const { assert!(size_of::<T>() <= 8 * Self::WORDS, "an argument is larger than 128 bytes") };
        let mut words = [0; Self::WORDS];
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..size_of::<T>()]
            .copy_from_slice(bytemuck::bytes_of(&value));
        Self { words, size: size_of::<T>() }
    }

    /// Its bytes, aligned to 8.
    pub fn as_bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.size]
    }
}

impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.as_bytes())
    }
}
