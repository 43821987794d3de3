//! The time of day as a parameter: retries, warnings and expiry are tested without waiting for days.
//!
//! Only what the queue decides hangs on this clock. Deadlines within a session run on the monotonic clock of the runtime.

use std::time::{Instant, SystemTime};

use futures_util::future::BoxFuture;
use pintle_mail::UnixTime;

/// Somebody who knows the time of day.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> UnixTime;

    /// Ends when the time has come, or soon after; at once when it lies in the past.
    fn sleep_until(&self, at: UnixTime) -> BoxFuture<'static, ()>;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        SystemTime::now().into()
    }

    fn sleep_until(&self, at: UnixTime) -> BoxFuture<'static, ()> {
        // A millisecond more, since the queue compares whole milliseconds and a timer may be early within one.
        let wait = at.since(self.now()) + std::time::Duration::from_millis(1);
        Box::pin(tokio::time::sleep(wait))
    }
}

/// The runtime's monotonic clock, which a test can pause and the system's clock cannot turn back.
pub(crate) fn monotonic() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Random numbers; they name messages and spread retries, and keep no secret.
pub type Dice = std::sync::Arc<dyn Fn() -> u128 + Send + Sync>;

/// The default dice.
#[must_use]
pub fn dice() -> Dice {
    std::sync::Arc::new(|| {
        let half = || u128::from(pintle_dns::random_seed());
        half() << 64 | half()
    })
}
