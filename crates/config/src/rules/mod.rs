//! Rules between keys, and between the file and the machine, by subject: what is wrong and what to do.

mod account;
mod certificate;
mod delivery;
mod file;
mod listener;
mod secret;

use std::fmt;

pub use account::AccountRule;
pub use certificate::CertificateRule;
pub use delivery::DeliveryRule;
pub use file::FileRule;
pub use listener::ListenerRule;
pub use secret::SecretRule;

/// A rule that the configuration breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigRule {
    /// A rule for listeners.
    Listener(ListenerRule),
    /// A rule for passwords and other secrets.
    Secret(SecretRule),
    /// A rule for the user that the gateway runs as.
    Account(AccountRule),
    /// A rule for files and folders.
    File(FileRule),
    /// A rule for routes, relays, the queue, scores and plugins.
    Delivery(DeliveryRule),
    /// A rule for the validity of certificates.
    Certificate(CertificateRule),
}

impl ConfigRule {
    /// The correction, as text for the operator.
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::Listener(rule) => rule.remedy(),
            Self::Secret(rule) => rule.remedy(),
            Self::Account(rule) => rule.remedy(),
            Self::File(rule) => rule.remedy(),
            Self::Delivery(rule) => rule.remedy(),
            Self::Certificate(rule) => rule.remedy(),
        }
    }

    /// Whether the rule reports something missing, which may be on a line that was blanked for its syntax error.
    pub(crate) fn is_an_absence(&self) -> bool {
        let listener = |rule: &ListenerRule| {
            matches!(
                rule,
                ListenerRule::TlsWithoutCertificate
                    | ListenerRule::AuthWithoutUsers
                    | ListenerRule::AcceptsNothing
            )
        };
        match self {
            Self::Listener(rule) => listener(rule),
            Self::Secret(rule) => matches!(rule, SecretRule::OnePassword | SecretRule::HalfCredentials),
            _ => false,
        }
    }
}

impl fmt::Display for ConfigRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(rule) => rule.fmt(f),
            Self::Secret(rule) => rule.fmt(f),
            Self::Account(rule) => rule.fmt(f),
            Self::File(rule) => rule.fmt(f),
            Self::Delivery(rule) => rule.fmt(f),
            Self::Certificate(rule) => rule.fmt(f),
        }
    }
}

impl From<ListenerRule> for ConfigRule {
    fn from(rule: ListenerRule) -> Self {
        Self::Listener(rule)
    }
}

impl From<SecretRule> for ConfigRule {
    fn from(rule: SecretRule) -> Self {
        Self::Secret(rule)
    }
}

impl From<AccountRule> for ConfigRule {
    fn from(rule: AccountRule) -> Self {
        Self::Account(rule)
    }
}

impl From<FileRule> for ConfigRule {
    fn from(rule: FileRule) -> Self {
        Self::File(rule)
    }
}

impl From<DeliveryRule> for ConfigRule {
    fn from(rule: DeliveryRule) -> Self {
        Self::Delivery(rule)
    }
}

impl From<CertificateRule> for ConfigRule {
    fn from(rule: CertificateRule) -> Self {
        Self::Certificate(rule)
    }
}
