//! The keys that mail is signed with.

use std::collections::BTreeMap;
use std::sync::Arc;

use pintle_plugin::SigningKey;
use pintle_sender_auth::sign::{Canonicalization, KeyConfig, KeyFault, Keyring, Pem};

use crate::Cause;
use crate::read::{Choice, Domain, OrNever, Secret};
use crate::reader::Section;

/// Every key, checked; what is wrong with one is told at the line that is to be mended.
pub(super) fn keys(root: &Section<'_>) -> Arc<Keyring> {
    let sections = root.named("dkim_keys");
    let complete = |section: &Section<'_>| ["domain", "selector", "key"].iter().all(|key| section.has(key));
    let (configs, complete): (Vec<_>, Vec<_>) =
        sections.iter().map(|(name, section)| (key(name, section), complete(section))).unzip();
    // What lacks a key of its own has been complained about.
    let configs =
        configs.into_iter().zip(complete).filter_map(|(config, complete)| complete.then_some(config));
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

/// What plugins may know of them.
pub(super) fn told(keys: &Keyring) -> BTreeMap<String, Vec<SigningKey>> {
    let mut told: BTreeMap<String, Vec<SigningKey>> = BTreeMap::new();
    for key in keys.iter() {
        let known = SigningKey { name: key.name().to_owned(), selector: key.selector().to_owned() };
        told.entry(key.domain().to_owned()).or_default().push(known);
    }
    // In the order of their names: the ring has none.
    told.values_mut().for_each(|keys| keys.sort_by(|one, other| one.name.cmp(&other.name)));
    told
}

fn key(name: &str, section: &Section<'_>) -> KeyConfig {
    let domain = section.get::<Domain>("domain").0;
    let selector: String = section.get("selector");
    let pem = Pem::new(section.get::<Secret>("key").0);
    let usual = KeyConfig::new(name, &domain, &selector, pem);
    KeyConfig {
        headers: section.optional("headers").unwrap_or(usual.headers),
        oversign: section.optional("oversign").unwrap_or(usual.oversign),
        expires: section.get::<OrNever>("expires").0,
        header_canonicalization: section.get("header_form"),
        body_canonicalization: section.get("body_form"),
        ..usual
    }
}

/// The line to mend.
fn at(fault: &KeyFault) -> &'static str {
    match fault {
        KeyFault::Domain(_) => "domain",
        KeyFault::Selector(_) | KeyFault::SamePlace(_) | KeyFault::SameName => "selector",
        KeyFault::Key(_) => "key",
        KeyFault::Field(_) => "headers",
        KeyFault::Expires => "expires",
    }
}

impl Choice for Canonicalization {
    const WORDS: &'static [(&'static str, Self)] = &[("relaxed", Self::Relaxed), ("simple", Self::Simple)];
}
