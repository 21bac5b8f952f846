//! The one pool of threads that computes. A decode step forks and joins some hundred times, so waiting threads
//! look for work for a moment before they sleep, and the caller works along.

#![allow(unsafe_code)]

use std::{
    any::Any,
    cell::{Cell, UnsafeCell},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a thread without work looks for some before it sleeps. Longer than the gaps within a decode step,
/// shorter than anybody would notice on a processor's load.
const LOOKS_FOR: Duration = Duration::from_micros(150);
/// Set in [`Shared::joined`] while no job is open.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Names the number of threads in place of what the machine allows.
const VARIABLE: &str = "OCELLUS_THREADS";
/// More threads than that is a slip of the keyboard.
const MOST_THREADS: usize = 1024;

static GLOBAL: OnceLock<Pool> = OnceLock::new();

/// Calls `task(0)`, …, `task(tasks - 1)`, each once, on all threads of the process's pool, and returns when all
/// are done. Tasks are handed out in order, one at a time. A task that calls this again computes alone.
///
/// A panic of a task is passed on after all threads have stopped.
pub fn run(tasks: usize, task: impl Fn(usize) + Sync) {
    global().run(tasks, &task);
}

/// How many threads compute, the calling one included.
pub fn threads() -> usize {
    global().threads()
}

/// Counts the jobs that were shared out so far, and begins anew after some billions: who looks twice sees whether
/// anybody has computed.
pub(crate) fn jobs() -> u32 {
    global().shared.epoch.0.load(Ordering::Relaxed)
}

/// Calls `work`, whose jobs the calling thread does by itself.
pub(crate) fn alone<T>(work: impl FnOnce() -> T) -> T {
    let inside = INSIDE.replace(true);
    let done = work();
    INSIDE.set(inside);
    done
}

/// Fixes the number of threads before anything has been computed. Without this call it is the environment
/// variable `OCELLUS_THREADS`, or else what affinity and quota of the process allow. Gives the number that holds.
pub fn set_threads(threads: usize) -> usize {
    GLOBAL.get_or_init(|| Pool::new(threads.clamp(1, MOST_THREADS))).threads()
}

fn global() -> &'static Pool {
    GLOBAL.get_or_init(|| {
        let wanted = std::env::var(VARIABLE).ok().and_then(|n| n.parse().ok()).filter(|&n: &usize| n > 0);
        let allowed = || thread::available_parallelism().map_or(1, usize::from);
        Pool::new(wanted.unwrap_or_else(allowed).min(MOST_THREADS))
    })
}

thread_local! {
    /// Whether this thread is inside of a task.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Threads that share out tasks. Dropping it ends them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<thread::JoinHandle<()>>,
    /// One job at a time: whoever holds this may open one.
    turn: Mutex<()>,
}

/// What the threads see.
struct Shared {
    /// Counts jobs; workers look at it to find a new one.
    epoch: Padded<AtomicU32>,
    /// The number of workers that take part in the open job, or [`CLOSED`].
    joined: Padded<AtomicUsize>,
    /// The next task to be handed out.
    next: Padded<AtomicUsize>,
    /// Written while closed and nobody takes part, read by those who take part.
    job: UnsafeCell<Job>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    asleep: Vec<AtomicBool>,
    ends: AtomicBool,
}

/// Keeps what threads write often on cache lines of their own.
#[repr(align(128))]
struct Padded<T>(T);

#[derive(Clone, Copy)]
struct Job {
    call: unsafe fn(*const (), usize),
    task: *const (),
    tasks: usize,
}

