//! Where a message goes next, as routes, plugins and the queue name it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where some recipients of a message go next. Two recipients with equal next hops travel together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NextHop {
    /// The mail exchangers of a domain, in A-labels and lower case, or the host that an address literal names.
    Mx(String),
    /// A relay of this name in the configuration, or `host`, `host:port`, `[192.0.2.1]:25`.
    Relay(String),
    /// The same, spoken to in LMTP (RFC 2033).
    Lmtp(String),
    /// Log and drop.
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

/// How much TLS a delivery demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsPolicy {
    /// Never.
    None,
    /// Where the next hop offers it, with any certificate; plain otherwise.
    #[default]
    Opportunistic,
    /// Always, with any certificate.
    Required,
    /// Always, with a certificate that a trusted authority signed for the next hop's name.
    Verified,
}
