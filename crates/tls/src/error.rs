//! What can go wrong, by owner: [`TlsError`] is the operator's, [`HandshakeError`] mostly the peer's.

use std::path::PathBuf;
use std::{fmt, io};

use rustls::CertificateError;

/// A certificate, key or root store that cannot be used. The operator has to act; the text says where.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// The text is not PEM.
    NotPem {
        /// Where it comes from.
        place: String,
        /// What the parser found.
        cause: String,
    },
    /// There is no certificate in the text.
    NoCertificate {
        /// Where it comes from.
        place: String,
    },
    /// There is no private key in the text.
    NoKey {
        /// Where it comes from.
        place: String,
    },
    /// The certificate or key is damaged or of an unknown kind.
    Unusable {
        /// The certificate's place.
        chain: String,
        /// The key's place.
        key: String,
        /// What rustls says.
        cause: rustls::Error,
    },
    /// The key belongs to another certificate.
    Mismatch {
        /// The certificate's place.
        chain: String,
        /// The key's place.
        key: String,
    },
    /// A server needs at least one certificate.
    NoPairs,
    /// Nothing to verify against: the root store is empty.
    NoRoots {
        /// Where the roots were looked for, and what went wrong there.
        place: String,
    },
    /// The system gives no random numbers or no cipher; our own trouble.
    Provider(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, cause } => write!(f, "cannot read {}: {cause}", path.display()),
            Self::NotPem { place, cause } => write!(f, "{place} is not in PEM form: {cause}"),
            Self::NoCertificate { place } => {
                write!(f, "{place} holds no certificate; it must have a BEGIN CERTIFICATE block")
            }
            Self::NoKey { place } => {
                write!(f, "{place} holds no private key; it must have an unencrypted BEGIN PRIVATE KEY block")
            }
            Self::Unusable { chain, key, cause } => {
                write!(f, "the certificate of {chain} with the key of {key} cannot be used: {cause}")
            }
            Self::Mismatch { chain, key } => write!(
                f,
                "the key of {key} does not belong to the certificate of {chain}; \
                 the server's own certificate must come first in the chain"
            ),
            Self::NoPairs => f.write_str("TLS needs at least one certificate with its key"),
            Self::NoRoots { place } => write!(f, "no root certificate to verify against: {place}"),
            Self::Provider(cause) => write!(f, "TLS cannot be set up: {cause}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// Why a handshake did not finish.
#[derive(Debug)]
pub enum HandshakeError {
    /// The peer's certificate does not satisfy [`crate::ClientPolicy::Verified`]. The next hop's fault;
    /// trying without verification is the operator's choice alone.
    Untrusted(CertificateError),
    /// The peer broke off with an alert.
    Alert(rustls::AlertDescription),
    /// The peer and we have no TLS in common, or it does not speak TLS correctly.
    Protocol(rustls::Error),
    /// The connection ended or failed.
    Io(io::Error),
    /// We cannot try: see there. The operator's.
    Setup(TlsError),
    /// The host's name can stand in no certificate, so that it cannot be verified.
    UnverifiableName(String),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untrusted(cause) => write!(f, "the certificate is not trusted: {cause}"),
            Self::Alert(alert) => write!(f, "the peer broke off the TLS handshake: {alert:?}"),
            Self::Protocol(cause) => write!(f, "the TLS handshake failed: {cause}"),
            Self::Io(cause) => write!(f, "the connection failed in the TLS handshake: {cause}"),
            Self::Setup(cause) => cause.fmt(f),
            Self::UnverifiableName(host) => write!(f, "{host:?} is not a name that a certificate can have"),
        }
    }
}

impl std::error::Error for HandshakeError {}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(cause)) => Self::Untrusted(cause.clone()),
            Some(rustls::Error::AlertReceived(alert)) => Self::Alert(*alert),
            Some(other) => Self::Protocol(other.clone()),
            None => Self::Io(error),
        }
    }
}
