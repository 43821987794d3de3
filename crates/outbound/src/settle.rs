//! Settling: stores the results of an attempt, an expiry or an operator's act durably. One transaction in the spool
//! contains the marks of the recipients and the reports (DSNs) to their senders; then come event records and metrics.
//!
//! The order is guaranteed: a report to a sender is committed with the marks that it explains, and the queue records an
//! attempt only when its marks are durable. A crash before that repeats the attempt; it never loses it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{NextHop, Recipient, Reply};
use pintle_record::{
    Bounce, Deferral, Delivery, Discard, DsnReport, Expiration, JobMembers, PeerMembers, Record, Unreported,
};
use pintle_smtp::client::Speaker;
use pintle_spool::{
    Change, DeliveryStatus, Disposition, Guard, NewMessage, Pending, Settled, Settlement, SpoolError, Stored,
};

use crate::bounce::{self, NewReport};
use crate::parts::OutboundShared;
use crate::recipient_result::{RecipientResult, ReportPolicy, Resolution, pending, recipient};

/// How long to wait before a settlement that the spool refused is tried again.
const SETTLE_AGAIN: Duration = Duration::from_secs(10);

/// Why recipients are settled.
#[derive(Debug)]
pub(crate) enum SettleCause {
    /// The result of a delivery attempt.
    Attempt {
        next_hop: NextHop,
        /// The number of the attempt, from 1.
        number: u32,
        took: Duration,
        /// The plugin that decided in place of the next hop; none if the next hop decided.
        by: Option<Arc<str>>,
    },
    /// Plugins refused the recipient at the end of the data.
    Refusal,
    /// The maximum age of the message. Without a next hop, jobs for several expire together.
    Expiry { next_hop: Option<NextHop> },
    /// The end of a quarantine's retention.
    QuarantineExpiry { next_hop: NextHop, quarantine: String },
    /// A deletion from a quarantine.
    QuarantineDeletion {
        quarantine: String,
        /// What deleted the message: `operator` or `quota`.
        by: &'static str,
        /// The operator's name; none if it is not known.
        user: Option<String>,
    },
    /// An operator's `pintle queue bounce`.
    OperatorBounce,
}

impl SettleCause {
    /// Where the spool must find the message, or else refuse the settlement: in a quarantine, or not in one.
    fn guard(&self) -> Guard {
        match self {
            Self::Attempt { .. } => Guard::Any,
            // A report about mail that was classified as harmful would go to the forged sender.
            Self::Refusal | Self::Expiry { .. } | Self::OperatorBounce => Guard::Free,
            Self::QuarantineExpiry { .. } | Self::QuarantineDeletion { .. } => Guard::Quarantined,
        }
    }

    /// The next hop of a recipient's copy: that of the job; where there is no one job, the recipient's own.
    fn next_hop(&self, shared: &OutboundShared, stored: &Stored, recipient: &Recipient) -> NextHop {
        let of_job = match self {
            Self::Attempt { next_hop, .. } | Self::QuarantineExpiry { next_hop, .. } => Some(next_hop),
            Self::Expiry { next_hop } => next_hop.as_ref(),
            Self::Refusal | Self::QuarantineDeletion { .. } | Self::OperatorBounce => None,
        };
        let chosen = || stored.recipients.iter().find(|state| state.id == recipient.id)?.route.as_ref();
        let known = of_job.or_else(chosen).cloned();
        known.unwrap_or_else(|| shared.config.load().next_hop(&recipient.address.domain_ascii()))
    }

    /// The number of the attempt; 0 if none was made.
    fn attempt(&self) -> u32 {
        if let Self::Attempt { number, .. } = self { *number } else { 0 }
    }

    fn took(&self) -> Duration {
        if let Self::Attempt { took, .. } = self { *took } else { Duration::ZERO }
    }

    fn by(&self) -> Option<&str> {
        match self {
            Self::Attempt { by, .. } => by.as_deref(),
            Self::QuarantineDeletion { by, .. } => Some(by),
            Self::OperatorBounce => Some("operator"),
            Self::Refusal => Some("plugins"),
            Self::Expiry { .. } | Self::QuarantineExpiry { .. } => None,
        }
    }

    fn quarantine(&self) -> Option<&str> {
        match self {
            Self::QuarantineExpiry { quarantine, .. } | Self::QuarantineDeletion { quarantine, .. } => {
                Some(quarantine)
            }
            Self::Attempt { .. } | Self::Refusal | Self::Expiry { .. } | Self::OperatorBounce => None,
        }
    }

    fn user(&self) -> Option<&str> {
        if let Self::QuarantineDeletion { user, .. } = self { user.as_deref() } else { None }
    }
}

