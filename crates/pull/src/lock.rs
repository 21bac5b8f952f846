//! One writer for each file, across processes and languages: the locks of Python's `filelock`, which on Unix are
//! `flock` on a file that stays.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::Path,
    time::Duration,
};

use crate::Clock;

/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(200);

/// Takes the lock at `path`, waiting for whoever has it, and keeps it as long as the file is open. `waiting` is called
/// once, if there is a wait. `None`: the file system has no locks.
pub(crate) async fn acquire(
    path: &Path,
    clock: &dyn Clock,
    waiting: &(dyn Fn() + Sync),
) -> io::Result<Option<File>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut told = false;
    loop {
        let file = open(path)?;
        match file.try_lock() {
            // Somebody may have removed the file between the two steps; the lock of a file without a name is no lock.
            Ok(()) if is_at(&file, path) => return Ok(Some(file)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                if !told {
                    told = true;
                    waiting();
                }
                clock.wait(PAUSE).await;
            }
            Err(TryLockError::Error(_)) => return Ok(None),
        }
    }
}

/// With the permissions that Python gives: other users of a shared cache must be able to wait.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o664);
    options.open(path)
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;

    /// Frees the other lock at the second look.
    struct Release(std::sync::Mutex<Option<File>>, AtomicU32);

    impl Clock for Release {
        fn wait(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            if self.1.fetch_add(1, Ordering::Relaxed) == 1 {
                self.0.lock().unwrap().take();
            }
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_says_so_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.lock");
        let silent = Release(std::sync::Mutex::new(None), AtomicU32::new(0));
        let first = acquire(&path, &silent, &|| panic!("nobody has it")).await.unwrap();
        let clock = Release(std::sync::Mutex::new(first), AtomicU32::new(0));
        let told = AtomicU32::new(0);
        let count = || {
            told.fetch_add(1, Ordering::Relaxed);
        };
        assert!(acquire(&path, &clock, &count).await.unwrap().is_some());
        assert_eq!((told.into_inner(), clock.1.into_inner()), (1, 2));
    }
}
