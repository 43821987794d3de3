//! The mail transaction of the current call: the envelope, and results about the mail.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::HostError;
pub use crate::bindings::services::pintle::plugin::transaction::{
    AuthResult, Snapshot, add_auth_result, add_recipient, add_score, auth_results, fact, grant_relay, info,
    note, recipients, remove_recipient, rewrite_recipient, rewrite_sender, score, set_fact, set_note,
};
use crate::notes;

/// This plugin's note under `key`, deserialised; `None` if it does not exist.
///
/// # Errors
///
/// The note does not match the type.
pub fn note_as<T: DeserializeOwned>(key: &str) -> Result<Option<T>, HostError> {
    notes::read(key, note(key))
}

/// Stores a value under `key` together with the message, so that it is available in `on_deliver` too, on any node.
///
/// # Errors
///
/// The value cannot be serialised as JSON, there is no transaction, or the host's limit on notes is reached.
pub fn set_note_as<T: Serialize>(key: &str, value: &T) -> Result<(), HostError> {
    set_note(key, Some(&notes::write(key, value)?))
}
