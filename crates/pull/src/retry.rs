//! How often something is tried again, and after how long: functions of numbers. Only the clock waits.

use std::{pin::Pin, time::Duration};

/// How often in a row something is tried that brings nothing; every byte that arrives starts the count anew.
pub(crate) const MOST_ATTEMPTS: u32 = 6;
/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// No wait of our own is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A server that asks for more patience is told of to the user.
const MOST_PATIENCE: Duration = Duration::from_secs(300);

/// Waits. Tests give one that only counts.
pub trait Clock: Send + Sync {
    /// Is over after `duration`.
    fn wait(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wait(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// How long to wait after failure number `failures`, which counts from 1. `None`: not at all, it has failed for good.
pub(crate) fn wait_after(failures: u32, retry_after: Option<Duration>) -> Option<Duration> {
    if failures >= MOST_ATTEMPTS {
        return None;
    }
    let own = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_WAIT);
    match retry_after {
        Some(asked) if asked > MOST_PATIENCE => None,
        Some(asked) => Some(asked.max(own)),
        None => Some(own),
    }
}

/// The header's seconds. Its other form, a date, would need the server's clock to be right; our own wait does as well.
pub(crate) fn retry_after(header: Option<&str>) -> Option<Duration> {
    header?.trim().parse::<u32>().ok().map(|seconds| Duration::from_secs(u64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let milliseconds: Vec<_> =
            (1..MOST_ATTEMPTS).map(|n| wait_after(n, None).unwrap().as_millis()).collect();
        assert_eq!(milliseconds, [500, 1000, 2000, 4000, 8000]);
        assert_eq!(wait_after(MOST_ATTEMPTS, None), None);
        assert_eq!(wait_after(u32::MAX, None), None);
    }

    #[test]
    fn servers_may_ask_for_patience_within_bounds() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(wait_after(1, seconds(7)), seconds(7));
        assert_eq!(wait_after(3, seconds(0)), seconds(2));
        assert_eq!(wait_after(1, seconds(300)), seconds(300));
        assert_eq!(wait_after(1, seconds(301)), None);
        assert_eq!(retry_after(Some(" 12 ")), seconds(12));
        for other in ["", "-1", "x", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999999"] {
            assert_eq!(retry_after(Some(other)), None, "{other}");
        }
        assert_eq!(retry_after(None), None);
    }
}
