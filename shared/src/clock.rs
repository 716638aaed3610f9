//! Time that also passes while Lambda freezes the process. A monotonic clock may stop meanwhile.
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// The time at which something last happened, by the wall clock.
#[derive(Default)]
pub(crate) struct LastTime(AtomicU64);

impl LastTime {
    pub(crate) fn set_now(&self) {
        self.0.store(unix_seconds(), Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn set_seconds_ago(&self, seconds: u64) {
        self.0.store(unix_seconds() - seconds, Ordering::Relaxed);
    }

    /// Seconds since it last happened; `None` if it has not happened yet.
    pub(crate) fn seconds_ago(&self) -> Option<u64> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            then => Some(unix_seconds().saturating_sub(then)),
        }
    }
}

/// The wall clock, in seconds since the epoch.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
