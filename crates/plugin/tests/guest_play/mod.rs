//! A hostile guest in the real host: shared by the fuzz target and the test that replays its seeds.
//!
//! [`play`] has the guest of [`component`] call host functions as a plan says, and panics as soon as the host breaks a
//! promise: an edit that no grant allows or that could not be made, text that would leave its place, an edit beside a fault,
//! a host that serves no more.

#![allow(unreachable_pub, reason = "public to the binaries that include it, which the lint cannot see")]
#![allow(clippy::unwrap_used, reason = "a broken promise is a failed test")]

pub mod component;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use pintle_dns::{DnsAnswer, DnsError, DnsRecordKind, Resolver};
use pintle_mail::{
    Address, Bytes, Charset, Envelope, HeaderBlock, MailParams, NextHop, QueueId, Recipient, Reply,
    ReversePath, SessionId, TlsPolicy, UnixTime,
};
use pintle_plugin::{
    ComponentSource, Config, Gateway, GrantKind, PluginConfig, PluginLimits, Plugins, SecretKey,
    SigningKeyName,
};
use pintle_policy::{
    Call, Delivery, Edit, Fate, FaultKind, Hook, Judge, Leases, Message, Piece, Ruling, Session, Transaction,
    Verdict, View,
};
use tokio::runtime::Runtime;

/// The first octet says who calls and when, the rest is the guest's program. Gives the guest's answer.
pub fn play(plan: &[u8]) -> Ruling {
    let (how, program) = plan.split_first().unwrap_or((&0, &[]));
    let judge = if how & 1 == 0 { &BENCH.granted } else { &BENCH.bare };
    let (call, view) = match how & 2 {
        0 => (Call::Message, view(program, false)),
        _ => (Call::Deliver, view(program, true)),
    };
    let ruling = BENCH.runtime.block_on(judge.judge(call, view.clone()));
    sound(&ruling);
    if how & 1 == 1 {
        assert!(!ruling.edits.iter().any(needs_grant), "{:?}", ruling.edits);
    }
    let mut after = view;
    after.apply(&Arc::from("guest"), ruling.edits.clone()).expect("what is handed out can be made");
    if ruling.fault.is_some() {
        serves_on();
    }
    ruling
}

/// After a fault the next call finds a guest that answers.
fn serves_on() {
    let quiet = BENCH.runtime.block_on(BENCH.granted.judge(Call::Message, view(&[], false)));
    assert_eq!((quiet.verdict, quiet.fault), (Verdict::Next, None));
}

struct Bench {
    runtime: Runtime,
    /// With all grants, and with none.
    granted: Arc<dyn Judge>,
    bare: Arc<dyn Judge>,
    _plugins: Plugins,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let grants = GrantKind::ALL.iter().copied().collect();
    let granted = PluginConfig { grants, ..plugin("granted", &[]) };
    let bare = plugin("bare", &["dns", "kv", "sender-auth", "signing", "secrets", "leases"]);
    let key = SigningKeyName { name: "key".into(), selector: "s".into() };
    let gateway = Gateway {
        hostname: "gate.example".into(),
        keys: [("example.com".to_owned(), vec![key])].into(),
        secrets: [("secret".to_owned(), SecretKey::new(b"0123456789abcdef"))].into(),
        ..Gateway::default()
    };
    let config = Config {
        plugins: vec![granted, bare],
        kv_octets: 1 << 20,
        gateway,
        watch: false,
        ..Config::default()
    };
    let plugins = runtime.block_on(Plugins::open(config, Arc::new(Nobody))).unwrap();
    let mut judges = plugins.judges();
    let (bare, granted) = (judges.pop().unwrap(), judges.pop().unwrap());
    Bench { runtime, granted, bare, _plugins: plugins }
});

fn plugin(name: &str, without: &[&str]) -> PluginConfig {
    let bytes = component::component(without).into();
    let mut config = PluginConfig::new(name, ComponentSource::Bytes { name: name.into(), bytes });
    config.limits = PluginLimits {
        // A machine that is busy must not look like a guest that is slow.
        wall: Duration::from_secs(20),
        cpu: Duration::from_secs(10),
        memory: 8 << 20,
        max_instances: 2,
        min_idle: 0,
        ..PluginLimits::default()
    };
    config
}

/// DNS without an answer.
struct Nobody;

impl Resolver for Nobody {
    fn lookup(&self, name: &str, _: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        let error = if name.len().is_multiple_of(2) { DnsError::NxDomain } else { DnsError::ServFail };
        Box::pin(std::future::ready(Err(error)))
    }
}

const HEADER: &[u8] = b"Subject: hello\r\nFrom: ann@example.com\r\nX-Old: 1\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n";

/// A message for two recipients, and a delivery to the first of them.
fn view(body: &[u8], delivered: bool) -> View {
    let recipients: Vec<Recipient> = (0..2).map(recipient).collect();
    let delivery = Delivery {
        attempt: 1,
        age: Duration::ZERO,
        recipients: recipients[..1].to_vec(),
        next_hop: NextHop::Mx("example.org".into()),
        unlisted: false,
        tls: TlsPolicy::Opportunistic,
        tls_asked: None,
        source: None,
        credentials: None,
        retry_after: None,
        no_bounce: Vec::new(),
        leases: Leases::default(),
    };
    let sender = ReversePath::parse("ann@example.com", Charset::Ascii).unwrap();
    let envelope = Envelope { sender, params: MailParams::default(), recipients };
    let header = HeaderBlock::parse(Bytes::from_static(HEADER));
    let mut view = View::of(session());
    let id = QueueId::new(UnixTime::from_millis(0), 2);
    view.transaction = Some(Arc::new(Transaction::new(id, envelope)));
    view.message = Some(Arc::new(Message::new(header, Some(Arc::new(Bytes::copy_from_slice(body))))));
    view.delivery = delivered.then(|| Arc::new(delivery));
    view
}

