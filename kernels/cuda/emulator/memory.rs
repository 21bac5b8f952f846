//! The emulated device's memory: each buffer ends at a page that may not be touched, and begins with NaN throughout.

use std::{collections::BTreeMap, ptr};

use ocellus_kernels::cuda::{Failure, Memory};

/// What new memory is filled with: NaN as f32 and as bf16, and an index that is outside of everything.
const POISON: u8 = 0xFF;

/// All buffers by the address of their first byte.
#[derive(Debug)]
pub(crate) struct Heap {
    total: usize,
    used: usize,
    most_used: usize,
    buffers: BTreeMap<u64, Buffer>,
}

#[derive(Debug)]
struct Buffer {
    bytes: usize,
    /// The mapping, guard pages included.
    mapping: u64,
    mapped: usize,
}

impl Heap {
    pub(crate) fn new(total: usize) -> Self {
        Self { total, used: 0, most_used: 0, buffers: BTreeMap::new() }
    }

    pub(crate) fn memory(&self) -> Memory {
        Memory { free: self.total - self.used, total: self.total }
    }

    /// The most bytes that were in use at one time since the last call.
    pub(crate) fn take_most_used(&mut self) -> usize {
        std::mem::replace(&mut self.most_used, self.used)
    }

    pub(crate) fn allocate(&mut self, bytes: usize) -> Result<u64, Failure> {
        let no_room = Failure::OutOfMemory { bytes, free: self.total - self.used, total: self.total };
        if bytes > self.total - self.used {
            return Err(no_room);
        }
        let page = page_size();
        // A kernel may count on 16 bytes of alignment and on no more.
        let room = bytes.next_multiple_of(16).next_multiple_of(page);
        let mapped = room + 2 * page;
        // SAFETY: a new mapping, of which nobody else knows.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(no_room);
        }
        let inside = mapping as u64 + page as u64;
        if room > 0 {
            // SAFETY: the pages between the first and the last of the new mapping.
            unsafe {
                if libc::mprotect(inside as *mut _, room, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                    libc::munmap(mapping, mapped);
                    return Err(no_room);
                }
                ptr::write_bytes(inside as *mut u8, POISON, room);
            }
        }
        let address = inside + (room - bytes.next_multiple_of(16)) as u64;
        self.used += bytes;
        self.most_used = self.most_used.max(self.used);
        self.buffers.insert(address, Buffer { bytes, mapping: mapping as u64, mapped });
        Ok(address)
    }

    pub(crate) fn free(&mut self, address: u64) -> Result<(), Failure> {
        let Some(buffer) = self.buffers.remove(&address) else {
            return Err(failed("free", format!("no buffer begins at {address:#x}")));
        };
        self.used -= buffer.bytes;
        // What lies around the buffer in its pages must be as it was.
        let inside = buffer.mapping + page_size() as u64;
        let end = address + buffer.bytes as u64;
        let room_end = buffer.mapping + (buffer.mapped - page_size()) as u64;
        // SAFETY: all of these are pages of the mapping that may be read.
        let untouched = unsafe {
            [(inside, address), (end, room_end)].iter().all(|&(from, to)| {
                let bytes = std::slice::from_raw_parts(from as *const u8, (to - from) as usize);
                bytes.iter().all(|&byte| byte == POISON)
            })
        };
        // SAFETY: the mapping is this buffer's, and nobody uses it any more.
        unsafe { libc::munmap(buffer.mapping as *mut _, buffer.mapped) };
        if untouched {
            return Ok(());
        }
        Err(failed("free", format!("something was written around a buffer of {} bytes", buffer.bytes)))
    }

    /// An error unless `bytes` bytes from `address` on lie in one buffer.
    pub(crate) fn check(&self, call: &'static str, address: u64, bytes: usize) -> Result<(), Failure> {
        let inside = self
            .buffers
            .range(..=address)
            .next_back()
            .is_some_and(|(&first, buffer)| address + bytes as u64 <= first + buffer.bytes as u64);
        if inside {
            return Ok(());
        }
        Err(failed(call, format!("{bytes} bytes at {address:#x}{}", self.describe(address))))
    }

    /// Where `address` lies with regard to the nearest buffer.
    pub(crate) fn describe(&self, address: u64) -> String {
        let before = self.buffers.range(..=address).next_back();
        let after = self.buffers.range(address..).next();
        let past = before
            .map(|(&first, buffer)| (address.saturating_sub(first + buffer.bytes as u64), buffer.bytes));
        let ahead = after.map(|(&first, buffer)| (first - address, buffer.bytes));
        match (past, ahead) {
            (Some((distance, bytes)), other)
                if distance <= other.map_or(u64::MAX, |(n, _)| n) && distance < 1 << 24 =>
            {
                format!(", {distance} bytes past the end of a buffer of {bytes} bytes")
            }
            (_, Some((distance, bytes))) if distance < 1 << 24 => {
                format!(", {distance} bytes before a buffer of {bytes} bytes")
            }
            _ => format!(", at {address:#x}, far from any buffer"),
        }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        for buffer in self.buffers.values() {
            // SAFETY: the mapping is the buffer's; the device and so all users are gone.
            unsafe { libc::munmap(buffer.mapping as *mut _, buffer.mapped) };
        }
    }
}

fn failed(call: &'static str, code: String) -> Failure {
    Failure::Call { call, code }
}

fn page_size() -> usize {
    // SAFETY: it asks for a constant.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}
