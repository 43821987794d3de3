//! Time in a run: one true time that goes on across restarts, and the clock that the gateway reads, which may be wrong.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use pintle_mail::UnixTime;
use pintle_outbound::Clock;
use tokio::time::Instant;

use crate::ledger::Moment;

/// When every run begins.
const START: i64 = 1_795_317_000_000;

/// The time of a run. Clones share it.
#[derive(Clone, Default)]
pub struct Time(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What passed before the life of now.
    before: Duration,
    /// When it began, on the paused clock of its runtime.
    began: Option<Instant>,
    /// By how much the gateway's clock is ahead of the truth, in milliseconds.
    ahead: i64,
}

impl Time {
    /// The true time since the run began.
    pub fn passed(&self) -> Duration {
        let state = self.0.lock();
        state.before
            + state.began.map_or(Duration::ZERO, |began| Instant::now().saturating_duration_since(began))
    }

    /// A runtime begins.
    pub fn begin(&self) {
        self.0.lock().began = Some(Instant::now());
    }

    /// A runtime ends; until the next one so much time passes.
    pub fn end(&self, pause: Duration) {
        let passed = self.passed();
        let mut state = self.0.lock();
        state.before = passed + pause;
        state.began = None;
    }

    /// Sets the gateway's clock ahead of the true time, or behind it, by this many milliseconds.
    pub fn set_ahead(&self, ahead: i64) {
        self.0.lock().ahead = ahead;
    }

    /// This moment.
    pub fn moment(&self) -> Moment {
        Moment { passed: self.passed(), ahead: self.ahead() }
    }

    /// By how much the gateway's clock is wrong, in milliseconds.
    pub fn ahead(&self) -> i64 {
        self.0.lock().ahead
    }
}

impl Clock for Time {
    fn now(&self) -> UnixTime {
        let passed = i64::try_from(self.passed().as_millis()).unwrap_or(i64::MAX);
        let shown = START.saturating_add(passed).saturating_add(self.ahead());
        UnixTime::from_millis(shown.max(0))
    }

    fn monotonic(&self) -> Duration {
        let began = self.0.lock().began;
        began.map_or(Duration::ZERO, |began| Instant::now().saturating_duration_since(began))
    }

    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(wait + Duration::from_millis(1)))
    }
}
