//! The replies of next hops about the recipients of one message, and the origin of each reply.

#![expect(clippy::vec_box, reason = "a session is moved from owner to owner as its box")]

use std::sync::Arc;

use pintle_record::PeerMembers;
use pintle_smtp::client::{DialogueStep, RecipientOutcome, ReplyOutcome, Speaker, is_hop_trouble};

use crate::connect_failure::ConnectFailure;
use crate::connection::ClientConnection;
use crate::recipient_result::SuccessReporter;

/// The replies to one message.
pub(crate) struct ExchangeReplies {
    /// One for each recipient of the plan.
    pub(crate) replies: Vec<RecipientReply>,
    /// The next hop takes fewer recipients in one transaction than there are (RFC 5321 section 4.5.3.1.10): the rest
    /// are sent at once in another one.
    pub(crate) overflow: bool,
    /// Sessions that do not go back into the connection pool.
    pub(crate) retired: Vec<Box<ClientConnection>>,
}

/// The reply about one recipient.
#[derive(Debug, Clone)]
pub(crate) struct RecipientReply {
    pub(crate) outcome: RecipientOutcome,
    pub(crate) peer: Arc<PeerMembers>,
    /// Who reports a success to the sender.
    pub(crate) success: SuccessReporter,
}

impl RecipientReply {
    /// A reply of ours, in place of a reply of the next hop.
    pub(crate) fn ours(id: u32, outcome: ReplyOutcome) -> Self {
        Self::of(id, outcome, Speaker::Us, Arc::default())
    }

    /// The reply when no session could be opened.
    pub(crate) fn no_session(id: u32, failure: &ConnectFailure) -> Self {
        let reply = failure.reply.clone();
        let outcome =
            if failure.is_permanent { ReplyOutcome::Failed(reply) } else { ReplyOutcome::Deferred(reply) };
        Self::of(id, outcome, failure.speaker, Arc::clone(&failure.peer))
    }

    fn of(id: u32, outcome: ReplyOutcome, speaker: Speaker, peer: Arc<PeerMembers>) -> Self {
        let outcome = RecipientOutcome { id, outcome, speaker, step: DialogueStep::Idle, cut: false };
        Self { outcome, peer, success: SuccessReporter::NextHop }
    }

    /// Whether the recipient is still to be delivered.
    pub(crate) fn is_deferred(&self) -> bool {
        matches!(self.outcome.outcome, ReplyOutcome::Deferred(_))
    }

    /// Whether the recipient was deferred with a reply that concerns the whole next hop.
    pub(crate) fn is_hop_trouble(&self) -> bool {
        self.is_deferred() && self.is_from_next_hop() && is_hop_trouble(self.outcome.outcome.reply())
    }

    /// Whether a next hop gave the reply.
    pub(crate) fn is_from_next_hop(&self) -> bool {
        self.outcome.speaker == Speaker::NextHop
    }
}
