//! Quarantines: how long they keep, and how what nobody looks at leaves them.
//!
//! A message in a quarantine was taken for harmful, and its sender for forged: whatever happens to it there, no report is
//! sent. Only a release makes it a message like any other again, with a fresh age.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pintle_mail::{QueueId, Reply, UnixTime};
use pintle_queue::{Again, Aged, AttemptReport, HoldState, HopSign, Timeline};
use pintle_spool::{Amount, Disposition, Guard, Hold, Quarantine, SpoolError, Stored};

use crate::select::CommandOutcome;
use crate::settle::{self, RecipientResult, ReportPolicy, Resolution, SettleContext};
use crate::shared::OutboundShared;

/// Quarantines beyond so many share one gauge: plugins name them, and a series costs memory for ever.
const GAUGES: usize = 100;
/// The name under which the rest is counted.
const OTHERS: &str = "(others)";

/// How long messages stay in quarantines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// In any.
    pub default: Duration,
    /// In some, by name.
    pub names: BTreeMap<String, Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { default: Duration::from_secs(30 * 24 * 3600), names: BTreeMap::new() }
    }
}

impl Retention {
    /// How long this message is kept.
    fn of(&self, quarantine: &Quarantine) -> Duration {
        *self.names.get(&quarantine.name).unwrap_or(&self.default)
    }

    /// When this message's time is over, on the timeline: not soon after a start or a step of the clock.
    pub(crate) fn until(&self, quarantine: &Quarantine, timeline: &Timeline) -> UnixTime {
        let keep = self.of(quarantine);
        timeline.place(quarantine.since).plus(keep).max(timeline.steady_at(keep))
    }

    /// What a hold means for the queue.
    pub(crate) fn custody(&self, hold: Option<&Hold>, timeline: &Timeline) -> HoldState {
        match hold {
            None => HoldState::Free,
            Some(Hold::Operator(_) | Hold::Other(_)) => HoldState::Held,
            Some(Hold::Quarantine(quarantine)) => HoldState::Quarantined(self.until(quarantine, timeline)),
        }
    }
}

/// Ends the recipients of a job that has lain in quarantine to the end of its time. The sender hears nothing.
pub(crate) async fn expire(
    shared: &OutboundShared,
    stored: &Stored,
    aged: &Aged,
    quarantine: &Quarantine,
) -> AttemptReport {
    let timeline = shared.ages.timeline();
    let config = shared.config.load_full();
    let (keep, until) = (config.quarantine.of(quarantine), config.quarantine.until(quarantine, &timeline));
    let stays = |custody| AttemptReport {
        remaining: aged.recipients.clone(),
        hop: HopSign::Silent,
        again: Again::BackOff,
        hold: custody,
    };
    // A time from a wrong clock is placed at now, whenever it is looked at: the queue has counted since it knew the message.
    let untold = timeline.place(quarantine.since) == timeline.now();
    if until > timeline.now() && !(untold && aged.quarantined && shared.ages.is_steady(keep)) {
        // The operator has lengthened the time since, or the clock was set.
        return stays(HoldState::Quarantined(until));
    }
    let context = SettleContext {
        quarantine: Some(quarantine.name.clone()),
        guard: Guard::Quarantined,
        ..SettleContext::none(aged.next_hop.clone())
    };
    let result = |id: &u32| {
        let pending = settle::pending(stored, *id)?;
        let end = Resolution::Expired(ReportPolicy::Suppressed);
        Some(RecipientResult { end, reply: pending.last.clone(), ..RecipientResult::nothing(*id) })
    };
    let results: Vec<RecipientResult> = aged.recipients.iter().filter_map(result).collect();
    match settle::durably(shared, stored, &context, &results).await {
        Ok(()) => {
            count("expired");
            AttemptReport::settled()
        }
        Err(SpoolError::Unknown(_) | SpoolError::Damaged(..)) => AttemptReport::settled(),
        // It was released in the last moment.
        Err(SpoolError::HoldChanged(_)) => stays(HoldState::Free),
        Err(_) => stays(HoldState::Quarantined(until)),
    }
}

/// Who drops messages from quarantines, and why.
pub(crate) struct Deletion<'a> {
    by: &'static str,
    user: Option<&'a str>,
    /// Only from this one.
    from: Option<&'a str>,
    act: &'static str,
    text: &'static str,
}

impl<'a> Deletion<'a> {
    pub(crate) fn by_operator(user: Option<&'a str>) -> Self {
        let text = "Deleted from its quarantine by the operator";
        Self { by: "operator", user, from: None, act: "deleted", text }
    }

