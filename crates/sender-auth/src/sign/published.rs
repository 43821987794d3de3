//! What DNS says of a key, beside what it should say (RFC 6376 section 3.6).

use std::fmt;

use aws_lc_rs::rsa;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use pintle_mail::address::domain_to_ascii;

use super::key::{Algorithm, MIN_BITS, PrivateKey};
use crate::tags::TagList;

/// The DNS name at which the public half of a key is published (section 3.6.2.1), in A-labels (RFC 8616 section 5).
#[must_use]
pub fn key_name(selector: &str, domain: &str) -> String {
    format!("{}._domainkey.{}", domain_to_ascii(selector), domain_to_ascii(domain))
}

/// The line for a zone file that publishes a record, in strings of at most 255 octets (RFC 1035 section 3.3).
#[must_use]
pub fn zone_line(selector: &str, domain: &str, record: &str) -> String {
    // Records of keys are ASCII without quotes and backslashes.
    let strings: Vec<String> =
        record.as_bytes().chunks(255).map(|part| format!("\"{}\"", String::from_utf8_lossy(part))).collect();
    format!("{}. IN TXT {}", key_name(selector, domain), strings.join(" "))
}

/// Something about a published key that keeps signatures by it from being believed everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFinding {
    /// There is no record.
    Missing,
    /// There are so many records, and which one verifiers take is not said (section 3.6.2.2).
    Several(usize),
    /// It is no key; the text says why.
    Unreadable(String),
    /// Its owner has revoked it: `p=` is empty.
    Revoked,
    /// An RSA key of so few bits.
    Weak(usize),
    /// It is for other services than mail (`s=`).
    NotForMail,
    /// It is not for SHA-256 (`h=`), by which we sign.
    NotForSha256,
    /// `t=y`: verifiers are asked not to count signatures by it.
    Testing,
    /// It is another key than ours.
    Differs,
}

impl fmt::Display for KeyFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("nothing is published; publish the record"),
            Self::Several(count) => write!(f, "{count} TXT records are published; leave one"),
            Self::Unreadable(why) => write!(f, "what is published is no key ({why}); publish the record anew"),
            Self::Revoked => f.write_str("the key is revoked (p= is empty); sign by another, or publish it again"),
            Self::Weak(bits) => write!(
                f,
                "the key has {bits} bits, and verifiers distrust less than {MIN_BITS}; make a new one under a new selector"
            ),
            Self::NotForMail => f.write_str("the key is not for mail (s=); publish it without that tag"),
            Self::NotForSha256 => f.write_str("the key is not for SHA-256 (h=); publish it without that tag"),
            Self::Testing => {
                f.write_str("the key is for testing (t=y), so verifiers may ignore it; take the flag away")
            }
            Self::Differs => f.write_str(
                "another key is published than the one that signs; publish the record of this key, or sign by the other",
            ),
        }
    }
}

/// What is published for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedKey {
    /// Of which kind it is, where it can be read.
    pub algorithm: Option<Algorithm>,
    /// What is wrong with it. Nothing means that signatures by it will be believed.
    pub findings: Vec<KeyFinding>,
}

/// Looks at the TXT records at [`key_name`], each with its strings joined, beside the private key if it is known.
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

/// A public key without its wrapping, which some RSA keys are published with and others without.
struct PublicKey {
    algorithm: Algorithm,
    bare: Vec<u8>,
}

fn read(text: &[u8]) -> Result<(TagList<'_>, PublicKey), KeyFinding> {
    let unreadable = |why: &str| KeyFinding::Unreadable(why.to_owned());
    let tags = std::str::from_utf8(text).ok().and_then(TagList::parse);
    let tags = tags.ok_or_else(|| unreadable("it is no list of tags"))?;
    if tags.get("v").is_some() && tags.first() != Some(("v", "DKIM1")) {
        return Err(unreadable("v=DKIM1 does not stand first"));
    }
    let public = tags.get("p").ok_or_else(|| unreadable("it has no p="))?;
    if public.is_empty() {
        return Err(KeyFinding::Revoked);
    }
    let public: String = public.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let public = STANDARD.decode(public).map_err(|_| unreadable("p= is not Base64"))?;
    let is_ed25519 = tags.get("k").is_some_and(|kind| kind.eq_ignore_ascii_case("ed25519"));
    let bare = bare(&public, is_ed25519).ok_or_else(|| unreadable("p= holds no key of the kind k="))?;
    // The verifier's own reader has the last word.
    let key = DomainKey::parse(text).map_err(|error| unreadable(&error.to_string()))?;
    let algorithm =
        if is_ed25519 { Algorithm::Ed25519 } else { Algorithm::Rsa { bits: key.p.public_key_bits() } };
    Ok((tags, PublicKey { algorithm, bare }))
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
