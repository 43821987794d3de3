//! Listeners: TLS, AUTH, addresses, and who may come.

use std::fmt;
use std::net::SocketAddr;

/// Listeners: TLS, AUTH, addresses, and who may come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenerRule {
    /// TLS without a certificate.
    TlsWithoutCertificate,
    /// TLS is demanded where none is served.
    RequireTlsWithoutTls,
    /// AUTH that no client could ever use.
    AuthNeverOffered,
    /// AUTH with nobody who could authenticate.
    AuthWithoutUsers,
    /// Passwords in the clear (a warning).
    PlainPasswords,
    /// `hostname` is in no certificate (a warning).
    HostnameNotCovered(String),
    /// A listener without a purpose: it accepts nobody's mail (a warning).
    AcceptsNothing,
    /// All sessions are kept for trusted clients.
    NothingForStrangers,
    /// The whole Internet may relay.
    OpenRelay,
    /// Two sockets would listen at one address; the line is the other's.
    Overlap(SocketAddr, SocketAddr, usize),
    /// Nobody can bring mail (a warning).
    NoListener,
}

impl fmt::Display for ListenerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TlsWithoutCertificate => f.write_str("TLS needs a certificate, and [tls] names none"),
            Self::RequireTlsWithoutTls => f.write_str("TLS is required on a listener that does not serve it"),
            Self::AuthNeverOffered => f.write_str("nobody can authenticate here: there is no TLS"),
            Self::AuthWithoutUsers => {
                f.write_str("there is neither a user nor a plugin that could say who is who")
            }
            Self::PlainPasswords => f.write_str("passwords may cross the network in the clear"),
            Self::HostnameNotCovered(name) => write!(f, "no certificate covers the hostname {name:?}"),
            Self::AcceptsNothing => f.write_str("this listener takes mail from nobody"),
            Self::NothingForStrangers => f.write_str("no session is left for anybody else"),
            Self::OpenRelay => f.write_str("this network is the whole Internet: an open relay"),
            Self::Overlap(address, other, line) => {
                write!(f, "{address} cannot be listened on beside {other} of line {line}")
            }
            Self::NoListener => f.write_str("there is no listener: nobody can bring mail"),
        }
    }
}

impl ListenerRule {
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::TlsWithoutCertificate => "add [[tls.certificate]] with chain and key, or set tls = \"none\"",
            Self::RequireTlsWithoutTls => "set tls = \"starttls\" or \"implicit\", or require_tls = false",
            Self::AuthNeverOffered => "serve TLS here, or set plain_without_tls = true in a closed network",
            Self::AuthWithoutUsers => "add a [[user]], or a [[plugin]] with the hook on-auth",
            Self::PlainPasswords => "keep this listener inside a trusted network",
            Self::HostnameNotCovered(_) => {
                "clients that verify (Exchange does) will refuse; get a certificate for it, or change hostname"
            }
            Self::AcceptsNothing => "name your domains in [domains], trust networks, or offer AUTH",
            Self::NothingForStrangers => "make it smaller than max_sessions",
            Self::OpenRelay => "name the networks of your own hosts",
            Self::Overlap(..) => "leave one of them out: a wildcard address takes in all others of its family and port",
            Self::NoListener => "add a [[listener]] with name and addresses",
        }
        .into()
    }
}
