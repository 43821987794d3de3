//! The time in which ages are counted. It begins as the wall clock's and continues by the monotonic clock.
//!
//! The wall clock may be set to anything at any moment, and mail must not expire for that. So the wall clock is never
//! asked how much time has passed. It is compared with the monotonic clock at each reading, and a sudden difference is
//! a step: after it nothing may expire for a while, so that an operator can set the clock right. Times that were stored
//! by the wall clock, perhaps a wrong one, are placed so that they make nothing older than either clock allows.

use std::time::Duration;

use pintle_mail::UnixTime;

/// A difference between the clocks from which on the wall clock was set. Below it is drift, a leap second or a slow
/// reading.
const TOLERANCE_MS: u64 = 10_000;
/// The longest time that expiries are held back after a start or a step.
const LONGEST_HOLD: Duration = Duration::from_secs(6 * 3_600);
/// 2026-01-01: a stored time before this program existed comes from a clock that was not set yet.
const UNSET: UnixTime = UnixTime::from_millis(1_767_225_600_000);

/// How long after a start, or a step of the clock, nothing expires that has this lifetime: a twentieth of it, and six
/// hours at most. So a message of five days waits six hours, and a warning after four hours waits twelve minutes.
#[must_use]
pub fn hold(limit: Duration) -> Duration {
    (limit / 20).min(LONGEST_HOLD)
}

/// A reading of both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The time of day, which may be set.
    pub wall: UnixTime,
    /// The time since some moment in the past, which cannot be set.
    pub monotonic: Duration,
}

/// A step: the wall clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// The size of the step in milliseconds. Below zero when the clock was set back.
    pub millis: i64,
    /// The wall clock's time after the step.
    pub wall: UnixTime,
    /// How much younger everything becomes that has an age: the clock was ahead when the age was computed.
    pub younger: Duration,
}

impl ClockStep {
    /// Whether the clock was set ahead.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.millis > 0
    }

    /// The size of the step, in either direction.
    #[must_use]
    pub fn size(&self) -> Duration {
        Duration::from_millis(self.millis.unsigned_abs())
    }
}

/// One time for all ages. It never goes back and never jumps.
#[derive(Debug, Clone)]
pub struct Timeline {
    start: Reading,
    now: UnixTime,
    /// How far the wall clock is ahead of this time, in milliseconds.
    lead: i64,
    /// The least lead so far, and zero at most. Stored times are corrected by it.
    least: i64,
    /// The time of the start, or of the last step.
    steady_since: UnixTime,
    step: Option<ClockStep>,
}

impl Timeline {
    /// Begins at this reading.
    #[must_use]
    pub fn start(reading: Reading) -> Self {
        let now = reading.wall;
        Self { start: reading, now, lead: 0, least: 0, steady_since: now, step: None }
    }

    /// Takes a reading. Gives the step since the last one, if there was one.
    pub fn read(&mut self, reading: Reading) -> Option<ClockStep> {
        let passed = reading.monotonic.saturating_sub(self.start.monotonic);
        self.now = self.now.max(self.start.wall.plus(passed));
        let lead = reading.wall.millis().saturating_sub(self.now.millis());
        let change = lead.saturating_sub(self.lead);
        self.lead = lead;
        if change.unsigned_abs() < TOLERANCE_MS {
            self.least = self.least.min(lead);
            return None;
        }
        let younger = self.least.saturating_sub(lead).max(0).unsigned_abs();
        self.least = self.least.min(lead);
        self.steady_since = self.now;
        self.step =
            Some(ClockStep { millis: change, wall: reading.wall, younger: Duration::from_millis(younger) });
        self.step
    }

