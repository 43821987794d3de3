//! The result for one recipient: the outcome, the reply that decided it, and whether it is reported to the sender.

use std::sync::Arc;

use pintle_mail::{Recipient, Reply, UnixTime};
use pintle_record::PeerMembers;
use pintle_smtp::client::Speaker;
use pintle_spool::{Pending, Stored};

/// The result of an attempt, an expiry or an operator's act for one recipient.
#[derive(Debug, Clone)]
pub(crate) struct RecipientResult {
    /// The number of the recipient: [`Recipient::id`].
    pub(crate) recipient: u32,
    pub(crate) end: Resolution,
    /// The reply that decided it; for an expiry, the reply to the last attempt.
    pub(crate) reply: Option<Reply>,
    /// Who wrote the reply.
    pub(crate) speaker: Speaker,
    /// The host that was asked; none if no host was asked.
    pub(crate) peer: Arc<PeerMembers>,
    /// When the last attempt was made; none if there was none.
    pub(crate) last_attempt: Option<UnixTime>,
    /// The plugin that dropped this copy; otherwise none.
    pub(crate) dropped_by: Option<Arc<str>>,
}

/// How an attempt, an expiry or an operator's act ended for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// A next hop took the message.
    Delivered(SuccessReporter),
    /// Back-off: the next attempt is not made before this time.
    Deferred(UnixTime),
    /// Delivery failed permanently.
    Failed(ReportPolicy),
    /// It was not delivered within the maximum age, or within its quarantine's retention.
    Expired(ReportPolicy),
    /// The copy was dropped on purpose.
    Discarded(DiscardStage),
}

/// Why a copy was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiscardStage {
    /// A route leads nowhere.
    Route,
    /// A plugin at the Deliver stage.
    Deliver,
    /// An operator or a quota, in a quarantine.
    Quarantine,
}

impl DiscardStage {
    /// The name in event records.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Deliver => "deliver",
            Self::Quarantine => "quarantine",
        }
    }
}

/// Who sends the success report that the sender may have asked for (RFC 3461).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SuccessReporter {
    /// The next hop, which took the DSN parameters.
    NextHop,
    /// We do: this was the last hop.
    Delivered,
    /// We do, since the next hop does not offer DSN (RFC 3461 section 6.1).
    Relayed,
}

/// Whether a failure is reported to the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportPolicy {
    /// It is, if the sender asked for it.
    Due,
    /// It is not: a plugin or a quarantine forbids it.
    Suppressed,
}

impl RecipientResult {
    /// A result without a next hop.
    pub(crate) fn without_reply(recipient: u32, end: Resolution) -> Self {
        Self {
            recipient,
            end,
            reply: None,
            speaker: Speaker::Us,
            peer: Arc::default(),
            last_attempt: None,
            dropped_by: None,
        }
    }

    /// The host whose reply this is, if it has a name that is valid outside this machine, unlike the path of a local
    /// socket.
    pub(crate) fn remote_host(&self) -> Option<&str> {
        let host = self.peer.host.as_deref().filter(|host| !host.starts_with('/'));
        host.filter(|_| self.speaker == Speaker::NextHop)
    }
}

/// The same outcome for every recipient that is still pending.
pub(crate) fn for_all_pending(stored: &Stored, end: Resolution, reply: &Reply) -> Vec<RecipientResult> {
    let pending = stored.recipients.iter().filter(|state| state.status.pending().is_some());
    let result =
        |id| RecipientResult { reply: Some(reply.clone()), ..RecipientResult::without_reply(id, end) };
    pending.map(|state| result(state.id)).collect()
}

/// The pending state of a recipient when the message was loaded; none if it was settled by then.
pub(crate) fn pending(stored: &Stored, id: u32) -> Option<&Pending> {
    stored.recipients.iter().find(|state| state.id == id)?.status.pending()
}

/// The recipient of this id in the stored envelope.
pub(crate) fn recipient(stored: &Stored, id: u32) -> Option<&Recipient> {
    stored.entry.envelope.recipients.iter().find(|recipient| recipient.id == id)
}
