//! Host functions: the functions that a guest can call, one file for each interface of the contract.
//!
//! Each interface is a view that borrows only the parts of the store's data that its functions need. Each function
//! checks the grant, the stage and the sizes first. Later versions of an interface will call the same functions, so
//! that all versions share these checks.

mod auth_results;
pub(crate) mod calls;
mod checks;
pub(crate) mod delivery;
pub(crate) mod dns;
mod domains;
mod facts;
pub(crate) mod gateway;
mod header_fields;
pub(crate) mod kv;
pub(crate) mod leases;
pub(crate) mod log;
pub(crate) mod mailboxes;
pub(crate) mod message;
pub(crate) mod metrics;
pub(crate) mod names;
pub(crate) mod secrets;
pub(crate) mod sender_auth;
pub(crate) mod session;
pub(crate) mod signing;
pub(crate) mod transaction;
pub(crate) mod types;

#[cfg(test)]
mod denied;
