//! Listening: sockets, permits, the tasks that own sessions, and the drain at the end.
//!
//! One task per address accepts; it owns the sessions it has begun and ends only when they have (law 8). A drain first
//! stops accepting and tells every session to finish its transaction, then, when the time of grace is over, to stop.

use std::fmt;
use std::future::Future;
use std::io;
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
use crate::permits::{Crowded, Permits};
use crate::phase::Phase;
use crate::quarantines::Quarantines;
use crate::services::Services;
use crate::sockets::Sockets;

/// How long to leave a listener alone that cannot accept, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a session may take to end once it has been told to.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The receiving side, running.
pub struct Inbound {
    services: Arc<Services>,
    addresses: Vec<(String, SocketAddr)>,
    phase: watch::Sender<Phase>,
    acceptors: Vec<JoinHandle<()>>,
}

/// What the receiving side works with.
pub struct Parts {
    /// Sockets that are bound already; without them they are bound at the start.
    pub sockets: Option<Sockets>,
    /// Where messages become durable.
    pub spool: Arc<dyn Spool>,
    /// Who is asked; a reload puts another chain here.
    pub chain: Arc<ArcSwap<Chain>>,
    /// Who keeps the event log.
    pub records: Arc<dyn RecordSink>,
    /// Who says whether a quarantine takes more.
    pub quarantines: Arc<dyn Quarantines>,
    /// Certificates, where some listener offers TLS.
    pub tls: Option<Arc<ServerTls>>,
}

/// Changes what can be changed while sessions run.
#[derive(Clone)]
pub struct Reload(Arc<Services>);

impl Reload {
    /// Replaces the rules for every decision from now on.
    pub fn replace(&self, rules: Rules) {
        self.0.rules.store(Arc::new(rules));
    }
}

/// A listener cannot be started. The operator must act.
#[derive(Debug)]
pub enum StartError {
    /// The address cannot be bound.
    Bind {
        /// The listener's name.
        listener: String,
        /// Its address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The listener wants TLS, and there is no certificate.
    NoCertificate {
        /// The listener's name.
        listener: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { listener, address, source } => {
                write!(f, "listener {listener} cannot listen on {address}: {source}")?;
                match source.kind() {
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; ports below 1024 need the capability CAP_NET_BIND_SERVICE")
                    }
                    io::ErrorKind::AddrInUse => f.write_str("; another server has it"),
                    _ => Ok(()),
                }
            }
            Self::NoCertificate { listener } => {
                write!(f, "listener {listener} offers TLS, but no certificate is configured")
            }
        }
    }
}

impl std::error::Error for StartError {}

impl Inbound {
    /// Binds every address and begins to accept.
    ///
    /// # Errors
    /// The first listener that cannot be started; none is left running then.
    pub fn start(config: Config, parts: Parts) -> Result<Self, StartError> {
        let Parts { sockets, spool, chain, records, quarantines, tls } = parts;
        let sockets = sockets.map_or_else(|| Sockets::bind(&config.listeners), Ok)?;
        let Config { hostname, listeners, rules } = config;
        let services = Arc::new(Services::new(hostname, rules, spool, chain, records, quarantines));
        let (phase, watching) = watch::channel(Phase::Running);
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
            // A listener's limits count over all its addresses.
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

    /// The listeners' names and the addresses they really have.
    #[must_use]
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// For whoever reads the configuration again.
    #[must_use]
    pub fn reload(&self) -> Reload {
        Reload(Arc::clone(&self.services))
    }

    /// Ends when a listener has, which none must do before a drain; says how.
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
        let _ = self.phase.send(Phase::Draining);
        let mut acceptors = self.acceptors;
        let all = async {
            for acceptor in &mut acceptors {
                let _ = acceptor.await;
            }
        };
        if tokio::time::timeout(grace, all).await.is_ok() {
            return;
        }
        let _ = self.phase.send(Phase::Aborting);
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

/// Accepts on one address and owns the sessions that came of it.
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
                        // Once for all that fail in a row: this goes on until somebody leaves, ten times a second.
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
                "sessions cut off"
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

    /// 421 with one write that does not wait: a flood must not cost more than that.
    fn turn_away(&self, stream: &TcpStream, client: IpAddr, crowded: Crowded) {
        let why: &[u8] = match crowded {
            Crowded::Total => b"421 4.3.2 Too many sessions now; try again later\r\n",
            Crowded::Address => b"421 4.7.0 Too many sessions from your address; close some first\r\n",
            Crowded::Network => b"421 4.7.0 Too many sessions from your network; try again later\r\n",
        };
        let (listener, limit) = (self.serving.listener.name.clone(), crowded.name());
        let client = client.to_canonical();
        tracing::info!(%client, listener, limit, "turned away: too many sessions at once");
        metrics::counter!("pintle_sessions_refused_total", "listener" => listener, "limit" => limit)
            .increment(1);
        let _ = stream.try_write(why);
    }
}

/// Ends when sessions have been told to go and have had the time to say so. One that waits for its client to read, or for
/// a slow judge, must not keep the gateway from ending; what it has committed is safe, and nothing else was promised.
async fn overdue(phase: &mut watch::Receiver<Phase>) {
    // An error means that nobody is left to tell them.
    let _ = phase.wait_for(|phase| *phase == Phase::Aborting).await;
    tokio::time::sleep(LAST_WORDS).await;
}
