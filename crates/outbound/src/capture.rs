//! Capture: delivery to the host program in place of every next hop, by which a sandbox shows what would have been
//! sent.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use pintle_mail::{Body, Bytes, Envelope, NextHop, QueueId, Reply};

/// Takes messages in place of every next hop. Stages, outcomes and reports are the same as without it.
pub trait Capture: Send + Sync + 'static {
    /// Takes one message for the recipients in its envelope.
    ///
    /// The reply applies to all recipients, as that of a next hop: 2xx delivers, 4xx defers, 5xx fails.
    fn capture(&self, captured: CapturedMessage) -> BoxFuture<'_, Reply>;
}

/// A message as it would have been sent.
#[derive(Clone)]
pub struct CapturedMessage {
    /// The queue id of the message.
    pub id: QueueId,
    /// Reverse-path, parameters and recipients of this attempt.
    pub envelope: Envelope,
    /// The next hop that it would have gone to.
    pub next_hop: NextHop,
    /// The header block, with the empty line that ends it.
    pub head: Bytes,
    /// The body, after that line.
    pub body: Arc<dyn Body>,
}
