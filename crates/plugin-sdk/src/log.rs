//! The log; usually used through [`info!`](crate::info) and the other macros. Always granted.

pub use crate::bindings::services::pintle::plugin::log::{Level, enabled, write};
