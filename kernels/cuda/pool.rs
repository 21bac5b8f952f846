//! Memory of a device's activations. A buffer that is dropped waits for the next one of its size: the device does what it
//! is asked for in order, so whoever used it before is done before the next one begins. To ask the driver would make the
//! device wait.

use std::collections::BTreeMap;

/// The smallest buffer in bytes: what allocations are aligned to.
const LEAST: usize = 256;

/// Addresses that nobody uses, by the length of their buffers.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: BTreeMap<usize, Vec<u64>>,
    bytes: usize,
}

impl Pool {
    /// A waiting buffer of `class` bytes.
    pub(super) fn take(&mut self, class: usize) -> Option<u64> {
        let address = self.idle.get_mut(&class)?.pop()?;
        self.bytes -= class;
        Some(address)
    }

    /// Has a buffer of `class` bytes wait.
    pub(super) fn put(&mut self, class: usize, address: u64) {
        self.idle.entry(class).or_default().push(address);
        self.bytes += class;
    }

    /// Everything that waits, to be given back to the device.
    pub(super) fn drain(&mut self) -> Vec<u64> {
        self.bytes = 0;
        std::mem::take(&mut self.idle).into_values().flatten().collect()
    }

    /// How much waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// `bytes` rounded up to one of eight sizes between powers of two, so that neighbouring sizes share and little is wasted.
pub(super) fn size_class(bytes: usize) -> usize {
    let bytes = bytes.max(LEAST);
    let step = (bytes.checked_next_power_of_two().unwrap_or(0) / 16).max(LEAST);
    bytes.checked_next_multiple_of(step).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_little() {
        for bytes in [0, 1, 256, 257, 4096, 5000, 151_936 * 4, (1 << 30) + 1] {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(LEAST), "{bytes}");
            assert!(class <= (bytes + bytes / 8).max(2 * LEAST), "{bytes}");
            assert_eq!(size_class(class), class);
        }
        assert_eq!(size_class(usize::MAX), usize::MAX);
    }

    #[test]
    fn what_waits_is_used_again() {
        let mut pool = Pool::default();
        pool.put(512, 1);
        pool.put(256, 2);
        assert_eq!(
            (pool.bytes(), pool.take(1024), pool.take(512), pool.take(512)),
            (768, None, Some(1), None)
        );
        assert_eq!((pool.drain(), pool.bytes()), (vec![2], 0));
    }
}
