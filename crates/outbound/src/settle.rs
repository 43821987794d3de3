//! From what happened to what is durable: one settlement for an attempt, its reports inside, then records, log and metrics.
//!
//! The order is the promise: reports to senders are committed with the marks they explain, and the queue hears of an
//! attempt only when its marks are durable. A crash before that makes the attempt again; it never loses it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{NextHop, Recipient, Reply, UnixTime};
use pintle_record::{
    Bounce, Deferral, Delivery, Discard, DsnReport, Expiration, JobMembers, PeerMembers, Record, Unreported,
};
use pintle_smtp::client::Speaker;
use pintle_spool::{
    Change, Disposition, Guard, NewMessage, Pending, Settled, Settlement, SpoolError, Status, Stored,
};

use crate::bounce::{self, BornReport};
use crate::shared::OutboundShared;

/// How long to wait before a settlement that the spool refused is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// What happened to one recipient.
#[derive(Debug, Clone)]
pub(crate) struct RecipientResult {
    /// [`Recipient::id`].
    pub(crate) recipient: u32,
    pub(crate) end: Resolution,
    /// What decided it; for an expiry what the last attempt came to.
    pub(crate) reply: Option<Reply>,
    pub(crate) speaker: Speaker,
    /// Who was asked.
    pub(crate) peer: Arc<PeerMembers>,
    /// When the last attempt was made; nothing where none was.
    pub(crate) last_attempt: Option<UnixTime>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// Somebody took the message; this is what the sender may want to hear.
    Delivered(SuccessReporter),
    /// Not before this time.
    Deferred(UnixTime),
    /// Never.
    Failed(ReportPolicy),
    /// Too late.
    Expired(ReportPolicy),
    /// Dropped on purpose.
    Discarded,
}

/// Who reports a success that the sender asked to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SuccessReporter {
    /// The next hop, which takes DSN parameters.
    NextHop,
    /// We: this was the last stop.
    Delivered,
    /// We, since the next hop will not (RFC 3461 section 6.1).
    Relayed,
}

/// Whether a failure may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportPolicy {
    /// If the sender wants to hear.
    Due,
    /// A plugin, the operator or a quarantine forbids it.
    Suppressed,
}

impl RecipientResult {
    /// Nothing was heard of it.
    pub(crate) fn nothing(recipient: u32) -> Self {
        Self {
            recipient,
            end: Resolution::Discarded,
            reply: None,
            speaker: Speaker::Us,
            peer: Arc::default(),
            last_attempt: None,
        }
    }

    /// The host whose words the reply holds; the path of a local socket is none.
    pub(crate) fn remote_host(&self) -> Option<&str> {
        let host = self.peer.host.as_deref().filter(|host| !host.starts_with('/'));
        host.filter(|_| self.speaker == Speaker::NextHop)
    }

    /// An operator's decision; the recipient's number is filled in by [`all_pending`].
    pub(crate) fn by_operator(result: Disposition, reply: Reply) -> Self {
        let end = match result {
            Disposition::Failed => Resolution::Failed(ReportPolicy::Due),
            Disposition::Expired => Resolution::Expired(ReportPolicy::Due),
            Disposition::Delivered | Disposition::Discarded => Resolution::Discarded,
        };
        Self { end, reply: Some(reply), ..Self::nothing(0) }
    }
}

/// The circumstances of an attempt.
pub(crate) struct SettleContext {
    /// None where nobody has looked at jobs: each recipient's own is meant.
    pub(crate) next_hop: Option<NextHop>,
    /// 1 for the first; 0 when nothing was tried.
    pub(crate) attempt: u32,
    pub(crate) took: Duration,
    /// Who decided, when it was not the next hop.
    pub(crate) by: Option<String>,
    /// Where a discard was decided.
    pub(crate) stage: &'static str,
    /// The quarantine that the message lies in.
    pub(crate) quarantine: Option<String>,
    /// The operator's name, where one is known.
    pub(crate) user: Option<String>,
    /// For which messages the outcome is meant.
    pub(crate) guard: Guard,
}

impl SettleContext {
    /// Nothing was tried.
    pub(crate) fn none(next_hop: NextHop) -> Self {
        Self {
            next_hop: Some(next_hop),
            attempt: 0,
            took: Duration::ZERO,
            by: None,
            stage: "deliver",
            quarantine: None,
            user: None,
            guard: Guard::Any,
        }
    }

