//! Retention: how long messages stay in quarantines before they expire.

use std::collections::BTreeMap;
use std::time::Duration;

use pintle_mail::UnixTime;
use pintle_queue::{HoldState, Timeline};
use pintle_spool::{HoldReason, Quarantine};

/// How long messages stay in quarantines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// The retention of quarantines that `names` does not list.
    pub default: Duration,
    /// The retention of single quarantines, by name.
    pub names: BTreeMap<String, Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { default: Duration::from_secs(30 * 24 * 3600), names: BTreeMap::new() }
    }
}

impl Retention {
    /// How long messages stay in this quarantine.
    pub(crate) fn of(&self, quarantine: &Quarantine) -> Duration {
        *self.names.get(&quarantine.name).unwrap_or(&self.default)
    }

    /// When this message expires, on the timeline: not within its retention after a start or a step of the clock.
    pub(crate) fn until(&self, quarantine: &Quarantine, timeline: &Timeline) -> UnixTime {
        let retention = self.of(quarantine);
        timeline.place(quarantine.since).plus(retention).max(timeline.steady_at(retention))
    }

    /// The hold of the queue for a message with this hold in the spool.
    pub(crate) fn custody(&self, hold: Option<&HoldReason>, timeline: &Timeline) -> HoldState {
        match hold {
            None => HoldState::Free,
            Some(HoldReason::Operator(_) | HoldReason::Other(_)) => HoldState::Held,
            Some(HoldReason::Quarantine(quarantine)) => {
                HoldState::Quarantined(self.until(quarantine, timeline))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_queue::Reading;

    #[test]
    fn a_quarantine_of_its_own_name_has_its_own_time() {
        let names = BTreeMap::from([("score".to_owned(), Duration::from_secs(60))]);
        let retention = Retention { names, ..Retention::default() };
        let since = UnixTime::from_millis(1_795_317_000_000);
        let timeline = Timeline::start(Reading { wall: since, monotonic: Duration::ZERO });
        let until = |name: &str| retention.until(&Quarantine::new(name, since), &timeline);
        assert_eq!(until("score"), since.plus(Duration::from_secs(60)));
        assert_eq!(until("dmarc"), since.plus(Duration::from_secs(2_592_000)));
        assert_eq!(retention.custody(Some(&HoldReason::Operator("x".into())), &timeline), HoldState::Held);
    }
}
