//! Verification of DKIM and ARC signatures (RFC 6376, RFC 8301, RFC 8463, RFC 8617).
//!
//! The header is read once to find out which keys are needed, these are fetched in parallel, and then everything is
//! computed without waiting. A large message is hashed on a blocking thread, so that it does not delay others.

mod arc;
mod dkim;
mod keys;
mod signed;

use mail_auth::AuthenticatedMessage;
use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::dkim::Canonicalization as Form;
use pintle_mail::{Bytes, HeaderBlock, UnixTime};

pub use self::arc::ArcResult;
pub use self::dkim::DkimResult;
pub use self::keys::PublicKeys;
use crate::sign::Canonicalization;
use crate::sign::canonical::BodyHasher;
use crate::{AuthOutcome, DeadlineResolver};

/// Messages with more octets than this are hashed where blocking is allowed.
const LARGE: usize = 128 << 10;

/// The results of all signatures of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signatures {
    /// One result for each DKIM-Signature field, from the top. If there are more than ten, those of the author's domain
    /// are verified first, and the unverified ones share one result.
    pub dkim: Vec<DkimResult>,
    /// The result of the ARC chain.
    pub arc: ArcResult,
}

impl Signatures {
    /// The results of a message without any signature.
    #[must_use]
    pub fn none() -> Self {
        Self { dkim: Vec::new(), arc: ArcResult::none() }
    }
}

/// Whether a message has any signature. If it has none, its body need not be read.
#[must_use]
pub fn is_signed(header: &HeaderBlock) -> bool {
    header.iter().any(|field| {
        [&b"DKIM-Signature"[..], b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"]
            .iter()
            .any(|name| field.name().eq_ignore_ascii_case(name))
    })
}

/// Verifies every signature of `message`, which is the whole message as received: header, empty line and body.
///
/// `now` decides which signatures have expired.
pub async fn verify(dns: DeadlineResolver<'_>, message: Bytes, now: UnixTime) -> Signatures {
    let keys = keys(dns, &message[..header_end(&message)]).await;
    verify_with(keys, message, now).await
}

/// Fetches the keys that the signatures in this header need, however long the owners' name servers take. The message
/// need not be in memory meanwhile.
pub async fn keys(dns: DeadlineResolver<'_>, header: &[u8]) -> PublicKeys {
    let wanted =
        parsed(header).map(|header| dkim::key_names(&header).chain(arc::key_names(&header)).collect());
    PublicKeys::fetch(dns, wanted.unwrap_or_default()).await
}

/// As [`verify`], with keys that have been fetched, and without waiting for DNS.
pub async fn verify_with(keys: PublicKeys, message: Bytes, now: UnixTime) -> Signatures {
    if message.len() < LARGE {
        return judge(&message, &keys, now);
    }
    let judged = tokio::task::spawn_blocking(move || judge(&message, &keys, now));
    judged.await.unwrap_or_else(|error| {
        tracing::error!(%error, "verifying signatures failed");
        Signatures {
            dkim: vec![DkimResult::of(AuthOutcome::TempError, "verifying failed inside the gateway")],
            arc: ArcResult::of(AuthOutcome::TempError, "verifying failed inside the gateway"),
        }
    })
}

fn judge(message: &[u8], keys: &PublicKeys, now: UnixTime) -> Signatures {
    let Some(mut parsed) = parsed(message) else {
        return Signatures::none();
    };
    correct_parsing(&mut parsed);
    let now = u64::try_from(now.millis() / 1_000).unwrap_or(0);
    Signatures { dkim: dkim::judge(&parsed, keys, now), arc: arc::judge(&parsed, keys, now) }
}

/// In this mode the library refuses signatures that cover only the first octets of a body (`l=`): anyone could append
/// anything to the message (RFC 6376 section 8.2).
fn parsed(message: &[u8]) -> Option<AuthenticatedMessage<'_>> {
    AuthenticatedMessage::parse_with_opts(message, None, true)
}

/// Corrects what the library reads differently from RFC 6376 and all other verifiers.
fn correct_parsing(message: &mut AuthenticatedMessage<'_>) {
    // Section 3.4.2: white space before the colon is not part of the name.
    for (name, _) in &mut message.headers {
        *name = name.trim_ascii_end();
    }
    // Section 3.4.4: lines of white space only are empty, and empty lines at the end of a body do not count. The
    // library counts them. Hashing again is needed only for the few bodies that end like that.
    let body = message.raw_body();
    if !ends_in_blank_line(body) {
        return;
    }
    let is_wrong =
        |form: Form, hash, length| form == Form::Relaxed && hash == HashAlgorithm::Sha256 && length == 0;
    if message.body_hashes.iter().any(|(form, hash, length, _)| is_wrong(*form, *hash, *length)) {
        let right = BodyHasher::hash(Canonicalization::Relaxed, body);
        let wrong = message.body_hashes.iter_mut().filter(|entry| is_wrong(entry.0, entry.1, entry.2));
        wrong.for_each(|entry| entry.3.clone_from(&right));
    }
}

/// Whether there is a line of white space, and not just an empty one, after all text.
fn ends_in_blank_line(body: &[u8]) -> bool {
    let text = body.trim_ascii_end().len();
    let mut blank = body[text..].split(|octet| *octet == b'\n');
    // White space on the last line of text is not a line of its own.
    if text > 0 {
        blank.next();
    }
    blank.any(|line| line.iter().any(|octet| matches!(octet, b' ' | b'\t')))
}

fn header_end(message: &[u8]) -> usize {
    let mut start = 0;
    for line in message.split_inclusive(|b| *b == b'\n') {
        if line == b"\r\n" || line == b"\n" {
            break;
        }
        start += line.len();
    }
    start
}
