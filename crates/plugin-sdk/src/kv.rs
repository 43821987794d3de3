//! Key-value store shared by all instances of the plugin; survives reloads and upgrades. Grant: kv.
//!
//! Several instances may access one key concurrently. If a new value depends on the old one, use [`increment`],
//! [`take`] or [`swap`] instead of reading and writing back.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::HostError;
pub use crate::bindings::services::pintle::plugin::kv::{
    Bucket, Entry, Scope, Taken, delete, get_many, increment, set, swap, take,
};
use crate::notes;

/// The entry of `key`, with the version for [`swap`]; `None` if it does not exist.
///
/// # Errors
///
/// The store is not granted or not available.
pub fn get(scope: Scope, key: &str) -> Result<Option<Entry>, HostError> {
    Ok(get_many(scope, &[key.to_owned()])?.pop().flatten())
}

/// The value of `key` that [`set_as`] wrote; `None` if it does not exist.
///
/// # Errors
///
/// As [`get`], or the value does not match the type.
pub fn get_as<T: DeserializeOwned>(scope: Scope, key: &str) -> Result<Option<T>, HostError> {
    notes::read(key, get(scope, key)?.map(|entry| entry.value))
}

/// Stores a value as JSON for `ttl_s` seconds, or without expiry for `None`.
///
/// # Errors
///
/// The value cannot be serialised as JSON, or the store is not granted or not available.
pub fn set_as<T: Serialize>(scope: Scope, key: &str, value: &T, ttl_s: Option<u32>) -> Result<(), HostError> {
    set(scope, key, &notes::write(key, value)?, ttl_s)
}
