//! Converts the keys that plugins use without seeing them.

use std::collections::BTreeMap;

use pintle_plugin::SecretKey;

use crate::SecretRule;
use crate::reader::Section;
use crate::values::SecretText;

/// Reads all keys by name. One that is invalid is a mistake and has its name all the same, so that a plugin that uses
/// it causes no second mistake.
pub(super) fn secrets(root: &Section<'_>) -> BTreeMap<String, SecretKey> {
    root.named("secrets").into_iter().map(|(name, section)| (name, key(&section))).collect()
}

fn key(section: &Section<'_>) -> SecretKey {
    let text = section.optional::<SecretText>("key");
    if text.as_ref().is_some_and(|SecretText(text)| text.len() < SecretKey::MIN_LENGTH) {
        section.rule("key", SecretRule::ShortSecret(SecretKey::MIN_LENGTH));
    }
    SecretKey::new(text.unwrap_or_default().0.as_bytes())
}