/// Settles what an operator or a quota decided.
///
/// # Errors
/// The spool's; nothing is tried again.
pub(crate) async fn once(
    shared: &OutboundShared,
    stored: &Stored,
    cause: &SettleCause,
    results: &[RecipientResult],
) -> Result<Settled, SpoolError> {
    let reports = bounce::reports_for(shared, stored, results).await;
    let settled = shared.spool.settle(settlement(stored, cause, results, &reports)).await?;
    record_results(shared, stored, cause, results, &reports);
    record_reports(shared, stored, &reports);
    Ok(settled)
}

/// Settles an attempt or an expiry. While the spool refuses, it stays under way, so that a message that has been
/// delivered is not delivered again.
///
/// # Errors
/// The spool's, where it will never take the settlement.
pub(crate) async fn durably(
    shared: &OutboundShared,
    stored: &Stored,
    cause: &SettleCause,
    results: &[RecipientResult],
) -> Result<(), SpoolError> {
    let (mut stored, mut results) = (Cow::Borrowed(stored), Cow::Borrowed(results));
    let mut reports = bounce::reports_for(shared, &stored, &results).await;
    loop {
        if results.is_empty() {
            return Ok(());
        }
        let error = match shared.spool.settle(settlement(&stored, cause, &results, &reports)).await {
            Ok(_) => break,
            Err(error) => error,
        };
        match error {
            // An operator has settled some of them since: settle the rest.
            SpoolError::RecipientsChanged(id) => {
                stored = Cow::Owned(shared.spool.load(id).await?);
                results.to_mut().retain(|result| pending(&stored, result.recipient).is_some());
                reports = bounce::reports_for(shared, &stored, &results).await;
            }
            SpoolError::Full | SpoolError::Broken(_) | SpoolError::Store(_) | SpoolError::Unavailable(_) => {
                tracing::error!(queue_id = %stored.id, %error, "the outcome of a delivery cannot be stored; trying again");
                shared.clock.sleep(SETTLE_AGAIN).await;
            }
            error => return Err(error),
        }
    }
    record_results(shared, &stored, cause, &results, &reports);
    record_reports(shared, &stored, &reports);
    Ok(())
}

/// Settles a delay warning. One that the spool refuses is dropped, since the delivery matters more than the warning.
pub(crate) async fn warned(
    shared: &OutboundShared,
    stored: &Stored,
    changes: Vec<Change>,
    reports: &[NewReport],
) {
    let settlement = Settlement {
        id: stored.id,
        changes,
        children: reports.iter().map(|report| copy(&report.message)).collect(),
        guard: Guard::Free,
    };
    match shared.spool.settle(settlement).await {
        Ok(_) => record_reports(shared, stored, reports),
        Err(error) => tracing::warn!(queue_id = %stored.id, %error, "the delay warning was not sent"),
    }
}

fn settlement(
    stored: &Stored,
    cause: &SettleCause,
    results: &[RecipientResult],
    reports: &[NewReport],
) -> Settlement {
    Settlement {
        id: stored.id,
        changes: results.iter().map(|result| change(stored, result)).collect(),
        children: reports.iter().map(|report| copy(&report.message)).collect(),
        guard: cause.guard(),
    }
}

fn change(stored: &Stored, result: &RecipientResult) -> Change {
    let status = match result.end {
        Resolution::Delivered(_) => DeliveryStatus::Done(Disposition::Delivered),
        Resolution::Failed(_) => DeliveryStatus::Done(Disposition::Failed),
        Resolution::Expired(_) => DeliveryStatus::Done(Disposition::Expired),
        Resolution::Discarded(_) => DeliveryStatus::Done(Disposition::Discarded),
        Resolution::Deferred(next_attempt) => {
            let before = pending(stored, result.recipient);
            DeliveryStatus::Pending(Pending {
                attempts: before.map_or(0, |pending| pending.attempts).saturating_add(1),
                next_attempt,
                last: result.reply.clone(),
                unheard: result.speaker == Speaker::Us,
                host: result.remote_host().map(str::to_owned),
                last_attempt: result.last_attempt,
                warned: before.is_some_and(|pending| pending.warned),
            })
        }
    };
    Change { recipient: result.recipient, status }
}

/// A settlement consumes what it commits, and may have to be tried again. All parts but the entry are shared.
fn copy(message: &NewMessage) -> NewMessage {
    NewMessage {
        id: message.id,
        head: message.head.clone(),
        content: message.content.clone(),
        entry: message.entry.clone(),
    }
}

