//! Routes, relays, the queue, and plugins before a delivery.

use std::fmt;

/// Routes, relays, the queue, and plugins before a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryRule {
    /// A refusal where mail was accepted already (a warning).
    RefusedAfterAcceptance,
    /// The sender is warned after the message has expired.
    WarnAfterExpiry,
    /// The quarantine threshold lies above the one for refusal (a warning).
    QuarantineAboveReject,
    /// Mail for `<postmaster>` is taken from anybody and leads back to us (a warning).
    PostmasterNowhere,
    /// A relay's name is a word with another meaning.
    ReservedName(String),
    /// A plugin's settings given twice.
    TwoSettings,
    /// A relay is one of our own listeners.
    RelayIsUs(String),
    /// A relay has our name and the port of a listener (a warning).
    RelayMayBeUs(String),
    /// Mail for a domain of ours goes by its MX, which leads here (a warning).
    NoRoute(String),
}

impl fmt::Display for DeliveryRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefusedAfterAcceptance => f.write_str(
                "a fault before a delivery refuses nothing, since the mail was accepted: it defers",
            ),
            Self::WarnAfterExpiry => {
                f.write_str("the delay warning would come after the message has expired")
            }
            Self::QuarantineAboveReject => f.write_str("no score is held: the message is refused before"),
            Self::PostmasterNowhere => f.write_str(
                "mail for <postmaster>, which every server must take, leads back to this one and bounces",
            ),
            Self::ReservedName(name) => write!(f, "{name:?} has a meaning of its own in routes"),
            Self::TwoSettings => f.write_str("config and config_file are both given"),
            Self::RelayIsUs(host) => {
                write!(f, "{host} is a listener of this gateway: mail would go round in a loop")
            }
            Self::RelayMayBeUs(host) => {
                write!(f, "{host} has our own name and the port of a listener: mail may go round in a loop")
            }
            Self::NoRoute(domain) => write!(
                f,
                "mail for {domain} is taken and then goes by its MX records, which lead back here: it would be bounced"
            ),
        }
    }
}

impl DeliveryRule {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::RefusedAfterAcceptance => {
                "write \"defer\", which is what happens: the mail is tried again until max_age ends it with a bounce"
            }
            Self::WarnAfterExpiry => "make warn_after shorter than max_age, or \"never\"",
            Self::QuarantineAboveReject => "make quarantine lower than reject",
            Self::PostmasterNowhere => {
                "name a mailbox: postmaster = \"you@example.org\"; or a route for the hostname, or an accepted domain"
            }
            Self::ReservedName(_) => "choose another name",
            Self::TwoSettings => "keep one of the two",
            Self::RelayIsUs(_) | Self::RelayMayBeUs(_) => "name the server behind this gateway, or its port",
            Self::NoRoute(_) => {
                "add a [[route]] for it, to a relay or, where other exchangers are preferred to us, via = \"mx\""
            }
        }
        .into()
    }
}