    /// An operator decides.
    pub(crate) fn by_operator() -> Self {
        let by = Some("operator".to_owned());
        Self { by, next_hop: None, ..Self::none(NextHop::Discard) }
    }

    /// Where the recipient's copy was to go.
    fn next_hop(&self, shared: &OutboundShared, stored: &Stored, recipient: &Recipient) -> NextHop {
        let chosen = || stored.recipients.iter().find(|state| state.id == recipient.id)?.route.clone();
        let known = self.next_hop.clone().or_else(chosen);
        known.unwrap_or_else(|| shared.config.load().next_hop(&recipient.address.domain_ascii()))
    }
}

/// The same result for every recipient that is not done.
pub(crate) fn all_pending(stored: &Stored, result: &RecipientResult) -> Vec<RecipientResult> {
    let pending = stored.recipients.iter().filter(|state| state.status.pending().is_some());
    pending.map(|state| RecipientResult { recipient: state.id, ..result.clone() }).collect()
}

/// Settles what an operator decided; a refusal is the operator's to see.
pub(crate) async fn once(
    shared: &OutboundShared,
    stored: &Stored,
    context: &SettleContext,
    results: &[RecipientResult],
) -> Result<Settled, SpoolError> {
    let children = bounce::children(shared, stored, results).await;
    let settled = shared.spool.settle(settlement(stored, context, results, &children)).await?;
    tell(shared, stored, context, results, &children);
    Ok(settled)
}

/// Settles an attempt. While the spool refuses, the attempt stays under way, so that what has been delivered is not
/// delivered again; gives up only where the spool will never take it.
pub(crate) async fn durably(
    shared: &OutboundShared,
    stored: &Stored,
    context: &SettleContext,
    results: &[RecipientResult],
) -> Result<(), SpoolError> {
    let (mut stored, mut results) = (Cow::Borrowed(stored), Cow::Borrowed(results));
    let mut children = bounce::children(shared, &stored, &results).await;
    loop {
        if results.is_empty() {
            return Ok(());
        }
        let error = match shared.spool.settle(settlement(&stored, context, &results, &children)).await {
            Ok(_) => break,
            Err(error) => error,
        };
        match error {
            // An operator was quicker; what is left is settled.
            SpoolError::RecipientsChanged(id) => {
                stored = Cow::Owned(shared.spool.load(id).await?);
                results.to_mut().retain(|result| pending(&stored, result.recipient).is_some());
                children = bounce::children(shared, &stored, &results).await;
            }
            SpoolError::Full | SpoolError::Broken(_) | SpoolError::Store(_) | SpoolError::Unavailable(_) => {
                tracing::error!(queue_id = %stored.id, %error, "an attempt's outcome cannot be stored; trying again");
                shared.clock.sleep(AGAIN).await;
            }
            error => return Err(error),
        }
    }
    tell(shared, &stored, context, &results, &children);
    Ok(())
}

fn settlement(
    stored: &Stored,
    context: &SettleContext,
    results: &[RecipientResult],
    children: &[BornReport],
) -> Settlement {
    Settlement {
        id: stored.id,
        changes: results.iter().map(|result| change(stored, result)).collect(),
        children: children.iter().map(|child| copy(&child.message)).collect(),
        guard: context.guard,
    }
}

