//! Key-value store shared by all instances of the plugin; survives reloads and upgrades. Grant: kv.
//!
//! Values, counters ([`increment`], [`count_many`]) and token buckets ([`take`]) have keys of their own: one key may name
//! one of each. A key has 1 to 1,024 octets.
//!
//! Several instances may access one key concurrently. If a new value depends on the old one, use [`increment`],
//! [`take`] or [`swap`] instead of reading and writing back.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::HostError;
pub use crate::bindings::services::pintle::plugin::kv::{
    Bucket, Entry, Taken, count_many, get_many, increment, remove, set, swap, take,
};
use crate::notes;

/// The entry of `key`, with the version for [`swap`]; `None` if it does not exist.
///
/// # Errors
///
/// The store is not granted or not available.
pub fn get(key: &str) -> Result<Option<Entry>, HostError> {
    Ok(get_many(&[key.to_owned()])?.pop().flatten())
}

/// The value of `key` that [`set_as`] wrote; `None` if it does not exist.
///
/// # Errors
///
/// As [`get`], or the value does not match the type.
pub fn get_as<T: DeserializeOwned>(key: &str) -> Result<Option<T>, HostError> {
    notes::read(key, get(key)?.map(|entry| entry.value))
}

/// Stores a value as JSON for `ttl_s` seconds, or without expiry for `None`.
///
/// # Errors
///
/// The value cannot be serialised as JSON, or the store is not granted or not available.
pub fn set_as<T: Serialize>(key: &str, value: &T, ttl_s: Option<u32>) -> Result<(), HostError> {
    set(key, &notes::write(key, value)?, ttl_s)
}

/// The count of one counter; 0 if it does not exist.
///
/// # Errors
///
/// As [`get`].
pub fn count(key: &str) -> Result<i64, HostError> {
    Ok(count_many(&[key.to_owned()])?.pop().unwrap_or_default())
}
