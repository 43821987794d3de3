//! A mail server for tests: takes mail, keeps it, misbehaves as told, and notes what its clients do wrong.
//!
//! It is written apart from `pintle-smtp` on purpose and stays simple and strict: what it accepts is what an
//! ordinary, rather old-fashioned server would accept.

mod log;
mod script;
mod session;
mod transaction;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use self::log::{SinkCommand, SinkLog, SinkPath, SinkTransaction};
pub use self::script::{Act, Script, SinkStep};

use crate::within;

/// The server; it stops, sessions and all, when it is dropped.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    shared: Arc<SinkShared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct SinkShared {
    script: Mutex<Script>,
    log: watch::Sender<SinkLog>,
    released: watch::Sender<bool>,
}

impl Sink {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start(script: Script) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script).await
    }

    /// Starts at an address, such as that of an earlier sink: the next hop that comes back.
    ///
    /// # Panics
    /// When somebody else has it.
    pub async fn start_at(address: SocketAddr, script: Script) -> Self {
        let listener = TcpListener::bind(address).await.expect("an address to listen on");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(SinkShared {
            script: Mutex::new(script),
            log: watch::Sender::new(SinkLog::default()),
            released: watch::Sender::new(false),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the script, for commands that come from now on; the counts of its rules start anew.
    pub fn follow(&self, script: Script) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// Lets go whatever [`Act::Hold`] holds, now and later.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// What has happened so far.
    pub fn log(&self) -> SinkLog {
        self.shared.log.borrow().clone()
    }

    /// Waits until `n` messages in all have been accepted, and returns them in order.
    ///
    /// # Panics
    /// After [`crate::PATIENCE`], with what has happened instead.
    pub async fn wait_for(&self, n: usize) -> Vec<SinkTransaction> {
        let log = self.wait_until("enough messages", |log| log.accepted().count() >= n).await;
        log.accepted().cloned().collect()
    }

    /// Waits until the log satisfies `enough`, and returns it.
    ///
    /// # Panics
    /// After [`crate::PATIENCE`], with what has happened instead.
    pub async fn wait_until(&self, what: &str, enough: impl Fn(&SinkLog) -> bool) -> SinkLog {
        let mut changes = self.shared.log.subscribe();
        let waiting = tokio::time::timeout(crate::PATIENCE, changes.wait_for(|log| enough(log)));
        match waiting.await {
            Ok(log) => log.expect("the sink lives").clone(),
            Err(_) => panic!("waited in vain for {what}; so far: {:#?}", self.log()),
        }
    }

    /// Waits until all sessions have ended.
    pub async fn wait_idle(&self) -> SinkLog {
        self.wait_until("the end of all sessions", |log| log.open == 0).await
    }

    /// Stops listening and ends all sessions at once; after this the address refuses connections.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = within("the sink to stop", &mut self.task).await;
    }

    /// Fails the test when a client did something that the protocol forbids.
    ///
    /// # Panics
    /// Then.
    pub fn assert_no_violations(&self) {
        let log = self.log();
        assert!(log.violations.is_empty(), "the client broke the protocol: {:#?}", log.violations);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Owns the sessions: they end with it.
async fn accept(listener: TcpListener, shared: Arc<SinkShared>) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        sessions.spawn(session::serve(stream, peer, Arc::clone(&shared)));
        while sessions.try_join_next().is_some() {}
    }
}
