//! The SMTP session of this call; in `on_deliver` and later a frozen copy of what it was.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::HostError;
pub use crate::bindings::services::pintle::plugin::session::{
    Snapshot, TlsState, delay_reply, extensions, fact, info, note, offer_extension, reverse_names, set_fact,
    set_note, tls, withhold_extension,
};
use crate::notes;

impl Snapshot {
    /// Whether the client is in no trusted network and has not authenticated. All other clients are the operator's own:
    /// checks of who sends what are for strangers.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        !self.trusted && self.identity.is_none()
    }
}

/// This plugin's note under `key` as a value, `None` where there is none.
///
/// # Errors
///
/// The note holds something else.
pub fn note_as<T: DeserializeOwned>(key: &str) -> Result<Option<T>, HostError> {
    notes::read(key, note(key))
}

/// Keeps a value under `key` until the session ends, across instances and reloads of this plugin.
///
/// # Errors
///
/// The value cannot be written as JSON, or the host's limit on notes is reached.
pub fn set_note_as<T: Serialize>(key: &str, value: &T) -> Result<(), HostError> {
    set_note(key, Some(&notes::write(key, value)?))
}