/// Writes records and metrics of what is durable now. The record of a recipient is its one line in the log.
fn record_results(
    shared: &OutboundShared,
    stored: &Stored,
    cause: &SettleCause,
    results: &[RecipientResult],
    reports: &[NewReport],
) {
    let recorder = Recorder { shared, stored, cause, reports };
    for result in results {
        let Some(recipient) = recipient(stored, result.recipient) else {
            continue;
        };
        count(result, cause);
        if shared.records.wanted() {
            shared.records.record(&recorder.record(result, recipient));
        }
    }
}

/// Writes records and metrics of the reports that have been committed.
fn record_reports(shared: &OutboundShared, stored: &Stored, reports: &[NewReport]) {
    for report in reports {
        metrics::counter!("pintle_reports_total", "kind" => kind_name(report)).increment(1);
        let recipients = report.about.iter().filter_map(|id| recipient(stored, *id));
        shared.records.record(&Record::Report(DsnReport {
            time: shared.clock.now(),
            id: report.message.id,
            about: stored.id,
            kind: report.kind,
            to: report.to.clone(),
            recipients: recipients.map(|recipient| recipient.address.clone()).collect(),
        }));
    }
}

fn kind_name(report: &NewReport) -> &'static str {
    match report.kind {
        pintle_record::ReportKind::Failure => "failure",
        pintle_record::ReportKind::Delay => "delay",
        pintle_record::ReportKind::Success => "success",
    }
}

fn name(end: Resolution) -> &'static str {
    match end {
        Resolution::Delivered(_) => "delivered",
        Resolution::Deferred(_) => "deferred",
        Resolution::Failed(_) => "failed",
        Resolution::Expired(_) => "expired",
        Resolution::Discarded(_) => "discarded",
    }
}

fn count(result: &RecipientResult, cause: &SettleCause) {
    metrics::counter!("pintle_deliveries_total", "outcome" => name(result.end)).increment(1);
    if let SettleCause::Attempt { took, .. } = cause {
        metrics::histogram!("pintle_delivery_attempt_seconds").record(took.as_secs_f64());
    }
}

/// Makes the event record of each result of one settlement.
struct Recorder<'a> {
    shared: &'a OutboundShared,
    stored: &'a Stored,
    cause: &'a SettleCause,
    reports: &'a [NewReport],
}

impl Recorder<'_> {
    fn record(&self, result: &RecipientResult, recipient: &Recipient) -> Record {
        let cause = self.cause;
        let (job, peer, reply) =
            (self.job(recipient), PeerMembers::clone(&result.peer), result.reply.clone());
        let or_empty = |reply: Option<Reply>| reply.unwrap_or_else(|| Reply::plain(250, ""));
        let about = |report: &&NewReport| report.about.contains(&result.recipient);
        let report = self.reports.iter().find(about).map(|report| report.message.id);
        let unreported = |policy| report.is_none().then(|| why_unreported(self.stored, policy));
        match result.end {
            Resolution::Delivered(_) => {
                let took_ms = millis(cause.took());
                Record::Delivery(Delivery { job, peer, reply: or_empty(reply), took_ms })
            }
            Resolution::Deferred(next_attempt) => {
                Record::Deferral(Deferral { job, peer, reply: or_empty(reply), next_attempt })
            }
            Resolution::Failed(policy) => {
                let (unreported, by) = (unreported(policy), cause.by().map(str::to_owned));
                Record::Bounce(Bounce { job, peer, reply: or_empty(reply), report, unreported, by })
            }
            Resolution::Expired(policy) => {
                let (unreported, quarantine) = (unreported(policy), cause.quarantine().map(str::to_owned));
                Record::Expiration(Expiration { job, reply, report, unreported, quarantine })
            }
            Resolution::Discarded(stage) => Record::Discard(Discard {
                time: job.time,
                id: job.id,
                stage: stage.name().to_owned(),
                sender: job.sender,
                recipients: vec![job.recipient],
                by: result.dropped_by.as_deref().or(cause.by()).map(str::to_owned),
                quarantine: cause.quarantine().map(str::to_owned),
                user: cause.user().map(str::to_owned),
            }),
        }
    }

    fn job(&self, recipient: &Recipient) -> JobMembers {
        let stored = self.stored;
        JobMembers {
            time: self.shared.clock.now(),
            id: stored.id,
            sender: stored.entry.envelope.sender.clone(),
            recipient: recipient.address.clone(),
            next_hop: self.cause.next_hop(self.shared, stored, recipient),
            attempt: self.cause.attempt(),
            age_ms: millis(self.shared.ages.since(stored.entry.received)),
            size: stored.head.len() as u64 + stored.body.size(),
        }
    }
}

fn why_unreported(stored: &Stored, policy: ReportPolicy) -> Unreported {
    if stored.entry.envelope.sender.is_null() {
        Unreported::NullSender
    } else if policy == ReportPolicy::Suppressed {
        Unreported::Suppressed
    } else {
        Unreported::NotWanted
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
