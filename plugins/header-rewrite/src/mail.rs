//! The mail at hand: which way it goes, and when it is looked at.

use pintle_plugin_sdk::{Address, HostError, Recipient, delivery, gateway, session, transaction};
use serde::Deserialize;

/// The mail that rules are about.
pub(crate) struct MailAtStage {
    pub(crate) stage: RewriteStage,
    pub(crate) way: MailDirection,
    pub(crate) listener: String,
    /// The gateway's name.
    pub(crate) hostname: String,
    pub(crate) sender: Address,
    /// All of the envelope's, or those of the delivery.
    pub(crate) recipients: Vec<Recipient>,
}

/// When something is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RewriteStage {
    /// When the header has come in, once for all recipients.
    #[default]
    Receive,
    /// Before each delivery, for its recipients alone.
    Deliver,
}

/// Which way mail goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MailDirection {
    /// From a stranger.
    Inbound,
    /// From one of our clients to domains that are not ours; at deliveries, from anybody to such a domain.
    Outbound,
    /// From one of our clients to domains that are ours.
    Internal,
}

/// The ways that something is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Direction {
    #[default]
    Any,
    Inbound,
    Outbound,
    Internal,
}

impl MailAtStage {
    /// In `on-headers`.
    pub(crate) fn received() -> Result<Self, HostError> {
        Self::at(RewriteStage::Receive, transaction::recipients())
    }

    /// In `on-deliver`.
    pub(crate) fn delivered() -> Result<Self, HostError> {
        Self::at(RewriteStage::Deliver, delivery::info()?.recipients)
    }

    fn at(stage: RewriteStage, recipients: Vec<Recipient>) -> Result<Self, HostError> {
        let session = session::info();
        // Without a domain it is <postmaster>, who is ours (RFC 5321 section 4.5.1).
        let is_ours =
            |address: &Address| address.domain.is_empty() || gateway::is_local(&address.domain_ascii);
        let leaves = recipients.iter().any(|recipient| !is_ours(&recipient.address));
        Ok(Self {
            stage,
            way: MailDirection::of(stage, !session.is_stranger(), leaves),
            listener: session.listener,
            hostname: gateway::info().hostname,
            sender: transaction::info()?.sender,
            recipients,
        })
    }

    #[cfg(test)]
    pub(crate) fn of(way: MailDirection) -> Self {
        let sender = Address {
            local: "ann".to_owned(),
            domain: "x.example".to_owned(),
            domain_ascii: "x.example".to_owned(),
        };
        let (listener, hostname) = ("mx".to_owned(), "gate.ours.example".to_owned());
        Self { stage: RewriteStage::Receive, way, listener, hostname, sender, recipients: Vec::new() }
    }
}

impl MailDirection {
    fn of(stage: RewriteStage, from_ours: bool, leaves: bool) -> Self {
        match (stage, from_ours, leaves) {
            (RewriteStage::Deliver, _, true) | (RewriteStage::Receive, true, true) => Self::Outbound,
            (_, true, false) => Self::Internal,
            (_, false, _) => Self::Inbound,
        }
    }
}

impl Direction {
    pub(crate) fn fits(self, way: MailDirection) -> bool {
        match self {
            Self::Any => true,
            Self::Inbound => way == MailDirection::Inbound,
            Self::Outbound => way == MailDirection::Outbound,
            Self::Internal => way == MailDirection::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_depends_on_who_sends_and_on_where_it_goes() {
        assert_eq!(MailDirection::of(RewriteStage::Receive, false, false), MailDirection::Inbound);
        assert_eq!(
            MailDirection::of(RewriteStage::Receive, false, true),
            MailDirection::Inbound,
            "relayed for a stranger"
        );
        assert_eq!(MailDirection::of(RewriteStage::Receive, true, true), MailDirection::Outbound);
        assert_eq!(MailDirection::of(RewriteStage::Receive, true, false), MailDirection::Internal);
        assert_eq!(MailDirection::of(RewriteStage::Deliver, false, false), MailDirection::Inbound);
        assert_eq!(
            MailDirection::of(RewriteStage::Deliver, false, true),
            MailDirection::Outbound,
            "forwarded"
        );
        assert_eq!(MailDirection::of(RewriteStage::Deliver, true, false), MailDirection::Internal);
    }
}
