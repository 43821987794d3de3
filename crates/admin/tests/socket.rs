//! The admin socket in front of a fake gateway: what is sent, who may listen, and who is refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pintle_admin::wire::*;
use pintle_admin::{
    AdminClient, BindError, ClientError, Config, MessageOctets, MessagePart, Operator, OperatorFuture,
    QuarantineAction, QuarantineFilter, QuarantineOrder, QuarantineOutcome, QuarantinePage, QuarantineQuery,
    QuarantineResult, Quarantined, Server,
};
use pintle_mail::{Bytes, QueueId, UnixTime};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[derive(Default)]
struct Pretender {
    ready: bool,
    entries: Vec<QueueEntry>,
    acts: Mutex<Vec<(QueueAction, QueueFilter)>>,
    sifted: Mutex<Vec<QuarantineQuery>>,
}

const HEAD: &str = "Subject: \u{fc}ber\r\n\r\n";

/// Every octet value, more than one piece in all.
fn octets() -> Vec<u8> {
    (0..=255).cycle().take(1_000_003).collect()
}

fn id(n: u128) -> QueueId {
    QueueId::new(UnixTime::from_millis(1_000), n)
}

fn entry(n: u128, sender: &str, hold: Option<&str>) -> QueueEntry {
    QueueEntry {
        id: id(n),
        received_ms: UnixTime::from_millis(1_000),
        expires_ms: Some(UnixTime::from_millis(9_000)),
        size: 123,
        sender: serde_json::from_value(sender.into()).unwrap(),
        hold: hold.map(Into::into),
        parent: None,
        recipients: vec![],
    }
}

impl Operator for Pretender {
    fn version(&self) -> Version {
        Version {
            version: "1.2.3".into(),
            pid: 7,
            started_ms: UnixTime::from_millis(5),
            hostname: "gw.example".into(),
        }
    }

    fn health(&self) -> BoxFuture<'_, HealthReport> {
        let ready = self.ready;
        async move { HealthReport { ready, degraded: false, components: vec![] } }.boxed()
    }

    fn metrics(&self) -> String {
        "pintle_messages_total 3\n".into()
    }

    fn queue(&self, query: Query) -> OperatorFuture<'_, QueuePage> {
        let after = query.page.after;
        let passing = self.entries.iter().filter(|entry| query.filter.admits(entry));
        let messages: Vec<_> = passing.filter(|entry| Some(entry.id) > after).cloned().collect();
        let next = messages.get(query.page.limit.saturating_sub(1)).map(|entry| entry.id);
        let messages = messages.into_iter().take(query.page.limit).collect();
        async move { Ok(QueuePage { messages, next }) }.boxed()
    }

    fn message(&self, id: QueueId) -> OperatorFuture<'_, QueueEntry> {
        let found = self.entries.iter().find(|entry| entry.id == id).cloned();
        async move { found.ok_or_else(|| OperatorRefusal::NotFound(format!("no message {id} in the queue"))) }
            .boxed()
    }

    fn act(&self, action: QueueAction, filter: QueueFilter) -> OperatorFuture<'_, Affected> {
        let ids = filter.ids.clone();
        self.acts.lock().unwrap().push((action, filter));
        async move { Ok(Affected { ids, spared: vec![] }) }.boxed()
    }

    fn reroute(&self, order: Reroute) -> OperatorFuture<'_, Affected> {
        let why = order.via.unwrap_or_default();
        let spared = order.filter.ids.iter().map(|id| Spared { id: *id, why: why.clone() }).collect();
        async move { Ok(Affected { ids: vec![], spared }) }.boxed()
    }

    fn quarantine(&self, query: QuarantineQuery) -> OperatorFuture<'_, QuarantinePage> {
        self.sifted.lock().unwrap().push(query);
        async { Ok(QuarantinePage::default()) }.boxed()
    }

    fn quarantined(&self, id: QueueId) -> OperatorFuture<'_, Quarantined> {
        async move { Err(OperatorRefusal::NotFound(format!("no message {id}"))) }.boxed()
    }

    fn quarantined_message(&self, id: QueueId) -> OperatorFuture<'_, MessageOctets> {
        let whole = MessageOctets { head: HEAD.into(), body: Arc::new(Bytes::from(octets())) };
        let found = self.entries.iter().any(|entry| entry.id == id);
        async move { if found { Ok(whole) } else { Err(OperatorRefusal::NotFound(format!("no message {id}"))) } }
            .boxed()
    }

    fn leave(&self, exit: QuarantineAction, which: QuarantineOrder) -> OperatorFuture<'_, QuarantineResult> {
        let leaver =
            |id: &QueueId| QuarantineOutcome { id: *id, done: exit == QuarantineAction::Release, why: None };
        let messages = which.ids.iter().map(leaver).collect();
        async move { Ok(QuarantineResult { messages, next: which.after }) }.boxed()
    }

    fn plugins(&self) -> OperatorFuture<'_, Vec<PluginState>> {
        async { Ok(vec![]) }.boxed()
    }

    fn reload_plugins(&self, name: Option<String>) -> OperatorFuture<'_, Vec<PluginState>> {
        async move { Err(OperatorRefusal::NotFound(format!("no plugin {}", name.unwrap_or_default()))) }
            .boxed()
    }

    fn reload(&self) -> OperatorFuture<'_, Reloaded> {
        async { Err(OperatorRefusal::Failed("line 3: unknown key".into())) }.boxed()
    }

    fn captured(&self, page: PageQuery) -> OperatorFuture<'_, CapturedPage> {
        async move { Ok(CapturedPage { messages: vec![], next: page.after }) }.boxed()
    }
}

