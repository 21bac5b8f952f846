//! How much memory this process has needed, as the system counts it.

/// The largest resident set so far, in bytes, mapped weights included. `None` where the system does not tell.
pub(crate) fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    peak_in(&status)
}

/// The number in the line `VmHWM:   1234 kB` of Linux's process status.
fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_and_counted_in_bytes() {
        assert_eq!(peak_in("Name:\tocellus\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(peak_in("Name:\tocellus\n"), None);
        assert_eq!(peak_in("VmHWM:\t many kB\n"), None);
    }
}