// SAFETY: `job` is written only while `joined` is `CLOSED` without participants (see `Pool::run`), and its
// pointer refers to a `Sync` closure that outlives the job.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Pool {
    pub(crate) fn new(threads: usize) -> Self {
        fn nothing(_: *const (), _: usize) {}
        let shared = Arc::new(Shared {
            epoch: Padded(AtomicU32::new(0)),
            joined: Padded(AtomicUsize::new(CLOSED)),
            next: Padded(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { call: nothing, task: std::ptr::null(), tasks: 0 }),
            panic: Mutex::new(None),
            asleep: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            ends: AtomicBool::new(false),
        });
        let places = affinity::places(threads);
        let workers = (0..threads.saturating_sub(1))
            .map_while(|index| {
                let shared = shared.clone();
                let place = places.get(index + 1).copied();
                let work = move || {
                    if let Some(place) = place {
                        affinity::pin(place);
                    }
                    shared.work(index);
                };
                // A machine that refuses a thread computes with fewer.
                thread::Builder::new().name(format!("ocellus-compute-{}", index + 1)).spawn(work).ok()
            })
            .collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    pub(crate) fn run<F: Fn(usize) + Sync>(&self, tasks: usize, task: &F) {
        /// Calls the closure behind `task`.
        unsafe fn call<F: Fn(usize)>(task: *const (), index: usize) {
            // SAFETY: `Pool::run` made the pointer from a `&F` that lives until all calls are over.
            let task = unsafe { &*task.cast::<F>() };
            task(index);
        }
        if tasks <= 1 || self.workers.is_empty() || INSIDE.get() {
            (0..tasks).for_each(task);
            return;
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let job = Job { call: call::<F>, task: std::ptr::from_ref(task).cast(), tasks };
        // SAFETY: no job is open and the last one was waited for, so nobody reads it.
        unsafe { *self.shared.job.get() = job };
        self.shared.next.0.store(0, Ordering::Relaxed);
        // Opens the job. A worker that comes late may have counted itself for a moment, so only the mark goes.
        self.shared.joined.0.fetch_and(!CLOSED, Ordering::Release);
        self.shared.epoch.0.fetch_add(1, Ordering::SeqCst);
        for (asleep, worker) in self.shared.asleep.iter().zip(&self.workers) {
            if asleep.load(Ordering::SeqCst) && asleep.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        self.shared.take_part(job);
        // Workers that have not come by now are not needed and not waited for.
        self.shared.joined.0.fetch_or(CLOSED, Ordering::AcqRel);
        let mut looks = 0u32;
        while self.shared.joined.0.load(Ordering::Acquire) != CLOSED {
            looks += 1;
            // The worker may have lost its processor to another program.
            if looks.is_multiple_of(4096) { thread::yield_now() } else { std::hint::spin_loop() }
        }
        let panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.shared.epoch.0.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            seen = self.next_epoch(seen, index);
            if self.ends.load(Ordering::SeqCst) {
                return;
            }
            if self.joined.0.fetch_add(1, Ordering::Acquire) & CLOSED == 0 {
                // SAFETY: the job is open and counts this thread, so it is not written before it leaves.
                let job = unsafe { *self.job.get() };
                self.take_part(job);
            }
            self.joined.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a job after the one numbered `seen`.
    fn next_epoch(&self, seen: u32, index: usize) -> u32 {
        let since = Instant::now();
        loop {
            for _ in 0..64 {
                let epoch = self.epoch.0.load(Ordering::Acquire);
                if epoch != seen {
                    return epoch;
                }
                std::hint::spin_loop();
            }
            if since.elapsed() < LOOKS_FOR {
                continue;
            }
            let Some(asleep) = self.asleep.get(index) else { continue };
            asleep.store(true, Ordering::SeqCst);
            while asleep.load(Ordering::SeqCst) && self.epoch.0.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            asleep.store(false, Ordering::SeqCst);
        }
    }

    /// Computes tasks until none is left.
    fn take_part(&self, job: Job) {
        let work = || {
            loop {
                let index = self.next.0.fetch_add(1, Ordering::Relaxed);
                if index >= job.tasks {
                    return;
                }
                // SAFETY: the caller of `Pool::run` waits for all who take part, so the closure is alive.
                unsafe { (job.call)(job.task, index) };
            }
        };
        INSIDE.set(true);
        let outcome = catch_unwind(AssertUnwindSafe(work));
        INSIDE.set(false);
        if let Err(panic) = outcome {
            self.next.0.store(job.tasks, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }
}

/// Which processors the threads stay on.
#[cfg(target_os = "linux")]
mod affinity {
    /// One processor for each of `threads` threads, or none at all when the process may use more or fewer: then
    /// the system knows better.
    pub(super) fn places(threads: usize) -> Vec<usize> {
        // SAFETY: an all-zero set is a valid, empty one.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is writable and as large as is said; 0 is the calling thread.
        let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0;
        let allowed: Vec<usize> = (0..libc::CPU_SETSIZE as usize)
            // SAFETY: the index is below the size of the set.
            .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
            .collect();
        if failed || allowed.len() != threads { Vec::new() } else { allowed }
    }

    /// Keeps the calling thread on one processor. It does not matter if the system refuses.
    pub(super) fn pin(cpu: usize) {
        // SAFETY: an all-zero set is a valid, empty one, and `cpu` came out of such a set.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod affinity {
    pub(super) fn places(_: usize) -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn pin(_: usize) {}
}

/// A slice whose parts are written by different tasks at once.
#[derive(Clone, Copy)]
pub(crate) struct SharedSlice<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: access is only through `part`, whose caller promises that parts don't overlap.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), lifetime: std::marker::PhantomData }
    }

    /// Elements `start..start + len`.
    ///
    /// # Safety
    /// No two parts that are alive at the same time may overlap.
    ///
    /// # Panics
    /// When they are not within the slice.
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start <= self.len && len <= self.len - start, "{start} + {len} is outside of {}", self.len);
        // SAFETY: the range was just checked; that nobody else has it is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// The first element, for kernels that write with a stride. Bounds and overlap are theirs to keep.
    pub(crate) fn as_mut_ptr(&self) -> *mut T {
        self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn each_task_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 3, 64, 1000] {
                let counts: Vec<AtomicU64> = (0..tasks).map(|_| AtomicU64::new(0)).collect();
                pool.run(tasks, &|i: usize| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads}, {tasks}");
            }
        }
    }

    #[test]
    fn many_short_jobs_follow_each_other() {
        let pool = Pool::new(4);
        let sum = AtomicU64::new(0);
        for round in 0..20_000 {
            pool.run(3, &|i: usize| {
                sum.fetch_add(i as u64, Ordering::Relaxed);
            });
            // Now and then long enough for the workers to fall asleep.
            if round % 5000 == 0 {
                thread::sleep(LOOKS_FOR * 4);
            }
        }
        assert_eq!(sum.into_inner(), 60_000);
    }

    #[test]
    fn callers_on_many_threads_take_turns() {
        let pool = Pool::new(3);
        let sum = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        pool.run(5, &|_: usize| {
                            sum.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 10_000);
    }

    #[test]
    fn a_task_may_fork_itself() {
        let pool = Pool::new(3);
        let sum = AtomicU64::new(0);
        pool.run(4, &|_: usize| {
            pool.run(4, &|_: usize| {
                sum.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 16);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        for round in 0..50 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(20, &|i: usize| assert!(i != round % 20, "task {i}"));
            }));
            assert!(outcome.is_err());
            let done = AtomicU64::new(0);
            pool.run(20, &|_: usize| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 20);
        }
    }
}
