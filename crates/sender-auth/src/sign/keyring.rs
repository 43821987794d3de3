//! The operator's signing keys, checked once and then looked up by domain or name.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::canonical::Canonicalization;
use super::key::{Algorithm, Pem, PemError, PrivateKey};
use crate::domain;

/// The default list of fields that are signed when they occur: those of RFC 6376 section 5.4.1, which determine what
/// the reader sees and what the mail program acts on, the MIME fields, and the one of RFC 8058 section 4.
pub const SIGNED_FIELDS: &[&str] = &[
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    "Content-ID",
    "Content-Description",
    "Resent-Date",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Message-ID",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
    "Auto-Submitted",
];

/// The default list of fields that must not be added afterwards, neither next to an existing one nor alone: a second
/// one would be shown to the reader, or would change how the body is shown (RFC 6376 section 8.15).
pub const OVERSIGNED_FIELDS: &[&str] = &[
    "From",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];

/// The default lifetime of a signature: longer than mail waits in queues, ours or those of forwarders, and short enough
/// that a valid message cannot be replayed a year later.
pub const EXPIRES: Duration = Duration::from_secs(14 * 86_400);

/// The configuration of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyConfig {
    /// The key's name, in the configuration and for plugins.
    pub name: String,
    /// The signing domain (`d=`), in A-labels.
    pub domain: String,
    /// The selector (`s=`): the name below `_domainkey.DOMAIN` at which the public key is published.
    pub selector: String,
    /// The private key in PEM.
    pub pem: Pem,
    /// The names of the fields that are signed, each as often as it occurs. From is always signed, whether it is listed
    /// or not (RFC 6376 section 5.4).
    pub headers: Vec<String>,
    /// The names of fields that are signed once more than they occur, so that none can be added.
    pub oversign: Vec<String>,
    /// The lifetime of a signature (`x=`); unlimited when none. ARC sets do not expire.
    pub expires: Option<Duration>,
    /// The form in which header fields are signed. ARC supports only the relaxed form.
    pub header_canonicalization: Canonicalization,
    /// The form in which the body is signed.
    pub body_canonicalization: Canonicalization,
}

impl KeyConfig {
    /// A key with the defaults: [`SIGNED_FIELDS`], [`OVERSIGNED_FIELDS`], [`EXPIRES`], and the relaxed form for header
    /// and body.
    #[must_use]
    pub fn new(name: &str, domain: &str, selector: &str, pem: Pem) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            name: name.to_owned(),
            domain: domain.to_owned(),
            selector: selector.to_owned(),
            pem,
            headers: owned(SIGNED_FIELDS),
            oversign: owned(OVERSIGNED_FIELDS),
            expires: Some(EXPIRES),
            header_canonicalization: Canonicalization::Relaxed,
            body_canonicalization: Canonicalization::Relaxed,
        }
    }
}

/// A mistake in a configured key. The operator has to fix it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyError {
    /// The name of the key.
    pub name: String,
    /// What is wrong with it.
    pub fault: KeyFault,
}

/// The kinds of [`KeyError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFault {
    /// The signing domain is not a domain name in A-labels.
    Domain(String),
    /// The selector is not a valid one.
    Selector(String),
    /// The private key cannot be used.
    Key(PemError),
    /// No header field can have this name.
    Field(String),
    /// Signatures would expire within the second in which they are made.
    Expires,
    /// Another key has the same name.
    SameName,
    /// Another key, with this name, has the same domain and selector, but one DNS name holds only one key.
    SamePlace(String),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DKIM key {}: {}", self.name, self.fault)
    }
}

impl std::error::Error for KeyError {}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => {
                write!(f, "{domain:?} is not a domain that can sign; write it as example.org, IDNs as xn--…")
            }
            Self::Selector(selector) => {
                write!(f, "{selector:?} is not a selector; use letters, digits and hyphens, as in s2026")
            }
            Self::Key(error) => write!(f, "its private key cannot be used: {error}"),
            Self::Field(name) => write!(f, "{name:?} is not a header field name"),
            Self::Expires => f.write_str("its signatures would expire at once; set a time of some days"),
            Self::SameName => f.write_str("there are two keys with this name; rename one"),
            Self::SamePlace(other) => {
                write!(f, "{other} has the same domain and selector; give one of them another selector")
            }
        }
    }
}

