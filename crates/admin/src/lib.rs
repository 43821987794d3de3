//! The admin socket: HTTP over a unix socket for the operator, and the client that the subcommands use.
//!
//! Everything is available over a unix socket that only its owner can open. There is no other authentication: a user
//! who can read the spool can also control it. Over TCP, where the file's mode does not protect it, only health and
//! metrics are served, and nothing that names a message or changes anything.
//!
//! Guarantees: sizes and times are bounded; the socket file of a process that has ended is replaced, one of a running
//! process is not; every refusal is a typed [`OperatorRefusal`] with cause and remedy. What the commands do is
//! implemented by the [`Operator`] that the binary provides.

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
    MessageOctets, MessagePart, Points, QuarantineAction, QuarantineFilter, QuarantineOrder,
    QuarantineOutcome, QuarantinePage, QuarantineQuery, QuarantineResult, Quarantined,
};
pub use server::Server;
pub use socket::BindError;
pub use wire::{
    Affected, CapturedPage, Component, HealthReport, OperatorRefusal, PageQuery, PluginCounts, PluginState,
    Query, QueueAction, QueueEntry, QueueFilter, QueuePage, QueueRecipient, Reloaded, Reroute,
    SandboxMessage, Spared, Version,
};

/// The addresses that the gateway listens on for its operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The path of the unix socket, which is created with mode 0600.
    pub socket: PathBuf,
    /// The TCP address for health and metrics, for probes and Prometheus.
    pub http: Option<SocketAddr>,
}
