//! Delivery into the hands of the host program instead of a next hop: how a sandbox shows what would have been sent.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use pintle_mail::{Body, Bytes, Envelope, NextHop, QueueId, Reply};

/// Takes messages in place of every next hop. Stages, outcomes and reports are the same as without it.
pub trait Capture: Send + Sync + 'static {
    /// Takes one message for the recipients in its envelope.
    ///
    /// The reply counts for all of them, as a next hop's would: 2xx delivers, 4xx defers, 5xx fails.
    fn capture(&self, captured: Captured) -> BoxFuture<'_, Reply>;
}

/// What would have been sent.
#[derive(Clone)]
pub struct Captured {
    /// The queue id.
    pub id: QueueId,
    /// Reverse-path, parameters and recipients of this attempt.
    pub envelope: Envelope,
    /// Where it would have gone.
    pub next_hop: NextHop,
    /// The header block, with the empty line that ends it.
    pub head: Bytes,
    /// Everything after that line.
    pub body: Arc<dyn Body>,
}
