//! The other side of every test: name servers, certificate authorities, mail servers and clients that do what a test
//! wants, on loopback and on ports chosen by the system.
//!
//! Nothing here shares protocol code with the gateway, which it has to judge: the [`Sink`] has its own SMTP parser and
//! records each violation of a client. Everything waits by notification and with one limit, [`PATIENCE`]; when that
//! passes, or a peer does something unexpected, it panics and says what it was waiting for. Only tests depend on this
//! crate.

mod ca;
mod client;
mod resolver;
mod sink;
mod spf_suite;
mod wire;
mod zone;
mod zone_fault;
mod zone_server;

use std::future::Future;
use std::time::Duration;

pub use ca::{Leaf, LeafFiles, TestCa};
pub use client::{Client, SmtpReply};
/// The records of zones, for tests that do not use the crate `dns`.
pub use pintle_dns::{DnsRecord, DnsRecordKind};
pub use resolver::StaticResolver;
pub use sink::{Act, Script, Sink, SinkCommand, SinkLog, SinkPath, SinkStep, SinkTransaction};
pub use spf_suite::{SpfCase, SpfScenario};
pub use tempfile::TempDir;
pub use zone_fault::{ELSEWHERE, FLOOD, HUGE, LIE, ZoneFault};
pub use zone_server::{DnsQuestion, ZoneServer};

/// How long anything here waits before it fails the test: long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future`, and panics with `what` when [`PATIENCE`] is over.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}
