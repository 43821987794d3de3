//! The gateway under test: the receiving side with a spool in memory, and judges that decide as a test requires.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;

use pintle_inbound::{
    AuthOffer, Boundless, Config, Inbound, InboundParts, ListenerConfig, LoginLimits, Quarantines, Rules,
    SessionLimits, StoredPassword, StrangerLimits, TlsMode, Users,
};
use pintle_mail::{EnhancedCode, Reply};
use pintle_policy::{Call, Chain, Edit, Fate, Hook, Hooks, Judge, Ruling, Verdict, View};
use pintle_record::{Record, RecordSink};
use pintle_smtp::Extension;
use pintle_smtp::server;
use pintle_spool::{Memory, Spool, Stored};
use pintle_testkit::{Client, TestCa};
use pintle_tls::{CertificateSource, ServerConfig, ServerTls};

/// A gateway without its delivering side.
pub(crate) struct Gate {
    pub(crate) inbound: Inbound,
    pub(crate) spool: Arc<Memory>,
    pub(crate) records: Arc<Kept>,
    pub(crate) ca: TestCa,
}

/// Keeps records for tests, and does what a test wants when one is written.
#[derive(Default)]
pub(crate) struct Kept(pub(crate) Mutex<Vec<Record>>, pub(crate) OnceLock<OnRecord>);

/// What a test does when a record is written.
pub(crate) type OnRecord = Box<dyn Fn(&Record) + Send + Sync>;

impl RecordSink for Kept {
    fn record(&self, record: &Record) {
        self.0.lock().unwrap().push(record.clone());
        if let Some(act) = self.1.get() {
            act(record);
        }
    }
}

/// A judge made from a function.
pub(crate) struct Says<F> {
    name: Arc<str>,
    hook: Hook,
    rule: F,
}

impl<F: Fn(&Call, &View) -> Ruling + Send + Sync + 'static> Judge for Says<F> {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn hooks(&self) -> Hooks {
        Hooks::NONE.with(self.hook)
    }

    fn judge(&self, call: Call, view: View) -> BoxFuture<'_, Ruling> {
        // A judge that is not ready at once makes the session flush its replies and wait.
        Box::pin(async move {
            tokio::task::yield_now().await;
            (self.rule)(&call, &view)
        })
    }
}

pub(crate) fn says(
    hook: Hook,
    rule: impl Fn(&Call, &View) -> Ruling + Send + Sync + 'static,
) -> Arc<dyn Judge> {
    Arc::new(Says { name: "test".into(), hook, rule })
}

pub(crate) fn verdict(hook: Hook, verdict: Verdict) -> Arc<dyn Judge> {
    says(hook, move |_, _| verdict.clone().into())
}

pub(crate) fn edits(hook: Hook, edits: Vec<Edit>) -> Arc<dyn Judge> {
    says(hook, move |_, _| Ruling { verdict: Verdict::Next, edits: edits.clone(), fault: None })
}

/// Requests that the mail be held in this quarantine, for these recipients or all.
pub(crate) fn hold(hook: Hook, recipients: &[u32], name: &str) -> Edit {
    let fate = Fate::Quarantine { name: name.to_owned(), reason: "as the test wants".to_owned() };
    Edit::Fate { recipients: recipients.to_vec(), fate, hook }
}

/// Requests that these recipients be refused.
pub(crate) fn refuse(recipients: &[u32]) -> Edit {
    let fate = Fate::Refuse(Reply::new(550, EnhancedCode(5, 7, 1), "not for me"));
    Edit::Fate { recipients: recipients.to_vec(), fate, hook: Hook::Message }
}

pub(crate) fn discard(recipients: &[u32]) -> Edit {
    Edit::Fate { recipients: recipients.to_vec(), fate: Fate::Discard, hook: Hook::Message }
}

pub(crate) fn listener(tls: TlsMode) -> ListenerConfig {
    let mut smtp = server::Config { hostname: "gate.example".to_owned(), ..server::Config::default() };
    if tls == TlsMode::StartTls {
        smtp = smtp.with(Extension::StartTls);
    }
    ListenerConfig {
        name: "mx".to_owned(),
        addresses: vec!["127.0.0.1:0".parse().unwrap()],
        tls,
        auth: AuthOffer::Offered,
        trusted: Vec::new(),
        limits: SessionLimits::default(),
        strangers: StrangerLimits::default(),
        handshake_timeout: Duration::from_secs(60),
        smtp: Arc::new(smtp.with(Extension::Auth)),
        completes_header: false,
    }
}

