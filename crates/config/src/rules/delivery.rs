//! Rules for routes, relays, the queue, scores and plugins.

use std::fmt;

/// A rule for routes, relays, the queue, scores and plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryRule {
    /// `on_fault = "reject"` for deliveries, where the mail has been accepted already (a warning).
    RefusedAfterAcceptance,
    /// The delay warning is due after the message has expired.
    WarnAfterExpiry,
    /// The threshold of the quarantine is above the one for refusal (a warning).
    QuarantineAboveReject,
    /// Mail for `<postmaster>` is accepted from any client and routed back to this gateway (a warning).
    PostmasterNowhere,
    /// A relay has a name that means something else in routes.
    ReservedName(String),
    /// A plugin's settings given twice.
    TwoSettings,
    /// A relay is a listener of this gateway.
    RelayIsUs(String),
    /// A relay has our name and the port of a listener (a warning).
    RelayMayBeUs(String),
    /// Mail for an accepted domain goes by its MX, which is this gateway (a warning).
    NoRoute(String),
}

impl fmt::Display for DeliveryRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefusedAfterAcceptance => f.write_str(
                "a fault in on-deliver cannot reject, since the mail was accepted already: it defers",
            ),
            Self::WarnAfterExpiry => {
                f.write_str("the delay warning would come after the message has expired")
            }
            Self::QuarantineAboveReject => f.write_str("no message is held by score: it is refused at a lower one"),
            Self::PostmasterNowhere => f.write_str(
                "mail for <postmaster>, which every server must accept, would be routed back to this gateway and bounce",
            ),
            Self::ReservedName(name) => write!(f, "{name:?} has another meaning in routes"),
            Self::TwoSettings => f.write_str("config and config_file are both given"),
            Self::RelayIsUs(host) => {
                write!(f, "{host} is a listener of this gateway: mail would loop")
            }
            Self::RelayMayBeUs(host) => {
                write!(f, "{host} has the gateway's own name and the port of a listener: mail may loop")
            }
            Self::NoRoute(domain) => write!(
                f,
                "mail for {domain} is accepted and then goes by its MX records, which lead back to this gateway: it would bounce"
            ),
        }
    }
}

impl DeliveryRule {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::RefusedAfterAcceptance => {
                "write \"defer\", which is what happens: the mail is retried until it bounces at max_age"
            }
            Self::WarnAfterExpiry => "make warn_after shorter than max_age, or \"never\"",
            Self::QuarantineAboveReject => "make quarantine lower than reject",
            Self::PostmasterNowhere => {
                "set postmaster = \"you@example.org\", or add a route for the hostname, or an accepted domain"
            }
            Self::ReservedName(_) => "choose another name",
            Self::TwoSettings => "keep one of the two",
            Self::RelayIsUs(_) | Self::RelayMayBeUs(_) => "give the address of the server behind this gateway, or its port",
            Self::NoRoute(_) => {
                "add a [[route]] for it: to a relay, or via = \"mx\" where exchangers of higher preference exist"
            }
        }
        .into()
    }
}
