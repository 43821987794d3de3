//! Listeners: accept connections, apply connection limits, own the session tasks, and drain them at shutdown.
//!
//! One task per address accepts connections. It owns the sessions it has begun and ends only when they have ended (law
//! 8). A drain first stops accepting and tells every session to finish its transaction; after the grace period it tells
//! them to stop.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use pintle_policy::Chain;
use pintle_record::RecordSink;
use pintle_spool::Spool;
use pintle_tls::ServerTls;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::{Config, Rules, TlsMode};
use crate::connection::{self, Serving};
use crate::permits::{Permits, SessionLimit};
use crate::phase::ServerPhase;
use crate::quarantines::Quarantines;
use crate::services::Services;
use crate::sockets::Sockets;
use crate::start_error::StartError;

/// How long a listener pauses when accept fails, most likely because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a session may take to end once it has been told to stop.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The running listeners.
pub struct Inbound {
    services: Arc<Services>,
    addresses: Vec<(String, SocketAddr)>,
    phase: watch::Sender<ServerPhase>,
    acceptors: Vec<JoinHandle<()>>,
}

/// What the receiving side needs from other parts of the gateway.
pub struct InboundParts {
    /// Sockets that are already bound; if `None`, they are bound at the start.
    pub sockets: Option<Sockets>,
    /// The spool to commit messages to.
    pub spool: Arc<dyn Spool>,
    /// The policy chain; a reload replaces it here.
    pub chain: Arc<ArcSwap<Chain>>,
    /// The event log.
    pub records: Arc<dyn RecordSink>,
    /// Decides whether a quarantine accepts another message.
    pub quarantines: Arc<dyn Quarantines>,
    /// The certificates, if some listener offers TLS.
    pub tls: Option<Arc<ServerTls>>,
}

/// Replaces the rules while sessions run.
#[derive(Clone)]
pub struct RulesHandle(Arc<Services>);

impl RulesHandle {
    /// Replaces the rules; every decision from now on uses them.
    pub fn replace(&self, rules: Rules) {
        self.0.rules.store(Arc::new(rules));
    }
}

impl Inbound {
    /// Binds every address and starts accepting connections.
    ///
    /// # Errors
    /// Returns the first listener that cannot be started; no listener is left running then.
    pub fn start(config: Config, parts: InboundParts) -> Result<Self, StartError> {
        let InboundParts { sockets, spool, chain, records, quarantines, tls } = parts;
        let sockets = sockets.map_or_else(|| Sockets::bind(&config.listeners), Ok)?;
        let Config { hostname, listeners, rules } = config;
        let services = Arc::new(Services::new(hostname, rules, spool, chain, records, quarantines));
        let (phase, watching) = watch::channel(ServerPhase::Running);
        let (mut bound, mut sockets) = (Vec::new(), sockets.into_iter());
        for listener in listeners {
            if listener.tls != TlsMode::None && tls.is_none() {
                return Err(StartError::NoCertificate { listener: listener.name });
            }
            let serving = Serving {
                services: Arc::clone(&services),
                listener: Arc::new(listener),
                tls: tls.clone(),
                phase: watching.clone(),
            };
            let listener = &serving.listener;
            // The limits of a listener are counted over all its addresses.
            let permits = Permits::default();
            for (address, socket) in listener.addresses.iter().zip(&mut sockets) {
                let failed =
                    |source| StartError::Bind { listener: listener.name.clone(), address: *address, source };
                let socket = TcpListener::from_std(socket).map_err(failed)?;
                bound.push((serving.clone(), permits.clone(), socket));
            }
        }
        let mut inbound = Self { services, addresses: Vec::new(), phase, acceptors: Vec::new() };
        for (serving, permits, socket) in bound {
            inbound.accept_on(serving, permits, socket);
        }
        Ok(inbound)
    }

    /// Returns the listeners' names and their actual addresses.
    #[must_use]
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// Returns a handle for a reload of the configuration.
    #[must_use]
    pub fn reload(&self) -> RulesHandle {
        RulesHandle(Arc::clone(&self.services))
    }

