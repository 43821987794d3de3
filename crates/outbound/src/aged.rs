//! What happens to jobs that grow old: their senders are warned, and in the end told that it was in vain.
//!
//! One message may be several jobs, one for each next hop. Those that reach an age at the same moment are settled together,
//! and their sender gets one report.

use std::collections::HashMap;
use std::sync::Arc;

use pintle_mail::dsn::{self, DsnAction};
use pintle_mail::{NextHop, QueueId, Recipient, ReversePath, UnixTime};
use pintle_queue::{Aged, AttemptReport, HoldState, JobId};
use pintle_record::{PeerMembers, ReportKind};
use pintle_smtp::client::Speaker;
use pintle_spool::{Change, Guard, Hold, Quarantine, Settlement, SpoolError, Status, Stored};

use crate::bounce::{BornReport, DsnBuilder};
use crate::quarantine;
use crate::runner::Finished;
use crate::settle::{self, RecipientResult, ReportPolicy, Resolution, SettleContext};
use crate::shared::OutboundShared;

/// The jobs of one message that have reached an age together.
pub(crate) struct Group {
    message: QueueId,
    /// At least one.
    jobs: Vec<Aged>,
}

impl Group {
    /// Brings the jobs of each message together. What lies in quarantine is told to nobody, and ends job by job.
    pub(crate) fn of(aged: Vec<Aged>) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::with_capacity(aged.len());
        let mut places: HashMap<QueueId, usize> = HashMap::new();
        for job in aged {
            let place = places.get(&job.message).filter(|_| !job.quarantined);
            match place.and_then(|place| groups.get_mut(*place)) {
                Some(group) => group.jobs.push(job),
                None => {
                    if !job.quarantined {
                        places.insert(job.message, groups.len());
                    }
                    groups.push(Self { message: job.message, jobs: vec![job] });
                }
            }
        }
        groups
    }

    /// All jobs come back with such a report.
    pub(crate) fn back(&self, report: impl Fn(Box<[u32]>) -> AttemptReport) -> Finished {
        let jobs = self.jobs.iter().map(|job| (job.id, report(job.recipients.clone())));
        Finished::all(self.message, jobs.collect())
    }

    fn recipients(&self) -> impl Iterator<Item = u32> {
        self.jobs.iter().flat_map(|job| job.recipients.iter().copied())
    }

    /// Nothing was tried. With several next hops each recipient's own is meant.
    fn context(&self) -> SettleContext {
        match self.jobs.as_slice() {
            [job] => SettleContext::none(job.next_hop.clone()),
            _ => SettleContext { next_hop: None, ..SettleContext::none(NextHop::Discard) },
        }
    }
}

/// Settles the recipients of jobs whose time has run out.
pub(crate) async fn expire(shared: Arc<OutboundShared>, group: Group) -> Option<Finished> {
    let stored = match shared.spool.load(group.message).await {
        Ok(stored) => stored,
        Err(SpoolError::Unknown(_) | SpoolError::Damaged(..)) => return Some(group.back(settled)),
        Err(error) => {
            tracing::error!(queue_id = %group.message, %error, "cannot expire the message now");
            return Some(group.back(AttemptReport::deferred));
        }
    };
    if let Some(quarantine) = stored.entry.hold.as_ref().and_then(Hold::quarantine) {
        return Some(end_of_quarantine(&shared, &stored, &group, quarantine).await);
    }
    let (held, config) = (stored.entry.hold.is_some(), shared.config.load_full());
    let quarantined = group.jobs.iter().any(|job| job.quarantined);
    if quarantined || !shared.ages.is_steady(config.retry.max_age) {
        // It was released, or the clock was set, while this waited for its turn.
        let custody = if held { HoldState::Held } else { HoldState::Free };
        return Some(group.back(|left| AttemptReport { hold: custody, ..AttemptReport::unchanged(left) }));
    }
    // A report about what was taken for harmful would go to whoever was named as its sender.
    let context = SettleContext { guard: Guard::Free, ..group.context() };
    let results: Vec<RecipientResult> = group.recipients().filter_map(|id| expired(&stored, id)).collect();
    Some(match settle::durably(&shared, &stored, &context, &results).await {
        Ok(()) | Err(SpoolError::Unknown(_) | SpoolError::Damaged(..)) => group.back(settled),
        Err(_) => group.back(AttemptReport::deferred),
    })
}

fn settled(_: Box<[u32]>) -> AttemptReport {
    AttemptReport::settled()
}

