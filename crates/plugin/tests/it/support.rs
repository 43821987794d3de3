//! Views, plugins and a resolver for the tests.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pintle_dns::{DnsAnswer, DnsError, DnsRecord, DnsRecordKind, Resolver};
use pintle_mail::{
    Address, Bytes, Charset, Envelope, HeaderBlock, MailParams, NextHop, QueueId, Recipient, ReversePath,
    SessionId, TlsPolicy, UnixTime,
};
use pintle_plugin::{ComponentSource, Config, GrantKind, PluginConfig, PluginLimits, Plugins};
use pintle_policy::{Delivery, Judge, Leases, Message, Session, Transaction, View};
use serde_json::Value;

/// Lists 192.0.2.66 and nobody else; 192.0.2.1 is called client.example.
pub(crate) struct Zone;

impl Resolver for Zone {
    fn lookup(&self, name: &str, kind: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        let record = match (name, kind) {
            ("66.2.0.192.list.example", DnsRecordKind::A) => Ok(DnsRecord::A([127, 0, 0, 2].into())),
            ("1.2.0.192.in-addr.arpa", DnsRecordKind::Ptr) => Ok(DnsRecord::Ptr("client.example".into())),
            ("client.example", DnsRecordKind::A) => Ok(DnsRecord::A([192, 0, 2, 1].into())),
            (name, _) if name.ends_with("dead.example") => Err(DnsError::Timeout),
            _ => Err(DnsError::NxDomain),
        };
        let answer = record.map(|record| DnsAnswer { records: vec![record], ttl: Duration::from_secs(60) });
        Box::pin(async move {
            // A real answer takes its time: the guest is suspended meanwhile.
            tokio::task::yield_now().await;
            answer
        })
    }
}

/// The component of a guest of this repository.
pub(crate) fn component(name: &str) -> Bytes {
    let path = pintle_guest_build::component(name).unwrap();
    std::fs::read(path).unwrap().into()
}

/// The unruly plugin with these settings, what its imports and hooks need, and limits that let tests end soon.
pub(crate) fn unruly(settings: Value) -> PluginConfig {
    let source = ComponentSource::Bytes { name: "unruly".into(), bytes: component("unruly") };
    let mut config = PluginConfig::new("unruly", source);
    config.settings = settings;
    config.grants = [
        GrantKind::Kv,
        GrantKind::Dns,
        GrantKind::Auth,
        GrantKind::SenderAuth,
        GrantKind::AuthResults,
        GrantKind::Accept,
    ]
    .into();
    config.limits = limits();
    config
}

/// The plugin `keeper` with these settings and what its imports need.
pub(crate) fn keeper(settings: Value) -> PluginConfig {
    let source = ComponentSource::Bytes { name: "keeper".into(), bytes: component("keeper") };
    let mut config = PluginConfig::new("keeper", source);
    config.settings = settings;
    config.grants = [GrantKind::Kv, GrantKind::Secrets].into();
    config.limits = limits();
    config
}

/// Roomy enough for a loaded machine, tight enough for a test.
pub(crate) fn limits() -> PluginLimits {
    PluginLimits {
        wall: Duration::from_secs(20),
        cpu: Duration::from_secs(1),
        memory: 8 << 20,
        max_instances: 4,
        ..PluginLimits::default()
    }
}

pub(crate) async fn open(plugins: Vec<PluginConfig>) -> Plugins {
    open_with(plugins, Arc::new(Zone)).await
}

pub(crate) async fn open_with(plugins: Vec<PluginConfig>, resolver: Arc<dyn Resolver>) -> Plugins {
    let config = Config { plugins, settle: Duration::from_millis(20), ..Config::default() };
    Plugins::open(config, resolver).await.unwrap()
}

/// The host with one plugin, and its judge.
pub(crate) async fn one(plugin: PluginConfig) -> (Plugins, Arc<dyn Judge>) {
    let plugins = open(vec![plugin]).await;
    let judge = plugins.judges().remove(0);
    (plugins, judge)
}

pub(crate) fn session(client: [u8; 4]) -> View {
    View::of(Session {
        hello: Some("client.example".into()),
        esmtp: true,
        ..Session::new(
            SessionId::new(UnixTime::from_millis(0), 1),
            "mx".into(),
            (client, 1234).into(),
            ([192, 0, 2, 2], 25).into(),
            UnixTime::from_millis(0),
        )
    })
}

/// A transaction with recipients of these local parts, numbered from 0.
pub(crate) fn transaction(locals: &[&str]) -> View {
    let envelope = Envelope {
        sender: ReversePath::parse("ann@example.com", Charset::Ascii).unwrap(),
        params: MailParams::default(),
        recipients: locals.iter().enumerate().map(recipient).collect(),
    };
    let mut view = session([192, 0, 2, 1]);
    let id = QueueId::new(UnixTime::from_millis(0), 2);
    view.transaction = Some(Arc::new(Transaction::new(id, envelope)));
    view
}

fn recipient((id, local): (usize, &&str)) -> Recipient {
    Recipient::new(
        u32::try_from(id).unwrap(),
        Address::parse(&format!("{local}@example.org"), Charset::Ascii).unwrap(),
    )
}

pub(crate) const HEADER: &str = "Subject: old subject\r\nX-Old: 1\r\nFrom: ann@example.com\r\nX-old: 2\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n";
pub(crate) const BODY: &str = "--b\r\nContent-Type: text/plain\r\n\r\nhello world\r\n\
    --b\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>\r\n--b--\r\n";

/// A message for two recipients.
pub(crate) fn message() -> View {
    let header = HeaderBlock::parse(Bytes::from_static(HEADER.as_bytes()));
    let body = Arc::new(Bytes::from_static(BODY.as_bytes()));
    let mut view = transaction(&["bob", "carol"]);
    view.message = Some(Arc::new(Message::new(header, Some(body))));
    view
}

/// A delivery to the first of them.
pub(crate) fn delivery() -> View {
    let mut view = message();
    view.delivery = Some(Arc::new(Delivery {
        attempt: 1,
        age: Duration::ZERO,
        recipients: vec![recipient((0, &"bob"))],
        next_hop: NextHop::Mx("example.org".into()),
        unlisted: false,
        tls_asked: None,
        tls: TlsPolicy::Opportunistic,
        source: None,
        credentials: None,
        retry_after: None,
        no_bounce: Vec::new(),
        leases: Leases::default(),
    }));
    view
}
