//! What one attempt is going to do, once the Deliver stage has had its say.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{Body, Bytes, Envelope, NextHop, QueueId, TlsPolicy};
use pintle_policy::View;
use pintle_smtp::client::{Content, Transaction};

use crate::Config;

/// What an attempt delivers, to whom, and by which way.
pub(crate) struct Plan {
    pub(crate) id: QueueId,
    /// The recipients of this attempt alone.
    pub(crate) envelope: Envelope,
    /// With the empty line at its end.
    pub(crate) head: Bytes,
    pub(crate) body: Arc<dyn Body>,
    pub(crate) has_8bit: bool,
    pub(crate) target: Target,
    /// In place of the retry policy's answer.
    pub(crate) retry_after: Option<Duration>,
    /// Whose failure is not reported.
    pub(crate) no_bounce: Vec<u32>,
    /// What the judges saw last, when they were asked; they see it again with the outcome.
    pub(crate) view: Option<View>,
}

/// A way to a next hop. Deliveries with equal targets can use each other's sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) next_hop: NextHop,
    pub(crate) tls: TlsPolicy,
    pub(crate) source: Option<IpAddr>,
    /// The name of configured credentials, in place of the relay's own.
    pub(crate) credentials: Option<String>,
}

impl Target {
    /// The way that the configuration knows.
    pub(crate) fn of(next_hop: &NextHop, config: &Config) -> Self {
        Self { next_hop: next_hop.clone(), tls: config.tls_for(next_hop), source: None, credentials: None }
    }
}

impl Plan {
    pub(crate) fn size(&self) -> u64 {
        self.head.len() as u64 + self.body.size()
    }

    pub(crate) fn transaction(&self) -> Transaction {
        let content = match (self.head.is_ascii(), self.has_8bit) {
            (false, _) => Content::EightBitHeader,
            (true, true) => Content::EightBitBody,
            (true, false) => Content::SevenBit,
        };
        Transaction { envelope: self.envelope.clone(), size: self.size(), content }
    }
}
