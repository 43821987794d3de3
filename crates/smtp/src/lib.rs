//! Both SMTP protocol machines, without I/O.
//!
//! Bytes, decisions and the time go in; bytes, events and a deadline come out. There is no socket, no runtime, no clock
//! and no policy in this crate, so that hours of protocol time pass in milliseconds of a test. [`server`] takes mail in,
//! [`client`] hands it on.

pub mod client;
pub mod extension;
pub mod server;

pub use extension::{Extension, Extensions};
