//! What DNS says of a key, beside what it should say (RFC 6376 section 3.6).

use std::fmt;

use aws_lc_rs::rsa;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;

use super::key::{MIN_BITS, PrivateKey};
use crate::tags::Tags;

/// The DNS name at which the public half of a key is published (section 3.6.2.1).
#[must_use]
pub fn key_name(selector: &str, domain: &str) -> String {
    format!("{selector}._domainkey.{domain}").to_ascii_lowercase()
}

/// The line for a zone file that publishes a record, in strings of at most 255 octets (RFC 1035 section 3.3).
#[must_use]
pub fn zone_line(selector: &str, domain: &str, record: &str) -> String {
    // Records of keys are ASCII without quotes and backslashes.
    let strings: Vec<String> =
        record.as_bytes().chunks(255).map(|part| format!("\"{}\"", String::from_utf8_lossy(part))).collect();
    format!("{}. IN TXT ( {} )", key_name(selector, domain), strings.join("\n    "))
}

/// Something about a published key that keeps signatures by it from being believed everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
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

impl fmt::Display for Finding {
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

/// Looks at the TXT records at [`key_name`], each with its strings joined, beside the private key if it is known.
/// Nothing found means that signatures by it will be believed.
#[must_use]
pub fn examine(texts: &[Vec<u8>], own: Option<&PrivateKey>) -> Vec<Finding> {
    match texts {
        [] => vec![Finding::Missing],
        [text] => examine_one(text, own),
        [first, ..] => {
            let mut found = vec![Finding::Several(texts.len())];
            found.extend(examine_one(first, own));
            found
        }
    }
}

fn examine_one(text: &[u8], own: Option<&PrivateKey>) -> Vec<Finding> {
    let unreadable = |why: &str| vec![Finding::Unreadable(why.to_owned())];
    let Some(tags) = std::str::from_utf8(text).ok().and_then(Tags::parse) else {
        return unreadable("it is no list of tags");
    };
    if tags.get("v").is_some() && tags.first() != Some(("v", "DKIM1")) {
        return unreadable("v=DKIM1 does not stand first");
    }
    let Some(public) = tags.get("p") else {
        return unreadable("it has no p=");
    };
    if public.is_empty() {
        return vec![Finding::Revoked];
    }
    let key = match DomainKey::parse(text) {
        Ok(key) => key,
        Err(error) => return unreadable(&error.to_string()),
    };
    let mut found = Vec::new();
    let key_type = tags.get("k").unwrap_or("rsa").to_ascii_lowercase();
    let Some(public) = bare_key(public, &key_type) else {
        return unreadable("p= holds no such key");
    };
    if key_type == "rsa" && key.p.public_key_bits() < MIN_BITS {
        found.push(Finding::Weak(key.p.public_key_bits()));
    }
    if !tags.lists("s", "email", true) && !tags.lists("s", "*", true) {
        found.push(Finding::NotForMail);
    }
    if !tags.lists("h", "sha256", true) {
        found.push(Finding::NotForSha256);
    }
    if tags.lists("t", "y", false) {
        found.push(Finding::Testing);
    }
    let is_own = |own: &PrivateKey| {
        own.algorithm().key_type() == key_type
            && bare(&own.public(), &key_type).is_some_and(|own| own == public)
    };
    if own.is_some_and(|own| !is_own(own)) {
        found.push(Finding::Differs);
    }
    found
}

/// The key without its wrapping, which some RSA keys are published with and others without.
fn bare_key(public: &str, key_type: &str) -> Option<Vec<u8>> {
    let text: String = public.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    bare(&STANDARD.decode(text).ok()?, key_type)
}

fn bare(public: &[u8], key_type: &str) -> Option<Vec<u8>> {
    match key_type {
        "ed25519" => (public.len() == 32).then(|| public.to_vec()),
        _ => rsa::PublicKey::from_der(public).ok().map(|key| key.as_ref().to_vec()),
    }
}
