//! Clocks as a parameter: retries, warnings and expiry are tested without waiting for days.
//!
//! Expiries, which cannot be undone, depend on [`Ages`], which uses the monotonic clock and monitors the wall clock for
//! steps. The wall clock is used for what people and other hosts read: dates in reports and records, queue ids, and
//! times that are stored. Deadlines within a session run on the monotonic clock of the runtime.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use pintle_mail::UnixTime;
use pintle_queue::{ClockStep, Reading, Timeline};

/// The wall clock and the monotonic clock.
pub trait Clock: Send + Sync + 'static {
    /// The time of day by the wall clock, which may be set at any moment.
    fn now(&self) -> UnixTime;

    /// The time since a fixed moment before the first call, by the monotonic clock.
    fn monotonic(&self) -> Duration;

    /// Sleeps for `wait`, or a little longer.
    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()>;
}

/// The wall clock of the operating system and the monotonic clock of the Tokio runtime.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// The fixed moment of [`SystemClock::monotonic`].
static BEGAN: LazyLock<Instant> = LazyLock::new(monotonic);

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        SystemTime::now().into()
    }

    fn monotonic(&self) -> Duration {
        monotonic().saturating_duration_since(*BEGAN)
    }

    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        // A millisecond more, since the queue compares whole milliseconds and a timer may be early within one.
        Box::pin(tokio::time::sleep(wait + Duration::from_millis(1)))
    }
}

/// The runtime's monotonic clock, which tests can pause and which is not affected by setting the system's clock.
pub(crate) fn monotonic() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time by which messages age. Each call reads both clocks; a step of the wall clock is logged and counted here,
/// once.
pub(crate) struct Ages {
    clock: Arc<dyn Clock>,
    watched: Mutex<WatchedTimeline>,
}

struct WatchedTimeline {
    timeline: Timeline,
    /// Steps that the runner has not taken yet.
    steps: Vec<ClockStep>,
}

impl Ages {
    pub(crate) fn start(clock: Arc<dyn Clock>) -> Self {
        let timeline = Timeline::start(read(&*clock));
        Self { clock, watched: Mutex::new(WatchedTimeline { timeline, steps: Vec::new() }) }
    }

    /// The current time on the queue's timeline.
    pub(crate) fn now(&self) -> UnixTime {
        self.read().timeline.now()
    }

    /// Reads both clocks and returns the timeline.
    pub(crate) fn timeline(&self) -> Timeline {
        self.read().timeline.clone()
    }

    /// The age of a message that was stored at this time, no greater than either clock allows.
    pub(crate) fn since(&self, stored: UnixTime) -> Duration {
        let watched = self.read();
        watched.timeline.now().since(watched.timeline.place(stored))
    }

    /// Whether a message whose maximum age is `limit` may expire now: not soon after a step or a start.
    pub(crate) fn is_steady(&self, limit: Duration) -> bool {
        let watched = self.read();
        watched.timeline.steady_at(limit) <= watched.timeline.now()
    }

    /// The last step, while expiries still wait because of it.
    pub(crate) fn unsteady(&self) -> Option<ClockStep> {
        self.read().timeline.unsteady()
    }

    /// The steps since the last call.
    pub(crate) fn take_steps(&self) -> Vec<ClockStep> {
        std::mem::take(&mut self.read().steps)
    }

    fn read(&self) -> MutexGuard<'_, WatchedTimeline> {
        // A panic with the lock held cannot leave the timeline inconsistent: a reading is stored completely or not at
        // all.
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = read(&*self.clock);
        if let Some(step) = watched.timeline.read(reading) {
            log_step(&step);
            watched.steps.push(step);
        }
        watched
    }
}

fn read(clock: &dyn Clock) -> Reading {
    Reading { wall: clock.now(), monotonic: clock.monotonic() }
}

fn log_step(step: &ClockStep) {
    let direction = if step.is_ahead() { "ahead" } else { "back" };
    metrics::counter!("pintle_clock_steps_total", "direction" => direction).increment(1);
    tracing::error!(
        direction, by = ?step.size(), now = %step.wall,
        "the clock was set, or this machine slept: no message expires, no sender is warned and no quarantine is emptied \
         for a while; check the time service"
    );
}

/// A source of random numbers. They make queue ids and spread retries (jitter); no secret depends on them.
pub type RandomSource = Arc<dyn Fn() -> u128 + Send + Sync>;

/// Random numbers from the system's generator.
#[must_use]
pub fn system_random() -> RandomSource {
    Arc::new(|| {
        let half = || u128::from(pintle_dns::random_seed());
        half() << 64 | half()
    })
}
