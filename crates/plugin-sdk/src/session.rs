//! The SMTP session of the current call; in `on_deliver` and later a snapshot of it. `Snapshot::known` tells a client of
//! the operator's own (trusted or authenticated) from a stranger.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::HostError;
pub use crate::bindings::services::pintle::plugin::session::{
    Certificate, Snapshot, TlsState, client_certificate, close, delay_reply, extensions, facts, info, note,
    offer_extension, reverse_names, set_fact, set_note, tls, withhold_extension,
};
use crate::notes;

/// The fact under `key`, which is the full name such as "dnsbl.listed"; `None` if no plugin has set it. For several
/// facts use [`facts`].
///
/// # Errors
///
/// There is no session.
pub fn fact(key: &str) -> Result<Option<String>, HostError> {
    Ok(facts(&[key.to_owned()])?.pop().flatten())
}

/// This plugin's note under `key`, deserialised; `None` if it does not exist.
///
/// # Errors
///
/// There is no session, or the note does not match the type.
pub fn note_as<T: DeserializeOwned>(key: &str) -> Result<Option<T>, HostError> {
    notes::read(key, note(key)?)
}

/// Stores a value under `key` until the session ends; visible to all instances and later versions of this plugin.
///
/// # Errors
///
/// The value cannot be serialised as JSON, or the host's limit on notes is reached.
pub fn set_note_as<T: Serialize>(key: &str, value: &T) -> Result<(), HostError> {
    set_note(key, Some(&notes::write(key, value)?))
}
