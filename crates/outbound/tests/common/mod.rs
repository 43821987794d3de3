//! The surroundings of outbound in a test: a spool in memory, DNS from a map, a clock that stands still until a test moves
//! it, and a log of all event records.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate of its own and uses its part of the world"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use pintle_mail::{
    Address, Charset, Envelope, MailParams, QueueId, Recipient, ReversePath, SessionId, UnixTime,
};
use pintle_outbound::{Clock, Config, Endpoint, Handle, Outbound, OutboundParts, Relay, Route, RouteTable};
use pintle_policy::{Frozen, Leases, Notes, Session, Transaction};
use pintle_queue::Snapshot;
use pintle_record::{Record, RecordSink as Records};
use pintle_spool::{Content, Entry, HoldReason, Memory, NewMessage, Spool};
use pintle_testkit::{StaticResolver, TestCa, within};
use pintle_tls::{ClientConfig, ClientTls, Roots};
use tokio::sync::watch;

/// When every world begins.
pub const START: UnixTime = UnixTime::from_millis(1_795_317_000_000);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// Clocks that a test moves.
#[derive(Clone)]
pub struct FakeClock(watch::Sender<Hands>);

/// The state of both clocks.
#[derive(Clone, Copy)]
struct Hands {
    wall: UnixTime,
    passed: Duration,
    /// Reading them panics.
    broken: bool,
}

impl FakeClock {
    pub fn new() -> Self {
        Self(watch::Sender::new(Hands { wall: START, passed: Duration::ZERO, broken: false }))
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|hands| {
            hands.wall = hands.wall.plus(by);
            hands.passed += by;
        });
    }

    /// Sets the wall clock, ahead or back; no time passes.
    pub fn set(&self, by_millis: i64) {
        self.0.send_modify(|hands| hands.wall = UnixTime::from_millis(hands.wall.millis() + by_millis));
    }

    /// From now on reading it panics.
    pub fn break_down(&self) {
        self.0.send_modify(|hands| hands.broken = true);
    }

    fn read(&self) -> Hands {
        let hands = *self.0.borrow();
        assert!(!hands.broken, "the clock is broken, as the test wants it");
        hands
    }
}

impl Clock for FakeClock {
    fn now(&self) -> UnixTime {
        self.read().wall
    }

