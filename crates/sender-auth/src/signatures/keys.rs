//! Public keys from DNS (RFC 6376 section 3.6).

use std::collections::BTreeSet;
use std::collections::HashMap;

use futures_util::future::join_all;
use mail_auth::common::crypto::VerifyingKey;
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use pintle_dns::DnsError;

use crate::DeadlineResolver;
pub(super) use crate::sign::key_name;
use crate::tags::TagList;

/// RFC 8301 section 3.2: signatures with shorter RSA keys are invalid.
const MIN_BITS: usize = 1_024;

/// The public keys that a message's signatures need, by the names at which they are published.
pub struct PublicKeys(HashMap<String, Result<SignerKey, PublicKeyFault>>);

/// A public key that signatures can be verified with.
pub(super) struct SignerKey {
    pub(super) verifier: Box<dyn VerifyingKey + Send + Sync>,
    /// `t=s`: the identity's domain must be the signing domain itself.
    pub(super) same_domain: bool,
}

/// Why there is no usable key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PublicKeyFault {
    Dns(DnsError),
    Missing,
    Unusable(String),
    /// The key's record says that it is not for mail, or not for SHA-256.
    NotForThis,
    Weak,
}

impl PublicKeys {
    /// Fetches all keys in parallel.
    pub(super) async fn fetch(dns: DeadlineResolver<'_>, names: BTreeSet<String>) -> Self {
        let found = join_all(names.iter().map(|name| fetch(dns, name))).await;
        Self(names.into_iter().zip(found).collect())
    }

    pub(super) fn get(&self, selector: &str, domain: &str) -> Result<&SignerKey, &PublicKeyFault> {
        let found = self.0.get(&key_name(selector, domain));
        found.map_or(Err(&PublicKeyFault::Missing), Result::as_ref)
    }
}

async fn fetch(dns: DeadlineResolver<'_>, name: &str) -> Result<SignerKey, PublicKeyFault> {
    let texts = dns.texts(name).await.map_err(PublicKeyFault::Dns)?;
    let mut fault = PublicKeyFault::Missing;
    // Section 3.6.2.2 leaves the meaning of several records open; one that works is enough.
    for text in &texts {
        match key(text) {
            Ok(key) => return Ok(key),
            Err(error) => fault = error,
        }
    }
    Err(fault)
}

fn key(text: &[u8]) -> Result<SignerKey, PublicKeyFault> {
    let tags = std::str::from_utf8(text).ok().and_then(TagList::parse);
    let tags = tags.ok_or_else(|| PublicKeyFault::Unusable("it is not a list of tags".into()))?;
    // Section 3.6.1: the version, if present, comes first.
    if tags.get("v").is_some() && tags.first() != Some(("v", "DKIM1")) {
        return Err(PublicKeyFault::Unusable("it has another version".into()));
    }
    let for_mail = tags.lists("s", "email", true) || tags.lists("s", "*", true);
    if !for_mail || !tags.lists("h", "sha256", true) {
        return Err(PublicKeyFault::NotForThis);
    }
    if tags.get("p") == Some("") {
        return Err(PublicKeyFault::Unusable("the key was revoked".into()));
    }
    let key = DomainKey::parse(text).map_err(|error| PublicKeyFault::Unusable(error.to_string()))?;
    if key.p.public_key_bits() < MIN_BITS {
        return Err(PublicKeyFault::Weak);
    }
    Ok(SignerKey { verifier: key.p, same_domain: tags.lists("t", "s", false) })
}
