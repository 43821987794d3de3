//! One message over a session: take one that rests or open one, send, let it rest again. What one session leaves open is
//! decided by `talks`.

#![expect(clippy::vec_box, reason = "a session is moved from owner to owner as its box")]

use std::sync::Arc;

use pintle_mail::Severity;
use pintle_record::PeerMembers;
use pintle_smtp::client::{DialogueStep, RecipientOutcome, ReplyOutcome, Speaker, is_hop_trouble};

use crate::connect::ConnectFailure;
use crate::connection::ClientConnection;
use crate::plan::Plan;
use crate::session_pool::Acquired;
use crate::settle::SuccessReporter;
use crate::shared::OutboundShared;
use crate::talks::Talks;
use crate::{Captured, Config};

/// What an exchange came to.
pub(crate) enum Exchange {
    /// The next hop, or the capture, has answered for each recipient.
    Answered(ExchangeReplies),
    /// Nobody was there to answer.
    ConnectFailure(ConnectFailure),
    /// We are stopping.
    Interrupted,
}

/// What the next hop answered.
pub(crate) struct ExchangeReplies {
    /// One for each recipient of the plan.
    pub(crate) words: Vec<Word>,
    /// The next hop took only so many recipients at once.
    pub(crate) overflow: bool,
    /// Sessions that are not to be kept.
    pub(crate) retired: Vec<Box<ClientConnection>>,
}

/// What was said of one recipient, and by whom.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub(crate) outcome: RecipientOutcome,
    pub(crate) peer: Arc<PeerMembers>,
    /// Who reports a success.
    pub(crate) success: SuccessReporter,
}

impl Word {
    /// Said by us, in place of a next hop.
    pub(crate) fn ours(id: u32, outcome: ReplyOutcome) -> Self {
        Self::of(id, outcome, Speaker::Us, Arc::default())
    }

    /// The recipient cannot be served, or not now.
    pub(crate) fn trouble(id: u32, trouble: &ConnectFailure) -> Self {
        let reply = trouble.reply.clone();
        let outcome =
            if trouble.final_ { ReplyOutcome::Failed(reply) } else { ReplyOutcome::Deferred(reply) };
        Self::of(id, outcome, trouble.speaker, Arc::clone(&trouble.peer))
    }

    fn of(id: u32, outcome: ReplyOutcome, speaker: Speaker, peer: Arc<PeerMembers>) -> Self {
        let outcome = RecipientOutcome { id, outcome, speaker, step: DialogueStep::Idle, cut: false };
        Self { outcome, peer, success: SuccessReporter::NextHop }
    }

    /// It is still to be delivered.
    pub(crate) fn is_deferred(&self) -> bool {
        matches!(self.outcome.outcome, ReplyOutcome::Deferred(_))
    }

    /// It was put off with words that speak for the whole next hop.
    pub(crate) fn is_hop_trouble(&self) -> bool {
        self.is_deferred() && self.is_heard() && is_hop_trouble(self.outcome.outcome.reply())
    }

    /// A next hop has spoken.
    pub(crate) fn is_heard(&self) -> bool {
        self.outcome.speaker == Speaker::NextHop
    }
}

/// Delivers what the plan says.
pub(crate) async fn deliver(shared: &OutboundShared, config: &Arc<Config>, plan: &Plan) -> Exchange {
    if let Some(capture) = &shared.capture {
        return Exchange::Answered(capture_it(capture.as_ref(), plan).await);
    }
    let (slot, rested) = match shared.pool.turn(&plan.target, config).await {
        Acquired::Reuse(slot, link) => (slot, Some(link)),
        Acquired::Open(slot) => (slot, None),
        Acquired::Failed(trouble) => return Exchange::ConnectFailure(trouble),
        Acquired::Closed => return Exchange::Interrupted,
    };
    match Talks::new(shared, config, plan).run(slot, rested).await {
        Ok(answer) => Exchange::Answered(answer),
        Err(trouble) => Exchange::ConnectFailure(trouble),
    }
}

async fn capture_it(capture: &dyn crate::Capture, plan: &Plan) -> ExchangeReplies {
    let captured = Captured {
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
    let words = ids.map(|id| Word { success: SuccessReporter::Delivered, ..Word::ours(id, outcome.clone()) });
    ExchangeReplies { words: words.collect(), overflow: false, retired: Vec::new() }
}
