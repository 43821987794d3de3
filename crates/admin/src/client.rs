//! The client of the admin socket, for the subcommands of the command line.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use pintle_mail::QueueId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::quarantine::{
    MessagePart, QuarantineAction, QuarantineOrder, QuarantinePage, QuarantineQuery, QuarantineResult,
    Quarantined,
};
use crate::routes::ReloadPlugins;
use crate::wire::{
    Affected, HealthReport, OperatorRefusal, PluginState, Query, QueueAction, QueueEntry, QueueFilter,
    QueuePage, Reloaded, Reroute, Version,
};

/// A connection, which must be polled while a request is in progress.
type Conversation = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

/// Longer than the server's own timeout, so that the server's error message arrives.
const TIMEOUT: Duration = Duration::from_secs(40);
/// The largest response in octets: a page of a thousand messages with many recipients each.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// A client for the gateway behind one socket. Each call opens a connection of its own.
#[derive(Debug, Clone)]
pub struct AdminClient {
    path: PathBuf,
}

/// Why a command failed.
#[derive(Debug)]
pub enum ClientError {
    /// No process listens on the socket at this path.
    NotRunning(PathBuf),
    /// The socket may not be opened by this user.
    Denied(PathBuf),
    /// The connection failed.
    Io {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The gateway did not respond in time.
    Timeout(PathBuf),
    /// The response is not one of a gateway, or of another version.
    Protocol {
        /// The path of the socket.
        path: PathBuf,
        /// What is wrong with the response.
        cause: String,
    },
    /// The gateway refused the command.
    Refused(OperatorRefusal),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(path) => write!(
                f,
                "no gateway is running at {}: start one with `pintle run`, or name its socket",
                path.display()
            ),
            Self::Denied(path) => write!(
                f,
                "no permission for {}: run this as the user that the gateway runs as",
                path.display()
            ),
            Self::Io { path, cause } => write!(f, "the connection to {} failed: {cause}", path.display()),
            Self::Timeout(path) => write!(
                f,
                "the gateway at {} did not respond within {TIMEOUT:?}; see its log for what it is doing",
                path.display()
            ),
            Self::Protocol { path, cause } => {
                write!(f, "the response at {} is not from a gateway of this version: {cause}", path.display())
            }
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for ClientError {}

impl AdminClient {
    /// Returns a client for the gateway at this socket, after a connection has succeeded.
    ///
    /// # Errors
    /// Fails if no process listens on the socket, or if it may not be opened.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let client = Self { path: path.to_owned() };
        client.open().await?;
        Ok(client)
    }

    /// Returns version, process id and start time of the gateway.
    ///
    /// # Errors
    /// See [`ClientError`]; the same holds for all methods below.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("/v1/version").await
    }

    /// Returns the health of the gateway and its components.
    pub async fn health(&self) -> Result<HealthReport, ClientError> {
        self.get("/health").await
    }

    /// Returns a page of the queue, oldest messages first.
    pub async fn queue(&self, query: &Query) -> Result<QueuePage, ClientError> {
        let (filter, page) = (self.query_text(&query.filter)?, self.query_text(&query.page)?);
        self.get(&format!("/v1/queue?{filter}&{page}")).await
    }

    /// Returns one message of the queue.
    pub async fn message(&self, id: QueueId) -> Result<QueueEntry, ClientError> {
        self.get(&format!("/v1/queue/{id}")).await
    }

    /// Applies an action to all messages that match the filter.
    pub async fn act(&self, action: QueueAction, filter: &QueueFilter) -> Result<Affected, ClientError> {
        self.post(&format!("/v1/queue/{}", action.name()), filter).await
    }

    /// Changes the next hop of all messages that match the filter.
    pub async fn reroute(&self, order: &Reroute) -> Result<Affected, ClientError> {
        self.post("/v1/queue/reroute", order).await
    }

    /// Returns a page of the messages in quarantines, oldest first.
    pub async fn quarantine(&self, query: &QuarantineQuery) -> Result<QuarantinePage, ClientError> {
        let (sift, page) = (self.query_text(&query.sift)?, self.query_text(&query.page)?);
        self.get(&format!("/v1/quarantine?{sift}&{page}")).await
    }

    /// Returns one message in a quarantine.
    pub async fn quarantined(&self, id: QueueId) -> Result<Quarantined, ClientError> {
        self.get(&format!("/v1/quarantine/{id}")).await
    }

