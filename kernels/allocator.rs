//! The system's allocator, told to give back what was freed.

/// Makes the GNU allocator give freed memory back to the system, for programs that run for weeks: by default it keeps
/// what each thread has freed, and a server's memory grew sixfold under a storm of requests that left nothing behind.
/// To be called first thing, before other threads run; elsewhere than on Linux it does nothing.
pub fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Threads share one arena; what computes keeps its own buffers and does not allocate.
        const ARENAS: i32 = 1;
        /// Free memory at the end of the arena from which it goes back, in bytes.
        const TRIM: i32 = 64 << 10;
        /// Pieces from this size on are mapped on their own, in bytes; they go back as soon as they are freed.
        const MAPPED: i32 = 1 << 20;
        let settings =
            [(libc::M_ARENA_MAX, ARENAS), (libc::M_TRIM_THRESHOLD, TRIM), (libc::M_MMAP_THRESHOLD, MAPPED)];
        for (setting, value) in settings {
            #[allow(unsafe_code)]
            // SAFETY: `mallopt` takes two numbers; one that it does not know or like changes nothing.
            unsafe {
                libc::mallopt(setting, value);
            }
        }
    }
}
