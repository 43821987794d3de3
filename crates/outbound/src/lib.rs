//! From the durable message to the next hop.
//!
//! [`Outbound::start`] takes over a spool: whatever is pending in it, and whatever becomes pending, is delivered, deferred
//! or reported until every recipient is done. One task, the runner, owns the queue; each attempt is a task of its own that
//! the runner awaits:
//!
//! ```text
//! runner      queue.insert · queue.poll_due → Attempt
//! attempt     stages (Deliver hook) → route → session_pool or connect → exchange (talks) → outcome per recipient
//! settle      marks and reports to the spool, durable first; then the runner records it in the queue
//! ```
//!
//! It promises: a recipient is marked only after the next hop has answered, and a failure only together with its report
//! (at least once, never less); a null reverse-path begets no report; every task has an owner that awaits it. It leaves to
//! others how messages come in, what plugins are, and where the configuration comes from.

mod aged;
mod attempt;
mod bounce;
mod capture;
mod clock;
mod config;
mod connect;
mod connection;
pub mod dry_run;
mod endpoint;
mod exchange;
mod exchanger;
mod handle;
mod jobs;
mod network;
mod plan;
mod quarantine;
mod quota;
mod reading;
mod resolve;
mod route;
mod runner;
mod select;
mod session_pool;
mod settle;
mod shared;
mod stages;
mod talks;
mod whereabouts;

use std::sync::Arc;
use std::time::Duration;

use pintle_spool::Spool;
use tokio::task::JoinHandle;

pub use capture::{Capture, Captured};
pub use clock::{Clock, Dice, SystemClock, dice};
pub use config::{
    Channel, Config, Credentials, EightBit, Mx, NamedCredentials, Protocol, Relay, Reports, RetryPolicy,
    Sessions, Sources, Timeouts, Transfer,
};
pub use endpoint::{Endpoint, EndpointError};
pub use exchanger::is_listener;
pub use handle::{Counts, Handle, OperateError, Whereabouts};
pub use network::{HostAddress, Network, Stream, SystemNetwork};
pub use pintle_queue::ClockStep;
pub use quarantine::Retention;
pub use quota::{Full, Quota, Room, WhenFull};
pub use route::{Route, RouteTable};
pub use select::{Act, Acts, CommandOutcome, Select};
pub use shared::Parts;
pub use whereabouts::{Leg, Next};

use crate::handle::Command;

/// Deliveries, running.
pub struct Outbound {
    handle: Handle,
    /// Until it has ended.
    runner: Option<JoinHandle<()>>,
}

impl Outbound {
    /// Begins to deliver what is pending in the spool and what is committed from now on. Must be called in a Tokio
    /// runtime; nothing else may have taken the spool's arrivals.
    #[must_use]
    pub fn start(config: Config, parts: Parts) -> Self {
        let (handle, runner) = runner::prepare(config, parts);
        Self { handle, runner: Some(tokio::spawn(runner.run())) }
    }

    /// For operators, and for reloading.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The spool that is delivered from: what is committed to it goes out.
    #[must_use]
    pub fn spool(&self) -> Arc<dyn Spool> {
        Arc::clone(&self.handle.shared.spool)
    }

    /// Ends when the runner has, which it must not do before a drain; says how. Nothing is delivered then, though mail
    /// may still be taken: whoever owns this should end the process.
    pub async fn ended(&mut self) -> String {
        let Some(runner) = &mut self.runner else {
            return std::future::pending().await;
        };
        let how = match runner.await {
            Ok(()) => "ended by itself".to_owned(),
            Err(error) => format!("ended badly: {error}"),
        };
        self.runner = None;
        how
    }

    /// Begins nothing more, lets attempts under way finish within `grace`, says QUIT to idle sessions, and waits for all
    /// tasks. What was cut off is delivered after the next start.
    pub async fn drain(mut self, grace: Duration) {
        // An error means that the runner has ended already.
        let _ = self.handle.commands.send(Command::Drain(grace));
        if let Some(runner) = &mut self.runner
            && let Err(error) = runner.await
        {
            tracing::error!(%error, "the runner ended badly");
        }
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        // Without a drain nothing is waited for; the spool has all that is needed to go on later.
        self.runner.iter().for_each(JoinHandle::abort);
    }
}
