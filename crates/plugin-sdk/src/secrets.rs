//! Codes made with keys of the operator's configuration, which the plugin never sees, and random octets. Grant: secrets.
//!
//! To verify a code, make it again and compare the two in constant time: a comparison that ends at the first octet that
//! differs tells a forger how many are right.

pub use crate::bindings::services::pintle::plugin::secrets::{hmac, random_bytes};