    fn monotonic(&self) -> Duration {
        self.read().passed
    }

    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        let mut time = self.0.subscribe();
        let at = time.borrow().passed + wait;
        Box::pin(async move {
            // A clock that is gone wakes no task.
            if time.wait_for(|hands| hands.passed >= at).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

/// Everything that was recorded, in order.
#[derive(Clone)]
pub struct Log(watch::Sender<Vec<Record>>);

impl Records for Log {
    fn record(&self, record: &Record) {
        self.0.send_modify(|records| records.push(record.clone()));
    }
}

impl Log {
    pub fn all(&self) -> Vec<Record> {
        self.0.borrow().clone()
    }

    /// Waits until `n` records of this event are there, and returns them.
    pub async fn wait_for(&self, event: &str, n: usize) -> Vec<Record> {
        let these = |records: &Vec<Record>| -> Vec<Record> {
            records.iter().filter(|record| record.event() == event).cloned().collect()
        };
        let mut changes = self.0.subscribe();
        let waiting = changes.wait_for(|records| these(records).len() >= n);
        let found = tokio::time::timeout(pintle_testkit::PATIENCE, waiting).await;
        match found {
            Ok(records) => these(&records.expect("the log lives")),
            Err(_) => panic!("waited in vain for {n} × {event}; so far: {:#?}", self.all()),
        }
    }

    pub fn count(&self, event: &str) -> usize {
        self.0.borrow().iter().filter(|record| record.event() == event).count()
    }
}

/// Outbound and all around it.
pub struct World {
    pub outbound: Outbound,
    pub handle: Handle,
    pub engine: Arc<Memory>,
    pub clock: FakeClock,
    pub log: Log,
    numbers: AtomicU64,
}

impl World {
    pub fn start(config: Config, resolver: StaticResolver) -> Self {
        Self::start_with(config, resolver, |_| {})
    }

    pub fn start_with(
        config: Config,
        resolver: StaticResolver,
        change: impl FnOnce(&mut OutboundParts),
    ) -> Self {
        Self::over(Arc::new(Memory::new()), config, resolver, change)
    }

    /// A world over a spool that exists already, as after a restart.
    pub fn over(
        engine: Arc<Memory>,
        config: Config,
        resolver: StaticResolver,
        change: impl FnOnce(&mut OutboundParts),
    ) -> Self {
        Self::under(FakeClock::new(), engine, config, resolver, change)
    }

    /// The same, under this clock.
    pub fn under(
        clock: FakeClock,
        engine: Arc<Memory>,
        config: Config,
        resolver: StaticResolver,
        change: impl FnOnce(&mut OutboundParts),
    ) -> Self {
        let log = Log(watch::Sender::new(Vec::new()));
        let spool = Arc::clone(&engine) as Arc<dyn Spool>;
        let mut parts = OutboundParts::new(spool, Arc::new(resolver), no_verification());
        parts.clock = Arc::new(clock.clone());
        parts.records = Arc::new(log.clone());
        change(&mut parts);
        let outbound = Outbound::start(config, parts);
        Self { handle: outbound.handle(), outbound, engine, clock, log, numbers: AtomicU64::new(1) }
    }

    /// Commits a plain message from anna@sender.example.
    pub async fn mail(&self, recipients: &[&str]) -> QueueId {
        self.commit(message_to(recipients)).await
    }

    pub async fn commit(&self, message: TestMessage) -> QueueId {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let id = QueueId::new(self.clock.now(), u128::from(number));
        let message = message.message(id, self.clock.now());
        self.outbound.spool().commit(message).await.unwrap();
        id
    }

    /// The time by the wall clock.
    pub fn clock_now(&self) -> UnixTime {
        self.clock.now()
    }

    /// Waits until the runner has seen everything before this call.
    pub async fn settled(&self) {
        self.queue().await;
    }

    /// The jobs in the queue, in numbers.
    pub async fn queue(&self) -> Snapshot {
        self.handle.queue_snapshot().await.unwrap()
    }

    /// Waits until no attempt is under way and everything before this call has been seen by the queue.
    pub async fn calm(&self) {
        within("the queue to be calm", async {
            while self.queue().await.trying > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Waits until the spool is empty.
    pub async fn empty(&self) {
        within("the spool to be empty", async {
            while self.engine.totals().await.unwrap().messages > 0 {
                self.settled().await;
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// A message to be committed.
#[derive(Clone)]
pub struct TestMessage {
    pub sender: ReversePath,
    pub params: MailParams,
    pub recipients: Vec<Recipient>,
    pub head: &'static str,
    pub body: String,
    pub smtputf8: bool,
    pub hold: Option<HoldReason>,
}

pub fn message_to(recipients: &[&str]) -> TestMessage {
    let recipients = (0..).zip(recipients).map(|(id, text)| recipient(id, text));
    TestMessage {
        sender: ReversePath::parse("anna@sender.example", Charset::Ascii).unwrap(),
        params: MailParams::default(),
        recipients: recipients.collect(),
        head: "From: anna@sender.example\r\nSubject: hello\r\n\r\n",
        body: "A line.\r\n.A line with a dot.\r\n".into(),
        smtputf8: false,
        hold: None,
    }
}

pub fn recipient(id: u32, text: &str) -> Recipient {
    Recipient::new(id, Address::parse(text, Charset::Utf8).unwrap())
}

impl TestMessage {
    pub fn text(&self) -> String {
        format!("{}{}", self.head, self.body)
    }

    pub fn message(self, id: QueueId, received: UnixTime) -> NewMessage {
        NewMessage {
            id,
            head: self.head.into(),
            entry: Entry {
                envelope: Envelope { sender: self.sender, params: self.params, recipients: self.recipients },
                received,
                parent: None,
                hold: self.hold,
                released: None,
                has_8bit: !self.body.is_ascii() || !self.head.is_ascii(),
                needs_smtputf8: self.smtputf8,
                context: context(id),
            },
            content: Content::from(bytes::Bytes::from(self.body)),
        }
    }
}

/// What the receiving side knew of the stranger who sent it.
pub fn context(id: QueueId) -> bytes::Bytes {
    let session = Session {
        id: SessionId::new(START, 4),
        listener: "mx".into(),
        client: ([192, 0, 2, 1], 1).into(),
        local: ([192, 0, 2, 2], 25).into(),
        started: START,
        hello: Some("client.example".into()),
        esmtp: true,
        tls: None,
        identity: None,
        trusted: false,
        extensions: Vec::new(),
        notes: Notes::default(),
        facts: std::collections::BTreeMap::new(),
        leases: Leases::default(),
    };
    let envelope =
        Envelope { sender: ReversePath::Null, params: MailParams::default(), recipients: Vec::new() };
    let mut transaction = Transaction::new(id, envelope);
    transaction.facts.insert("listed".into(), "no".into());
    Frozen::of(&session, &transaction).to_bytes()
}

/// A configuration without chance in it.
pub fn config() -> Config {
    let mut config = Config::new("gate.example.org");
    config.retry.jitter = 0;
    config
}

/// Everything goes by MX, and exchangers may be on this machine.
pub fn by_mx(port: u16) -> Config {
    let mut config = config();
    config.mx.port = port;
    config.mx.networks = vec!["127.0.0.0/8".parse().unwrap()];
    // Reports go nowhere, so that the records are about the message alone.
    config.routes.add("sender.example", Route::Discard);
    config
}

/// Everything goes to this relay.
pub fn to_relay(addresses: &[SocketAddr]) -> Config {
    with_relay(relay(addresses))
}

pub fn with_relay(relay: Relay) -> Config {
    let mut config = config();
    config.routes = RouteTable::new(Route::Relay("next".into()));
    config.relays.insert("next".into(), relay);
    config
}

pub fn relay(addresses: &[SocketAddr]) -> Relay {
    let endpoint =
        |address: &SocketAddr| Endpoint::Tcp { host: address.ip().to_string(), port: address.port() };
    Relay::new(addresses.iter().map(endpoint).collect())
}

pub fn no_verification() -> ClientTls {
    trusting(&TestCa::new())
}

pub fn trusting(ca: &TestCa) -> ClientTls {
    let folder = pintle_testkit::TempDir::new().unwrap();
    let roots = Roots::File(ca.write(folder.path()));
    ClientTls::load(&ClientConfig { roots }).unwrap()
}

/// A port of 127.0.0.1 at which no process listens.
pub async fn nobody() -> SocketAddr {
    let sink = pintle_testkit::Sink::start(pintle_testkit::Script::new()).await;
    let address = sink.address();
    sink.stop().await;
    address
}
