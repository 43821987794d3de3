//! The delivery of this call: some recipients of one message for one next hop.

pub use crate::bindings::services::pintle::plugin::delivery::{
    NextHop, Snapshot, TlsPolicy, info, set_credentials, set_next_hop, set_retry_after, set_source, set_tls,
    suppress_bounce,
};