    /// For room in the quarantine of this name.
    pub(crate) fn by_quota(name: &'a str) -> Self {
        let text = "Dropped from its quarantine, which was full, for newer messages";
        Self { by: "quota", user: None, from: Some(name), act: "dropped", text }
    }
}

/// Drops a message from its quarantine; its sender hears nothing. One that lies in none, or no longer, stays.
pub(crate) async fn delete(
    shared: &OutboundShared,
    id: QueueId,
    deletion: &Deletion<'_>,
) -> Result<(), CommandOutcome> {
    let stored = shared.spool.load(id).await.map_err(CommandOutcome::of)?;
    let quarantine = stored.entry.hold.as_ref().and_then(Hold::quarantine);
    let quarantine = quarantine.filter(|found| deletion.from.is_none_or(|name| found.name == name));
    let quarantine = quarantine.ok_or(CommandOutcome::NotQuarantined)?;
    let context = SettleContext {
        stage: "quarantine",
        quarantine: Some(quarantine.name.clone()),
        by: Some(deletion.by.to_owned()),
        user: deletion.user.map(str::to_owned),
        guard: Guard::Quarantined,
        ..SettleContext::by_operator()
    };
    let reply = Reply::plain(250, deletion.text);
    let results = settle::all_pending(&stored, &RecipientResult::by_operator(Disposition::Discarded, reply));
    match settle::once(shared, &stored, &context, &results).await {
        Ok(_) => {
            count(deletion.act);
            Ok(())
        }
        // It was released while we looked.
        Err(SpoolError::HoldChanged(_)) => Err(CommandOutcome::NotQuarantined),
        Err(error) => Err(CommandOutcome::of(error)),
    }
}

/// Counts a message that went into a quarantine, was refused by it, or left it.
pub(crate) fn count(act: &'static str) {
    metrics::counter!("pintle_quarantine_total", "act" => act).increment(1);
}

/// Shows what lies in each quarantine. `shown` remembers those that have a gauge, so that an empty one falls to zero.
pub(crate) fn gauge(amounts: &BTreeMap<String, Amount>, shown: &mut BTreeSet<String>) {
    let mut now: BTreeMap<&str, Amount> =
        shown.iter().map(|name| (name.as_str(), Amount::default())).collect();
    let mut fresh = Vec::new();
    for (name, amount) in amounts {
        let known = shown.contains(name);
        let room = known || shown.len() + fresh.len() < GAUGES;
        let total = now.entry(if room { name } else { OTHERS }).or_default();
        total.messages += amount.messages;
        total.bytes += amount.bytes;
        if !known {
            fresh.push(if room { name.clone() } else { OTHERS.to_owned() });
        }
    }
    // Counts stay far below 2^52, where a float counts exactly.
    #[allow(clippy::cast_precision_loss)]
    for (name, amount) in now {
        metrics::gauge!("pintle_quarantine_messages", "quarantine" => name.to_owned())
            .set(amount.messages as f64);
        metrics::gauge!("pintle_quarantine_octets", "quarantine" => name.to_owned()).set(amount.bytes as f64);
    }
    shown.extend(fresh);
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_queue::Reading;

    #[test]
    fn a_quarantine_of_its_own_name_has_its_own_time() {
        let names = BTreeMap::from([("score".to_owned(), Duration::from_secs(60))]);
        let keep = Retention { names, ..Retention::default() };
        let since = UnixTime::from_millis(1_795_317_000_000);
        let timeline = Timeline::start(Reading { wall: since, monotonic: Duration::ZERO });
        let until = |name: &str| keep.until(&Quarantine::new(name, since), &timeline);
        assert_eq!(until("score"), since.plus(Duration::from_secs(60)));
        assert_eq!(until("dmarc"), since.plus(Duration::from_secs(2_592_000)));
        assert_eq!(keep.custody(Some(&Hold::Operator("x".into())), &timeline), HoldState::Held);
    }

    #[test]
    fn no_plugin_makes_gauges_without_end() {
        let mut shown = BTreeSet::new();
        for round in 0..3 {
            let named = |n: u32| (format!("{round}-{n}"), Amount { messages: 1, bytes: 10 });
            gauge(&(0..200).map(named).collect(), &mut shown);
            assert_eq!(shown.len(), GAUGES + 1);
            assert!(shown.contains(OTHERS));
        }
    }
}
