//! Compares the record that DNS has for a key with what it should be (RFC 6376 section 3.6).

use std::fmt;

use aws_lc_rs::rsa;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use pintle_mail::address::domain_to_ascii;

use super::key::{Algorithm, MIN_BITS, PrivateKey};
use crate::tags::TagList;

/// The DNS name at which a public key is published (section 3.6.2.1), in A-labels (RFC 8616 section 5).
#[must_use]
pub fn key_name(selector: &str, domain: &str) -> String {
    format!("{}._domainkey.{}", domain_to_ascii(selector), domain_to_ascii(domain))
}

/// The zone-file line that publishes a record, in strings of at most 255 octets (RFC 1035 section 3.3).
#[must_use]
pub fn zone_line(selector: &str, domain: &str, record: &str) -> String {
    // Key records are ASCII without quotes and backslashes.
    let strings: Vec<String> =
        record.as_bytes().chunks(255).map(|part| format!("\"{}\"", String::from_utf8_lossy(part))).collect();
    format!("{}. IN TXT {}", key_name(selector, domain), strings.join(" "))
}

/// A problem of a published key that keeps some verifiers from accepting its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFinding {
    /// There is no record.
    Missing,
    /// There are several records (the number is given), and it is undefined which one verifiers use (section 3.6.2.2).
    Several(usize),
    /// It is not a key; the text says why.
    Unreadable(String),
    /// The key is revoked: `p=` is empty.
    Revoked,
    /// The RSA key is too short; the number is its length in bits.
    Weak(usize),
    /// The key is not for mail (`s=`).
    NotForMail,
    /// The key is not for SHA-256 (`h=`), which we sign with.
    NotForSha256,
    /// The key is for testing (`t=y`): verifiers are asked to ignore its signatures.
    Testing,
    /// It is not the public half of our key.
    Differs,
}

impl fmt::Display for KeyFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("nothing is published; publish the record"),
            Self::Several(count) => write!(f, "{count} TXT records are published; leave one"),
            Self::Unreadable(why) => write!(f, "what is published is not a key ({why}); publish the record again"),
            Self::Revoked => f.write_str("the key is revoked (p= is empty); sign with another key, or publish it again"),
            Self::Weak(bits) => write!(
                f,
                "the key has {bits} bits, and verifiers distrust less than {MIN_BITS}; make a new one under a new selector"
            ),
            Self::NotForMail => f.write_str("the key is not for mail (s=); publish it without that tag"),
            Self::NotForSha256 => f.write_str("the key is not for SHA-256 (h=); publish it without that tag"),
            Self::Testing => {
                f.write_str("the key is for testing (t=y), so verifiers may ignore it; remove the flag")
            }
            Self::Differs => f.write_str(
                "another key is published than the one that signs; publish the record of this key, or sign with the other",
            ),
        }
    }
}

/// The published key record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedKey {
    /// The key's algorithm; none when the record cannot be read.
    pub algorithm: Option<Algorithm>,
    /// The problems found. When there are none, verifiers will accept signatures by the key.
    pub findings: Vec<KeyFinding>,
}

/// Examines the TXT records at [`key_name`], each with its strings joined. The private key, if given, is compared with
/// them.
#[must_use]
pub fn examine(texts: &[Vec<u8>], own: Option<&PrivateKey>) -> PublishedKey {
    let Some(first) = texts.first() else {
        return PublishedKey { algorithm: None, findings: vec![KeyFinding::Missing] };
    };
    let mut findings = Vec::new();
    if texts.len() > 1 {
        findings.push(KeyFinding::Several(texts.len()));
    }
    match read(first) {
        Ok((tags, key)) => {
            findings.extend(judge(&tags, &key, own));
            PublishedKey { algorithm: Some(key.algorithm), findings }
        }
        Err(finding) => {
            findings.push(finding);
            PublishedKey { algorithm: None, findings }
        }
    }
}

/// A bare public key: some RSA keys are published with a wrapper and others without.
struct PublicKey {
    algorithm: Algorithm,
    bare: Vec<u8>,
}

fn read(text: &[u8]) -> Result<(TagList<'_>, PublicKey), KeyFinding> {
    let unreadable = |why: &str| KeyFinding::Unreadable(why.to_owned());
    let tags = std::str::from_utf8(text).ok().and_then(TagList::parse);
    let tags = tags.ok_or_else(|| unreadable("it is not a list of tags"))?;
    if tags.get("v").is_some() && tags.first() != Some(("v", "DKIM1")) {
        return Err(unreadable("v=DKIM1 does not come first"));
    }
    let public = tags.get("p").ok_or_else(|| unreadable("it has no p="))?;
    if public.is_empty() {
        return Err(KeyFinding::Revoked);
    }
    let public: String = public.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let public = STANDARD.decode(public).map_err(|_| unreadable("p= is not Base64"))?;
    let is_ed25519 = tags.get("k").is_some_and(|kind| kind.eq_ignore_ascii_case("ed25519"));
    let bare = bare(&public, is_ed25519).ok_or_else(|| unreadable("p= is not a key of the kind k="))?;
    // Finally, the library that verifies signatures must accept the record.
    let key = DomainKey::parse(text).map_err(|error| unreadable(&error.to_string()))?;
    let rsa = || Algorithm::Rsa { bits: key.p.public_key_bits() };
    Ok((tags, PublicKey { algorithm: if is_ed25519 { Algorithm::Ed25519 } else { rsa() }, bare }))
}

fn judge(tags: &TagList<'_>, key: &PublicKey, own: Option<&PrivateKey>) -> Vec<KeyFinding> {
    let weak = match key.algorithm {
        Algorithm::Rsa { bits } if bits < MIN_BITS => Some(KeyFinding::Weak(bits)),
        Algorithm::Rsa { .. } | Algorithm::Ed25519 => None,
    };
    let for_mail = tags.lists("s", "email", true) || tags.lists("s", "*", true);
    let for_sha256 = tags.lists("h", "sha256", true);
    let is_ed25519 = key.algorithm == Algorithm::Ed25519;
    let differs = own.is_some_and(|own| {
        own.algorithm().key_type() != key.algorithm.key_type()
            || bare(&own.public(), is_ed25519).as_ref() != Some(&key.bare)
    });
    let mut findings = Vec::from_iter(weak);
    findings.extend((!for_mail).then_some(KeyFinding::NotForMail));
    findings.extend((!for_sha256).then_some(KeyFinding::NotForSha256));
    findings.extend(tags.lists("t", "y", false).then_some(KeyFinding::Testing));
    findings.extend(differs.then_some(KeyFinding::Differs));
    findings
}

fn bare(public: &[u8], is_ed25519: bool) -> Option<Vec<u8>> {
    if is_ed25519 {
        // RFC 8463 section 4.
        return (public.len() == 32).then(|| public.to_vec());
    }
    rsa::PublicKey::from_der(public).ok().map(|key| key.as_ref().to_vec())
}