    /// Completes when a listener task has ended, which none may do before a drain. Returns why it ended.
    pub async fn ended(&mut self) -> String {
        std::future::poll_fn(|cx| {
            for at in 0..self.acceptors.len() {
                if let Poll::Ready(ended) = Pin::new(&mut self.acceptors[at]).poll(cx) {
                    drop(self.acceptors.swap_remove(at));
                    return Poll::Ready(match ended {
                        Ok(()) => "ended by itself".to_owned(),
                        Err(error) => format!("ended badly: {error}"),
                    });
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Stops accepting, lets open transactions finish within `grace`, and waits for the last session to end.
    pub async fn drain(self, grace: Duration) {
        let _ = self.phase.send(ServerPhase::Draining);
        let mut acceptors = self.acceptors;
        let all = async {
            for acceptor in &mut acceptors {
                let _ = acceptor.await;
            }
        };
        if tokio::time::timeout(grace, all).await.is_ok() {
            return;
        }
        let _ = self.phase.send(ServerPhase::Aborting);
        for acceptor in acceptors.iter_mut().filter(|acceptor| !acceptor.is_finished()) {
            let _ = acceptor.await;
        }
    }

    fn accept_on(&mut self, serving: Serving, permits: Permits, socket: TcpListener) {
        let listener = &serving.listener;
        if let Ok(address) = socket.local_addr() {
            tracing::info!(listener = listener.name, %address, "listening");
            self.addresses.push((listener.name.clone(), address));
        }
        let acceptor = Acceptor { serving, permits };
        self.acceptors.push(tokio::spawn(acceptor.run(socket)));
    }
}

/// Accepts connections on one address and owns their sessions.
struct Acceptor {
    serving: Serving,
    permits: Permits,
}

impl Acceptor {
    async fn run(mut self, socket: TcpListener) {
        let mut sessions = JoinSet::new();
        let mut failing = false;
        loop {
            tokio::select! {
                accepted = socket.accept() => match accepted {
                    Ok((stream, client)) => {
                        failing = false;
                        self.begin(stream, client, &mut sessions);
                    }
                    Err(error) => {
                        // Logged once for consecutive failures: accept is retried ten times a second until a session
                        // ends.
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(listener = self.serving.listener.name, %error, "cannot accept connections");
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = sessions.join_next() => {}
                _ = self.serving.phase.changed() => break,
            }
        }
        drop(socket);
        let finished = tokio::select! {
            () = async { while sessions.join_next().await.is_some() {} } => true,
            () = overdue(&mut self.serving.phase) => false,
        };
        if !finished {
            tracing::warn!(
                listener = self.serving.listener.name,
                sessions = sessions.len(),
                "sessions did not end in time and were closed"
            );
            sessions.shutdown().await;
        }
    }

    fn begin(&self, stream: TcpStream, client: SocketAddr, sessions: &mut JoinSet<()>) {
        let listener = &self.serving.listener;
        let trusted = listener.trusts(client.ip());
        match self.permits.take(client.ip(), trusted, listener.limits) {
            Ok(permit) => {
                metrics::counter!("pintle_sessions_total", "listener" => listener.name.clone()).increment(1);
                let serve = connection::serve(self.serving.clone(), stream, client);
                sessions.spawn(async move {
                    serve.await;
                    drop(permit);
                });
            }
            Err(crowded) => self.turn_away(&stream, client.ip(), crowded),
        }
    }

    /// Sends 421 in a single write that does not block: refusing a flood must not cost more than that.
    fn turn_away(&self, stream: &TcpStream, client: IpAddr, crowded: SessionLimit) {
        let why: &[u8] = match crowded {
            SessionLimit::Total => b"421 4.3.2 Too many sessions now; try again later\r\n",
            SessionLimit::Address => b"421 4.7.0 Too many sessions from your address; close some first\r\n",
            SessionLimit::Network => b"421 4.7.0 Too many sessions from your network; try again later\r\n",
        };
        let (listener, limit) = (self.serving.listener.name.clone(), crowded.name());
        let client = client.to_canonical();
        tracing::info!(%client, listener, limit, "connection refused: too many sessions");
        metrics::counter!("pintle_sessions_refused_total", "listener" => listener, "limit" => limit)
            .increment(1);
        let _ = stream.try_write(why);
    }
}

/// Completes when sessions have been told to stop and have had time to send their last reply. A session that waits for
/// its client to read, or for a slow judge, must not delay shutdown; what it has committed is safe, and nothing else
/// was acknowledged.
async fn overdue(phase: &mut watch::Receiver<ServerPhase>) {
    // An error means that the sender is gone.
    let _ = phase.wait_for(|phase| *phase == ServerPhase::Aborting).await;
    tokio::time::sleep(LAST_WORDS).await;
}
