//! Files as memory. This is the only file outside of the kernels that may hold `unsafe`.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::{fs::File, io, ops::Range, sync::Arc};

use ocellus_kernels::{Backing, HostBytes};

/// The whole content of `file`, mapped read-only: pages are read when they are first touched, shared with
/// other processes, and given back by the system under pressure.
///
/// **Contract with the user, who owns the file:** while anything of the checkpoint is in use, the file must
/// not be written to or truncated. Truncation would make the next read of a lost page kill the process with
/// a bus error; a write would change weights in the middle of an answer. Replacing the file by renaming
/// another one over it is safe, as is deleting it.
pub(crate) fn map(file: &File) -> io::Result<HostBytes> {
    // SAFETY: the map is read-only and private to this process, and it stays alive as long as any slice of
    // it, because `HostBytes` owns it. That the file is neither truncated nor written to while mapped is the
    // contract above: no operating system lets a program enforce it, so it is documented for the user.
    let bytes = unsafe { memmap2::Mmap::map(file)? };
    let map = Arc::new(Map { bytes, file: file.try_clone()? });
    Ok(HostBytes::new(map.clone()).with_backing(map))
}

struct Map {
    bytes: memmap2::Mmap,
    /// Copying out of the file spares a fault for each page of what is read once.
    file: File,
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Backing for Map {
    #[cfg(unix)]
    fn release(&self, range: Range<usize>) {
        // Whole pages within the range; those at its edges hold neighbours.
        let start = range.start.next_multiple_of(PAGE);
        let end = range.end / PAGE * PAGE;
        if start < end && end <= self.bytes.len() {
            // SAFETY: the map is read-only and backed by a file, so dropped pages come back with the same bytes, by
            // the same contract that mapping rests on. A refusal only means that the memory is kept.
            let _ = unsafe {
                self.bytes.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
            };
        }
    }

    #[cfg(not(unix))]
    fn release(&self, _: Range<usize>) {}

    #[cfg(unix)]
    fn read(&self, start: usize, to: &mut [u8]) -> bool {
        use std::os::unix::fs::FileExt;
        self.file.read_exact_at(to, start as u64).is_ok()
    }

    #[cfg(not(unix))]
    fn read(&self, _: usize, _: &mut [u8]) -> bool {
        false
    }

    #[cfg(target_os = "linux")]
    fn in_memory(&self, range: Range<usize>) -> bool {
        // A read that would have to wait for the disk is refused; so is any on file systems that can't tell.
        range.step_by(PROBE).all(|place| {
            let mut byte = 0u8;
            let buffer = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
            // SAFETY: there is one buffer, of one byte, and the file is open.
            let read = unsafe {
                libc::preadv2(
                    self.file.as_raw_fd(),
                    &raw const buffer,
                    1,
                    place as libc::off_t,
                    libc::RWF_NOWAIT,
                )
            };
            read == 1
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn in_memory(&self, _: Range<usize>) -> bool {
        false
    }
}

/// One byte of so many is looked for when asking whether a file lies in memory.
#[cfg(target_os = "linux")]
const PROBE: usize = 1 << 20;

/// A multiple of every page size in use: of 4, 16 and 64 KiB.
const PAGE: usize = 64 << 10;