/// A checked key, ready to sign.
pub struct SigningKey {
    pub(super) private: PrivateKey,
    pub(super) config: SigningSettings,
}

/// Two are the same when they sign the same: the private key is compared by the public one.
impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config && self.private.record() == other.private.record()
    }
}

/// The settings of a checked key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SigningSettings {
    name: String,
    pub(super) domain: String,
    pub(super) selector: String,
    /// The fields to sign, in this order, and whether each is signed once more than it occurs.
    pub(super) fields: Vec<(String, bool)>,
    pub(super) expires: Option<Duration>,
    pub(super) header: Canonicalization,
    pub(super) body: Canonicalization,
}

impl SigningKey {
    /// The key's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The signing domain, in A-labels and lower case.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.config.domain
    }

    /// The selector of the public key.
    #[must_use]
    pub fn selector(&self) -> &str {
        &self.config.selector
    }

    /// The key's signature algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.private.algorithm()
    }

    /// The private key, which also gives the public key and its record.
    #[must_use]
    pub fn private(&self) -> &PrivateKey {
        &self.private
    }

    /// Checks one key on its own. All mistakes are added to `errors`; the key is returned if there were none.
    fn new(config: KeyConfig, errors: &mut Vec<KeyError>) -> Option<Self> {
        let before = errors.len();
        let name = config.name.clone();
        let mut report = |fault| errors.push(KeyError { name: name.clone(), fault });
        let domain = domain::bare(&config.domain).to_ascii_lowercase();
        if !domain::is_qualified(&domain) || !is_host_name(&domain) {
            report(KeyFault::Domain(config.domain));
        }
        let selector = config.selector.to_ascii_lowercase();
        if !is_host_name(&selector) || selector.len() + domain.len() > MAX_NAMES {
            report(KeyFault::Selector(config.selector));
        }
        // A signature that expires in the second in which it was made is invalid (RFC 6376 section 3.5, tag x=).
        if config.expires.is_some_and(|expires| expires.as_secs() == 0) {
            report(KeyFault::Expires);
        }
        for field in config.headers.iter().chain(&config.oversign).filter(|field| !is_field_name(field)) {
            report(KeyFault::Field(field.clone()));
        }
        let private = PrivateKey::from_pem(&config.pem).map_err(|error| report(KeyFault::Key(error))).ok()?;
        let settings = SigningSettings {
            name: config.name,
            domain,
            selector,
            fields: fields(config.headers, &config.oversign),
            expires: config.expires,
            header: config.header_canonicalization,
            body: config.body_canonicalization,
        };
        (errors.len() == before).then_some(Self { private, config: settings })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("private", &self.private).field("config", &self.config).finish()
    }
}

/// A DNS name has at most 253 octets, and `._domainkey.` takes 12 of them.
const MAX_NAMES: usize = 253 - 12;

/// Letters, digits and hyphens in labels (RFC 6376 section 3.1 takes its labels from RFC 5321 section 4.1.2).
fn is_host_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    name.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// Header field names as in RFC 5322 section 2.2, but without `;`, which would end the tag `h=`.
fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (33..=126).contains(&b) && !matches!(b, b':' | b';'))
}

fn fields(headers: Vec<String>, oversign: &[String]) -> Vec<(String, bool)> {
    let mut fields: Vec<(String, bool)> = Vec::new();
    let from = "From".to_owned();
    for name in std::iter::once(from).chain(headers).chain(oversign.iter().cloned()) {
        if !fields.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            let over = oversign.iter().any(|other| other.eq_ignore_ascii_case(&name));
            fields.push((name, over));
        }
    }
    fields
}

/// All signing keys of the configuration.
#[derive(Debug, Default, PartialEq)]
pub struct Keyring {
    by_name: HashMap<String, Arc<SigningKey>>,
    by_domain: HashMap<String, Vec<Arc<SigningKey>>>,
}

