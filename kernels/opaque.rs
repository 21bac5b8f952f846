//! A pointer that the compiler knows nothing about. With more values than registers, it would otherwise keep what it
//! has read once, or read it long before its use, and spill sums out of registers instead: in an inner loop, reading
//! again from the first-level cache is cheaper.

#![allow(unsafe_code)]

/// The same pointer.
#[inline(always)]
pub(crate) fn opaque<T>(pointer: *const T) -> *const T {
    let mut pointer = pointer;
    // Nothing is said of memory, so that reads from before don't move behind this, nor those behind it before.
    // SAFETY: no instruction is executed, and the pointer comes out as it went in.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) pointer, options(nostack, preserves_flags));
    }
    pointer
}
