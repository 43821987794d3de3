//! The current mail: its direction, and the stage at which it is processed.

use pintle_plugin_sdk::{Address, HostError, Recipient, delivery, gateway, session, transaction};
use serde::Deserialize;

/// The mail that rules are applied to.
pub(crate) struct MailAtStage {
    pub(crate) stage: RewriteStage,
    pub(crate) way: MailDirection,
    pub(crate) listener: String,
    /// The gateway's hostname.
    pub(crate) hostname: String,
    pub(crate) sender: Address,
    /// The envelope's recipients, or at a delivery those of the delivery.
    pub(crate) recipients: Vec<Recipient>,
}

/// The stage at which rules apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RewriteStage {
    /// After the header, once for all recipients.
    #[default]
    Receive,
    /// Before each delivery, for the recipients of that delivery.
    Deliver,
}

/// Direction of mail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MailDirection {
    /// From a stranger.
    Inbound,
    /// From one of our clients to domains that are not ours; at deliveries, from any client to such a domain.
    Outbound,
    /// From one of our clients to our own domains only.
    Internal,
}

/// The directions that a rule applies to.
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
    /// The mail in `on-headers`.
    pub(crate) fn received() -> Result<Self, HostError> {
        Self::at(RewriteStage::Receive, transaction::recipients()?)
    }

    /// The mail in `on-deliver`.
    pub(crate) fn delivered() -> Result<Self, HostError> {
        Self::at(RewriteStage::Deliver, delivery::info()?.recipients)
    }

    fn at(stage: RewriteStage, recipients: Vec<Recipient>) -> Result<Self, HostError> {
        let session = session::info()?;
        // An address without a domain is <postmaster>, which is ours (RFC 5321 section 4.5.1).
        let leaves = recipients.iter().any(|rcpt| !rcpt.local && !rcpt.address.domain.is_empty());
        Ok(Self {
            stage,
            way: MailDirection::of(stage, session.known, leaves),
            listener: session.listener,
            hostname: gateway::info().hostname,
            sender: transaction::info()?.sender,
            recipients,
        })
    }

    #[cfg(test)]
    pub(crate) fn of(way: MailDirection) -> Self {
        let sender = Address::new("ann", "x.example");
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
