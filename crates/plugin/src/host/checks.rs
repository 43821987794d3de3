//! Checks shared by several interfaces: grants, names, sizes and notes.

use pintle_policy::Notes;

use crate::bindings::pintle::plugin::types::HostError;
use crate::{GrantKind, Grants};

/// Limit on the total size of one plugin's notes per session or transaction, in octets.
const MAX_NOTES: usize = 64 << 10;
const MAX_NOTE_COUNT: usize = 256;
pub(super) const MAX_NAME: usize = 128;
/// Maximum length of a reason or another text for people, in octets.
pub(super) const MAX_TEXT: usize = 512;

/// Returns an error if `len`, in octets, exceeds `most`.
pub(super) fn bounded(what: &str, len: usize, most: usize) -> Result<(), HostError> {
    if len > most {
        return Err(HostError::Limit(format!("{what} has at most {most} octets")));
    }
    Ok(())
}

pub(super) fn name(what: &str, name: &str) -> Result<(), HostError> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(HostError::Invalid(format!("{what} is empty or holds a control character")));
    }
    bounded(what, name.len(), MAX_NAME)
}

/// Returns a text for people as one line of at most `most` octets: control characters become spaces, the rest is cut off.
pub(super) fn line(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].replace(char::is_control, " ")
}

pub(super) fn check_note(
    notes: &Notes,
    judge: &str,
    key: &str,
    value: Option<&Vec<u8>>,
) -> Result<(), HostError> {
    name("a note's key", key)?;
    let Some(value) = value else { return Ok(()) };
    if notes.get(judge, key).is_none() && notes.count(judge) >= MAX_NOTE_COUNT {
        return Err(HostError::Limit(format!("a plugin has at most {MAX_NOTE_COUNT} notes in one place")));
    }
    let before = notes.get(judge, key).map_or(0, |old| old.len() + key.len());
    let after = notes.size(judge) - before + key.len() + value.len();
    bounded("all notes of a plugin together: it", after, MAX_NOTES)
}

/// Returns an error if the grant is missing.
pub(super) fn need(grants: &Grants, kind: GrantKind) -> Result<(), HostError> {
    need_any(grants, &[kind])
}

/// Returns an error if all of these grants are missing. The error names the first, which permits the least.
pub(super) fn need_any(grants: &Grants, kinds: &[GrantKind]) -> Result<(), HostError> {
    if kinds.iter().any(|kind| grants.contains(*kind)) {
        return Ok(());
    }
    Err(HostError::Denied(kinds.first().map_or("", |kind| kind.name()).to_owned()))
}
