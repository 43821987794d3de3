//! What can go wrong, by owner: [`TlsError`] is the operator's, [`HandshakeError`] mostly the peer's.

use std::path::PathBuf;
use std::{fmt, io};

use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

use crate::hello::HelloPrefix;

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
    Alert(AlertDescription),
    /// There is no version of TLS that both sides speak. The peer's operator has to act.
    NoCommonVersion {
        /// The newest that the peer offers, such as `TLS 1.0`, where it has said so.
        offered: Option<&'static str>,
    },
    /// There is no cipher, key exchange or signature that both sides know.
    NoCommonCipher(rustls::Error),
    /// What came first is no TLS: the peer speaks plain text.
    NotTls,
    /// The peer does not speak TLS correctly.
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
            Self::Alert(AlertDescription::ProtocolVersion) => f.write_str(
                "the peer broke off the TLS handshake: it speaks no version of TLS that is offered here (1.2 and 1.3)",
            ),
            Self::Alert(alert) => write!(f, "the peer broke off the TLS handshake: {alert:?}"),
            Self::NoCommonVersion { offered } => {
                f.write_str("no version of TLS in common: the peer offers ")?;
                match offered {
                    Some(version) => write!(f, "{version} at best")?,
                    None => f.write_str("only what is older")?,
                }
                f.write_str(", and TLS 1.2 is the oldest that is spoken here: update the peer, or switch TLS 1.2 on there")
            }
            Self::NoCommonCipher(cause) => write!(
                f,
                "no way to encrypt in common ({cause}): the peer has to offer ECDHE with AES-GCM or ChaCha20, and to know \
                 the kind of key that the certificate has"
            ),
            Self::NotTls => f.write_str(
                "what came is no TLS: the peer speaks plain text, perhaps since it is set up for STARTTLS where TLS comes \
                 with the first octet",
            ),
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
            Some(other) => Self::of_protocol(other),
            None => Self::Io(error),
        }
    }
}

impl HandshakeError {
    /// Sorts what the library calls incompatible by what an operator can do about it.
    fn of_protocol(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired,
            ) => Self::NoCommonVersion { offered: None },
            rustls::Error::PeerIncompatible(
                PeerIncompatible::NoCipherSuitesInCommon
                | PeerIncompatible::NoKxGroupsInCommon
                | PeerIncompatible::NoSignatureSchemesInCommon
                | PeerIncompatible::NoEcPointFormatsInCommon,
            ) => Self::NoCommonCipher(error.clone()),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            other => Self::Protocol(other.clone()),
        }
    }

    /// The same, once it is known which version the peer's first message names. The library looks for extensions first,
    /// which peers of old versions do not send, and takes their absence for the fault.
    pub(crate) fn knowing(self, hello: HelloPrefix) -> Self {
        match self {
            Self::Protocol(rustls::Error::PeerIncompatible(_)) | Self::NoCommonVersion { .. }
                if hello.is_old() =>
            {
                Self::NoCommonVersion { offered: hello.version() }
            }
            other => other,
        }
    }
}
