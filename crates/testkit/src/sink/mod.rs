//! A mail server for tests: accepts mail, keeps it, misbehaves on demand, and records protocol violations of its
//! clients.
//!
//! It shares no code with `pintle-smtp` on purpose, and is simple and strict: it accepts what an ordinary, rather
//! old-fashioned server would accept.

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

/// The server; it stops, with all sessions, when it is dropped.
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
    /// When there is no free port.
    pub async fn start(script: Script) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script).await
    }

    /// Starts at a given address, such as that of an earlier sink: a next hop that comes back.
    ///
    /// # Panics
    /// When the address is in use.
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

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the script for commands from now on; the counters of its rules start at zero.
    pub fn follow(&self, script: Script) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// Releases everything that [`Act::Hold`] holds, now and later.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// A copy of the log so far.
    pub fn log(&self) -> SinkLog {
        self.shared.log.borrow().clone()
    }

    /// Waits until `n` messages in all have been accepted, and returns them in order.
    ///
    /// # Panics
    /// After [`crate::PATIENCE`], showing the log instead.
    pub async fn wait_for(&self, n: usize) -> Vec<SinkTransaction> {
        let log = self.wait_until("enough messages", |log| log.accepted().count() >= n).await;
        log.accepted().cloned().collect()
    }

    /// Waits until the log satisfies `enough`, and returns it.
    ///
    /// # Panics
    /// After [`crate::PATIENCE`], showing the log instead.
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

    /// Stops listening and ends all sessions at once; after that the address refuses connections.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = within("the sink to stop", &mut self.task).await;
    }

    /// Fails the test when a client has violated the protocol.
    ///
    /// # Panics
    /// When there are violations.
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

/// Owns the sessions: they end with this task.
async fn accept(listener: TcpListener, shared: Arc<SinkShared>) {
    let mut sessions = JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        sessions.spawn(session::serve(stream, peer, Arc::clone(&shared)));
        while sessions.try_join_next().is_some() {}
    }
}