    /// The time at the last reading.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.now
    }

    /// The place of a time that the wall clock stored: not in the future, and no earlier than either clock allows.
    #[must_use]
    pub fn place(&self, stored: UnixTime) -> UnixTime {
        if stored < UNSET {
            return self.now;
        }
        UnixTime::from_millis(stored.millis().saturating_sub(self.least)).min(self.now)
    }

    /// What the wall clock stored before this time is older than `age` by either clock.
    #[must_use]
    pub fn stored_before(&self, age: Duration) -> UnixTime {
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        UnixTime::from_millis(self.now.millis().saturating_add(self.least).saturating_sub(age))
    }

    /// The place of a stored time in the future that was chosen to be at most `longest` ahead.
    #[must_use]
    pub fn place_ahead(&self, stored: UnixTime, longest: Duration) -> UnixTime {
        self.now.plus(stored.since(self.wall(self.now)).min(longest))
    }

    /// The wall clock's time at this time, by its current lead.
    #[must_use]
    pub fn wall(&self, at: UnixTime) -> UnixTime {
        UnixTime::from_millis(at.millis().saturating_add(self.lead))
    }

    /// The time from which things with this lifetime may expire.
    #[must_use]
    pub fn steady_at(&self, limit: Duration) -> UnixTime {
        self.steady_since.plus(hold(limit))
    }

    /// The last step, while it still holds expiries back.
    #[must_use]
    pub fn unsteady(&self) -> Option<ClockStep> {
        self.step.filter(|_| self.now < self.steady_since.plus(LONGEST_HOLD))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;
    const WALL: i64 = 1_795_317_000_000;
    const FIVE_DAYS: Duration = Duration::from_secs(5 * 86_400);

    fn reading(wall: i64, monotonic: u64) -> Reading {
        Reading { wall: UnixTime::from_millis(wall), monotonic: Duration::from_secs(monotonic) }
    }

    fn timeline() -> Timeline {
        Timeline::start(reading(WALL, 77))
    }

    fn at(millis: i64) -> UnixTime {
        UnixTime::from_millis(WALL + millis)
    }

    #[test]
    fn a_step_and_back_makes_nothing_older_or_younger() {
        let mut timeline = timeline();
        let stored = at(-DAY);
        let step = timeline.read(reading(WALL + 6 * DAY + 1_000, 78)).unwrap();
        assert_eq!((step.millis, step.younger), (6 * DAY, Duration::ZERO));
        assert_eq!((timeline.now(), timeline.place(stored)), (at(1_000), stored));
        assert_eq!(timeline.stored_before(Duration::from_secs(86_401)), stored);
        assert_eq!(timeline.place(at(6 * DAY + 1_000)), at(1_000), "taken under the wrong clock: now");
        let back = timeline.read(reading(WALL + 4_000, 81)).unwrap();
        assert_eq!((back.millis, back.younger), (-6 * DAY, Duration::ZERO));
        assert_eq!(timeline.place(stored), stored);
    }

    #[test]
    fn a_start_under_a_clock_ahead_is_made_good_when_it_is_set_right() {
        let mut timeline = Timeline::start(reading(WALL + 6 * DAY, 0));
        let stored = at(-DAY);
        assert_eq!(timeline.now().since(timeline.place(stored)), Duration::from_secs(7 * 86_400));
        let step = timeline.read(reading(WALL + 1_000, 1)).unwrap();
        assert_eq!(step.younger, Duration::from_secs(6 * 86_400));
        let age = timeline.now().since(timeline.place(stored));
        assert_eq!(age, Duration::from_secs(86_401));
        assert_eq!(timeline.stored_before(Duration::from_secs(86_401)), stored);
        let set_ahead_again = timeline.read(reading(WALL + 6 * DAY + 2_000, 2)).unwrap();
        assert_eq!(set_ahead_again.younger, Duration::ZERO);
        assert!(timeline.now().since(timeline.place(stored)) <= Duration::from_secs(86_402));
    }

    #[test]
    fn a_clock_set_back_holds_nothing_up() {
        let mut timeline = timeline();
        timeline.read(reading(WALL - 1_500 * DAY, 78));
        assert_eq!(timeline.now(), at(1_000), "time goes on");
        assert_eq!(timeline.place(UnixTime::from_millis(WALL - 1_500 * DAY)), timeline.now());
        let due = timeline.place_ahead(at(0), Duration::from_secs(60));
        assert_eq!(due, at(61_000), "no farther than the longest interval");
        timeline.read(reading(WALL - 1_500 * DAY + 9_000, 87));
        assert_eq!(timeline.now(), at(10_000));
    }

    #[test]
    fn drift_is_no_step_however_far_it_leads() {
        let mut timeline = timeline();
        for second in 1..100_000_u64 {
            let double = WALL + 2_000 * i64::try_from(second).unwrap();
            assert_eq!(timeline.read(reading(double, 77 + second)), None);
        }
        assert_eq!(timeline.now(), at(99_999_000), "time is the monotonic clock's");
        assert!(timeline.unsteady().is_none());
    }

    #[test]
    fn after_a_start_and_after_each_step_things_are_held_for_a_while() {
        let mut timeline = timeline();
        assert_eq!(timeline.steady_at(FIVE_DAYS), at(6 * 3_600_000));
        assert_eq!(timeline.steady_at(Duration::from_secs(4 * 3_600)), at(12 * 60_000));
        assert!(timeline.unsteady().is_none(), "a start is no step");
        timeline.read(reading(WALL + 7 * 3_600_000, 77 + 7 * 3_600));
        timeline.read(reading(WALL + 9 * 3_600_000, 77 + 7 * 3_600 + 1));
        assert_eq!(timeline.steady_at(FIVE_DAYS), at(13 * 3_600_000 + 1_000));
        assert!(timeline.unsteady().is_some_and(|step| step.is_ahead()));
        timeline.read(reading(WALL + 20 * 3_600_000, 77 + 18 * 3_600));
        assert!(timeline.unsteady().is_none());
    }

    #[test]
    fn a_time_from_before_the_clock_was_set_tells_no_age() {
        assert_eq!(timeline().place(UnixTime::from_millis(60_000)), at(0));
    }

    #[test]
    fn no_reading_however_absurd_is_too_much() {
        let mut timeline = Timeline::start(reading(i64::MAX, 0));
        for wall in [i64::MIN, 0, i64::MAX, -1, WALL] {
            timeline.read(reading(wall, u64::MAX / 2_000));
            for stored in [i64::MIN, 0, WALL, i64::MAX] {
                let stored = UnixTime::from_millis(stored);
                assert!(timeline.place(stored) <= timeline.now());
                assert!(timeline.place_ahead(stored, FIVE_DAYS) >= timeline.now());
            }
        }
    }
}
