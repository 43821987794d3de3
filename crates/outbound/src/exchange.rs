//! One message to its next hop: take an idle session from the connection pool or open one, send, and put the session
//! back. `failover` decides what follows when a session breaks or an exchanger defers.

use std::sync::Arc;

use pintle_mail::Severity;
use pintle_smtp::client::ReplyOutcome;

use crate::connect_failure::ConnectFailure;
use crate::failover::Failover;
use crate::parts::OutboundShared;
use crate::plan::DeliveryPlan;
use crate::recipient_result::SuccessReporter;
use crate::replies::{ExchangeReplies, RecipientReply};
use crate::session_pool::Acquired;
use crate::{Capture, CapturedMessage, Config};

/// The result of an exchange.
pub(crate) enum ExchangeResult {
    /// The next hop, or the capture, has replied for each recipient.
    Answered(ExchangeReplies),
    /// No session could be opened.
    ConnectFailure(ConnectFailure),
    /// Outbound is draining, so nothing was sent.
    Interrupted,
}

/// Delivers the message of the plan to its recipients.
pub(crate) async fn deliver(
    shared: &OutboundShared,
    config: &Arc<Config>,
    plan: &DeliveryPlan,
) -> ExchangeResult {
    if let Some(capture) = &shared.capture {
        return ExchangeResult::Answered(deliver_to_capture(capture.as_ref(), plan).await);
    }
    let (permit, idle) = match shared.pool.acquire(&plan.target, config).await {
        Acquired::Reuse(permit, connection) => (permit, Some(connection)),
        Acquired::Open(permit) => (permit, None),
        Acquired::Failed(failure) => return ExchangeResult::ConnectFailure(failure),
        Acquired::Closed => return ExchangeResult::Interrupted,
    };
    match Failover::new(shared, config, plan).run(permit, idle).await {
        Ok(replies) => ExchangeResult::Answered(replies),
        Err(failure) => ExchangeResult::ConnectFailure(failure),
    }
}

async fn deliver_to_capture(capture: &dyn Capture, plan: &DeliveryPlan) -> ExchangeReplies {
    let captured = CapturedMessage {
        id: plan.id,
        envelope: plan.envelope.clone(),
        next_hop: plan.target.next_hop.clone(),
        head: plan.head.clone(),
        body: Arc::clone(&plan.body),
    };
    let reply = capture.capture(captured).await;
    let outcome = match reply.severity() {
        Severity::Positive => ReplyOutcome::Delivered(reply),
        Severity::Permanent => ReplyOutcome::Failed(reply),
        _ => ReplyOutcome::Deferred(reply),
    };
    let ids = plan.envelope.recipients.iter().map(|recipient| recipient.id);
    let ours = |id| RecipientReply::ours(id, outcome.clone());
    let reply = |id| RecipientReply { success: SuccessReporter::Delivered, ..ours(id) };
    ExchangeReplies { replies: ids.map(reply).collect(), overflow: false, retired: Vec::new() }
}
