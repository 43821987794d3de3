//! Time limits of one call: wall-clock time and CPU time.
//!
//! A call is polled in slices. The time within slices is the computing time of the guest, including host functions; the
//! time between slices is waiting, for DNS or for the scheduler. The engine's tick checks the limits while the guest
//! computes; a separate timer ends a call that waits too long.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Time used by a call. Shared by the future that runs the call and the guest's store, which the future has borrowed.
#[derive(Debug)]
pub(crate) struct CallMeter {
    base: Instant,
    /// All in nanoseconds; points in time are relative to `base`.
    began: AtomicU64,
    slice: AtomicU64,
    used: AtomicU64,
    wall: AtomicU64,
    cpu: AtomicU64,
}

/// Which limit was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallTimeout {
    /// The wall-clock limit of the call.
    Wall(Duration),
    /// The CPU time limit of the guest.
    Cpu(Duration),
}

impl fmt::Display for CallTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wall(limit) => write!(f, "it took longer than its limit of {limit:?}"),
            Self::Cpu(limit) => write!(f, "it computed longer than its limit of {limit:?}"),
        }
    }
}

impl std::error::Error for CallTimeout {}

impl CallMeter {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            base: now,
            began: AtomicU64::new(0),
            slice: AtomicU64::new(0),
            used: AtomicU64::new(0),
            wall: AtomicU64::new(u64::MAX),
            cpu: AtomicU64::new(u64::MAX),
        }
    }

    /// Starts a call with these limits, and its first slice.
    pub(crate) fn begin(&self, now: Instant, wall: Duration, cpu: Duration) {
        self.began.store(self.at(now), Ordering::Relaxed);
        self.slice.store(self.at(now), Ordering::Relaxed);
        self.used.store(0, Ordering::Relaxed);
        self.wall.store(nanos(wall), Ordering::Relaxed);
        self.cpu.store(nanos(cpu), Ordering::Relaxed);
    }

    /// Returns an error if a limit is exceeded; called within a slice.
    pub(crate) fn check(&self, now: Instant) -> Result<(), CallTimeout> {
        let now = self.at(now);
        let computed =
            self.used.load(Ordering::Relaxed) + now.saturating_sub(self.slice.load(Ordering::Relaxed));
        let (cpu, wall) = (self.cpu.load(Ordering::Relaxed), self.wall.load(Ordering::Relaxed));
        if computed > cpu {
            return Err(CallTimeout::Cpu(Duration::from_nanos(cpu)));
        }
        if now.saturating_sub(self.began.load(Ordering::Relaxed)) > wall {
            return Err(CallTimeout::Wall(Duration::from_nanos(wall)));
        }
        Ok(())
    }

    /// Wall-clock time left for the call.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        let gone = self.at(now).saturating_sub(self.began.load(Ordering::Relaxed));
        Duration::from_nanos(self.wall.load(Ordering::Relaxed).saturating_sub(gone))
    }

    fn enter(&self, now: Instant) {
        self.slice.store(self.at(now), Ordering::Relaxed);
    }

    fn leave(&self, now: Instant) {
        let slice = self.at(now).saturating_sub(self.slice.load(Ordering::Relaxed));
        self.used.fetch_add(slice, Ordering::Relaxed);
    }

    fn at(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.base))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A future whose polls are metered. Its first poll uses the slice that [`CallMeter::begin`] opened.
pub(crate) struct Metered<F> {
    meter: Arc<CallMeter>,
    waits: bool,
    inner: F,
}

impl<F> Metered<F> {
    pub(crate) fn new(meter: Arc<CallMeter>, inner: F) -> Self {
        Self { meter, waits: false, inner }
    }
}

impl<F: Future + Unpin> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.waits {
            self.meter.enter(Instant::now());
        }
        let polled = Pin::new(&mut self.inner).poll(cx);
        self.waits = polled.is_pending();
        if self.waits {
            self.meter.leave(Instant::now());
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_counts_for_the_wall_alone() {
        let start = Instant::now();
        let ms = |n| start + Duration::from_millis(n);
        let meter = CallMeter::new(start);
        meter.begin(ms(0), Duration::from_millis(100), Duration::from_millis(10));
        assert_eq!(meter.check(ms(9)), Ok(()));
        meter.leave(ms(6));
        meter.enter(ms(60));
        assert_eq!(meter.check(ms(63)), Ok(()), "6 and 3 computed, 54 waited");
        assert_eq!(meter.check(ms(65)), Err(CallTimeout::Cpu(Duration::from_millis(10))));
        meter.leave(ms(61));
        meter.enter(ms(101));
        assert_eq!(meter.check(ms(101)), Err(CallTimeout::Wall(Duration::from_millis(100))));
        assert_eq!(meter.left(ms(101)), Duration::ZERO);
        meter.begin(ms(200), Duration::from_millis(100), Duration::from_millis(10));
        assert_eq!(meter.left(ms(230)), Duration::from_millis(70));
        assert_eq!(meter.check(ms(205)), Ok(()), "a new call begins at nothing");
    }
}
