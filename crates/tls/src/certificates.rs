//! Certificates with their keys: reading them, and choosing one for a client.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ParsedCertificate};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, InconsistentKeys, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, SignatureVerificationAlgorithm, UnixTime};

use crate::TlsError;

/// Later than the end of any certificate (RFC 5280 section 4.1.2.5), in seconds since 1970: the year 10000.
const END_OF_TIME: Duration = Duration::from_secs(253_402_300_800);

/// The most octets that are read from a file; all certificate authorities in the world take a fraction of it.
const MOST: u64 = 16 << 20;

/// Where a certificate chain and its key come from.
#[derive(Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM files, reloaded when they change.
    Files {
        /// The server's own certificate first, then its intermediates.
        chain: PathBuf,
        /// The unencrypted key: PKCS#8, PKCS#1 or SEC1. May be the same file.
        key: PathBuf,
    },
    /// PEM texts, such as a certificate made at run time.
    Pem {
        /// The text of a chain file.
        chain: String,
        /// The text of a key file.
        key: String,
    },
}

/// Written by hand, so that a key never appears in a log.
impl fmt::Debug for CertificateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { chain, key } => {
                f.debug_struct("Files").field("chain", chain).field("key", key).finish()
            }
            Self::Pem { .. } => f.debug_struct("Pem").finish_non_exhaustive(),
        }
    }
}

impl CertificateSource {
    pub(crate) fn load(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
        let (chain_place, key_place) = self.places();
        let (chain_text, key_text) = match self {
            Self::Files { chain, key } => (read(chain)?, read(key)?),
            Self::Pem { chain, key } => (chain.clone().into_bytes(), key.clone().into_bytes()),
        };
        let chain = certificates(&chain_text, &chain_place)?;
        let key = private_key(&key_text, &key_place)?;
        let pair = CertifiedKey::from_der(chain, key, provider).map_err(|cause| match cause {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { chain: chain_place, key: key_place }
            }
            cause => TlsError::Unusable { chain: chain_place, key: key_place, cause },
        })?;
        Ok(Arc::new(pair))
    }

    /// The validity of the chain: the latest beginning and the earliest end of its certificates.
    ///
    /// # Errors
    /// The chain cannot be read.
    pub fn validity(&self) -> Result<Validity, TlsError> {
        let (place, _) = self.places();
        let text = match self {
            Self::Files { chain, .. } => read(chain)?,
            Self::Pem { chain, .. } => chain.clone().into_bytes(),
        };
        let algorithms = crate::provider().signature_verification_algorithms.all;
        let all = certificates(&text, &place)?;
        let bounds = all.iter().map(|der| bounds(der, algorithms));
        Ok(bounds.fold(Validity::default(), Validity::within))
    }

    /// Identifies the current version of each file without reading it.
    pub(crate) fn stamps(&self) -> Vec<FileStamp> {
        match self {
            Self::Files { chain, key } => vec![FileStamp::of(chain), FileStamp::of(key)],
            Self::Pem { .. } => vec![],
        }
    }

    fn places(&self) -> (String, String) {
        match self {
            Self::Files { chain, key } => (chain.display().to_string(), key.display().to_string()),
            Self::Pem { .. } => ("the given certificate text".into(), "the given key text".into()),
        }
    }
}

/// A validity period; an end is open when it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// The start, from the field notBefore.
    pub begins: Option<SystemTime>,
    /// The end, from the field notAfter.
    pub ends: Option<SystemTime>,
}

impl Validity {
    fn within(self, other: Self) -> Self {
        let ends = self.ends.into_iter().chain(other.ends).min();
        Self { begins: self.begins.max(other.begins), ends }
    }
}

/// Asks the verifier about a time before and one after all others: it checks the time first, and its error names the
/// bound. So no second parser of certificates is needed. No root is trusted, so nothing is ever verified here.
fn bounds(der: &CertificateDer<'_>, algorithms: &[&dyn SignatureVerificationAlgorithm]) -> Validity {
    let refusal = |now: Duration| {
        let parsed = ParsedCertificate::try_from(der).ok()?;
        let now = UnixTime::since_unix_epoch(now);
        let none = RootCertStore::empty();
        match verify_server_cert_signed_by_trust_anchor(&parsed, &none, &[], now, algorithms) {
            Err(rustls::Error::InvalidCertificate(cause)) => Some(cause),
            _ => None,
        }
    };
    let at = |time: UnixTime| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    Validity {
        begins: match refusal(Duration::ZERO) {
            Some(CertificateError::NotValidYetContext { not_before, .. }) => at(not_before),
            _ => None,
        },
        ends: match refusal(END_OF_TIME) {
            Some(CertificateError::ExpiredContext { not_after, .. }) => at(not_after),
            _ => None,
        },
    }
}

