//! Wall-clock time as a value to store, sort and show. Reading the clock is left to the callers.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A time of the wall clock, as milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(i64);

impl UnixTime {
    /// The time this many milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds after the epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to this time; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This time plus `duration`, limited to the range of the type.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The date and time of RFC 5322 section 3.3, in UTC: `Sun, 22 Nov 2026 03:10:28 +0000`.
    #[must_use]
    pub fn rfc5322(self) -> String {
        self.zoned("%a, %d %b %Y %H:%M:%S +0000")
    }

    /// The date and time in RFC 3339 form, in UTC, to the millisecond: `2026-11-22T03:10:28.123Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        self.zoned("%Y-%m-%dT%H:%M:%S%.3fZ")
    }

    /// Parses an RFC 3339 time in any zone; digits below a millisecond are dropped. None when the text is not such a
    /// time.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let timestamp: jiff::Timestamp = text.parse().ok()?;
        Some(Self(timestamp.as_millisecond()))
    }

    fn zoned(self, format: &str) -> String {
        let timestamp = jiff::Timestamp::from_millisecond(self.0).unwrap_or_default();
        timestamp.strftime(format).to_string()
    }
}

impl From<SystemTime> for UnixTime {
    fn from(time: SystemTime) -> Self {
        let millis = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Self(i64::try_from(millis).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_known_moment() {
        let time = UnixTime::from_millis(1_795_317_028_123);
        assert_eq!(time.rfc5322(), "Sun, 22 Nov 2026 03:10:28 +0000");
        assert_eq!(time.rfc3339(), "2026-11-22T03:10:28.123Z");
        assert_eq!(UnixTime::parse_rfc3339(&time.rfc3339()), Some(time));
        assert_eq!(UnixTime::parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn differences_never_go_below_zero() {
        let (early, late) = (UnixTime::from_millis(5), UnixTime::from_millis(9));
        assert_eq!(late.since(early), Duration::from_millis(4));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early.plus(Duration::from_millis(4)), late);
    }
}
