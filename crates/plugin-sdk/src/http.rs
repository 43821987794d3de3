//! x
pub use crate::bindings::services::pintle::plugin::http::*;
