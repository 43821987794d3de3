//! Expiry and delay warnings: the sender of a message that waits is warned once, and at its maximum age the message
//! bounces.
//!
//! One message may have several jobs, one for each next hop. Those that reach an age at the same moment are settled
//! together, and their sender gets one report.

use std::collections::HashMap;
use std::sync::Arc;

use pintle_mail::dsn::{self, DsnAction};
use pintle_mail::{QueueId, Recipient, ReversePath, UnixTime};
use pintle_queue::{Aged, AttemptReport, HoldState, JobId};
use pintle_record::{PeerMembers, ReportKind};
use pintle_smtp::client::Speaker;
use pintle_spool::{Change, DeliveryStatus, HoldReason, Quarantine, SpoolError, Stored};

use crate::bounce::{DsnBuilder, NewReport};
use crate::finished::Finished;
use crate::parts::OutboundShared;
use crate::quarantine;
use crate::recipient_result::{self, RecipientResult, ReportPolicy, Resolution};
use crate::refusal;
use crate::settle::{self, SettleCause};

/// The jobs of one message that have reached an age together.
pub(crate) struct AgedJobs {
    message: QueueId,
    /// The jobs, at least one.
    jobs: Vec<Aged>,
}

impl AgedJobs {
    /// Groups jobs by message. A quarantined message expires without a report, job by job.
    pub(crate) fn group(aged: Vec<Aged>) -> Vec<Self> {
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

    /// Returns all jobs to the queue with this report.
    pub(crate) fn finished(&self, report: impl Fn(Box<[u32]>) -> AttemptReport) -> Finished {
        let jobs = self.jobs.iter().map(|job| (job.id, report(job.recipients.clone())));
        Finished::all(self.message, jobs.collect())
    }

    fn recipients(&self) -> impl Iterator<Item = u32> {
        self.jobs.iter().flat_map(|job| job.recipients.iter().copied())
    }

    fn cause(&self) -> SettleCause {
        let next_hop = if let [job] = self.jobs.as_slice() { Some(job.next_hop.clone()) } else { None };
        SettleCause::Expiry { next_hop }
    }
}

/// Settles the recipients of jobs that have reached their maximum age.
pub(crate) async fn expire(shared: Arc<OutboundShared>, group: AgedJobs) -> Option<Finished> {
    let stored = match shared.spool.load(group.message).await {
        Ok(stored) => stored,
        Err(SpoolError::Unknown(_) | SpoolError::Damaged(..)) => return Some(group.finished(settled)),
        Err(error) => {
            tracing::error!(queue_id = %group.message, %error, "a message at its maximum age cannot be read, and expires later");
            return Some(group.finished(AttemptReport::deferred));
        }
    };
    if let Some(quarantine) = stored.entry.hold.as_ref().and_then(HoldReason::quarantine) {
        return Some(end_of_quarantine(&shared, &stored, &group, quarantine).await);
    }
    let (held, config) = (stored.entry.hold.is_some(), shared.config.load_full());
    let quarantined = group.jobs.iter().any(|job| job.quarantined);
    if quarantined || !shared.ages.is_steady(config.retry.max_age) {
        // It was released, or the clock was set, while this waited for a permit.
        let custody = if held { HoldState::Held } else { HoldState::Free };
        return Some(
            group.finished(|left| AttemptReport { hold: custody, ..AttemptReport::unchanged(left) }),
        );
    }
    let results: Vec<RecipientResult> = group.recipients().filter_map(|id| expired(&stored, id)).collect();
    Some(match settle::durably(&shared, &stored, &group.cause(), &results).await {
        Ok(()) | Err(SpoolError::Unknown(_) | SpoolError::Damaged(..)) => group.finished(settled),
        Err(_) => group.finished(AttemptReport::deferred),
    })
}

fn settled(_: Box<[u32]>) -> AttemptReport {
    AttemptReport::settled()
}

async fn end_of_quarantine(
    shared: &OutboundShared,
    stored: &Stored,
    group: &AgedJobs,
    quarantine: &Quarantine,
) -> Finished {
    let mut jobs: Vec<(JobId, AttemptReport)> = Vec::with_capacity(group.jobs.len());
    for job in &group.jobs {
        let report = quarantine::expire(shared, stored, job, quarantine).await;
        jobs.push((job.id, report));
    }
    Finished::all(group.message, jobs)
}

/// A refused recipient that was held all the time fails as it would have failed at once.
fn expired(stored: &Stored, recipient: u32) -> Option<RecipientResult> {
    if let Some(refused) = refusal::refused(stored, recipient) {
        return Some(refused);
    }
    let pending = recipient_result::pending(stored, recipient)?;
    Some(RecipientResult {
        reply: pending.last.clone(),
        speaker: if pending.unheard { Speaker::Us } else { Speaker::NextHop },
        peer: Arc::new(PeerMembers { host: pending.host.clone(), ..PeerMembers::default() }),
        last_attempt: pending.last_attempt,
        ..RecipientResult::without_reply(recipient, Resolution::Expired(ReportPolicy::Due))
    })
}

/// Warns the sender of a delay, once.
pub(crate) async fn warn(shared: Arc<OutboundShared>, group: AgedJobs) -> Option<Finished> {
    let finished = Some(group.finished(AttemptReport::unchanged));
    let stored = match shared.spool.load(group.message).await {
        Ok(stored) if stored.entry.hold.is_none() => stored,
        // The sender of a held message gets no warning; the next attempt finds the hold.
        Ok(_) => return finished,
        Err(error) => {
            tracing::debug!(queue_id = %group.message, %error, "the delay warning was not written");
            return finished;
        }
    };
    let late: Vec<&Recipient> = group.recipients().filter_map(|id| late(&stored, id)).collect();
    let report = warning(&shared, &stored, &group, &late).await;
    let changes = group.recipients().filter_map(|id| warned(&stored, id)).collect();
    settle::warned(&shared, &stored, changes, report.as_slice()).await;
    finished
}

/// The result for a recipient that the sender is to be warned about; none for others.
fn late(stored: &Stored, id: u32) -> Option<&Recipient> {
    recipient_result::pending(stored, id).filter(|pending| !pending.warned)?;
    recipient_result::recipient(stored, id).filter(|recipient| recipient.params.notify().delay)
}

/// The status as it was loaded, and the mark. Nothing else writes it meanwhile: the queue begins no attempt before the
/// warning has come back, and what an operator has settled stays settled.
fn warned(stored: &Stored, recipient: u32) -> Option<Change> {
    let mut pending = recipient_result::pending(stored, recipient)?.clone();
    pending.warned = true;
    Some(Change { recipient, status: DeliveryStatus::Pending(pending) })
}

async fn warning(
    shared: &OutboundShared,
    stored: &Stored,
    group: &AgedJobs,
    late: &[&Recipient],
) -> Option<NewReport> {
    let (ReversePath::Address(sender), Some(job)) = (&stored.entry.envelope.sender, group.jobs.first())
    else {
        return None;
    };
    if late.is_empty() {
        return None;
    }
    let until = shared.ages.timeline().wall(job.accepted.plus(shared.config.load().retry.max_age));
    let statuses: Vec<dsn::RecipientStatus<'_>> =
        late.iter().map(|recipient| delayed(stored, recipient, until)).collect();
    let builder = DsnBuilder { shared, stored, sender };
    let about = late.iter().map(|recipient| recipient.id).collect();
    Some(builder.write(ReportKind::Delay, &statuses, about).await)
}

fn delayed<'a>(stored: &'a Stored, recipient: &'a Recipient, until: UnixTime) -> dsn::RecipientStatus<'a> {
    let pending = recipient_result::pending(stored, recipient.id);
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