impl Keyring {
    /// Reads and checks all keys.
    ///
    /// # Errors
    /// All mistakes of all keys.
    pub fn new(configs: Vec<KeyConfig>) -> Result<Self, Vec<KeyError>> {
        let (mut ring, mut errors) = (Self::default(), Vec::new());
        let mut places: HashMap<(String, String), String> = HashMap::new();
        for config in configs {
            let place =
                (domain::bare(&config.domain).to_ascii_lowercase(), config.selector.to_ascii_lowercase());
            let name = config.name.clone();
            let mut report = |fault| errors.push(KeyError { name: name.clone(), fault });
            if let Some(other) = places.insert(place, name.clone()) {
                report(KeyFault::SamePlace(other));
            }
            if ring.by_name.contains_key(&name) {
                report(KeyFault::SameName);
            }
            if let Some(key) = SigningKey::new(config, &mut errors) {
                ring.add(Arc::new(key));
            }
        }
        if errors.is_empty() { Ok(ring) } else { Err(errors) }
    }

    fn add(&mut self, key: Arc<SigningKey>) {
        self.by_domain.entry(key.domain().to_owned()).or_default().push(Arc::clone(&key));
        self.by_name.insert(key.name().to_owned(), key);
    }

    /// The key of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<SigningKey>> {
        self.by_name.get(name)
    }

    /// The keys of these names, in their order.
    ///
    /// # Errors
    /// The first name without a key.
    pub fn named(&self, names: &[String]) -> Result<Vec<Arc<SigningKey>>, String> {
        names.iter().map(|name| self.get(name).cloned().ok_or_else(|| name.clone())).collect()
    }

    /// The keys of exactly this domain (A-labels, in any case), in the order of the configuration; all of them sign.
    pub fn for_domain(&self, domain: &str) -> impl Iterator<Item = &Arc<SigningKey>> {
        self.by_domain.get(&domain::bare(domain).to_ascii_lowercase()).into_iter().flatten()
    }

    /// All keys, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<SigningKey>> {
        self.by_name.values()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::generate;

    fn config(name: &str, domain: &str, selector: &str) -> KeyConfig {
        KeyConfig::new(name, domain, selector, generate(Algorithm::Ed25519).unwrap().private_pem)
    }

    #[test]
    fn keys_are_found_by_domain_and_name() {
        let keys = [
            config("a", "Example.ORG.", "S1"),
            config("b", "example.org", "s2"),
            config("c", "x.example", "s"),
        ];
        let ring = Keyring::new(keys.to_vec()).unwrap();
        let names = |domain| ring.for_domain(domain).map(|key| key.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names("EXAMPLE.org"), ["a", "b"]);
        assert_eq!(names("mail.example.org"), Vec::<String>::new());
        let a = ring.get("a").unwrap();
        assert_eq!((a.domain(), a.selector(), a.algorithm()), ("example.org", "s1", Algorithm::Ed25519));
        assert!(ring.get("d").is_none());
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mut bad = config("a", "localhost", "s_1");
        bad.headers.push("X Y".into());
        bad.oversign.push("A;B".into());
        bad.expires = Some(Duration::from_millis(5));
        bad.pem = Pem::new("nothing".into());
        let twice = [config("b", "b.example", "s"), config("b", "B.example", "S")];
        let errors = Keyring::new([bad].into_iter().chain(twice).collect()).unwrap_err();
        let faults: Vec<_> = errors.into_iter().map(|error| (error.name, error.fault)).collect();
        let expected = [
            ("a", KeyFault::Domain("localhost".into())),
            ("a", KeyFault::Selector("s_1".into())),
            ("a", KeyFault::Expires),
            ("a", KeyFault::Field("X Y".into())),
            ("a", KeyFault::Field("A;B".into())),
            ("a", KeyFault::Key(PemError::NotPem)),
            ("b", KeyFault::SamePlace("b".into())),
            ("b", KeyFault::SameName),
        ];
        assert_eq!(faults, expected.map(|(name, fault)| (name.to_owned(), fault)));
    }

    #[test]
    fn from_is_signed_first_and_no_name_twice() {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let found = fields(own(&["Subject", "subject", "to"]), &own(&["TO", "X"]));
        let expected = [("From", false), ("Subject", false), ("to", true), ("X", true)];
        assert_eq!(found, expected.map(|(name, over)| (name.to_owned(), over)));
    }
}
