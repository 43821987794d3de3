//! The HTTP server: accepts connections, applies connection limits and timeouts, and shuts down.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::socket::{BindError, ListeningSocket};
use crate::{Config, Operator, routes};

/// The connection limit; further connections wait in the kernel. An operator, a probe and a scraper need three.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed accept (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long requests in progress may continue after shutdown has begun.
const DRAIN: Duration = Duration::from_secs(5);

/// The admin socket, and the TCP port for health and metrics if configured. Both are listening once this exists.
pub struct Server {
    socket: ListeningSocket,
    tcp: Option<TcpListener>,
    operator: Arc<dyn Operator>,
}

impl Server {
    /// Opens the configured sockets.
    ///
    /// # Errors
    /// Fails if a running gateway serves the socket, or if the operating system refuses.
    pub async fn bind(config: &Config, operator: Arc<dyn Operator>) -> Result<Self, BindError> {
        let tcp = match config.http {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|cause| BindError::Tcp { address, cause })?)
            }
            None => None,
        };
        Ok(Self { socket: ListeningSocket::claim(&config.socket)?, tcp, operator })
    }

    /// Returns the TCP address of health and metrics, with the port that the system chose.
    #[must_use]
    pub fn http_address(&self) -> Option<std::net::SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until `shutdown` completes, then lets requests in progress end, for at most five seconds. All its tasks
    /// have ended when this returns.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let (stop, stopped) = watch::channel(());
        let all = routes::all(Arc::clone(&self.operator));
        let public = routes::public(self.operator);
        let local = accept(|| async { Ok(self.socket.listener.accept().await?.0) }, all, stopped.clone());
        let tcp = async {
            match &self.tcp {
                Some(listener) => accept(|| async { Ok(listener.accept().await?.0) }, public, stopped).await,
                None => drop(stopped),
            }
        };
        let mut serving = pin!(async { tokio::join!(local, tcp) });
        tokio::select! {
            _ = &mut serving => return,
            () = shutdown => drop(stop),
        }
        if tokio::time::timeout(DRAIN, serving).await.is_err() {
            tracing::warn!("admin requests were still running after {DRAIN:?} and were aborted");
        }
    }
}

/// Accepts until the sender of `stopped` is dropped, then waits for the connections to end.
async fn accept<S, F>(mut next: impl FnMut() -> F, router: Router, mut stopped: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>>,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = next(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok(stream) => {
                    connections.spawn(converse(stream, router.clone(), stopped.clone()));
                }
                Err(cause) => {
                    tracing::warn!(%cause, "cannot accept an admin connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn converse<S>(stream: S, router: Router, mut stopped: watch::Receiver<()>) -> Result<(), Infallible>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(cause) = ended {
        tracing::debug!(%cause, "an admin connection failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use futures_util::future::BoxFuture;
    use pintle_mail::QueueId;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::Instant;

    use super::*;
    use crate::quarantine::*;
    use crate::wire::*;
    use crate::{OperatorFuture, routes};

    /// An operator that never responds.
    struct Stuck;

    impl Operator for Stuck {
        fn version(&self) -> Version {
            unreachable!("no test asks")
        }

        fn health(&self) -> BoxFuture<'_, HealthReport> {
            Box::pin(pending())
        }

        fn metrics(&self) -> String {
            String::new()
        }

        fn queue(&self, _: Query) -> OperatorFuture<'_, QueuePage> {
            Box::pin(pending())
        }

        fn message(&self, _: QueueId) -> OperatorFuture<'_, QueueEntry> {
            Box::pin(pending())
        }

        fn act(&self, _: QueueAction, _: QueueFilter) -> OperatorFuture<'_, Affected> {
            Box::pin(pending())
        }

        fn reroute(&self, _: Reroute) -> OperatorFuture<'_, Affected> {
            Box::pin(pending())
        }

        fn quarantine(&self, _: QuarantineQuery) -> OperatorFuture<'_, QuarantinePage> {
            Box::pin(pending())
        }

        fn quarantined(&self, _: QueueId) -> OperatorFuture<'_, Quarantined> {
            Box::pin(pending())
        }

        fn quarantined_message(&self, _: QueueId) -> OperatorFuture<'_, MessageOctets> {
            Box::pin(pending())
        }

        fn leave(&self, _: QuarantineAction, _: QuarantineOrder) -> OperatorFuture<'_, QuarantineResult> {
            Box::pin(pending())
        }

        fn plugins(&self) -> OperatorFuture<'_, Vec<PluginState>> {
            Box::pin(pending())
        }

        fn reload_plugins(&self, _: Option<String>) -> OperatorFuture<'_, Vec<PluginState>> {
            Box::pin(pending())
        }

        fn reload(&self) -> OperatorFuture<'_, Reloaded> {
            Box::pin(pending())
        }

        fn captured(&self, _: PageQuery) -> OperatorFuture<'_, CapturedPage> {
            Box::pin(pending())
        }
    }

    /// A connection in memory, with paused time, so that no test waits for a clock. Dropping the sender stops it.
    fn conversation() -> (DuplexStream, watch::Sender<()>) {
        let (ours, theirs) = tokio::io::duplex(4096);
        let (stop, stopped) = watch::channel(());
        tokio::spawn(converse(theirs, routes::all(Arc::new(Stuck)), stopped));
        (ours, stop)
    }

    async fn exchange(request: &[u8]) -> (String, Duration) {
        let (mut stream, _stop) = conversation();
        let began = Instant::now();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_gateway_is_told_after_half_a_minute() {
        let request = b"GET /v1/queue HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let (answer, took) = exchange(request).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("no response within 30s"), "{answer}");
        assert_eq!(took.as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_half_a_request_and_half_a_body_are_not_waited_for() {
        for start in ["", "GET /v1/queue HTTP/1.1\r\nHo", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let (_, took) = exchange(start.as_bytes()).await;
            assert_eq!(took.as_secs(), 10, "{start}");
        }
        let request = b"POST /v1/queue/hold HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                        Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{";
        let (answer, took) = exchange(request).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert_eq!(took.as_secs(), 30);
    }
}
