//! Files as memory. This is the only file outside of the kernels that may hold `unsafe`.
#![allow(unsafe_code)]

use std::{fs::File, io, ops::Range, sync::Arc};

use ocellus_kernels::{HostBytes, Release};

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
    let map = Arc::new(Map(unsafe { memmap2::Mmap::map(file)? }));
    Ok(HostBytes::new(map.clone()).with_release(map))
}

struct Map(memmap2::Mmap);

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Release for Map {
    #[cfg(unix)]
    fn release(&self, range: Range<usize>) {
        // Whole pages within the range; those at its edges hold neighbours.
        let start = range.start.next_multiple_of(PAGE);
        let end = range.end / PAGE * PAGE;
        if start < end && end <= self.0.len() {
            // SAFETY: the map is read-only and backed by a file, so dropped pages come back with the same bytes, by
            // the same contract that mapping rests on. A refusal only means that the memory is kept.
            let _ = unsafe {
                self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
            };
        }
    }

    #[cfg(not(unix))]
    fn release(&self, _: Range<usize>) {}
}

/// A multiple of every page size in use: of 4, 16 and 64 KiB.
const PAGE: usize = 64 << 10;