fn recipient(id: u32) -> Recipient {
    Recipient::new(id, Address::parse(&format!("r{id}@example.org"), Charset::Ascii).unwrap())
}

fn session() -> Session {
    Session {
        hello: Some("client.example".into()),
        esmtp: true,
        ..Session::new(
            SessionId::new(UnixTime::from_millis(0), 1),
            "mx".into(),
            ([192, 0, 2, 1], 1234).into(),
            ([192, 0, 2, 2], 25).into(),
            UnixTime::from_millis(0),
        )
    }
}

/// What holds of every ruling, whoever the guest is.
fn sound(ruling: &Ruling) {
    if let Some(fault) = &ruling.fault {
        assert!(ruling.edits.is_empty(), "a fault drops the edits: {:?}", ruling.edits);
        assert!(
            !matches!(fault.kind, FaultKind::Busy | FaultKind::NotLoaded | FaultKind::Timeout),
            "{fault:?}"
        );
        assert!(fault.text.len() <= 16 << 10 && is_line(&fault.text), "{:?}", fault.text);
    }
    match &ruling.verdict {
        Verdict::Reject(Some(reply)) => answers(reply, 5),
        Verdict::Defer(Some(reply)) => answers(reply, 4),
        Verdict::Next | Verdict::Accept | Verdict::Reject(None) | Verdict::Defer(None) => {}
    }
    ruling.edits.iter().for_each(edit);
}

fn answers(reply: &Reply, class: u16) {
    assert_eq!(reply.code / 100, class, "{reply}");
    assert!(reply.enhanced.is_none_or(|code| u16::from(code.0) == class), "{reply}");
}

/// No line end and no NUL; what goes into logs and fields needs no more.
fn is_line(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0'])
}

fn edit(edit: &Edit) {
    let ok = match edit {
        Edit::SessionNote(key, value) | Edit::Note(key, value) => {
            key.len() + value.as_ref().map_or(0, Vec::len) <= 64 << 10
        }
        Edit::SessionFact(key, value) | Edit::Fact(key, value) => {
            key.len() <= 512 && value.len() <= 4 << 10 && is_line(key)
        }
        Edit::Score(rule, points) => points.is_finite() && is_line(rule),
        Edit::AuthResult(result) => {
            let texts = result.properties.iter().flat_map(|(name, value)| [name, value]);
            texts.chain([&result.method, &result.outcome]).chain(&result.reason).all(|text| is_line(text))
        }
        Edit::Dmarc(found) => {
            let words = ["none", "quarantine", "reject"];
            words.contains(&found.disposition.as_str())
                && found.override_reason.as_deref().is_none_or(is_line)
        }
        Edit::Fate { recipients, fate, hook } => is_fate(recipients, fate, *hook),
        Edit::Group(_, group) => {
            let fits = |octet: u8| octet.is_ascii_alphanumeric() || b".-_".contains(&octet);
            group.len() <= 64 && group.bytes().all(fits)
        }
        Edit::AddRecipient(_, address) | Edit::RewriteRecipient(_, address) => is_address(address),
        Edit::RewriteSender(path) => path.address().is_none_or(is_address),
        Edit::Headers(edits) => {
            let block = HeaderBlock::parse(Bytes::from_static(HEADER));
            edits.iter().all(|edit| block.check(edit).is_ok())
        }
        Edit::Body(pieces) => pieces.iter().all(|piece| match piece {
            Piece::Bytes(bytes) => !bytes.contains(&0),
            _ => true,
        }),
        Edit::Sign(key) | Edit::Seal(key) => key == "key",
        Edit::Delay(wait) => *wait <= Duration::from_secs(60),
        Edit::NextHop(hop) | Edit::UnlistedHop(hop) => is_line(&hop.to_string()),
        Edit::Offer(_) | Edit::Withhold(_) => panic!("extensions are offered at another stage"),
        _ => true,
    };
    assert!(ok, "{edit:?}");
}

fn is_fate(recipients: &[u32], fate: &Fate, hook: Hook) -> bool {
    match fate {
        Fate::Quarantine { name, reason } => {
            let fits = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
            (1..=32).contains(&name.len())
                && name.bytes().all(fits)
                && is_line(reason)
                && hook == Hook::Message
        }
        Fate::Refuse(reply) => {
            !recipients.is_empty() && matches!(reply.code, 400..=599) && hook == Hook::Message
        }
        Fate::Discard => matches!(hook, Hook::Message | Hook::Deliver),
    }
}

fn is_address(address: &Address) -> bool {
    Address::parse(address.as_str(), Charset::Utf8).as_ref() == Ok(address)
}

/// What nobody does without being allowed to.
fn needs_grant(edit: &Edit) -> bool {
    !matches!(
        edit,
        Edit::SessionNote(..)
            | Edit::SessionFact(..)
            | Edit::Delay(_)
            | Edit::Close
            | Edit::Note(..)
            | Edit::Fact(..)
            | Edit::Score(..)
            | Edit::Group(..)
            | Edit::Fate { fate: Fate::Quarantine { .. } | Fate::Refuse(_), .. }
            | Edit::RetryAfter(_)
    )
}
