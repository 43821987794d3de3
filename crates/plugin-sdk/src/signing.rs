//! DKIM signatures and ARC seals with keys of the operator's configuration, which the plugin never sees. Grant: sign.

pub use crate::bindings::services::pintle::plugin::signing::{SigningKey, arc_seal, dkim_sign, keys};
