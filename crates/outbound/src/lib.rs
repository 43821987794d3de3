//! Delivery: from the durable message to the next hop.
//!
//! [`Outbound::start`] takes over a spool: everything that is pending in it or becomes pending is delivered, deferred
//! or bounced until every recipient is settled. One task, the runner, owns the queue; each attempt is a task of its own
//! that the runner awaits:
//!
//! ```text
//! runner      queue.insert · queue.poll_due → Attempt
//! attempt     refusal, or stages (Deliver hook) → exchange → a reply for each recipient
//! exchange    session_pool, or failover → connect → resolve
//! settle      marks and reports (bounce) to the spool, durable first; then the runner records the attempt in the queue
//! ```
//!
//! It promises: a recipient is marked only after the next hop has replied, and a failure only together with its report
//! (at least once, never less); a message with a null reverse-path causes no report; every task has an owner that
//! awaits it.
//!
//! Not done here: receiving messages, running plugins, reading the configuration file. `pintle-queue` computes retry
//! back-off and throttles; the limit on sessions and the connection pool are in `session_pool`.

mod attempt;
mod bounce;
mod capture;
mod clock;
mod commands;
mod config;
mod connect;
mod connect_failure;
mod connection;
mod context_changes;
pub mod dry_run;
mod endpoint;
mod exchange;
mod exchanger;
mod expiry;
mod failover;
mod finished;
mod handle;
mod host_defects;
mod job_status;
mod jobs;
mod network;
mod parts;
mod plan;
mod quarantine;
mod quarantine_admission;
mod quota;
mod recipient_result;
mod refusal;
mod replies;
mod resolve;
mod retention;
mod route;
mod runner;
mod select;
mod session_pool;
mod settle;
mod spool_reader;
mod stages;

use std::sync::Arc;
use std::time::Duration;

use pintle_spool::Spool;
use tokio::task::JoinHandle;

pub use capture::{Capture, CapturedMessage};
pub use clock::{Clock, RandomSource, SystemClock, system_random};
pub use commands::JobsByMessage;
pub use config::{
    Channel, Config, Credentials, EightBit, Mx, NamedCredentials, Protocol, Relay, Reports, RetryPolicy,
    Sessions, Sources, Timeouts, Transfer,
};
pub use endpoint::{Endpoint, EndpointError};
pub use exchanger::is_listener;
pub use handle::{Handle, OperateError};
pub use job_status::{JobStatus, NextAttempt};
pub use network::{HostAddress, Network, Stream, SystemNetwork};
pub use parts::OutboundParts;
pub use pintle_queue::ClockStep;
pub use quota::{QuarantineFull, Quota, QuotaReservation, WhenFull};
pub use retention::Retention;
pub use route::{Route, RouteTable};
pub use select::{CommandOutcome, CommandResult, CommandResults, Select};

use crate::commands::RunnerCommand;

/// The delivering side, running.
pub struct Outbound {
    handle: Handle,
    /// The task of the runner; none when it has ended.
    runner: Option<JoinHandle<()>>,
}

impl Outbound {
    /// Begins to deliver what is pending in the spool and what is committed from now on. Must be called in a Tokio
    /// runtime; nothing else may have taken the spool's arrivals.
    #[must_use]
    pub fn start(config: Config, parts: OutboundParts) -> Self {
        let (handle, runner) = runner::prepare(config, parts);
        Self { handle, runner: Some(tokio::spawn(runner.run())) }
    }

    /// The handle for operators and for a reload.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The spool that is delivered from: a message that is committed to it goes out.
    #[must_use]
    pub fn spool(&self) -> Arc<dyn Spool> {
        Arc::clone(&self.handle.shared.spool)
    }

    /// Waits until the runner has ended, which must not happen before a drain, and says how it ended. Nothing is
    /// delivered then, though mail may still be accepted: the owner should end the process.
    pub async fn ended(&mut self) -> String {
        let Some(runner) = &mut self.runner else {
            return std::future::pending().await;
        };
        let how = match runner.await {
            Ok(()) => "ended by itself".to_owned(),
            Err(error) => format!("failed: {error}"),
        };
        self.runner = None;
        how
    }

    /// Drains outbound: starts no more attempts, waits for those under way for at most `grace`, ends idle sessions with
    /// QUIT, and waits for all tasks. Aborted attempts are repeated after the next start.
    pub async fn drain(mut self, grace: Duration) {
        // An error means that the runner has ended already.
        let _ = self.handle.commands.send(RunnerCommand::Drain(grace));
        if let Some(runner) = &mut self.runner
            && let Err(error) = runner.await
        {
            tracing::error!(%error, "the delivery runner failed");
        }
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        // Without a drain nothing is awaited; the spool has all that is needed to go on later.
        self.runner.iter().for_each(JoinHandle::abort);
    }
}
