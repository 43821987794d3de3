//! Rules for listeners: TLS, AUTH, addresses, and which clients are accepted.

use std::fmt;
use std::net::SocketAddr;

/// A rule for listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenerRule {
    /// TLS is on, and no certificate is configured.
    TlsWithoutCertificate,
    /// `require_tls` on a listener without TLS.
    RequireTlsWithoutTls,
    /// AUTH needs TLS, which the listener does not have.
    AuthNeverOffered,
    /// AUTH, and neither users nor plugins that could authenticate a client.
    AuthWithoutUsers,
    /// Passwords may be sent without TLS (a warning).
    PlainPasswords,
    /// No certificate covers the hostname (a warning).
    HostnameNotCovered(String),
    /// The listener accepts no mail from any client (a warning).
    AcceptsNothing,
    /// All sessions are reserved for trusted clients.
    NothingForStrangers,
    /// A trusted network that is the whole Internet.
    OpenRelay,
    /// Two sockets would listen on one address; the number is the line of the other.
    Overlap(SocketAddr, SocketAddr, usize),
    /// The file has no listener (a warning).
    NoListener,
}

impl fmt::Display for ListenerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TlsWithoutCertificate => f.write_str("TLS needs a certificate, and [tls] has none"),
            Self::RequireTlsWithoutTls => f.write_str("this listener requires TLS and does not offer it"),
            Self::AuthNeverOffered => {
                f.write_str("no client can authenticate on this listener: it has no TLS")
            }
            Self::AuthWithoutUsers => {
                f.write_str("there is no user and no plugin that could authenticate a client")
            }
            Self::PlainPasswords => f.write_str("passwords may be sent without TLS, in the clear"),
            Self::HostnameNotCovered(name) => write!(f, "no certificate covers the hostname {name:?}"),
            Self::AcceptsNothing => f.write_str("this listener accepts no mail from any client"),
            Self::NothingForStrangers => f.write_str("no session is left for clients that are not trusted"),
            Self::OpenRelay => f.write_str("this network is the whole Internet: an open relay"),
            Self::Overlap(address, other, line) => {
                write!(f, "{address} conflicts with {other} of line {line}")
            }
            Self::NoListener => f.write_str("there is no listener, so no client can send mail"),
        }
    }
}

impl ListenerRule {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::TlsWithoutCertificate => "add [[tls.certificate]] with chain and key, or set tls = \"none\"",
            Self::RequireTlsWithoutTls => "set tls = \"starttls\" or \"implicit\", or require_tls = false",
            Self::AuthNeverOffered => "enable TLS, or set plain_without_tls = true in a closed network",
            Self::AuthWithoutUsers => "add a [[user]], or a [[plugin]] with the hook on-auth",
            Self::PlainPasswords => "make sure that only a trusted network reaches this listener",
            Self::HostnameNotCovered(_) => {
                "clients that verify certificates, such as Exchange, will refuse; get a certificate for it, or change hostname"
            }
            Self::AcceptsNothing => "list your domains in [domains], trust networks, or offer AUTH",
            Self::NothingForStrangers => "make it smaller than max_sessions",
            Self::OpenRelay => "list only the networks of your own hosts",
            Self::Overlap(..) => "remove one of them: a wildcard address includes all others of its family and port",
            Self::NoListener => "add a [[listener]] with name and addresses",
        }
        .into()
    }
}
