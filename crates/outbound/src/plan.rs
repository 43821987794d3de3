//! What one attempt is going to do, once the Deliver stage has had its say.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{Body, Bytes, Envelope, NextHop, QueueId, TlsPolicy};
use pintle_policy::View;
use pintle_smtp::client::{Content, Credentials, Transaction};

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
    /// The next hop is spelt out, by a judge that may do so; otherwise only what the configuration lists is meant.
    pub(crate) unlisted: bool,
    pub(crate) tls: TlsPolicy,
    pub(crate) source: Option<IpAddr>,
    /// The name of configured credentials, in place of the relay's own.
    pub(crate) credentials: Option<String>,
}

impl Target {
    /// The way that the configuration knows.
    pub(crate) fn of(next_hop: &NextHop, config: &Config) -> Self {
        Self {
            next_hop: next_hop.clone(),
            unlisted: false,
            tls: config.tls_for(next_hop),
            source: None,
            credentials: None,
        }
    }

    /// With what to authenticate there. A relay's own credentials are for its own hosts; those that a judge chose by name
    /// are for the relays that the configuration says they belong to.
    ///
    /// # Errors
    /// What the judge chose cannot be used there, in words for the operator.
    pub(crate) fn login(&self, config: &Config) -> Result<Option<Credentials>, String> {
        let relay = config.relay(&self.next_hop);
        let Some(name) = &self.credentials else {
            return Ok(relay.and_then(|(_, relay)| relay.credentials.clone()));
        };
        let Some(named) = config.credentials.get(name) else {
            return Err(format!("the configuration has no credentials named {name}"));
        };
        if !relay.is_some_and(|(relay, _)| named.relays.contains(relay)) {
            let hop = &self.next_hop;
            return Err(format!(
                "the credentials {name} do not belong to {hop}, so they were not sent: see [credentials.{name}] relays"
            ));
        }
        Ok(Some(named.credentials.clone()))
    }
}

impl Plan {
    pub(crate) fn size(&self) -> u64 {
        self.head.len() as u64 + self.body.size()
    }

    /// The transaction for these recipients of the plan.
    pub(crate) fn transaction(&self, ids: &[u32]) -> Transaction {
        let content = match (self.head.is_ascii(), self.has_8bit) {
            (false, _) => Content::EightBitHeader,
            (true, true) => Content::EightBitBody,
            (true, false) => Content::SevenBit,
        };
        let mut envelope = self.envelope.clone();
        envelope.recipients.retain(|recipient| ids.contains(&recipient.id));
        Transaction { envelope, size: self.size(), content }
    }
}
