//! The log; mostly used by [`info!`](crate::info) and its like. Always granted.

pub use crate::bindings::services::pintle::plugin::log::{Level, enabled, write};
