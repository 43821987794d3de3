//! The way in for the operator: HTTP over a local socket, and the client that the subcommands use.
//!
//! Everything is reachable over a unix socket that only its owner may open, which is all the authentication there is: who
//! may read the spool may also command it. Over TCP, where that does not hold, only health and metrics are served, and
//! nothing that names a message or changes anything.
//!
//! Promised: bodies and times are bounded; a socket file that a dead process left is replaced, one that a living process
//! serves is not; every refusal is a typed [`Refusal`] with cause and remedy. What the commands do is the affair of the
//! [`Operator`] that the binary brings.

mod client;
mod operator;
mod quarantine;
mod routes;
mod server;
mod socket;
pub mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use client::{AdminClient, ClientError};
pub use operator::{Operator, OperatorFuture};
pub use quarantine::{
    Exit, Leave, Leaver, Left, MessagePart, Points, QuarantinePage, Quarantined, Sift, SiftPage, Whole,
};
pub use server::Server;
pub use socket::BindError;
pub use wire::{
    Affected, CapturedMessage, CapturedPage, Component, HealthReport, OperatorRefusal, PageQuery,
    PluginCounts, PluginState, Query, QueueAction, QueueEntry, QueueFilter, QueuePage, QueueRecipient,
    Reloaded, Reroute, Spared, Version,
};

/// Where the gateway listens for its operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The unix socket; created with mode 0600.
    pub socket: PathBuf,
    /// Health and metrics over TCP as well, for probes and Prometheus.
    pub http: Option<SocketAddr>,
}