struct Running {
    folder: TempDir,
    http: Option<std::net::SocketAddr>,
    operator: Arc<Pretender>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(operator: Pretender) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config =
            Config { socket: folder.path().join("admin.sock"), http: Some("127.0.0.1:0".parse().unwrap()) };
        let operator = Arc::new(operator);
        let server = Server::bind(&config, Arc::clone(&operator) as Arc<dyn Operator>).await.unwrap();
        let http = server.http_address();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.serve(async { drop(stopped.await) }));
        Self { folder, http, operator, stop, task }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    async fn client(&self) -> AdminClient {
        AdminClient::connect(&self.socket()).await.unwrap()
    }

    async fn stop(self) -> TempDir {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
        self.folder
    }
}

async fn raw(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_message_in_quarantine_is_handed_over_octet_by_octet() {
    let entries = vec![entry(1, "anna@example.org", None)];
    let running = Running::start(Pretender { entries, ..Pretender::default() }).await;
    let client = running.client().await;
    let whole = [HEAD.as_bytes(), &octets()].concat();
    for (part, expected) in [
        (MessagePart::Whole, whole),
        (MessagePart::Header, HEAD.as_bytes().to_vec()),
        (MessagePart::Body, octets()),
    ] {
        let mut got = Vec::new();
        let mut take = |octets: &[u8]| {
            got.extend_from_slice(octets);
            ControlFlow::Continue(())
        };
        client.quarantined_message(id(1), part, &mut take).await.unwrap();
        assert!(got == expected, "{part:?}: {} octets", got.len());
    }
    let mut pieces = 0;
    let mut enough = |_: &[u8]| {
        pieces += 1;
        ControlFlow::Break(())
    };
    client.quarantined_message(id(1), MessagePart::Whole, &mut enough).await.unwrap();
    let refused = client.quarantined_message(id(2), MessagePart::Whole, &mut enough).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused(OperatorRefusal::NotFound(_))), "{refused}");
    assert_eq!(pieces, 1);
}

#[tokio::test]
async fn quarantines_are_sifted_and_left() {
    let running = Running::start(Pretender::default()).await;
    let client = running.client().await;
    let sift =
        QuarantineFilter { name: Some("a&b".into()), older_than_ms: Some(5), ..QuarantineFilter::default() };
    let query = QuarantineQuery { sift, page: PageQuery { after: Some(id(3)), limit: 7 } };
    client.quarantine(&query).await.unwrap();
    assert_eq!(*running.operator.sifted.lock().unwrap(), [query]);
    let which = QuarantineOrder { ids: vec![id(1)], user: Some("anna".into()), ..QuarantineOrder::default() };
    for (exit, done) in [(QuarantineAction::Release, true), (QuarantineAction::Delete, false)] {
        let left = client.leave(exit, &which).await.unwrap();
        assert_eq!(left.messages, [QuarantineOutcome { id: id(1), done, why: None }]);
    }
    let refused = client.leave(QuarantineAction::Delete, &QuarantineOrder::default()).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused(OperatorRefusal::Invalid(_))), "{refused}");
}

