//! The HTTP routes. Paths under `/v1` are for the command line; health and metrics are for monitoring.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{Stream, StreamExt};
use pintle_mail::{Body, Bytes, QueueId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Operator;
use crate::quarantine::{
    MessageOctets, MessagePart, QuarantineAction, QuarantineOrder, QuarantineQuery, QuarantineResult,
};
use crate::wire::{
    Affected, HealthReport, MAX_LIMIT, OperatorRefusal, PageQuery, Query, QueueAction, QueueFilter, Reroute,
};

/// The largest request body in octets: a filter with a thousand ids.
const MAX_BODY: usize = 64 * 1024;
/// The timeout of a request, including its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a message is read at a time, in octets.
const PIECE: usize = 256 * 1024;

type Gateway = State<Arc<dyn Operator>>;

/// All routes, for the socket that only its owner can open.
pub(crate) fn all(operator: Arc<dyn Operator>) -> Router {
    let commands = Router::new()
        .route("/v1/version", get(version))
        .route("/v1/queue", get(queue))
        .route("/v1/queue/reroute", post(reroute))
        // One pattern, because the router requires one name for this segment: an id for GET, an action for POST.
        .route("/v1/queue/{what}", get(message).post(act))
        .route("/v1/quarantine", get(quarantine))
        .route("/v1/quarantine/{what}", get(quarantined).post(leave))
        .route("/v1/quarantine/{what}/message", get(quarantined_message))
        .route("/v1/plugins", get(plugins))
        .route("/v1/plugins/reload", post(reload_plugins))
        .route("/v1/reload", post(reload))
        .route("/v1/messages", get(captured));
    finish(commands.merge(machine_routes()), operator)
}

/// The routes that need no authentication.
pub(crate) fn public(operator: Arc<dyn Operator>) -> Router {
    finish(machine_routes(), operator)
}

/// The body of a request to reload plugins.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReloadPlugins {
    /// The plugin to reload; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

fn machine_routes() -> Router<Arc<dyn Operator>> {
    Router::new().route("/health", get(health)).route("/ready", get(ready)).route("/metrics", get(metrics))
}

fn finish(router: Router<Arc<dyn Operator>>, operator: Arc<dyn Operator>) -> Router {
    router
        .fallback(no_such_path)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(bounded))
        .with_state(operator)
}

async fn bounded(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    answer.unwrap_or_else(|_| {
        let text = format!("no response within {REQUEST_TIMEOUT:?}; the command may still be carried out");
        OperatorRefusal::Unavailable(text).into_response()
    })
}

async fn no_such_path() -> OperatorRefusal {
    OperatorRefusal::NotFound("there is no such path on this socket".into())
}

/// Liveness: the process responds. For probes that restart it.
async fn health(State(operator): Gateway) -> Json<HealthReport> {
    Json(operator.health().await)
}

/// Readiness: the gateway accepts mail. For probes that direct traffic to it.
async fn ready(State(operator): Gateway) -> (StatusCode, Json<HealthReport>) {
    let health = operator.health().await;
    let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health))
}

async fn metrics(State(operator): Gateway) -> impl IntoResponse {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], operator.metrics())
}

async fn version(State(operator): Gateway) -> impl IntoResponse {
    Json(operator.version())
}

async fn queue(
    State(operator): Gateway,
    RawQuery(text): RawQuery,
) -> Result<impl IntoResponse, OperatorRefusal> {
    let query = read_query(text.as_deref().unwrap_or_default())?;
    Ok(Json(operator.queue(query).await?))
}

async fn message(
    State(operator): Gateway,
    id: Result<Path<QueueId>, PathRejection>,
) -> Result<impl IntoResponse, OperatorRefusal> {
    Ok(Json(operator.message(id?.0).await?))
}

async fn act(
    State(operator): Gateway,
    action: Result<Path<QueueAction>, PathRejection>,
    filter: Result<Json<QueueFilter>, JsonRejection>,
) -> Result<Json<Affected>, OperatorRefusal> {
    let (action, filter) = (action?.0, filter?.0);
    specific(&filter, action.name())?;
    Ok(Json(operator.act(action, filter).await?))
}

async fn reroute(
    State(operator): Gateway,
    order: Result<Json<Reroute>, JsonRejection>,
) -> Result<Json<Affected>, OperatorRefusal> {
    let order = order?.0;
    specific(&order.filter, "reroute")?;
    Ok(Json(operator.reroute(order).await?))
}

fn specific(filter: &QueueFilter, act: &str) -> Result<(), OperatorRefusal> {
    if filter.is_specific() {
        return Ok(());
    }
    Err(OperatorRefusal::Invalid(format!("{act} needs to know which messages: give ids, a filter, or `all`")))
}

async fn quarantine(
    State(operator): Gateway,
    RawQuery(text): RawQuery,
) -> Result<impl IntoResponse, OperatorRefusal> {
    let (sift, page) = read_filtered(text.as_deref().unwrap_or_default())?;
    Ok(Json(operator.quarantine(QuarantineQuery { sift, page }).await?))
}

async fn quarantined(
    State(operator): Gateway,
    id: Result<Path<QueueId>, PathRejection>,
) -> Result<impl IntoResponse, OperatorRefusal> {
    Ok(Json(operator.quarantined(id?.0).await?))
}

