//! How much room a folder's disk has.

use std::path::Path;

/// Bytes that may still be written below `folder`, which need not exist yet. `None` where the system does not tell.
#[cfg(unix)]
pub(crate) fn free(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."));
    let found =
        rustix::fs::statvfs(if there.as_os_str().is_empty() { Path::new(".") } else { there }).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(not(unix))]
pub(crate) fn free(_: &Path) -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn folders_that_are_not_there_yet_have_the_room_of_their_parent() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free(folder.path()).unwrap() > 0);
        assert!(free(&folder.path().join("a/b/c")).is_some());
        assert!(free(Path::new("no/such/folder")).is_some());
    }
}
