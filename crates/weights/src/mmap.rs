//! Files as memory. This is the only file outside of the kernels that may hold `unsafe`.
#![allow(unsafe_code)]

use std::{fs::File, io, sync::Arc};

use ocellus_kernels::HostBytes;

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
    let map = unsafe { memmap2::Mmap::map(file)? };
    Ok(HostBytes::new(Arc::new(map)))
}
