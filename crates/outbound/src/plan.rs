//! The plan of one attempt: what it delivers, to which recipients, and to which target, as the Deliver stage has
//! decided.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{Body, Bytes, Envelope, NextHop, QueueId, TlsPolicy};
use pintle_policy::View;
use pintle_smtp::client::{ContentClass, Credentials, Transaction};

use crate::Config;

/// The message, recipients and target of an attempt.
pub(crate) struct DeliveryPlan {
    pub(crate) id: QueueId,
    /// The recipients of this attempt alone.
    pub(crate) envelope: Envelope,
    /// The header block, with the empty line at its end.
    pub(crate) head: Bytes,
    pub(crate) body: Arc<dyn Body>,
    pub(crate) has_8bit: bool,
    pub(crate) target: HopTarget,
    /// Recipients of the attempt whose copies a plugin drops, each with the plugin's name. They are not in the envelope.
    pub(crate) discarded: Vec<(u32, Arc<str>)>,
    /// The delay after a deferral, in place of the retry policy's back-off; none for the back-off.
    pub(crate) retry_after: Option<Duration>,
    /// The ids of recipients whose failure is not reported to the sender.
    pub(crate) no_bounce: HashSet<u32>,
    /// The state that the plugins saw last, which they get again with the outcomes; none if no plugin was asked.
    pub(crate) view: Option<View>,
}

/// A next hop with all that a session with it depends on. Deliveries with equal targets share a connection pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HopTarget {
    pub(crate) next_hop: NextHop,
    /// The next hop is a host that a plugin with that grant has written out; otherwise it must be in the configuration.
    pub(crate) unlisted: bool,
    pub(crate) tls: TlsPolicy,
    pub(crate) source: Option<IpAddr>,
    /// The name of configured credentials, in place of the relay's own.
    pub(crate) credentials: Option<String>,
}

impl HopTarget {
    /// The target by the configuration alone.
    pub(crate) fn of(next_hop: &NextHop, config: &Config) -> Self {
        Self {
            next_hop: next_hop.clone(),
            unlisted: false,
            tls: config.tls_for(next_hop),
            source: None,
            credentials: None,
        }
    }

    /// The credentials to authenticate with. A relay's own are for its own hosts; those that a plugin chose by name are
    /// for the relays that the configuration lists with them.
    ///
    /// # Errors
    /// The plugin's choice cannot be used there; the text is for the operator.
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

impl DeliveryPlan {
    /// The size of the message in octets.
    fn size(&self) -> u64 {
        self.head.len() as u64 + self.body.size()
    }

    /// The transaction for these recipients of the plan.
    pub(crate) fn transaction(&self, ids: &[u32]) -> Transaction {
        let content = match (self.head.is_ascii(), self.has_8bit) {
            (false, _) => ContentClass::EightBitHeader,
            (true, true) => ContentClass::EightBitBody,
            (true, false) => ContentClass::SevenBit,
        };
        let mut envelope = self.envelope.clone();
        envelope.recipients.retain(|recipient| ids.contains(&recipient.id));
        Transaction { envelope, size: self.size(), content }
    }
}
