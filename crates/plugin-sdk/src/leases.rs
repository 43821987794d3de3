//! Counts of what is under way: the sessions of a client, the deliveries to a host. The host takes each count back when the
//! session, the transaction or the delivery attempt ends. Grant: kv.

pub use crate::bindings::services::pintle::plugin::leases::take;
