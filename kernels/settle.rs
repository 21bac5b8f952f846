//! Moving packed weights from a mapped file to huge pages while they are computed with, so that a model is ready before
//! all of its bytes have been moved.
//!
//! One thread of its own copies weight after weight and ends when none is left. It begins with what was loaded last: a
//! decoder reads its weights for each token, a tower once for each picture.
//! While nothing else is computed it takes the whole pool along; else it works by itself and rests as long as it worked.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use crate::{
    HostBytes, Result,
    pages::Block,
    pool::{self, SharedSlice},
};

/// Bytes that are copied in one go: what computes waits for so long.
const SLICE: usize = 16 << 20;
/// Bytes of one task: two huge pages, so that threads seldom wait for each other at one.
const PIECE: usize = 4 << 20;
/// Between two slices: long enough for a thread that waits for the pool to wake up and take it.
const GAP: Duration = Duration::from_micros(200);

#[derive(Default)]
struct Queue {
    /// Whoever is gone by its turn is left out.
    waiting: Vec<Weak<dyn Settles>>,
    /// Whether the thread is there.
    works: bool,
    /// How many wait for the end.
    hurried: usize,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { waiting: Vec::new(), works: false, hurried: 0 });
static CHANGED: Condvar = Condvar::new();

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until all weights lie where they stay, as fast as the machine moves them.
pub fn wait() {
    let mut queue = queue();
    queue.hurried += 1;
    while queue.works {
        queue = CHANGED.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
    queue.hurried -= 1;
}

/// What is used where it lies until it has been moved.
pub(crate) trait Settles: Send + Sync {
    /// Moves it. Without room it stays.
    fn settle(&self, pace: &mut Pace);
}

/// Has `place` moved when its turn comes. Where no thread can be started it stays.
pub(crate) fn later(place: Weak<dyn Settles>) {
    let mut queue = queue();
    queue.waiting.push(place);
    if !queue.works {
        let started = thread::Builder::new().name("ocellus-settle".to_owned()).spawn(work);
        match started {
            Ok(_) => queue.works = true,
            Err(_) => queue.waiting.clear(),
        }
    }
}

fn work() {
    let mut pace = Pace { busy: true };
    loop {
        let next = {
            let mut queue = queue();
            let next = queue.waiting.pop();
            if next.is_none() {
                queue.works = false;
                CHANGED.notify_all();
                return;
            }
            next
        };
        if let Some(place) = next.and_then(|place| place.upgrade()) {
            // Whatever goes wrong, it stays where it is, and nobody waits for ever.
            let _ = catch_unwind(AssertUnwindSafe(|| place.settle(&mut pace)));
        }
    }
}

/// How much of the machine moving takes.
pub(crate) struct Pace {
    /// Whether anybody else has computed since the last step.
    busy: bool,
}

impl Pace {
    /// One step of the work, which shares out one job.
    pub(crate) fn step<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let hurried = queue().hurried > 0;
        let (before, began) = (pool::jobs(), Instant::now());
        let alone = self.busy && !hurried;
        let done = if alone { pool::alone(work) } else { work() };
        if !hurried {
            thread::sleep(if alone { began.elapsed() } else { GAP });
        }
        self.busy = pool::jobs().wrapping_sub(before) > u32::from(!alone);
        done
    }

    /// A copy of `bytes`.
    ///
    /// # Errors
    /// [`crate::Error::Memory`] when there is no room.
    pub(crate) fn copy(&mut self, bytes: &HostBytes, what: &'static str) -> Result<Block> {
        let len = bytes.as_ref().len();
        let mut block = Block::zeros(len, what)?;
        for start in (0..len).step_by(SLICE) {
            let slice = &mut block.as_mut_slice()[start..len.min(start + SLICE)];
            self.step(|| together(bytes, start, slice));
        }
        Ok(block)
    }
}

/// Copies with all threads.
#[allow(unsafe_code)]
fn together(bytes: &HostBytes, start: usize, to: &mut [u8]) {
    let len = to.len();
    let to = SharedSlice::new(to);
    pool::run(len.div_ceil(PIECE), |piece| {
        let first = piece * PIECE;
        // SAFETY: each task has a piece of its own.
        bytes.copy_to(start + first, unsafe { to.part(first, PIECE.min(len - first)) });
    });
}

#[cfg(test)]
mod tests {
    use std::{
        ops::Range,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use super::*;
    use crate::{Backing, pages::Frozen};

    /// A file that lies in memory and counts what is done with it.
    #[derive(Default)]
    struct File {
        released: AtomicUsize,
        read: AtomicUsize,
    }

    impl Backing for File {
        fn release(&self, range: Range<usize>) {
            self.released.fetch_add(range.len(), Ordering::SeqCst);
        }

        fn read(&self, _: usize, to: &mut [u8]) -> bool {
            self.read.fetch_add(to.len(), Ordering::SeqCst);
            false
        }

        fn in_memory(&self, _: Range<usize>) -> bool {
            true
        }
    }

    fn bytes(len: usize, file: &Arc<File>) -> (Vec<u8>, HostBytes) {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 37 % 251) as u8).collect();
        // Aligned as mapped files are.
        let mut block = Block::of_its_own(len, "test").unwrap();
        block.as_mut_slice().copy_from_slice(&bytes);
        (bytes, HostBytes::new(Arc::new(block.freeze())).with_backing(file.clone()))
    }

    #[test]
    fn weights_move_while_they_are_read() {
        let file = Arc::new(File::default());
        for len in [0, 1, SLICE, 3 * SLICE + PIECE + 5] {
            let (expected, mapped) = bytes(len, &file);
            let frozen = Frozen::settling(&mapped, "test");
            let reader = frozen.clone();
            let reads = thread::spawn(move || {
                while !reader.settled() {
                    pool::run(4, |_| assert!(reader.as_slice().iter().step_by(4099).count() <= len));
                }
                reader.as_slice().to_vec()
            });
            assert!(frozen.as_slice() == expected, "{len} bytes");
            assert!(reads.join().unwrap() == expected, "{len} bytes, moved");
            wait();
            assert!(frozen.settled() && frozen.as_slice() == expected, "{len} bytes, in the end");
        }
        let all = 1 + SLICE + 3 * SLICE + PIECE + 5;
        assert_eq!(file.read.load(Ordering::SeqCst), all, "each byte is copied once");
        assert_eq!(file.released.load(Ordering::SeqCst), all, "and its page given back");
    }

    #[test]
    fn what_is_dropped_is_not_waited_for() {
        let file = Arc::new(File::default());
        let places: Vec<Frozen> =
            (0..40).map(|_| Frozen::settling(&bytes(SLICE / 8, &file).1, "test")).collect();
        drop(places);
        wait();
        assert_eq!(file.released.load(Ordering::SeqCst), 40 * SLICE / 8, "pages are given back all the same");
    }
}
