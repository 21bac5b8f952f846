//! Asking for memory before it is read, where the next address is no neighbour of the last and the processor does
//! not guess it.

/// Asks for the cache lines of `x`. Without effect where there is no such instruction.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn ask_for<T>(x: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(x)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint reads nothing and faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().cast::<i8>().wrapping_add(line)) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = x;
}
