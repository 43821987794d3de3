//! State shared by all instances of the plugin; it survives reloads and upgrades. Grant: kv.
//!
//! Two instances may work on one key at once. What depends on the old value is therefore done by [`increment`],
//! [`take`] or [`swap`], never by reading and writing back.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::HostError;
pub use crate::bindings::services::pintle::plugin::kv::{
    Bucket, Entry, Scope, Taken, delete, get_many, increment, set, swap, take,
};
use crate::notes;

/// The entry under `key`, with the version that [`swap`] asks for.
///
/// # Errors
///
/// The store is not granted or not available.
pub fn get(scope: Scope, key: &str) -> Result<Option<Entry>, HostError> {
    Ok(get_many(scope, &[key.to_owned()])?.pop().flatten())
}

/// The value under `key`, as [`set_as`] wrote it.
///
/// # Errors
///
/// As [`get`], or the value is of another kind.
pub fn get_as<T: DeserializeOwned>(scope: Scope, key: &str) -> Result<Option<T>, HostError> {
    notes::read(key, get(scope, key)?.map(|entry| entry.value))
}

/// Keeps a value, as JSON, for `ttl_s` seconds, or without expiry.
///
/// # Errors
///
/// The value cannot be written as JSON, or the store is not granted or not available.
pub fn set_as<T: Serialize>(scope: Scope, key: &str, value: &T, ttl_s: Option<u32>) -> Result<(), HostError> {
    set(scope, key, &notes::write(key, value)?, ttl_s)
}
