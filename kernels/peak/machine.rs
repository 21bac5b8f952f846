//! What the system says of the machine that is measured.

use std::fs;

/// The processor's name, as the system gives it.
pub fn processor_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The size of the largest cache, in bytes. `None` where the system does not tell.
pub fn last_level_cache_bytes() -> Option<usize> {
    let levels = (0..8).filter_map(|index| {
        fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size")).ok()
    });
    levels.filter_map(|size| parse_size(size.trim())).max()
}

/// `32768K` or `32M`, in bytes.
fn parse_size(size: &str) -> Option<usize> {
    let unit = match size.chars().last()? {
        'K' => 1 << 10,
        'M' => 1 << 20,
        _ => return size.parse().ok(),
    };
    size[..size.len() - 1].parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_caches_are_read_in_their_units() {
        for (text, expected) in
            [("32768K", Some(32 << 20)), ("2M", Some(2 << 20)), ("512", Some(512)), ("K", None), ("", None)]
        {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }
}
