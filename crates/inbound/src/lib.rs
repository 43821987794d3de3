//! From the accepted socket to the durable message.
//!
//! Read one line of calls to follow a message: `listener` accepts a socket and takes a permit, `connection` moves
//! bytes between the socket and the SMTP machine, `stages` puts the machine's questions to the policy chain and to the
//! core's own laws, `receive` turns an accepted message into a commit. It never sees the queue: the spool tells the
//! relay side what has arrived.

pub mod config;
mod connection;
pub mod guesses;
pub mod hashing;
mod ids;
mod listener;
mod login;
pub mod networks;
pub mod permits;
pub mod quarantines;
mod receive;
mod records;
pub mod relay;
mod ruling;
pub mod score;
mod sign;
mod sockets;
mod stages;
pub mod strangers;
mod stream;
mod submission;
mod told;
pub mod users;

pub use config::{AuthOffer, Config, ListenerConfig, Rules, TlsMode};
pub use guesses::LoginLimits;
pub use listener::{Inbound, Parts, Reload, StartError};
pub use permits::SessionLimits;
pub use pintle_smtp::server::split_message;
pub use quarantines::Quarantines;
pub use sockets::Sockets;
pub use strangers::StrangerLimits;
pub use users::{HashError, HashFault, Secret, Users, hash_password};
