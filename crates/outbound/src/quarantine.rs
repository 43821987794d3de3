//! Removes messages from quarantines without a release: expiry at the end of their retention, and deletion. The metrics
//! of quarantines are here as well.
//!
//! A message in a quarantine is assumed to be harmful, and its sender to be forged, so no report is ever sent for it.
//! Only a release makes it an ordinary message again, with a fresh age.

use std::collections::{BTreeMap, BTreeSet};

use pintle_mail::{QueueId, Reply};
use pintle_queue::{Again, Aged, AttemptReport, HoldState, HopSign};
use pintle_spool::{Amount, HoldReason, Quarantine, SpoolError, Stored};

use crate::parts::OutboundShared;
use crate::recipient_result::{self, DiscardStage, RecipientResult, ReportPolicy, Resolution};
use crate::select::CommandOutcome;
use crate::settle::{self, SettleCause};

/// Quarantines with a gauge of their own: plugins name them, and a time series costs memory until the process ends.
const MAX_GAUGES: usize = 100;
/// The name under which the others are counted.
const OTHERS: &str = "(others)";

/// Expires the recipients of a job at the end of their quarantine's retention. The sender gets no report.
pub(crate) async fn expire(
    shared: &OutboundShared,
    stored: &Stored,
    aged: &Aged,
    quarantine: &Quarantine,
) -> AttemptReport {
    let timeline = shared.ages.timeline();
    let config = shared.config.load_full();
    let until = config.quarantine.until(quarantine, &timeline);
    let stays = |custody| AttemptReport {
        remaining: aged.recipients.clone(),
        hop: HopSign::Silent,
        again: Again::BackOff,
        hold: custody,
    };
    // A time from a wrong clock is placed at now, whenever it is looked at: the queue has counted since it knew the
    // message.
    let is_unknown = timeline.place(quarantine.since) == timeline.now();
    let is_over = is_unknown && aged.quarantined && shared.ages.is_steady(config.quarantine.of(quarantine));
    if until > timeline.now() && !is_over {
        // The operator has lengthened the retention since, or the clock was set.
        return stays(HoldState::Quarantined(until));
    }
    let results: Vec<RecipientResult> =
        aged.recipients.iter().filter_map(|id| expired(stored, *id)).collect();
    let (next_hop, quarantine) = (aged.next_hop.clone(), quarantine.name.clone());
    let cause = SettleCause::QuarantineExpiry { next_hop, quarantine };
    match settle::durably(shared, stored, &cause, &results).await {
        Ok(()) => {
            count("expired");
            AttemptReport::settled()
        }
        Err(SpoolError::Unknown(_) | SpoolError::Damaged(..)) => AttemptReport::settled(),
        // It was released at the last moment.
        Err(SpoolError::HoldChanged(_)) => stays(HoldState::Free),
        Err(_) => stays(HoldState::Quarantined(until)),
    }
}

fn expired(stored: &Stored, recipient: u32) -> Option<RecipientResult> {
    let reply = recipient_result::pending(stored, recipient)?.last.clone();
    let end = Resolution::Expired(ReportPolicy::Suppressed);
    Some(RecipientResult { reply, ..RecipientResult::without_reply(recipient, end) })
}

/// Who deletes messages from quarantines.
pub(crate) enum Deletion<'a> {
    /// An operator, with a name where it is known.
    ByOperator { user: Option<&'a str> },
    /// The quota of the quarantine of this name, to make room. A message that has left that quarantine meanwhile is not
    /// deleted.
    ByQuota { quarantine: &'a str },
}

impl Deletion<'_> {
    /// The name in event records.
    fn by(&self) -> &'static str {
        match self {
            Self::ByOperator { .. } => "operator",
            Self::ByQuota { .. } => "quota",
        }
    }

    /// The label of the metric.
    fn act(&self) -> &'static str {
        match self {
            Self::ByOperator { .. } => "deleted",
            Self::ByQuota { .. } => "dropped",
        }
    }

    fn text(&self) -> &'static str {
        match self {
            Self::ByOperator { .. } => "Deleted from its quarantine by the operator",
            Self::ByQuota { .. } => "Dropped from its quarantine, which was full, for newer messages",
        }
    }

    fn user(&self) -> Option<&str> {
        if let Self::ByOperator { user } = self { *user } else { None }
    }

    fn means(&self, quarantine: &Quarantine) -> bool {
        match self {
            Self::ByOperator { .. } => true,
            Self::ByQuota { quarantine: name } => quarantine.name == *name,
        }
    }
}

/// Deletes a message from its quarantine; its sender gets no report. A message that is not in a quarantine stays.
///
/// # Errors
/// The message was not deleted, and why.
pub(crate) async fn delete(
    shared: &OutboundShared,
    id: QueueId,
    deletion: &Deletion<'_>,
) -> Result<(), CommandOutcome> {
    let stored = shared.spool.load(id).await.map_err(CommandOutcome::of)?;
    let quarantine = stored.entry.hold.as_ref().and_then(HoldReason::quarantine);
    let quarantine = quarantine.filter(|found| deletion.means(found));
    let cause = SettleCause::QuarantineDeletion {
        quarantine: quarantine.ok_or(CommandOutcome::NotQuarantined)?.name.clone(),
        by: deletion.by(),
        user: deletion.user().map(str::to_owned),
    };
    let end = Resolution::Discarded(DiscardStage::Quarantine);
    let results = recipient_result::for_all_pending(&stored, end, &Reply::plain(250, deletion.text()));
    match settle::once(shared, &stored, &cause, &results).await {
        Ok(_) => {
            count(deletion.act());
            Ok(())
        }
        // It was released since it was read.
        Err(SpoolError::HoldChanged(_)) => Err(CommandOutcome::NotQuarantined),
        Err(error) => Err(CommandOutcome::of(error)),
    }
}

/// Counts a message that went into a quarantine, was refused by it, or left it.
pub(crate) fn count(act: &'static str) {
    metrics::counter!("pintle_quarantine_total", "act" => act).increment(1);
}

/// Sets the gauges of the contents of each quarantine. `shown` remembers those that have a gauge, so that an empty one
/// falls to zero.
pub(crate) fn gauge(amounts: &BTreeMap<String, Amount>, shown: &mut BTreeSet<String>) {
    let mut now: BTreeMap<&str, Amount> =
        shown.iter().map(|name| (name.as_str(), Amount::default())).collect();
    let mut new = Vec::new();
    for (name, amount) in amounts {
        let known = shown.contains(name);
        let room = known || shown.len() + new.len() < MAX_GAUGES;
        let total = now.entry(if room { name } else { OTHERS }).or_default();
        total.messages += amount.messages;
        total.bytes += amount.bytes;
        if !known {
            new.push(if room { name.clone() } else { OTHERS.to_owned() });
        }
    }
    // Counts stay far below 2^52, up to which a float is exact.
    #[allow(clippy::cast_precision_loss)]
    for (name, amount) in now {
        metrics::gauge!("pintle_quarantine_messages", "quarantine" => name.to_owned())
            .set(amount.messages as f64);
        metrics::gauge!("pintle_quarantine_octets", "quarantine" => name.to_owned()).set(amount.bytes as f64);
    }
    shown.extend(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_plugin_makes_gauges_without_end() {
        let mut shown = BTreeSet::new();
        for round in 0..3 {
            let named = |n: u32| (format!("{round}-{n}"), Amount { messages: 1, bytes: 10 });
            gauge(&(0..200).map(named).collect(), &mut shown);
            assert_eq!(shown.len(), MAX_GAUGES + 1);
            assert!(shown.contains(OTHERS));
        }
    }
}