    /// Reads a message in a quarantine. `take` gets its octets piece by piece, and may stop the transfer.
    pub async fn quarantined_message(
        &self,
        id: QueueId,
        part: MessagePart,
        take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        let target = format!("/v1/quarantine/{id}/message?part={}", part.name());
        let request = self.request(Method::GET, &target, Bytes::new())?;
        let (mut sender, connection) = self.handshake().await?;
        let exchange = async {
            let answer = self.in_time(sender.send_request(request)).await??;
            let status = answer.status();
            let outcome = if status.is_success() {
                self.hand_over(answer.into_body(), take).await
            } else {
                let (_, body) = self.collect(answer).await?;
                Err(self.decode(&body).map_or_else(|error| error, ClientError::Refused))
            };
            drop(sender);
            outcome
        };
        // If `take` stops the transfer, the connection is dropped, and how it ends does not matter.
        tokio::pin!(exchange, connection);
        tokio::select! {
            biased;
            outcome = &mut exchange => outcome,
            _ = &mut connection => exchange.await,
        }
    }

    async fn hand_over(
        &self,
        mut body: Incoming,
        take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        while let Some(frame) = tokio::time::timeout(TIMEOUT, body.frame()).await.map_err(|_| self.late())? {
            let frame = frame.map_err(|error| self.protocol(&error))?;
            if let Some(octets) = frame.data_ref()
                && take(octets).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Releases or deletes messages in quarantines. Repeat the call with `after` set to the response's `next` until
    /// there is none.
    pub async fn leave(
        &self,
        exit: QuarantineAction,
        which: &QuarantineOrder,
    ) -> Result<QuarantineResult, ClientError> {
        self.post(&format!("/v1/quarantine/{}", exit.name()), which).await
    }

    /// Returns the state of all plugins.
    pub async fn plugins(&self) -> Result<Vec<PluginState>, ClientError> {
        self.get("/v1/plugins").await
    }

    /// Reloads one plugin, or all. Returns the state of the reloaded plugins.
    pub async fn reload_plugins(&self, name: Option<String>) -> Result<Vec<PluginState>, ClientError> {
        self.post("/v1/plugins/reload", &ReloadPlugins { name }).await
    }

    /// Reloads configuration and certificates.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.post("/v1/reload", &()).await
    }

    async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let body = self.exchange(Method::GET, target, Bytes::new()).await?;
        self.decode(&body)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        what: &(impl Serialize + Sync),
    ) -> Result<T, ClientError> {
        let json = serde_json::to_vec(what).map_err(|error| self.protocol(&error))?;
        let body = self.exchange(Method::POST, target, json.into()).await?;
        self.decode(&body)
    }

    async fn exchange(&self, method: Method, target: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let request = self.request(method, target, body)?;
        let answer = tokio::time::timeout(TIMEOUT, self.ask(request)).await;
        let (status, body) = answer.map_err(|_| self.late())??;
        // A gateway that is not ready returns 503 with a health report, which is a result and not a refusal.
        if status.is_success() {
            return Ok(body);
        }
        Err(self.decode(&body).map_or_else(|error| error, ClientError::Refused))
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ClientError> {
        let (mut sender, connection) = self.handshake().await?;
        let exchange = async {
            let answer = sender.send_request(request).await;
            let answer = self.collect(answer.map_err(|error| self.protocol(&error))?).await;
            drop(sender);
            answer
        };
        // The connection must be polled while the exchange waits; how it ends does not matter.
        let (answer, _) = tokio::join!(exchange, connection);
        answer
    }

    fn request(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "pintle")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body));
        request.map_err(|error| self.protocol(&error))
    }

    async fn handshake(&self) -> Result<(SendRequest<Full<Bytes>>, Conversation), ClientError> {
        let io = TokioIo::new(self.open().await?);
        http1::handshake(io).await.map_err(|error| self.protocol(&error))
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, hyper::Error>>,
    ) -> Result<Result<T, ClientError>, ClientError> {
        let answer = tokio::time::timeout(TIMEOUT, answer).await.map_err(|_| self.late())?;
        Ok(answer.map_err(|error| self.protocol(&error)))
    }

    fn late(&self) -> ClientError {
        ClientError::Timeout(self.path.clone())
    }

    async fn collect(&self, answer: Response<Incoming>) -> Result<(StatusCode, Bytes), ClientError> {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| self.protocol(error.as_ref()))?;
        Ok((status, body.to_bytes()))
    }

    async fn open(&self) -> Result<UnixStream, ClientError> {
        let path = self.path.clone();
        UnixStream::connect(&self.path).await.map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(path),
            io::ErrorKind::PermissionDenied => ClientError::Denied(path),
            _ => ClientError::Io { path, cause },
        })
    }

    fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.protocol(&error))
    }

    fn query_text(&self, part: &impl Serialize) -> Result<String, ClientError> {
        serde_urlencoded::to_string(part).map_err(|error| self.protocol(&error))
    }

    fn protocol(&self, cause: &(dyn std::error::Error + 'static)) -> ClientError {
        ClientError::Protocol { path: self.path.clone(), cause: cause.to_string() }
    }
}
