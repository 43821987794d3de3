//! The receiving side: from the accepted socket to the durable message.
//!
//! To follow a message through the code: `listener` accepts a socket and takes a permit, `connection` moves bytes
//! between the socket and the SMTP session, `pipeline` asks the policy chain, applies the core's own rules and answers
//! the session, `receive` commits an accepted message to the spool. This crate never accesses the queue: the spool
//! reports what has arrived.

mod client_log;
pub mod config;
mod connection;
pub mod dry_run;
mod guesses;
mod hashing;
mod ids;
mod listener;
mod networks;
mod permits;
mod phase;
mod pipeline;
mod quarantines;
mod receive;
mod records;
mod relay;
mod score;
mod services;
mod sign;
mod sockets;
mod start_error;
mod strangers;
mod stream;
mod submission;
mod users;

pub use config::{AuthOffer, Config, ListenerConfig, RefusedRecipients, Rules, TlsMode};
pub use guesses::LoginLimits;
pub use listener::{Inbound, InboundParts, RulesHandle};
pub use permits::SessionLimits;
pub use pintle_smtp::server::split_message;
pub use quarantines::{Boundless, Quarantines, Reservation, ReservationFuture};
pub use services::Services;
pub use sockets::Sockets;
pub use start_error::StartError;
pub use strangers::StrangerLimits;
pub use users::{HashError, HashFault, StoredPassword, Users, hash_password};