/// Modification time, length and inode of a file; all absent when it cannot be examined. The time alone is too coarse
/// on some file systems, and a renamed file may have an old one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    modified: Option<SystemTime>,
    length: Option<u64>,
    identity: Option<u64>,
}

impl FileStamp {
    fn of(path: &Path) -> Self {
        let metadata = std::fs::metadata(path).ok();
        Self {
            modified: metadata.as_ref().and_then(|m| m.modified().ok()),
            length: metadata.as_ref().map(std::fs::Metadata::len),
            identity: metadata.as_ref().and_then(inode),
        }
    }
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "other systems have none")]
fn inode(metadata: &std::fs::Metadata) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::ino(metadata))
}

#[cfg(not(unix))]
fn inode(_metadata: &std::fs::Metadata) -> Option<u64> {
    None
}

/// All certificates of a server; never empty.
#[derive(Debug)]
pub(crate) struct CertificateSet {
    default: Arc<CertifiedKey>,
    others: Vec<Arc<CertifiedKey>>,
}

impl CertificateSet {
    pub(crate) fn load(sources: &[CertificateSource], provider: &CryptoProvider) -> Result<Self, TlsError> {
        let pairs: Result<Vec<_>, _> = sources.iter().map(|source| source.load(provider)).collect();
        let mut pairs = pairs?.into_iter();
        let default = pairs.next().ok_or(TlsError::NoPairs)?;
        Ok(Self { default, others: pairs.collect() })
    }

    /// Chooses the best certificate for this client: one with the requested name and a kind of key that the client can
    /// verify, else one that it can verify, else the default (then the handshake fails with a proper alert).
    pub(crate) fn choose(&self, hello: &ClientHello<'_>) -> Arc<CertifiedKey> {
        let schemes = hello.signature_schemes();
        let named = hello.server_name().and_then(|name| {
            let fits = |pair: &&Arc<CertifiedKey>| covers(pair, name) && can_check(pair, schemes);
            self.all().find(fits)
        });
        let best = named.or_else(|| self.all().find(|pair| can_check(pair, schemes)));
        Arc::clone(best.unwrap_or(&self.default))
    }

    /// Whether any of the certificates is valid for `host`.
    pub(crate) fn covers(&self, host: &str) -> bool {
        self.all().any(|pair| covers(pair, host))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        std::iter::once(&self.default).chain(&self.others)
    }
}

fn can_check(pair: &CertifiedKey, schemes: &[SignatureScheme]) -> bool {
    pair.key.choose_scheme(schemes).is_some()
}

/// Parses the certificate each time: that takes about a microsecond, and a parsed certificate borrows from its bytes
/// and cannot be stored next to them.
fn covers(pair: &CertifiedKey, host: &str) -> bool {
    let Ok(name) = ServerName::try_from(host) else {
        return false;
    };
    let Ok(own) = pair.end_entity_cert() else {
        return false;
    };
    ParsedCertificate::try_from(own).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

/// Reads a file. Pipes and devices are refused: reading them may never end, and a reload would hang.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    read_file(path).map_err(|cause| TlsError::Unreadable { path: path.to_owned(), cause })
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let found = std::fs::metadata(path)?;
    if !found.is_file() && !found.is_dir() {
        return Err(io::Error::other("it is a pipe or a device, and no file"));
    }
    let mut octets = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > MOST {
        return Err(io::Error::other(format!("it has more than {MOST} octets")));
    }
    Ok(octets)
}

/// Every certificate in `text`; at least one.
pub(crate) fn certificates(text: &[u8], place: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|cause| not_pem(place, &cause))?;
    if chain.is_empty() { Err(TlsError::NoCertificate { place: place.into() }) } else { Ok(chain) }
}

fn private_key(text: &[u8], place: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|cause| match cause {
        PemError::NoItemsFound => TlsError::NoKey { place: place.into() },
        cause => not_pem(place, &cause),
    })
}

fn not_pem(place: &str, cause: &PemError) -> TlsError {
    TlsError::NotPem { place: place.into(), cause: cause.to_string() }
}
