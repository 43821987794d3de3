//! The delivery of the current call, recipients of one message that have the same next hop and the same groups, and the
//! results of attempts.

use std::fmt;

use crate::bindings::services::pintle::plugin::delivery as host;
pub use crate::bindings::services::pintle::plugin::delivery::{
    Snapshot, info, set_credentials, set_retry_after, set_source, suppress_bounce,
};
use crate::{DeliveryOutcome, HostError};

/// Where a delivery goes. The text form is the one of the contract, such as "relay:inner".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// The mail exchangers of the recipients' domain.
    Mx,
    /// The mail exchangers of another domain.
    MxOf(String),
    /// A relay of the configuration, by name.
    Relay(String),
    /// Log and drop. Grant: drop-mail.
    Discard,
    /// Any other next hop, as text: with the grant route-anywhere "smtp:HOST:PORT", "lmtp:HOST:PORT" or
    /// "lmtp:unix:/path".
    Other(String),
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mx => f.write_str("mx"),
            Self::MxOf(domain) => write!(f, "mx:{domain}"),
            Self::Relay(name) => write!(f, "relay:{name}"),
            Self::Discard => f.write_str("discard"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<&str> for NextHop {
    fn from(text: &str) -> Self {
        match text.split_once(':') {
            None if text == "mx" => Self::Mx,
            None if text == "discard" => Self::Discard,
            Some(("mx", domain)) => Self::MxOf(domain.to_owned()),
            Some(("relay", name)) => Self::Relay(name.to_owned()),
            _ => Self::Other(text.to_owned()),
        }
    }
}

/// How much TLS a delivery requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPolicy {
    /// No TLS.
    None,
    /// TLS if the server offers it; any certificate.
    Opportunistic,
    /// TLS with any certificate.
    Required,
    /// TLS with a certificate for the server's name from a trusted authority.
    Verified,
    /// DANE (RFC 7672).
    Dane,
    /// MTA-STS (RFC 8461).
    MtaSts,
    /// A policy of a later version of the contract.
    Other,
}

impl TlsPolicy {
    const WORDS: [(&'static str, Self); 6] = [
        ("none", Self::None),
        ("opportunistic", Self::Opportunistic),
        ("required", Self::Required),
        ("verified", Self::Verified),
        ("dane", Self::Dane),
        ("mta-sts", Self::MtaSts),
    ];

    /// The word of the contract; "other" for [`TlsPolicy::Other`], which the host refuses.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, policy)| *policy == self).map_or("other", |(word, _)| word)
    }
}

impl From<&str> for TlsPolicy {
    fn from(word: &str) -> Self {
        Self::WORDS.iter().find(|(known, _)| *known == word).map_or(Self::Other, |(_, policy)| *policy)
    }
}

impl Snapshot {
    /// The field `next_hop`, parsed.
    #[must_use]
    pub fn next_hop(&self) -> NextHop {
        self.next_hop.as_str().into()
    }

    /// The field `tls`, parsed.
    #[must_use]
    pub fn tls(&self) -> TlsPolicy {
        self.tls.as_str().into()
    }
}

/// Sets the next hop of this delivery. Grant: route.
///
/// # Errors
///
/// A grant is missing, the relay is not configured, or this is not `on_deliver`.
pub fn set_next_hop(hop: &NextHop) -> Result<(), HostError> {
    host::set_next_hop(&hop.to_string())
}

/// Requires at least this much TLS. A plugin can raise what the configuration requires, never lower it. Grant: route.
///
/// # Errors
///
/// The grant is missing, the host does not serve this policy, or this is not `on_deliver`.
pub fn set_tls(policy: TlsPolicy) -> Result<(), HostError> {
    host::set_tls(policy.name())
}

/// What became of a recipient in an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryStatus {
    /// The next hop accepted it.
    Delivered,
    /// There will be another attempt.
    Deferred,
    /// Failed permanently.
    Failed,
    /// A status of a later version of the contract; it is final.
    Other,
}

impl From<&str> for DeliveryStatus {
    fn from(word: &str) -> Self {
        match word {
            "delivered" => Self::Delivered,
            "deferred" => Self::Deferred,
            "failed" => Self::Failed,
            _ => Self::Other,
        }
    }
}

impl DeliveryOutcome {
    /// The field `status`, parsed.
    #[must_use]
    pub fn status(&self) -> DeliveryStatus {
        self.status.as_str().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_hop_is_read_as_it_is_written() {
        for text in
            ["mx", "mx:b.example", "relay:inner", "discard", "lmtp:unix:/run/lmtp", "smtp:[::1]:25", ""]
        {
            assert_eq!(NextHop::from(text).to_string(), text);
        }
        assert_eq!(NextHop::from("relay:inner"), NextHop::Relay("inner".to_owned()));
        assert_eq!(NextHop::from("smtp:a:25"), NextHop::Other("smtp:a:25".to_owned()));
    }

    #[test]
    fn words_that_are_unknown_are_told_from_the_others() {
        for (word, policy) in TlsPolicy::WORDS {
            assert_eq!((policy.name(), TlsPolicy::from(word)), (word, policy));
        }
        assert_eq!(TlsPolicy::from("quantum"), TlsPolicy::Other);
        assert_eq!(DeliveryStatus::from("deferred"), DeliveryStatus::Deferred);
        assert_eq!(DeliveryStatus::from("expired"), DeliveryStatus::Other);
    }
}
