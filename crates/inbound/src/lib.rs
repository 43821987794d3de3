//! From the accepted socket to the durable message.
//!
//! Read one line of calls to follow a message: `listener` accepts a socket and takes a permit, `connection` moves
//! bytes between the socket and the SMTP machine, `stages` puts the machine's questions to the policy chain and to the
//! core's own laws, `receive` turns an accepted message into a commit. It never sees the queue: the spool tells the
//! relay side what has arrived.

pub mod config;
mod connection;
mod ids;
mod listener;
pub mod permits;
mod receive;
mod records;
pub mod relay;
mod ruling;
mod sign;
mod stages;
mod stream;
pub mod users;

pub use config::{AuthOffer, Config, ListenerConfig, Rules, TlsMode};
pub use listener::{Inbound, Parts, Reload, StartError};
pub use permits::SessionLimits;
pub use users::{Secret, Users};