async fn leave(
    State(operator): Gateway,
    exit: Result<Path<QuarantineAction>, PathRejection>,
    which: Result<Json<QuarantineOrder>, JsonRejection>,
) -> Result<Json<QuarantineResult>, OperatorRefusal> {
    let (exit, which) = (exit?.0, which?.0);
    if !which.is_specific() {
        return Err(OperatorRefusal::Invalid(format!(
            "{} needs to know which messages: give ids, conditions, or `all`",
            exit.name()
        )));
    }
    Ok(Json(operator.leave(exit, which).await?))
}

/// The query string of a request for a message.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichPart {
    #[serde(default)]
    part: MessagePart,
}

/// Returns the octets of a message. They are streamed, so the size is not limited.
async fn quarantined_message(
    State(operator): Gateway,
    id: Result<Path<QueueId>, PathRejection>,
    RawQuery(text): RawQuery,
) -> Result<Response, OperatorRefusal> {
    let asked: WhichPart = serde_urlencoded::from_str(text.as_deref().unwrap_or_default())
        .map_err(|error| OperatorRefusal::Invalid(format!("the query is malformed: {error}")))?;
    let MessageOctets { head, body } = operator.quarantined_message(id?.0).await?;
    let (head, length) = match asked.part {
        MessagePart::Whole => (head.clone(), head.len() as u64 + body.size()),
        MessagePart::Header => (head.clone(), head.len() as u64),
        MessagePart::Body => (Bytes::new(), body.size()),
    };
    let body = if asked.part == MessagePart::Header { None } else { Some(body) };
    let octets = axum::body::Body::from_stream(octets(head, body));
    let kind = "application/octet-stream".to_owned();
    Ok(([(header::CONTENT_TYPE, kind), (header::CONTENT_LENGTH, length.to_string())], octets).into_response())
}

/// Streams a header block, then a body piece by piece. A read error breaks the connection; the client detects that by
/// the Content-Length.
fn octets(head: Bytes, body: Option<Arc<dyn Body>>) -> impl Stream<Item = io::Result<Bytes>> {
    let rest = futures_util::stream::try_unfold(0, move |offset: u64| {
        let body = body.clone();
        async move {
            let Some(body) = body else { return Ok(None) };
            let piece = body.read(offset, PIECE).await;
            let piece = piece.map_err(|error| io::Error::other(format!("{error:?}")))?;
            let next = offset + piece.len() as u64;
            Ok((!piece.is_empty()).then_some((piece, next)))
        }
    });
    futures_util::stream::once(async { Ok(head) }).chain(rest)
}

async fn plugins(State(operator): Gateway) -> Result<impl IntoResponse, OperatorRefusal> {
    Ok(Json(operator.plugins().await?))
}

async fn reload_plugins(
    State(operator): Gateway,
    which: Result<Json<ReloadPlugins>, JsonRejection>,
) -> Result<impl IntoResponse, OperatorRefusal> {
    Ok(Json(operator.reload_plugins(which?.0.name).await?))
}

async fn reload(State(operator): Gateway) -> Result<impl IntoResponse, OperatorRefusal> {
    Ok(Json(operator.reload().await?))
}

async fn captured(
    State(operator): Gateway,
    RawQuery(text): RawQuery,
) -> Result<impl IntoResponse, OperatorRefusal> {
    let query = read_query(text.as_deref().unwrap_or_default())?;
    if query.filter != QueueFilter::default() {
        return Err(OperatorRefusal::Invalid("captured messages can be paged, not filtered".into()));
    }
    Ok(Json(operator.captured(query.page).await?))
}

/// Splits a query string into filter and page, which are given side by side. `serde(flatten)` could parse both as one
/// type, but it reads every value of a query string as text and then refuses it as a number or a boolean.
fn read_query(text: &str) -> Result<Query, OperatorRefusal> {
    let (filter, page) = read_filtered(text)?;
    Ok(Query { filter, page })
}

fn read_filtered<F: DeserializeOwned>(text: &str) -> Result<(F, PageQuery), OperatorRefusal> {
    let invalid = |error| OperatorRefusal::Invalid(format!("the query is malformed: {error}"));
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(text).map_err(invalid)?;
    let (page, filter) = pairs.into_iter().partition(|(name, _)| matches!(name.as_str(), "after" | "limit"));
    let (page, filter): (PageQuery, F) = (from_pairs(page)?, from_pairs(filter)?);
    if (1..=MAX_LIMIT).contains(&page.limit) {
        Ok((filter, page))
    } else {
        Err(OperatorRefusal::Invalid(format!("limit must be 1 to {MAX_LIMIT}, not {}", page.limit)))
    }
}

fn from_pairs<T: DeserializeOwned>(pairs: Vec<(String, String)>) -> Result<T, OperatorRefusal> {
    let text =
        serde_urlencoded::to_string(pairs).map_err(|error| OperatorRefusal::Invalid(error.to_string()))?;
    serde_urlencoded::from_str(&text)
        .map_err(|error| OperatorRefusal::Invalid(format!("the query is malformed: {error}")))
}

impl IntoResponse for OperatorRefusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self)).into_response()
    }
}

impl From<JsonRejection> for OperatorRefusal {
    fn from(rejection: JsonRejection) -> Self {
        Self::Invalid(rejection.body_text())
    }
}

impl From<PathRejection> for OperatorRefusal {
    fn from(rejection: PathRejection) -> Self {
        Self::Invalid(rejection.body_text())
    }
}
