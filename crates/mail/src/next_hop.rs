//! Where a message is sent next, as routes, plugins and the queue name it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where some recipients of a message are sent next. Recipients with equal next hops share a delivery attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NextHop {
    /// The mail exchangers of a domain, in A-labels and lower case, or the host that an address literal names.
    Mx(String),
    /// A relay of this name in the configuration, or `host`, `host:port`, `[192.0.2.1]:25`.
    Relay(String),
    /// As [`NextHop::Relay`], but over LMTP (RFC 2033).
    Lmtp(String),
    /// Log the message and drop it.
    Discard,
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mx(domain) => write!(f, "mx:{domain}"),
            Self::Relay(name) => write!(f, "relay:{name}"),
            Self::Lmtp(name) => write!(f, "lmtp:{name}"),
            Self::Discard => f.write_str("discard"),
        }
    }
}

/// The text does not name a next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoNextHop(String);

impl fmt::Display for NoNextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a next hop: write mx:DOMAIN, relay:NAME, lmtp:NAME or discard", self.0)
    }
}

impl std::error::Error for NoNextHop {}

impl FromStr for NextHop {
    type Err = NoNextHop;

    /// Parses what `Display` writes; a domain may be in any form.
    fn from_str(text: &str) -> Result<Self, NoNextHop> {
        match text.split_once(':').filter(|(_, name)| !name.is_empty()) {
            Some(("mx", domain)) => Ok(Self::Mx(crate::address::domain_to_ascii(domain))),
            Some(("relay", name)) => Ok(Self::Relay(name.to_owned())),
            Some(("lmtp", name)) => Ok(Self::Lmtp(name.to_owned())),
            None if text == "discard" => Ok(Self::Discard),
            _ => Err(NoNextHop(text.to_owned())),
        }
    }
}

/// How much TLS a delivery requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsPolicy {
    /// Never use TLS.
    None,
    /// Use TLS where the next hop offers it, with any certificate; otherwise plain text.
    #[default]
    Opportunistic,
    /// Always use TLS, with any certificate.
    Required,
    /// Always use TLS, with a certificate that a trusted authority signed for the next hop's name.
    Verified,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_written() {
        for text in ["mx:example.org", "relay:inside", "relay:[192.0.2.1]:25", "lmtp:store", "discard"] {
            assert_eq!(text.parse::<NextHop>().map(|hop| hop.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("mx:M\u{fc}ller.example".parse(), Ok(NextHop::Mx("xn--mller-kva.example".into())));
        for text in ["inside", "relay:", "mx", "smtp:inside", "", "Discard"] {
            assert_eq!(text.parse::<NextHop>(), Err(NoNextHop(text.to_owned())));
        }
    }
}