pub(crate) fn gate(listener: ListenerConfig, judges: Vec<Arc<dyn Judge>>) -> Gate {
    gate_with(listener, judges, Arc::new(Boundless))
}

pub(crate) fn gate_with(
    listener: ListenerConfig,
    judges: Vec<Arc<dyn Judge>>,
    quarantines: Arc<dyn Quarantines>,
) -> Gate {
    gate_under(listener, judges, quarantines, |_| {})
}

/// A gateway whose rules are changed before it starts.
pub(crate) fn gate_under(
    listener: ListenerConfig,
    judges: Vec<Arc<dyn Judge>>,
    quarantines: Arc<dyn Quarantines>,
    change: impl FnOnce(&mut Rules),
) -> Gate {
    let ca = TestCa::new();
    let folder = pintle_testkit::TempDir::new().unwrap();
    let leaf = ca.issue(&["gate.example"]).write(folder.path(), "gate");
    let certificates = vec![CertificateSource::Files { chain: leaf.chain, key: leaf.key }];
    let tls = ServerTls::load(&ServerConfig {
        certificates,
        client_certificates: pintle_tls::ClientCertificates::Ignore,
    })
    .unwrap();
    let spool = Arc::new(Memory::new());
    let records = Arc::new(Kept::default());
    let mut rules = Rules {
        domains: pintle_mail::Domains::new(["ours.example", ".ours.example"]),
        users: Users::new(HashMap::from([("ann".to_owned(), StoredPassword::Plain("secret".to_owned()))])),
        logins: LoginLimits { delay: Duration::ZERO, max_failures: 4, ..LoginLimits::default() },
        ..Rules::default()
    };
    change(&mut rules);
    let config = Config { hostname: "gate.example".to_owned(), listeners: vec![listener], rules };
    let parts = InboundParts {
        sockets: None,
        spool: Arc::clone(&spool) as Arc<dyn Spool>,
        chain: Arc::new(ArcSwap::from_pointee(Chain::new(judges))),
        records: Arc::clone(&records) as Arc<dyn RecordSink>,
        quarantines,
        tls: Some(Arc::new(tls)),
    };
    let inbound = Inbound::start(config, parts).unwrap();
    Gate { inbound, spool, records, ca }
}

impl Gate {
    pub(crate) fn address(&self) -> SocketAddr {
        self.inbound.addresses()[0].1
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// Returns the only message in the spool, if there is one, with its header and body as text.
    pub(crate) async fn only(&self) -> Option<(Stored, String, String)> {
        let waiting = self.spool.claim(None, 10).await.unwrap();
        assert!(waiting.len() <= 1);
        let stored = self.spool.load(waiting.first()?.id).await.unwrap();
        let head = String::from_utf8(stored.head.to_vec()).unwrap();
        let body = stored.body.read(0, 1 << 20).await.unwrap();
        Some((stored, head, String::from_utf8(body.to_vec()).unwrap()))
    }

    /// Returns all messages in the spool with the local parts of their recipients, in the order of their commits.
    pub(crate) async fn stored(&self) -> Vec<(Stored, Vec<String>)> {
        let mut all = Vec::new();
        for waiting in self.spool.claim(None, 10).await.unwrap() {
            let stored = self.spool.load(waiting.id).await.unwrap();
            let local = |r: &pintle_mail::Recipient| r.address.local().into_owned();
            let recipients = stored.entry.envelope.recipients.iter().map(local).collect();
            all.push((stored, recipients));
        }
        all
    }

    pub(crate) fn events(&self) -> Vec<&'static str> {
        self.records.0.lock().unwrap().iter().map(Record::event).collect()
    }
}

pub(crate) const MESSAGE: &[u8] = b"Subject: one\r\nX-Keep: as  it\r\n  was\r\n\r\nfirst\r\n..dots\r\n";
