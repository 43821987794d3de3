//! The SMTP session of the current call; in `on_deliver` and later a snapshot of it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::HostError;
pub use crate::bindings::services::pintle::plugin::session::{
    Snapshot, TlsState, delay_reply, extensions, fact, info, note, offer_extension, reverse_names, set_fact,
    set_note, tls, withhold_extension,
};
use crate::notes;

impl Snapshot {
    /// Whether the client is neither in a trusted network nor authenticated. All other clients are the operator's own,
    /// to which sender checks do not apply.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        !self.trusted && self.identity.is_none()
    }
}

/// This plugin's note under `key`, deserialised; `None` if it does not exist.
///
/// # Errors
///
/// The note does not match the type.
pub fn note_as<T: DeserializeOwned>(key: &str) -> Result<Option<T>, HostError> {
    notes::read(key, note(key))
}

/// Stores a value under `key` until the session ends; visible to all instances and later versions of this plugin.
///
/// # Errors
///
/// The value cannot be serialised as JSON, or the host's limit on notes is reached.
pub fn set_note_as<T: Serialize>(key: &str, value: &T) -> Result<(), HostError> {
    set_note(key, Some(&notes::write(key, value)?))
}
