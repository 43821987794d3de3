//! The command line's side of the admin socket.

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

use crate::quarantine::{Exit, Leave, Left, MessagePart, QuarantinePage, Quarantined, SiftPage};
use crate::routes::ReloadPlugins;
use crate::wire::{
    Affected, CapturedPage, HealthReport, OperatorRefusal, PageQuery, PluginState, Query, QueueAction,
    QueueEntry, QueueFilter, QueuePage, Reloaded, Reroute, Version,
};

/// What drives a connection.
type Conversation = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

/// Longer than the server's own limit, so that the server's explanation arrives.
const TIMEOUT: Duration = Duration::from_secs(40);
/// The largest answer: a page of a thousand messages with many recipients each.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// Speaks to the gateway behind one socket. Each call is a connection of its own.
#[derive(Debug, Clone)]
pub struct AdminClient {
    path: PathBuf,
}

/// Why a command came to nothing.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody serves the socket.
    NotRunning(PathBuf),
    /// The socket belongs to another user.
    Denied(PathBuf),
    /// The connection failed.
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The gateway did not answer in time.
    Timeout(PathBuf),
    /// What answers is no gateway, or one of another version.
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What is wrong with the answer.
        cause: String,
    },
    /// The gateway said no.
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
                "the gateway at {} did not answer within {TIMEOUT:?}; its log may say what it is busy with",
                path.display()
            ),
            Self::Protocol { path, cause } => {
                write!(f, "what answers at {} is no gateway of this version: {cause}", path.display())
            }
            Self::Refused(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for ClientError {}

impl AdminClient {
    /// A client for the gateway at this socket, once it is known that one answers there.
    ///
    /// # Errors
    /// When nobody serves the socket, or it may not be opened.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let client = Self { path: path.to_owned() };
        client.open().await?;
        Ok(client)
    }

    /// Which program answers.
    ///
    /// # Errors
    /// See [`ClientError`]; so do all that follow.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("/v1/version").await
    }

    /// How its parts are.
    pub async fn health(&self) -> Result<HealthReport, ClientError> {
        self.get("/health").await
    }

    /// The counters in Prometheus's text format.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let body = self.exchange(Method::GET, "/metrics", Bytes::new()).await?;
        String::from_utf8(body.to_vec()).map_err(|error| self.protocol(&error))
    }

    /// A page of the queue.
    pub async fn queue(&self, query: &Query) -> Result<QueuePage, ClientError> {
        let (filter, page) = (self.query_text(&query.filter)?, self.query_text(&query.page)?);
        self.get(&format!("/v1/queue?{filter}&{page}")).await
    }

    /// One message of the queue.
    pub async fn message(&self, id: QueueId) -> Result<QueueEntry, ClientError> {
        self.get(&format!("/v1/queue/{id}")).await
    }

    /// Acts on the messages that pass the filter.
    pub async fn act(&self, action: QueueAction, filter: &QueueFilter) -> Result<Affected, ClientError> {
        self.post(&format!("/v1/queue/{}", action.name()), filter).await
    }

    /// Sends the messages that pass the filter another way.
    pub async fn reroute(&self, order: &Reroute) -> Result<Affected, ClientError> {
        self.post("/v1/queue/reroute", order).await
    }

    /// A page of what lies in quarantines.
    pub async fn quarantine(&self, query: &SiftPage) -> Result<QuarantinePage, ClientError> {
        let (sift, page) = (self.query_text(&query.sift)?, self.query_text(&query.page)?);
        self.get(&format!("/v1/quarantine?{sift}&{page}")).await
    }

    /// One message in a quarantine.
    pub async fn quarantined(&self, id: QueueId) -> Result<Quarantined, ClientError> {
        self.get(&format!("/v1/quarantine/{id}")).await
    }

    /// Hands over the octets of a message in a quarantine piece by piece, until there are no more or `take` wants none.
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
        // When nobody wants the rest the connection is given up, and its end is of no interest.
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

    /// Lets messages leave their quarantines. Ask again with `after` set to the answer's `next` until there is none.
    pub async fn leave(&self, exit: Exit, which: &Leave) -> Result<Left, ClientError> {
        self.post(&format!("/v1/quarantine/{}", exit.name()), which).await
    }

    /// The plugins.
    pub async fn plugins(&self) -> Result<Vec<PluginState>, ClientError> {
        self.get("/v1/plugins").await
    }

    /// Loads one plugin again, or all.
    pub async fn reload_plugins(&self, name: Option<String>) -> Result<Vec<PluginState>, ClientError> {
        self.post("/v1/plugins/reload", &ReloadPlugins { name }).await
    }

    /// Reads configuration and certificates again.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.post("/v1/reload", &()).await
    }

    /// What the sandbox has captured.
    pub async fn captured(&self, page: &PageQuery) -> Result<CapturedPage, ClientError> {
        let page = self.query_text(page)?;
        self.get(&format!("/v1/messages?{page}")).await
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
        // A gateway that is not ready says so with 503 and a health report, which is an answer and no refusal.
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
        // The connection needs somebody to drive it while the exchange waits; its own end is of no interest.
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
