//! How much memory this process has needed, and how much more there is for it, as the system counts it.

use std::{fs, path::Path};

/// The largest resident set so far, in bytes, mapped weights included. `None` where the system does not tell.
pub(crate) fn peak_resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    peak_in(&status)
}

/// The number in the line `VmHWM:   1234 kB` of Linux's process status.
fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Bytes that this process can still take: what the machine has available, and no more than what is left of the limit
/// of each control group that it is in, as containers set one. `None` where the system does not tell.
pub(crate) fn available_bytes() -> Option<usize> {
    let machine = available_in(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group_folders(&groups).into_iter().filter_map(|folder| {
        let read = |name: &str| fs::read_to_string(Path::new(&folder).join(name)).ok();
        // The names of the second version, else those of the first.
        let limit = read("memory.max").or_else(|| read("memory.limit_in_bytes"))?;
        let used = read("memory.current").or_else(|| read("memory.usage_in_bytes"))?;
        left_of(&limit, &used, &read("memory.stat")?)
    });
    usize::try_from(limits.fold(machine, u64::min)).ok()
}

/// The line `MemAvailable:   1234 kB` of Linux's account of its memory, in bytes.
fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The folders of the process's control groups that may limit memory, with all that they lie in.
fn group_folders(groups: &str) -> Vec<String> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            names if names.split(',').any(|name| name == "memory") => "/sys/fs/cgroup/memory",
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            folders.push(format!("{root}{path}"));
            // Within a container the path may be that of the machine outside, and its own group the root.
            match path.rsplit_once('/') {
                Some((parent, _)) => path = parent,
                None => break,
            }
        }
    }
    folders
}

/// What is left of a limit: pages of files that nobody has used for a while are given up for others.
fn left_of(limit: &str, used: &str, stat: &str) -> Option<u64> {
    // Without a limit it is the word `max`, or in the first version a number beyond all memory.
    let limit: u64 = limit.trim().parse().ok()?;
    let used: u64 = used.trim().parse().ok()?;
    let field = |name: &str| -> Option<u64> {
        stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    };
    let files = field("total_inactive_file").or_else(|| field("inactive_file")).unwrap_or(0)
        + field("total_active_file").or_else(|| field("active_file")).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(files)))
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

    #[test]
    fn what_is_available_is_the_least_of_machine_and_groups() {
        assert_eq!(available_in("MemTotal: 9 kB\nMemAvailable:    1024 kB\n"), Some(1 << 20));
        assert_eq!(available_in("MemTotal: 9 kB\n"), None);
        let stat = "anon 500\ninactive_file 30\nactive_file 20\ntotal_inactive_fileX 9\n";
        assert_eq!(left_of("1000\n", "600\n", stat), Some(450));
        assert_eq!(left_of("1000", "600", ""), Some(400));
        assert_eq!(left_of("100", "600", stat), Some(0));
        assert_eq!(left_of("max\n", "600", stat), None);
        assert_eq!(left_of("1000", "600", "inactive_file 1\ntotal_inactive_file 100\n"), Some(500));
    }

    #[test]
    fn groups_of_both_versions_and_all_they_lie_in() {
        assert_eq!(group_folders("0::/a/b\n"), ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]);
        assert_eq!(group_folders("0::/\n"), ["/sys/fs/cgroup"]);
        let first = "12:cpu,cpuacct:/x\n5:memory:/docker/y\n1:name=systemd:/z\n";
        let folders =
            ["/sys/fs/cgroup/memory/docker/y", "/sys/fs/cgroup/memory/docker", "/sys/fs/cgroup/memory"];
        assert_eq!(group_folders(first), folders);
        assert_eq!(group_folders("nonsense\n"), [""; 0]);
    }
}
