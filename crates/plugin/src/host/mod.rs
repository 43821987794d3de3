//! The functions that a guest can call, one file for each interface of the contract.
//!
//! Each interface is a view of the store's data that borrows what its functions need and no more. Each function checks the
//! grant, the stage and the sizes before it does anything, so that every version of an interface that will ever stand above
//! them is checked in one place.

mod checks;
pub(crate) mod delivery;
pub(crate) mod dns;
mod facts;
pub(crate) mod gateway;
pub(crate) mod kv;
pub(crate) mod log;
pub(crate) mod message;
pub(crate) mod metrics;
pub(crate) mod sender_auth;
pub(crate) mod session;
pub(crate) mod transaction;
pub(crate) mod types;
