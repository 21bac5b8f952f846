//! Launches of kernels that compute element by element: eight neighbouring elements to a thread, see eights.cuh.

use super::{Argument, CudaTensor, Launch};
use crate::Result;

/// Threads of a block.
const THREADS: usize = 256;
/// Elements of a thread.
const EIGHT: usize = 8;

/// Starts `kernel`, whose arguments are the addresses of `tensors`, all of as many elements, then the number of elements
/// and whether all addresses are multiples of 16 bytes.
///
/// # Errors
/// When the device fails.
pub(crate) fn launch(kernel: &'static str, tensors: &[&CudaTensor]) -> Result<()> {
    let Some(first) = tensors.first() else { return Ok(()) };
    let aligned = tensors.iter().all(|tensor| tensor.is_aligned());
    let mut arguments: Vec<Argument> = tensors.iter().map(|tensor| Argument::from(*tensor)).collect();
    arguments.push(Argument::of(first.len() as u64));
    arguments.push(Argument::u32(aligned.into()));
    first.gpu().launch(kernel, geometry(first.len()), &arguments)
}

fn geometry(n: usize) -> Launch {
    // More blocks than fit are refused where they are launched.
    let blocks = u32::try_from(n.div_ceil(THREADS * EIGHT)).unwrap_or(u32::MAX);
    Launch { grid: [blocks, 1, 1], block: [THREADS as u32, 1, 1], shared_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_has_eight_elements() {
        for (n, blocks) in [(0, 0), (1, 1), (2048, 1), (2049, 2), (4096 * 3584, 7168)] {
            assert_eq!(geometry(n).grid, [blocks, 1, 1], "{n}");
        }
    }
}