#[tokio::test]
async fn the_queue_is_listed_by_page_and_by_filter() {
    let entries = vec![
        entry(1, "anna@example.org", None),
        entry(2, "ben@example.org", Some("quarantine spam")),
        entry(3, "anna@example.org", None),
    ];
    let running = Running::start(Pretender { entries: entries.clone(), ..Pretender::default() }).await;
    let client = running.client().await;
    let mut query = Query::default();
    assert_eq!(client.queue(&query).await.unwrap().messages, entries);
    query.page.limit = 1;
    let first = client.queue(&query).await.unwrap();
    assert_eq!((first.messages.len(), first.next), (1, Some(id(1))));
    query.page.after = first.next;
    assert_eq!(client.queue(&query).await.unwrap().messages, entries[1..2]);
    let held = Query {
        filter: QueueFilter { held: Some(true), ..QueueFilter::default() },
        page: PageQuery::default(),
    };
    assert_eq!(client.queue(&held).await.unwrap().messages, entries[1..2]);
    assert_eq!(client.message(id(3)).await.unwrap(), entries[2]);
    running.stop().await;
}

#[tokio::test]
async fn commands_reach_the_operator_and_refusals_come_back() {
    let running = Running::start(Pretender::default()).await;
    let client = running.client().await;
    let affected = client.act(QueueAction::Bounce, &QueueFilter::id(id(4))).await.unwrap();
    assert_eq!(affected.ids, [id(4)]);
    let acts = running.operator.acts.lock().unwrap().clone();
    assert_eq!(acts, [(QueueAction::Bounce, QueueFilter::id(id(4)))]);
    let order = Reroute { filter: QueueFilter::id(id(4)), via: Some("relay:other".into()) };
    assert_eq!(
        client.reroute(&order).await.unwrap().spared,
        [Spared { id: id(4), why: "relay:other".into() }]
    );
    let refusal = client.reroute(&Reroute::default()).await.unwrap_err();
    assert!(matches!(&refusal, ClientError::Refused(OperatorRefusal::Invalid(_))), "{refusal}");
    let refusal = client.message(id(9)).await.unwrap_err();
    assert!(
        matches!(&refusal, ClientError::Refused(OperatorRefusal::NotFound(text)) if text.contains("no message"))
    );
    let refusal = client.reload().await.unwrap_err();
    assert!(
        matches!(&refusal, ClientError::Refused(OperatorRefusal::Failed(text)) if text == "line 3: unknown key")
    );
    let refusal = client.reload_plugins(Some("x".into())).await.unwrap_err();
    assert_eq!(refusal.to_string(), "no plugin x");
    assert_eq!(client.version().await.unwrap().hostname, "gw.example");
    assert_eq!(client.plugins().await.unwrap(), []);
    let answer = raw(UnixStream::connect(running.socket()).await.unwrap(), &get("/v1/messages")).await;
    assert!(answer.ends_with(r#"{"messages":[],"next":null}"#), "{answer}");
    running.stop().await;
}

#[tokio::test]
async fn a_command_that_names_no_message_is_refused() {
    let running = Running::start(Pretender::default()).await;
    let client = running.client().await;
    let refusal = client.act(QueueAction::Bounce, &QueueFilter::default()).await.unwrap_err();
    assert!(matches!(refusal, ClientError::Refused(OperatorRefusal::Invalid(_))));
    let all = QueueFilter { all: true, ..QueueFilter::default() };
    assert!(client.act(QueueAction::Retry, &all).await.is_ok());
    running.stop().await;
}

#[tokio::test]
async fn nonsense_is_refused_with_a_reason() {
    let running = Running::start(Pretender::default()).await;
    for (path, status, reason) in [
        ("/v1/queue?limit=0", "400", "limit must be 1 to 1000"),
        ("/v1/queue?sendr=a", "400", "sendr"),
        ("/v1/queue?ids=abc", "400", "not a queue id"),
        ("/v1/queue/abc", "400", "26 letters"),
        ("/v1/messages?held=true", "400", "not filtered"),
        ("/v2", "404", "no such path"),
    ] {
        let answer = raw(UnixStream::connect(running.socket()).await.unwrap(), &get(path)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains(reason), "{path}: {answer}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_body_too_large_is_refused() {
    let running = Running::start(Pretender::default()).await;
    let body = format!(r#"{{"sender": "{}"}}"#, "a".repeat(66_000));
    let request = format!(
        "POST /v1/queue/hold HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = raw(UnixStream::connect(running.socket()).await.unwrap(), &request).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("length limit"), "{answer}");
    assert!(running.operator.acts.lock().unwrap().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn over_tcp_there_is_health_and_metrics_and_nothing_else() {
    let running = Running::start(Pretender { ready: true, ..Pretender::default() }).await;
    for (path, status) in [("/health", "200"), ("/ready", "200"), ("/metrics", "200"), ("/v1/queue", "404")] {
        let stream = TcpStream::connect(running.http.unwrap()).await.unwrap();
        let answer = raw(stream, &get(path)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    let answer = raw(UnixStream::connect(running.socket()).await.unwrap(), &get("/metrics")).await;
    assert!(answer.ends_with("\r\n\r\npintle_messages_total 3\n"), "{answer}");
    running.stop().await;
}

#[tokio::test]
async fn alive_and_ready_are_two_things() {
    let running = Running::start(Pretender::default()).await;
    let ready = raw(UnixStream::connect(running.socket()).await.unwrap(), &get("/ready")).await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    assert!(!running.client().await.health().await.unwrap().ready);
    running.stop().await;
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_goes_with_the_gateway() {
    let running = Running::start(Pretender::default()).await;
    let mode = std::fs::metadata(running.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let socket = running.socket();
    let _folder = running.stop().await;
    assert!(!socket.exists());
    let error = AdminClient::connect(&socket).await.unwrap_err();
    let expected = format!("no gateway is running at {}", socket.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
}

async fn bind(path: &Path) -> Result<Server, BindError> {
    let config = Config { socket: path.to_owned(), http: None };
    Server::bind(&config, Arc::new(Pretender::default())).await
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_living_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a listener of the standard library leaves its file behind");
    let living = bind(&path).await.unwrap();
    assert!(matches!(bind(&path).await, Err(BindError::InUse(_))));
    drop(living);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&path).await, Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let missing = bind(&folder.path().join("nowhere/admin.sock")).await;
    assert!(matches!(missing, Err(BindError::Socket { .. })));
}

#[tokio::test]
async fn a_silent_connection_does_not_keep_the_gateway_from_ending() {
    let running = Running::start(Pretender::default()).await;
    let silent = UnixStream::connect(running.socket()).await.unwrap();
    running.stop().await;
    drop(silent);
}

/// Every route is documented in operations.md, and no other path is.
#[test]
fn the_paths_are_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = std::fs::read_to_string(root.join("src/routes.rs")).unwrap();
    let page = std::fs::read_to_string(root.join("../../docs/operations.md")).unwrap();
    let served: Vec<&str> = code
        .match_indices(".route(\"")
        .map(|(at, lead)| code[at + lead.len()..].split('"').next().unwrap())
        .collect();
    assert!(served.len() > 10, "{served:?}");
    // A pattern that stands for an id and an action in the code is documented as separate paths.
    let (wide, plain): (Vec<&str>, Vec<&str>) = served.into_iter().partition(|path| path.contains("{what}"));
    for path in &plain {
        assert!(page.contains(&format!("`{path}`")) || page.contains(&format!(" {path}`")), "{path}");
    }
    for path in &wide {
        let told = path.replace("{what}", "ID");
        assert!(page.contains(&told), "{told}");
    }
    for action in [QueueAction::Retry, QueueAction::Hold, QueueAction::Release, QueueAction::Bounce] {
        assert!(page.contains(&format!("/v1/queue/{}", action.name())), "{action:?}");
    }
    for exit in [QuarantineAction::Release, QuarantineAction::Delete] {
        assert!(page.contains(&format!("/v1/quarantine/{}", exit.name())), "{exit:?}");
    }
}