fn change(stored: &Stored, result: &RecipientResult) -> Change {
    let status = match result.end {
        Resolution::Delivered(_) => Status::Done(Disposition::Delivered),
        Resolution::Failed(_) => Status::Done(Disposition::Failed),
        Resolution::Expired(_) => Status::Done(Disposition::Expired),
        Resolution::Discarded => Status::Done(Disposition::Discarded),
        Resolution::Deferred(next_attempt) => {
            let before = pending(stored, result.recipient);
            Status::Pending(Pending {
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

/// How a recipient stood when the message was loaded.
pub(crate) fn pending(stored: &Stored, id: u32) -> Option<&Pending> {
    stored.recipients.iter().find(|state| state.id == id)?.status.pending()
}

pub(crate) fn recipient(stored: &Stored, id: u32) -> Option<&Recipient> {
    let mut recipients = stored.entry.envelope.recipients.iter();
    recipients.find(|recipient| recipient.id == id)
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

/// Records and metrics of what is durable now. What becomes of a recipient has one line in the log: its record.
fn tell(
    shared: &OutboundShared,
    stored: &Stored,
    context: &SettleContext,
    results: &[RecipientResult],
    children: &[BornReport],
) {
    for result in results {
        let Some(recipient) = recipient(stored, result.recipient) else {
            continue;
        };
        count(result, context);
        if shared.records.wanted() {
            shared.records.record(&record(shared, stored, context, result, recipient, children));
        }
    }
    for child in children {
        metrics::counter!("pintle_reports_total", "kind" => kind_name(child)).increment(1);
        shared.records.record(&Record::Report(DsnReport {
            time: shared.clock.now(),
            id: child.message.id,
            about: stored.id,
            kind: child.kind,
            to: child.to.clone(),
            recipients: child
                .about
                .iter()
                .filter_map(|id| recipient(stored, *id))
                .map(|r| r.address.clone())
                .collect(),
        }));
    }
}

fn kind_name(child: &BornReport) -> &'static str {
    match child.kind {
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
        Resolution::Discarded => "discarded",
    }
}

fn count(result: &RecipientResult, context: &SettleContext) {
    metrics::counter!("pintle_deliveries_total", "outcome" => name(result.end)).increment(1);
    if context.attempt > 0 {
        metrics::histogram!("pintle_delivery_attempt_seconds").record(context.took.as_secs_f64());
    }
}

fn record(
    shared: &OutboundShared,
    stored: &Stored,
    context: &SettleContext,
    result: &RecipientResult,
    recipient: &Recipient,
    children: &[BornReport],
) -> Record {
    let time = shared.clock.now();
    let job = JobMembers {
        time,
        id: stored.id,
        sender: stored.entry.envelope.sender.clone(),
        recipient: recipient.address.clone(),
        next_hop: context.next_hop(shared, stored, recipient),
        attempt: context.attempt,
        age_ms: millis(shared.ages.since(stored.entry.received)),
        size: stored.head.len() as u64 + stored.body.size(),
    };
    let reply = result.reply.clone();
    let words = |reply: Option<Reply>| reply.unwrap_or_else(|| Reply::plain(250, ""));
    let report =
        children.iter().find(|child| child.about.contains(&result.recipient)).map(|child| child.message.id);
    let unreported = |telling| match report {
        Some(_) => None,
        None => Some(why_unreported(stored, telling)),
    };
    let peer = PeerMembers::clone(&result.peer);
    match result.end {
        Resolution::Delivered(_) => {
            Record::Delivery(Delivery { job, peer, reply: words(reply), took_ms: millis(context.took) })
        }
        Resolution::Deferred(next_attempt) => {
            Record::Deferral(Deferral { job, peer, reply: words(reply), next_attempt })
        }
        Resolution::Failed(telling) => {
            let (unreported, by) = (unreported(telling), context.by.clone());
            Record::Bounce(Bounce { job, peer, reply: words(reply), report, unreported, by })
        }
        Resolution::Expired(telling) => {
            let (unreported, quarantine) = (unreported(telling), context.quarantine.clone());
            Record::Expiration(Expiration { job, reply, report, unreported, quarantine })
        }
        Resolution::Discarded => Record::Discard(Discard {
            time,
            id: stored.id,
            stage: context.stage.to_owned(),
            sender: stored.entry.envelope.sender.clone(),
            recipients: vec![recipient.address.clone()],
            by: context.by.clone(),
            quarantine: context.quarantine.clone(),
            user: context.user.clone(),
        }),
    }
}

fn why_unreported(stored: &Stored, telling: ReportPolicy) -> Unreported {
    if stored.entry.envelope.sender.is_null() {
        Unreported::NullSender
    } else if telling == ReportPolicy::Suppressed {
        Unreported::Suppressed
    } else {
        Unreported::NotWanted
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Settles a delay warning; one that the spool refuses is let go, since delivery matters more than news of it.
pub(crate) async fn warned(
    shared: &OutboundShared,
    stored: &Stored,
    changes: Settlement,
    children: &[BornReport],
) {
    let settlement =
        Settlement { children: children.iter().map(|child| copy(&child.message)).collect(), ..changes };
    match shared.spool.settle(settlement).await {
        Ok(_) => tell(shared, stored, &SettleContext::none(NextHop::Discard), &[], children),
        Err(error) => tracing::warn!(queue_id = %stored.id, %error, "no delay warning"),
    }
}
