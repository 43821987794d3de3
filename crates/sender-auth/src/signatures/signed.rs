//! The parts common to DKIM signatures, ARC message signatures and ARC seals.

use std::collections::HashMap;

use mail_auth::common::crypto::{Algorithm, HashAlgorithm};
use mail_auth::dkim::Canonicalization;
use mail_auth::{AuthenticatedMessage, Error};

use super::keys::PublicKeyFault;
use crate::AuthOutcome;
use crate::tags::TagList;

/// The most characters that are shown of a domain or a local part (RFC 5321 section 4.5.3.1), so that even with four
/// octets each they fit where results are written.
const MAX_SHOWN: usize = 128;

/// A header field as name and value, as in the message.
type NameAndValue<'m> = (&'m [u8], &'m [u8]);

/// A result that is not `pass`, and its reason.
pub(super) type SignatureVerdict = (AuthOutcome, String);

/// The field's value without the signature itself, and without its line end (RFC 6376 section 3.7).
pub(super) fn unsigned(value: &[u8]) -> Vec<u8> {
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    let mut out = Vec::with_capacity(value.len());
    for (number, tag) in value.split(|b| *b == b';').enumerate() {
        if number > 0 {
            out.push(b';');
        }
        match tag.iter().position(|b| *b == b'=') {
            Some(equals) if tag[..equals].trim_ascii().eq_ignore_ascii_case(b"b") => {
                out.extend_from_slice(&tag[..=equals]);
            }
            _ => out.extend_from_slice(tag),
        }
    }
    out
}

/// The fields that a message signature covers, in the order of its `h=`, the signature field itself last (RFC 6376
/// section 5.4.2). Of several fields with one name each is taken once, from the bottom up; a name without a further
/// field stands for nothing.
///
/// Both the list and the header are as long as the sender likes, so neither is searched for each item of the other.
pub(super) fn covered<'m>(
    message: &AuthenticatedMessage<'m>,
    names: &[String],
    own: NameAndValue<'m>,
) -> Vec<NameAndValue<'m>> {
    let mut fields: HashMap<Vec<u8>, Vec<NameAndValue<'_>>> =
        names.iter().map(|name| (name.as_bytes().to_ascii_lowercase(), Vec::new())).collect();
    for (name, value) in &message.headers {
        if let Some(same) = fields.get_mut(&name.to_ascii_lowercase()) {
            same.push((name, value));
        }
    }
    let next = |name: &String| fields.get_mut(&name.as_bytes().to_ascii_lowercase())?.pop();
    let mut covered: Vec<_> = names.iter().filter_map(next).collect();
    covered.push(own);
    covered
}

/// Checks of a tag list that the library does not make: that it is one, and has no tag twice (RFC 6376 section 3.2).
pub(super) fn tags(value: &[u8]) -> Option<TagList<'_>> {
    std::str::from_utf8(value).ok().and_then(TagList::parse)
}

/// Cuts text from the sender to a reasonable length, since it is written into header fields and logs.
pub(super) fn shown(text: &str) -> String {
    let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(MAX_SHOWN).map(visible).collect()
}

/// Checks that the body is the one that was signed.
pub(super) fn check_body(
    message: &AuthenticatedMessage<'_>,
    canonicalization: Canonicalization,
    algorithm: Algorithm,
    expected: &[u8],
) -> Result<(), SignatureVerdict> {
    let hash = HashAlgorithm::from(algorithm);
    let computed = message
        .body_hashes
        .iter()
        .find(|(c, h, length, _)| *c == canonicalization && *h == hash && *length == 0);
    match computed {
        Some((.., computed)) if computed == expected => Ok(()),
        _ => Err((AuthOutcome::Fail, "the body is not the one that was signed".into())),
    }
}

/// RFC 8301 section 3.1: a signature with rsa-sha1 fails permanently.
pub(super) fn check_algorithm(algorithm: Algorithm) -> Result<(), SignatureVerdict> {
    match algorithm {
        Algorithm::RsaSha1 => Err((AuthOutcome::PermError, "signatures by SHA-1 are not accepted".into())),
        Algorithm::RsaSha256 | Algorithm::Ed25519Sha256 => Ok(()),
    }
}

/// The algorithm's name in the field.
pub(super) fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RsaSha1 => "rsa-sha1",
        Algorithm::RsaSha256 => "rsa-sha256",
        Algorithm::Ed25519Sha256 => "ed25519-sha256",
    }
}

/// The result of a signature whose key is missing.
pub(super) fn without_key(fault: &PublicKeyFault) -> SignatureVerdict {
    match fault {
        PublicKeyFault::Dns(error) => (AuthOutcome::TempError, format!("the key, from DNS: {error}")),
        PublicKeyFault::Missing => (AuthOutcome::PermError, "there is no such key".into()),
        PublicKeyFault::Unusable(why) => (AuthOutcome::PermError, format!("the key cannot be used: {why}")),
        PublicKeyFault::NotForThis => {
            (AuthOutcome::PermError, "the key is not for signatures of mail like this".into())
        }
        PublicKeyFault::Weak => {
            (AuthOutcome::Policy, "RSA keys of less than 1,024 bits are not accepted".into())
        }
    }
}

/// The result of a signature that the library does not verify.
pub(super) fn unverified(error: &Error) -> SignatureVerdict {
    match error {
        Error::Crypto(mail_auth::common::crypto::CryptoError::IncompatibleAlgorithms) => {
            (AuthOutcome::PermError, "the key is of another algorithm than the signature".into())
        }
        _ => (AuthOutcome::Fail, "the signature does not fit the header".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signature_is_taken_out() {
        let read = |text: &str| String::from_utf8(unsigned(text.as_bytes())).unwrap();
        assert_eq!(read(" v=1; bh=x=; b=AB\r\n CD=; d=e\r\n"), " v=1; bh=x=; b=; d=e");
        assert_eq!(read(" v=1;\r\n\t b =AB\r\n CD\r\n"), " v=1;\r\n\t b =");
        assert_eq!(read(" b"), " b");
    }
}
