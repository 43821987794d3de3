//! Converts the DKIM keys that mail is signed with.

use std::collections::BTreeMap;
use std::sync::Arc;

use pintle_plugin::SigningKeyName;
use pintle_sender_auth::sign::{KeyConfig, KeyFault, Keyring, Pem};

use crate::Cause;
use crate::reader::Section;
use crate::values::{Domain, OrNever, SecretText};

/// Reads and checks all keys; empty if one is invalid. Each mistake is recorded at the line to correct.
pub(crate) fn keys(root: &Section<'_>) -> Arc<Keyring> {
    let sections = root.named("dkim_keys");
    // For an incomplete key, `key` has recorded the mistake.
    let configs = sections.iter().filter_map(|(name, section)| key(name, section));
    let errors = match Keyring::new(configs.collect()) {
        Ok(keys) => return Arc::new(keys),
        Err(errors) => errors,
    };
    for error in errors {
        if let Some((_, section)) = sections.iter().find(|(name, _)| *name == error.name) {
            section.complain(at(&error.fault), Cause::SigningKey(error.fault.to_string()));
        }
    }
    Arc::default()
}

/// What plugins may see of the keys: names and selectors by domain. Without a valid key, the names in the file.
pub(super) fn key_names(root: &Section<'_>, keys: &Keyring) -> BTreeMap<String, Vec<SigningKeyName>> {
    if keys.iter().next().is_some() { names_by_domain(keys) } else { named(root) }
}

fn names_by_domain(keys: &Keyring) -> BTreeMap<String, Vec<SigningKeyName>> {
    let mut names: BTreeMap<String, Vec<SigningKeyName>> = BTreeMap::new();
    for key in keys.iter() {
        let known = SigningKeyName { name: key.name().to_owned(), selector: key.selector().to_owned() };
        names.entry(key.domain().to_owned()).or_default().push(known);
    }
    // Sorted by name, since the keyring has no order.
    names.values_mut().for_each(|keys| keys.sort_by(|one, other| one.name.cmp(&other.name)));
    names
}

/// The names of all keys in the file, valid or not, so that a plugin that names an invalid key causes no second
/// mistake.
fn named(root: &Section<'_>) -> BTreeMap<String, Vec<SigningKeyName>> {
    let known = |(name, _): (String, Section<'_>)| SigningKeyName { name, selector: String::new() };
    let names: Vec<SigningKeyName> = root.named("dkim_keys").into_iter().map(known).collect();
    if names.is_empty() { BTreeMap::new() } else { [(String::new(), names)].into() }
}

/// Reads one key; none if a part is missing or invalid. All parts are read, so that every mistake is reported.
fn key(name: &str, section: &Section<'_>) -> Option<KeyConfig> {
    let domain = section.optional::<Domain>("domain");
    let selector = section.optional::<String>("selector");
    let secret = section.optional::<SecretText>("key");
    let is_complete = domain.is_some() && selector.is_some() && secret.is_some();
    let pem = Pem::new(secret.unwrap_or_default().0);
    let usual = KeyConfig::new(name, &domain.unwrap_or_default().0, &selector.unwrap_or_default(), pem);
    let config = KeyConfig {
        headers: section.optional("headers").unwrap_or(usual.headers),
        oversign: section.optional("oversign").unwrap_or(usual.oversign),
        expires: section.get::<OrNever>("expires").0,
        header_canonicalization: section.get("header_form"),
        body_canonicalization: section.get("body_form"),
        ..usual
    };
    is_complete.then_some(config)
}

/// The key of the file to correct for this fault.
fn at(fault: &KeyFault) -> &'static str {
    match fault {
        KeyFault::Domain(_) => "domain",
        KeyFault::Selector(_) | KeyFault::SamePlace(_) | KeyFault::SameName => "selector",
        KeyFault::Key(_) => "key",
        KeyFault::Field(_) => "headers",
        KeyFault::Expires => "expires",
    }
}