async fn end_of_quarantine(
    shared: &OutboundShared,
    stored: &Stored,
    group: &Group,
    quarantine: &Quarantine,
) -> Finished {
    let mut jobs: Vec<(JobId, AttemptReport)> = Vec::with_capacity(group.jobs.len());
    for job in &group.jobs {
        let report = quarantine::expire(shared, stored, job, quarantine).await;
        jobs.push((job.id, report));
    }
    Finished::all(group.message, jobs)
}

fn expired(stored: &Stored, recipient: u32) -> Option<RecipientResult> {
    let pending = settle::pending(stored, recipient)?;
    Some(RecipientResult {
        end: Resolution::Expired(ReportPolicy::Due),
        reply: pending.last.clone(),
        speaker: if pending.unheard { Speaker::Us } else { Speaker::NextHop },
        peer: Arc::new(PeerMembers { host: pending.host.clone(), ..PeerMembers::default() }),
        last_attempt: pending.last_attempt,
        ..RecipientResult::nothing(recipient)
    })
}

/// Tells the sender of a delay, once.
pub(crate) async fn warn(shared: Arc<OutboundShared>, group: Group) -> Option<Finished> {
    let finished = Some(group.back(AttemptReport::unchanged));
    let stored = match shared.spool.load(group.message).await {
        Ok(stored) if stored.entry.hold.is_none() => stored,
        // Whoever holds a message decides whether its sender hears of it; the next attempt finds the hold.
        Ok(_) => return finished,
        Err(error) => {
            tracing::debug!(queue_id = %group.message, %error, "no delay warning");
            return finished;
        }
    };
    let late: Vec<&Recipient> = group.recipients().filter_map(|id| late(&stored, id)).collect();
    let children = warning(&shared, &stored, &group, &late).await;
    let settlement = Settlement {
        id: stored.id,
        changes: group.recipients().filter_map(|id| warned(&stored, id)).collect(),
        children: Vec::new(),
        guard: Guard::Free,
    };
    settle::warned(&shared, &stored, settlement, &children).await;
    finished
}

/// The recipients of whose delay the sender is told.
fn late(stored: &Stored, id: u32) -> Option<&Recipient> {
    settle::pending(stored, id).filter(|pending| !pending.warned)?;
    settle::recipient(stored, id).filter(|recipient| recipient.params.notify().delay)
}

/// The status as it was loaded, and the mark. Nobody else writes it meanwhile: the queue lets no attempt begin before the
/// warning has come back, and what an operator has settled stays settled.
fn warned(stored: &Stored, recipient: u32) -> Option<Change> {
    let mut pending = settle::pending(stored, recipient)?.clone();
    pending.warned = true;
    Some(Change { recipient, status: Status::Pending(pending) })
}

async fn warning(
    shared: &OutboundShared,
    stored: &Stored,
    group: &Group,
    late: &[&Recipient],
) -> Vec<BornReport> {
    let (ReversePath::Address(sender), Some(job)) = (&stored.entry.envelope.sender, group.jobs.first())
    else {
        return Vec::new();
    };
    if late.is_empty() {
        return Vec::new();
    }
    let until = shared.ages.timeline().wall(job.accepted.plus(shared.config.load().retry.max_age));
    let statuses: Vec<dsn::RecipientStatus<'_>> =
        late.iter().map(|recipient| delayed(stored, recipient, until)).collect();
    let letter = DsnBuilder { shared, stored, sender };
    let about = late.iter().map(|recipient| recipient.id).collect();
    vec![letter.write(ReportKind::Delay, &statuses, about).await]
}

fn delayed<'a>(stored: &'a Stored, recipient: &'a Recipient, until: UnixTime) -> dsn::RecipientStatus<'a> {
    let pending = settle::pending(stored, recipient.id);
    let last = pending.and_then(|pending| pending.last.as_ref());
    let unheard = pending.is_some_and(|pending| pending.unheard);
    dsn::RecipientStatus {
        recipient,
        action: DsnAction::Delayed,
        status: last.and_then(|reply| reply.enhanced),
        remote_mta: pending.and_then(|pending| pending.host.as_deref()),
        diagnostic: last.filter(|_| !unheard),
        cause: last.filter(|_| unheard).map(|reply| reply.text.as_ref()),
        last_attempt: pending.and_then(|pending| pending.last_attempt),
        will_retry_until: Some(until),
    }
}
