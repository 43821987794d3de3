//! The mail transaction of the current call: the envelope, what becomes of the mail, and results about it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::HostError;
pub use crate::bindings::services::pintle::plugin::transaction::{
    AuthResult, Snapshot, add_auth_result, add_recipient, auth_results, discard, facts, grant_relay, info,
    note, quarantine, recipient_by_id, recipients, refuse, remove_recipient, rewrite_recipient,
    rewrite_sender, score, set_fact, set_group, set_note, set_score,
};
use crate::notes;

/// The fact under `key`, which is the full name such as "spf.result"; `None` if no plugin has set it. For several facts
/// use [`facts`].
///
/// # Errors
///
/// There is no transaction.
pub fn fact(key: &str) -> Result<Option<String>, HostError> {
    Ok(facts(&[key.to_owned()])?.pop().flatten())
}

/// This plugin's note under `key`, deserialised; `None` if it does not exist.
///
/// # Errors
///
/// There is no transaction, or the note does not match the type.
pub fn note_as<T: DeserializeOwned>(key: &str) -> Result<Option<T>, HostError> {
    notes::read(key, note(key)?)
}

/// Stores a value under `key` together with the message, so that it is available in `on_deliver` too, on any node.
///
/// # Errors
///
/// The value cannot be serialised as JSON, there is no transaction, or the host's limit on notes is reached.
pub fn set_note_as<T: Serialize>(key: &str, value: &T) -> Result<(), HostError> {
    set_note(key, Some(&notes::write(key, value)?))
}
