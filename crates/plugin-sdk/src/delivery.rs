//! The delivery of the current call: recipients of one message that have the same next hop.

pub use crate::bindings::services::pintle::plugin::delivery::{
    NextHop, Snapshot, TlsPolicy, info, set_credentials, set_next_hop, set_retry_after, set_source, set_tls,
    suppress_bounce,
};
