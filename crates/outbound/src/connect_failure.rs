//! Why no session with a next hop could be opened. The failure counts for all recipients of an attempt alike, and the
//! connection pool shares it with the attempts that waited for the same session.

use std::sync::Arc;

use pintle_mail::Reply;
use pintle_record::PeerMembers;
use pintle_smtp::client::{Closed, Speaker};

/// Why nothing was sent.
#[derive(Debug, Clone)]
pub(crate) struct ConnectFailure {
    /// Whether the recipients fail; otherwise they are deferred.
    pub(crate) is_permanent: bool,
    pub(crate) reply: Reply,
    /// Who wrote the reply: the next hop, or we in its place.
    pub(crate) speaker: Speaker,
    /// The host that was asked last.
    pub(crate) peer: Arc<PeerMembers>,
    /// Whether the failure concerns the whole next hop, so that the queue throttles it.
    pub(crate) is_hop_trouble: bool,
}

impl ConnectFailure {
    fn ours(is_permanent: bool, reply: Reply) -> Self {
        Self {
            is_permanent,
            reply,
            speaker: Speaker::Us,
            peer: Arc::default(),
            is_hop_trouble: !is_permanent,
        }
    }

    /// A failure after which the recipients fail permanently.
    pub(crate) fn fail(reply: Reply) -> Self {
        Self::ours(true, reply)
    }

    /// A failure after which the recipients are deferred, since the next hop cannot be used now.
    pub(crate) fn defer(reply: Reply) -> Self {
        Self::ours(false, reply)
    }

    /// A failure after which the recipients are deferred, since the session ended before it was ready.
    pub(crate) fn closed(why: &Closed, peer: PeerMembers) -> Self {
        Self { speaker: why.speaker(), peer: Arc::new(peer), ..Self::defer(why.reply()) }
    }
}
