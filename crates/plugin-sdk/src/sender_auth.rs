//! x
pub use crate::bindings::services::pintle::plugin::sender_auth::*;
