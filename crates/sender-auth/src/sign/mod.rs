//! Signing: DKIM signatures for outgoing mail, ARC sets for forwarded mail (RFC 6376, RFC 8463, RFC 8617).
//!
//! A [`Keyring`] checks the operator's keys once. [`sign`] returns the DKIM-Signature fields of a message, one for each
//! key, and [`seal()`] an ARC set; the caller puts them above the header. The body is read once, in pieces, and never
//! held in memory as a whole; long bodies are hashed, and RSA keys used, where blocking is allowed. Signatures are not
//! made by the library that verifies them, because its signer signs no field more often than it occurs, takes the time
//! from the clock, and canonicalises some bodies differently from all other software.
//!
//! A [`SigningRequest`] names keys as a plugin does, and one metric counts its results.
//!
//! Not done here: choosing the keys for a message, finding keys, and adding the fields to the message.

pub(crate) mod canonical;
mod field;
mod key;
mod keyring;
mod published;
mod request;
mod seal;

use std::fmt;
use std::sync::Arc;

use pintle_mail::{Body, BodyError, HeaderBlock, UnixTime};

use self::canonical::BodyHasher;
pub use self::canonical::Canonicalization;
use self::field::Unsigned;
pub use self::key::{Algorithm, GenerateError, KeyPair, Pem, PemError, PrivateKey, generate};
pub use self::keyring::{
    EXPIRES, KeyConfig, KeyError, KeyFault, Keyring, OVERSIGNED_FIELDS, SIGNED_FIELDS, SigningKey,
};
pub use self::published::{KeyFinding, PublishedKey, examine, key_name, zone_line};
pub use self::request::{
    CannotSign, SignatureKind, SignatureResult, SigningRequest, count, failed, missing_key,
};
pub use self::seal::{Assessment, SealError, seal};

/// How much of a body is read and hashed at once on a thread that others share.
const PIECE: usize = 64 << 10;
/// Bodies beyond this many octets are hashed where blocking is allowed, in larger pieces.
const LARGE: u64 = 128 << 10;
const LARGE_PIECE: usize = 512 << 10;

/// Why a message was not signed. The message stays unchanged.
#[derive(Debug, Clone)]
pub enum SignError {
    /// The message has no From field, which every signature must cover (RFC 6376 section 5.4). The author is at fault.
    NoFrom,
    /// The body cannot be read. The gateway is at fault.
    Body(BodyError),
    /// The key of this name failed, as far as is known for lack of memory. The gateway is at fault.
    Key(String),
    /// The work was interrupted: the gateway is stopping, or has a bug.
    Interrupted,
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFrom => f.write_str("the message has no From field, without which it cannot be signed"),
            Self::Body(error) => error.fmt(f),
            Self::Key(name) => write!(f, "signing with the key {name} failed inside the gateway"),
            Self::Interrupted => f.write_str("signing was interrupted"),
        }
    }
}

impl std::error::Error for SignError {}

/// Makes the DKIM-Signature fields of a message, one for each key in their order, folded and ended by CRLF, to be put
/// above `header`.
///
/// # Errors
/// There is no From field, the body cannot be read, or signing failed. Then there are no signatures at all.
pub async fn sign(
    keys: &[Arc<SigningKey>],
    header: &HeaderBlock,
    body: &dyn Body,
    now: UnixTime,
) -> Result<Vec<u8>, SignError> {
    if header.named("From").next().is_none() {
        return Err(SignError::NoFrom);
    }
    let hashes = BodyHashes::of(body, keys).await?;
    let unsigned = keys.iter().map(|key| Unsigned::dkim(key, header, hashes.get(key), now)).collect();
    complete(unsigned).await
}

/// The hashes of one body in the requested canonical forms.
struct BodyHashes(Vec<(Canonicalization, Vec<u8>)>);

impl BodyHashes {
    /// Reads the body once for all keys.
    async fn of(body: &dyn Body, keys: &[Arc<SigningKey>]) -> Result<Self, SignError> {
        let mut forms: Vec<Canonicalization> = keys.iter().map(|key| key.config.body).collect();
        forms.sort_unstable_by_key(|form| form.name());
        forms.dedup();
        let mut hashers: Vec<_> = forms.iter().map(|form| BodyHasher::new(*form)).collect();
        let is_large = body.size() > LARGE;
        let mut offset = 0;
        while !hashers.is_empty() && offset < body.size() {
            let length = if is_large { LARGE_PIECE } else { PIECE };
            let piece = body.read(offset, length).await.map_err(SignError::Body)?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            let update = move || {
                hashers.iter_mut().for_each(|hasher| hasher.update(&piece));
                hashers
            };
            hashers = if is_large { blocking(update).await? } else { update() };
        }
        let hashes = hashers.into_iter().map(BodyHasher::finish);
        Ok(Self(forms.into_iter().zip(hashes).collect()))
    }

    fn get(&self, key: &SigningKey) -> &[u8] {
        let found = self.0.iter().find(|(form, _)| *form == key.config.body);
        found.map_or(&[], |(_, hash)| hash)
    }
}

/// Makes the signatures and returns the fields in their order.
async fn complete(fields: Vec<Unsigned>) -> Result<Vec<u8>, SignError> {
    let is_slow = fields.iter().any(Unsigned::is_slow);
    let work = move || -> Result<Vec<u8>, SignError> {
        let mut out = Vec::new();
        for field in fields {
            out.extend(field.complete().map_err(SignError::Key)?);
        }
        Ok(out)
    };
    if is_slow { blocking(work).await? } else { work() }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SignError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        if error.is_panic() {
            tracing::error!(%error, "signing failed");
        }
        SignError::Interrupted
    })
}
