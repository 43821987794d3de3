//! Errors: [`TlsError`] is for the operator to fix, [`HandshakeError`] is mostly caused by the peer.

use std::path::PathBuf;
use std::{fmt, io};

use rustls::{AlertDescription, CertificateError, InvalidMessage, PeerIncompatible};

use crate::hello::HelloPrefix;

/// A certificate, key or root store that cannot be used. The operator has to fix it; the text says where.
#[derive(Debug)]
pub enum TlsError {
    /// A file cannot be read.
    Unreadable {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        cause: io::Error,
    },
    /// The text is not PEM.
    NotPem {
        /// The file, or where else the text comes from.
        place: String,
        /// The error of the parser.
        cause: String,
    },
    /// There is no certificate in the text.
    NoCertificate {
        /// The file, or where else the text comes from.
        place: String,
    },
    /// There is no private key in the text.
    NoKey {
        /// The file, or where else the text comes from.
        place: String,
    },
    /// The certificate or key is damaged or of an unknown kind.
    Unusable {
        /// The certificate's file, or where else it comes from.
        chain: String,
        /// The key's file, or where else it comes from.
        key: String,
        /// The error of rustls.
        cause: rustls::Error,
    },
    /// The key belongs to another certificate.
    Mismatch {
        /// The certificate's file, or where else it comes from.
        chain: String,
        /// The key's file, or where else it comes from.
        key: String,
    },
    /// A server needs at least one certificate.
    NoPairs,
    /// There is nothing to verify against: the root store is empty.
    NoRoots {
        /// Where the roots were searched for, and what went wrong there.
        place: String,
    },
    /// The system gives no random numbers or no cipher; not the operator's fault.
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

/// Why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// The peer's certificate does not satisfy [`crate::ClientPolicy::Verified`]. The next hop is at fault; only the
    /// operator may decide to try without verification.
    Untrusted(CertificateError),
    /// The peer aborted the handshake with an alert.
    Alert(AlertDescription),
    /// There is no version of TLS that both sides support. The peer's operator has to act.
    NoCommonVersion {
        /// The newest version that the peer offers, such as `TLS 1.0`, if it has said so.
        offered: Option<&'static str>,
    },
    /// There is no cipher, key exchange or signature that both sides support.
    NoCommonCipher(rustls::Error),
    /// The first octets are not TLS: the peer sends plain text.
    NotTls,
    /// The peer does not speak TLS correctly.
    Protocol(rustls::Error),
    /// The connection ended or failed.
    Io(io::Error),
    /// Our own TLS setup does not allow a handshake. The operator has to fix it.
    Setup(TlsError),
    /// The host's name cannot be in a certificate, so it cannot be verified.
    UnverifiableName(String),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untrusted(cause) => write!(f, "the certificate is not trusted: {cause}"),
            Self::Alert(AlertDescription::ProtocolVersion) => f.write_str(
                "the peer aborted the TLS handshake: it supports no version of TLS that is offered here (1.2 and 1.3)",
            ),
            Self::Alert(alert) => write!(f, "the peer aborted the TLS handshake: {alert:?}"),
            Self::NoCommonVersion { offered } => {
                f.write_str("no version of TLS in common: the peer offers ")?;
                match offered {
                    Some(version) => write!(f, "{version} at best")?,
                    None => f.write_str("only older versions")?,
                }
                f.write_str(", and TLS 1.2 is the oldest that is supported here: update the peer, or enable TLS 1.2 there")
            }
            Self::NoCommonCipher(cause) => write!(
                f,
                "no cipher in common ({cause}): the peer must offer ECDHE with AES-GCM or ChaCha20, and support the kind of \
                 key that the certificate has"
            ),
            Self::NotTls => f.write_str(
                "the peer sends plain text instead of TLS; it may be set up for STARTTLS on a port with implicit TLS",
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
    /// Sorts the library's incompatibility errors by what an operator can do about them.
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

    /// Refines the error with the version that the peer's first message names. The library checks extensions first,
    /// which old peers do not send, and reports their absence instead.
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
