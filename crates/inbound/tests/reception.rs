//! The receiving side as a client meets it: real sockets, real TLS, a spool in memory, judges that say what a test wants.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use pintle_inbound::quarantines::{Boundless, Place};
use pintle_inbound::{
    AuthOffer, Config, Inbound, ListenerConfig, LoginLimits, Parts, Quarantines, Rules, Secret,
    SessionLimits, StrangerLimits, TlsMode, Users,
};
use pintle_mail::{Address, Charset, FieldPosition, HeaderEdit, Reply};
use pintle_policy::{AuthResult, Call, Chain, Edit, Hook, Hooks, Judge, Piece, Ruling, Verdict, View};
use pintle_record::{Record, RecordSink};
use pintle_smtp::server::config::Auth;
use pintle_smtp::server::{self, Extension};
use pintle_spool::{Health, Memory, Spool, Stored};
use pintle_testkit::{Client, TestCa};
use pintle_tls::{CertificateSource, ServerConfig, ServerTls};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A gateway without its sending half.
struct Gate {
    inbound: Inbound,
    spool: Arc<Memory>,
    records: Arc<Kept>,
    ca: TestCa,
}

/// Keeps records for a test to look at.
#[derive(Default)]
struct Kept(Mutex<Vec<Record>>);

impl RecordSink for Kept {
    fn record(&self, record: Record) {
        self.0.lock().unwrap().push(record);
    }
}

/// A judge made of a function.
struct Says<F> {
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

fn says(hook: Hook, rule: impl Fn(&Call, &View) -> Ruling + Send + Sync + 'static) -> Arc<dyn Judge> {
    Arc::new(Says { name: "test".into(), hook, rule })
}

fn verdict(hook: Hook, verdict: Verdict) -> Arc<dyn Judge> {
    says(hook, move |_, _| verdict.clone().into())
}

fn edits(hook: Hook, edits: Vec<Edit>) -> Arc<dyn Judge> {
    says(hook, move |_, _| Ruling { verdict: Verdict::Next, edits: edits.clone(), fault: None })
}

fn listener(tls: TlsMode) -> ListenerConfig {
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

fn gate(listener: ListenerConfig, judges: Vec<Arc<dyn Judge>>) -> Gate {
    gate_with(listener, judges, Arc::new(Boundless))
}

fn gate_with(
    listener: ListenerConfig,
    judges: Vec<Arc<dyn Judge>>,
    quarantines: Arc<dyn Quarantines>,
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
    let rules = Rules {
        domains: pintle_mail::Domains::new(["ours.example", ".ours.example"]),
        users: Users::new(HashMap::from([("ann".to_owned(), Secret::Plain("secret".to_owned()))])),
        logins: LoginLimits { delay: Duration::ZERO, max_failures: 4, ..LoginLimits::default() },
        ..Rules::default()
    };
    let config = Config { hostname: "gate.example".to_owned(), listeners: vec![listener], rules };
    let parts = Parts {
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
    fn address(&self) -> SocketAddr {
        self.inbound.addresses()[0].1
    }

    async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// The one message in the spool, if there is one: its header and body as text.
    async fn only(&self) -> Option<(Stored, String, String)> {
        let waiting = self.spool.claim(None, 10).await.unwrap();
        assert!(waiting.len() <= 1);
        let stored = self.spool.load(waiting.first()?.id).await.unwrap();
        let head = String::from_utf8(stored.head.to_vec()).unwrap();
        let body = stored.body.read(0, 1 << 20).await.unwrap();
        Some((stored, head, String::from_utf8(body.to_vec()).unwrap()))
    }

    fn events(&self) -> Vec<&'static str> {
        self.records.0.lock().unwrap().iter().map(Record::event).collect()
    }
}

const MESSAGE: &[u8] = b"Subject: one\r\nX-Keep: as  it\r\n  was\r\n\r\nfirst\r\n..dots\r\n";

#[tokio::test]
async fn a_message_is_kept_as_sent_beneath_our_trace_field() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    let reply = client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    let (stored, head, body) = gate.only().await.unwrap();
    assert!(reply.text().contains(&stored.id.to_string()), "{reply:?}");
    let (trace, rest) = head.split_at(head.find("Subject").unwrap());
    assert!(trace.starts_with("Received: from client.example ([127.0.0.1])"), "{trace}");
    assert!(
        trace.contains("by gate.example with ESMTP") && trace.contains("for <b@ours.example>"),
        "{trace}"
    );
    assert_eq!(rest, "Subject: one\r\nX-Keep: as  it\r\n  was\r\n\r\n");
    assert_eq!(body, "first\r\n..dots\r\n");
    assert_eq!(stored.entry.envelope.sender.as_str(), "a@x.example");
    assert_eq!(gate.events(), ["reception"]);
}

/// RFC 6409 section 8, for those alone who submit.
#[tokio::test]
async fn a_submission_leaves_with_date_and_message_id_and_without_bcc() {
    const BARE: &[u8] = b"Return-Path: <a@x.example>\r\nBcc: c@x.example\r\nSubject: one\r\n\r\ntext\r\n";
    for trusted in [Vec::new(), vec!["127.0.0.0/8".parse().unwrap()]] {
        let is_trusted = !trusted.is_empty();
        let completes = ListenerConfig { completes_header: true, trusted, ..listener(TlsMode::None) };
        let seen_date = says(Hook::Headers, |_, view| {
            let header = &view.message.as_ref().unwrap().header;
            let verdict = if header.named("Date").next().is_some() {
                Verdict::Next
            } else {
                Verdict::Quarantine("bare".into())
            };
            Ruling { verdict, edits: Vec::new(), fault: None }
        });
        let gate = gate(completes, vec![seen_date]);
        let mut client = gate.client().await;
        client.hello("client.example").await;
        client.deliver("a@x.example", &["b@ours.example"], BARE).await;
        let waiting = gate.spool.claim(None, 10).await.unwrap();
        let stored = gate.spool.load(waiting[0].id).await.unwrap();
        let head = String::from_utf8(stored.head.to_vec()).unwrap();
        let has = |field: &str| head.contains(&format!("\r\n{field}: "));
        assert_eq!((has("Date"), has("Message-ID")), (is_trusted, is_trusted), "{head}");
        assert_eq!((has("Bcc"), has("Return-Path")), (!is_trusted, !is_trusted), "{head}");
        assert_eq!(stored.entry.hold.is_none(), is_trusted, "plugins see the header as it will be");
    }
}

/// RFC 6531 section 3.2: only what has no form in US-ASCII needs SMTPUTF8 further on.
#[tokio::test]
async fn a_domain_in_unicode_alone_does_not_need_smtputf8() {
    for (sender, recipient, needs) in [
        ("a@b\u{fc}cher.example", "info@ours.example", false),
        ("a@x.example", "info@b\u{fc}cher.ours.example", false),
        ("gr\u{fc}n@x.example", "info@ours.example", true),
    ] {
        let gate = gate(listener(TlsMode::None), Vec::new());
        let mut client = gate.client().await;
        client.hello("client.example").await;
        client.ask(&format!("MAIL FROM:<{sender}> SMTPUTF8"), 250).await;
        client.ask(&format!("RCPT TO:<{recipient}>"), 250).await;
        client.ask("DATA", 354).await;
        client.ask("Subject: one\r\n\r\ntext\r\n.", 250).await;
        let (stored, head, _) = gate.only().await.unwrap();
        assert_eq!(stored.entry.needs_smtputf8, needs, "{sender} {recipient}");
        assert!(head.is_ascii(), "{head}");
    }
}

#[tokio::test]
async fn a_recipient_named_twice_gets_one_copy() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    for to in [
        "<b@ours.example> NOTIFY=NEVER",
        "<b@OURS.example> NOTIFY=FAILURE",
        "<c@ours.example> NOTIFY=NEVER",
        "<\"b\"@ours.example> NOTIFY=SUCCESS",
        "<B@ours.example>",
    ] {
        client.ask(&format!("RCPT TO:{to}"), 250).await;
    }
    client.ask("DATA", 354).await;
    client.ask("Subject: one\r\n\r\ntext\r\n.", 250).await;
    let (stored, ..) = gate.only().await.unwrap();
    let recipients = &stored.entry.envelope.recipients;
    let addresses: Vec<_> = recipients.iter().map(|recipient| recipient.address.as_str()).collect();
    assert_eq!(addresses, ["b@ours.example", "c@ours.example", "B@ours.example"]);
    let notify = recipients[0].params.notify.unwrap();
    assert!(notify.success && notify.failure && !notify.delay);
}

#[tokio::test]
async fn strangers_cannot_relay_whatever_plugins_accept() {
    let gate = gate(listener(TlsMode::None), vec![verdict(Hook::Rcpt, Verdict::Accept)]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    for other in ["b@other.example", "b%other.example@ours.example", "\"b@other.example\"@ours.example"] {
        let reply = client.ask(&format!("RCPT TO:<{other}>"), 550).await;
        assert!(reply.text().contains("5.7.1"), "{reply:?}");
    }
    client.ask("RCPT TO:<postmaster>", 250).await;
}

#[tokio::test]
async fn a_grant_lets_one_recipient_leave() {
    let judge = says(Hook::Rcpt, |call, _| {
        let Call::Rcpt(id) = call else {
            return Verdict::Next.into();
        };
        Ruling { verdict: Verdict::Next, edits: vec![Edit::GrantRelay(*id)], fault: None }
    });
    let gate = gate(listener(TlsMode::None), vec![judge]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@other.example"], MESSAGE).await;
    assert!(gate.only().await.is_some());
}

#[tokio::test]
async fn a_recipient_that_a_plugin_adds_is_judged_like_any_other() {
    let address = Address::parse("spy@other.example", Charset::Ascii).unwrap();
    let gate =
        gate(listener(TlsMode::None), vec![edits(Hook::Message, vec![Edit::AddRecipient(99, address)])]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.envelope("a@x.example", &["b@ours.example"]).await;
    client.send_data(MESSAGE).await;
    client.expect(550).await;
    assert!(gate.only().await.is_none());
}

#[tokio::test]
async fn who_authenticates_over_tls_may_relay() {
    let gate = gate(listener(TlsMode::StartTls), Vec::new());
    let mut client = gate.client().await;
    let reply = client.hello("client.example").await;
    assert!(!reply.offers("AUTH"), "no password in the clear: {reply:?}");
    let mut client = client.starttls(gate.ca.client_config(), "gate.example").await;
    assert!(client.ask("EHLO client.example", 250).await.offers("AUTH"));
    // "\0ann\0wrong", then "\0ann\0secret".
    client.ask("AUTH PLAIN AGFubgB3cm9uZw==", 535).await;
    client.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", 235).await;
    client.deliver("a@x.example", &["b@other.example"], MESSAGE).await;
    let (_, head, _) = gate.only().await.unwrap();
    assert!(head.contains("with ESMTPSA") && head.contains("(TLSv1.3"), "{head}");
}

#[tokio::test]
async fn who_guesses_in_session_after_session_is_not_heard_any_more() {
    let plain = ListenerConfig {
        smtp: Arc::new(server::Config {
            auth: Auth { without_tls: true, ..Auth::default() },
            ..server::Config::default().with(Extension::Auth)
        }),
        ..listener(TlsMode::None)
    };
    let gate = gate(plain, Vec::new());
    for _ in 0..2 {
        let mut client = gate.client().await;
        client.hello("client.example").await;
        for _ in 0..2 {
            client.ask("AUTH PLAIN AGFubgB3cm9uZw==", 535).await;
        }
    }
    let mut client = gate.client().await;
    client.hello("client.example").await;
    // The right password now, and it is not even looked at.
    let reply = client.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", 421).await;
    assert!(reply.text().contains("4.7.0 Too many failed logins from your network"), "{reply:?}");
}

#[tokio::test]
async fn a_strangers_session_ends_after_its_share_and_a_colleagues_does_not() {
    let strangers = StrangerLimits { transactions: 2, ..StrangerLimits::default() };
    for trusted in [Vec::new(), vec!["127.0.0.0/8".parse().unwrap()]] {
        let is_trusted = !trusted.is_empty();
        let gate = gate(ListenerConfig { strangers, trusted, ..listener(TlsMode::None) }, Vec::new());
        let mut client = gate.client().await;
        client.hello("client.example").await;
        for _ in 0..2 {
            client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
        }
        let reply = client.ask("MAIL FROM:<a@x.example>", if is_trusted { 250 } else { 421 }).await;
        assert!(is_trusted || reply.text().contains("4.7.0 Enough transactions"), "{reply:?}");
    }
}

#[tokio::test]
async fn a_strangers_session_has_an_end_whatever_it_does() {
    let strangers = StrangerLimits { time: Duration::ZERO, ..StrangerLimits::default() };
    for trusted in [Vec::new(), vec!["127.0.0.0/8".parse().unwrap()]] {
        let is_trusted = !trusted.is_empty();
        let gate = gate(ListenerConfig { strangers, trusted, ..listener(TlsMode::None) }, Vec::new());
        let mut client = gate.client().await;
        if is_trusted {
            client.hello("client.example").await;
        } else {
            client.expect(220).await;
            let reply = client.expect(421).await;
            assert!(reply.text().contains("4.7.0 This session has lasted long enough"), "{reply:?}");
        }
    }
}

#[tokio::test]
async fn implicit_tls_begins_with_the_first_octet() {
    let gate = gate(listener(TlsMode::Implicit), Vec::new());
    let address = gate.inbound.addresses()[0].1;
    let mut client = Client::connect_tls(address, gate.ca.client_config(), "gate.example").await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    assert!(gate.only().await.is_some());
}

#[tokio::test]
async fn edits_change_what_is_stored_and_nothing_else() {
    let header =
        HeaderEdit::Add { at: FieldPosition::Bottom, name: "X-New".to_owned(), value: "yes".to_owned() };
    let body = vec![Piece::Copy { offset: 0, len: 7 }, Piece::Bytes("footer\r\n".into())];
    let judge = edits(Hook::Message, vec![Edit::Headers(vec![header]), Edit::Body(body)]);
    let gate = gate(listener(TlsMode::None), vec![judge]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    let (_, head, body) = gate.only().await.unwrap();
    assert!(head.ends_with("Subject: one\r\nX-Keep: as  it\r\n  was\r\nX-New: yes\r\n\r\n"), "{head}");
    assert_eq!(body, "first\r\nfooter\r\n");
}

#[tokio::test]
async fn one_field_reports_who_sent_and_none_is_believed_that_claims_our_name() {
    let found = AuthResult {
        method: "spf".to_owned(),
        outcome: "fail".to_owned(),
        reason: None,
        properties: vec![("smtp.mailfrom".to_owned(), "x.example".to_owned())],
    };
    let judge = edits(Hook::Message, vec![Edit::AuthResult(found)]);
    let gate = gate(listener(TlsMode::None), vec![judge]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    let message = "Authentication-Results: GATE.example; spf=pass\r\nAuthentication-Results: other.example; \
        spf=pass\r\nSubject: one\r\n\r\nfirst\r\n";
    client.deliver("a@x.example", &["b@ours.example"], message.as_bytes()).await;
    let (_, head, _) = gate.only().await.unwrap();
    let ours = "Authentication-Results: gate.example; spf=fail smtp.mailfrom=x.example\r\nReceived: ";
    assert!(head.starts_with(ours), "{head}");
    let rest = "\r\nAuthentication-Results: other.example; spf=pass\r\nSubject: one\r\n\r\n";
    assert!(head.ends_with(rest), "{head}");
    assert!(!head.contains("GATE"), "{head}");
}

#[tokio::test]
async fn each_verdict_has_its_reply() {
    let custom = Reply::new(450, pintle_mail::EnhancedCode(4, 7, 1), "come back later");
    for (hook, said, code, words) in [
        (Hook::Mail, Verdict::Reject(None), 550, "5.7.1"),
        (Hook::Mail, Verdict::Defer(Some(custom)), 450, "come back later"),
        (Hook::Mail, Verdict::Close(None), 421, "4.7.0"),
    ] {
        let gate = gate(listener(TlsMode::None), vec![verdict(hook, said.clone())]);
        let mut client = gate.client().await;
        client.hello("client.example").await;
        let reply = client.ask("MAIL FROM:<a@x.example>", code).await;
        assert!(reply.text().contains(words), "{said:?}: {reply:?}");
        assert_eq!(gate.events(), ["plugin-verdict", "rejection"]);
    }
}

#[tokio::test]
async fn discarded_mail_is_answered_with_yes_and_recorded() {
    let gate = gate(listener(TlsMode::None), vec![verdict(Hook::Message, Verdict::Discard)]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    assert!(gate.only().await.is_none());
    assert_eq!(gate.events(), ["plugin-verdict", "discard"]);
}

#[tokio::test]
async fn mail_whose_recipients_a_plugin_took_away_does_not_go_without_a_record() {
    let gate = gate(listener(TlsMode::None), vec![edits(Hook::Message, vec![Edit::RemoveRecipient(0)])]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    assert!(gate.only().await.is_none());
    assert_eq!(gate.events(), ["plugin-verdict", "discard"]);
}

/// RFC 5321 section 4.5.1.
#[tokio::test]
async fn anybody_reaches_the_postmaster_wherever_the_operator_has_put_him() {
    let postmaster = Address::parse("ops@elsewhere.example", Charset::Ascii).unwrap();
    let gate = gate(listener(TlsMode::None), Vec::new());
    gate.inbound.reload().replace(Rules { postmaster: Some(postmaster.clone()), ..Rules::default() });
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    client.ask("RCPT TO:<ops@elsewhere.example>", 550).await;
    client.ask("RCPT TO:<Postmaster>", 250).await;
    client.ask("RCPT TO:<anna@gate.example>", 550).await;
    // Reports come from this one.
    client.ask("RCPT TO:<postMaster@Gate.Example>", 250).await;
    client.ask("DATA", 354).await;
    client.send_data(MESSAGE).await;
    client.expect(250).await;
    let (stored, ..) = gate.only().await.unwrap();
    // Who is named twice gets one copy.
    let recipients: Vec<&Address> = stored.entry.envelope.recipients.iter().map(|r| &r.address).collect();
    assert_eq!(recipients, [&postmaster]);
}

/// Where a route leads mail for the hostname, its postmaster goes that way, and nobody else.
#[tokio::test]
async fn the_postmaster_of_the_hostname_is_taken_where_a_route_leads_him() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    client.ask("RCPT TO:<anna@gate.example>", 550).await;
    client.ask("RCPT TO:<postmaster@gate.example>", 250).await;
    client.ask("DATA", 354).await;
    client.send_data(MESSAGE).await;
    client.expect(250).await;
    let (stored, ..) = gate.only().await.unwrap();
    assert_eq!(stored.entry.envelope.recipients[0].address.as_str(), "postmaster@gate.example");
}

#[tokio::test]
async fn quarantined_mail_is_kept_and_held() {
    let gate =
        gate(listener(TlsMode::None), vec![verdict(Hook::Rcpt, Verdict::Quarantine("odd".to_owned()))]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    let (stored, ..) = gate.only().await.unwrap();
    let Some(pintle_spool::Hold::Quarantine(quarantine)) = stored.entry.hold else { panic!("not held") };
    assert_eq!((quarantine.name.as_str(), quarantine.stage.as_deref()), ("odd", Some("rcpt")));
    assert!(quarantine.by.is_some());
}

/// Has room for one message, and gets it back.
struct OneRoom {
    free: Arc<AtomicUsize>,
    asked: Mutex<Vec<(String, u64)>>,
}

struct Taken(Arc<AtomicUsize>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Quarantines for OneRoom {
    fn room<'a>(&'a self, name: &'a str, size: u64) -> BoxFuture<'a, Result<Place, Reply>> {
        let before = self.asked.lock().unwrap().len();
        self.asked.lock().unwrap().push((name.to_owned(), size));
        assert_eq!(self.free.load(Ordering::SeqCst), 1, "the room of the message before has not come back");
        Box::pin(async move {
            if before == 0 {
                self.free.fetch_sub(1, Ordering::SeqCst);
                Ok(Box::new(Taken(Arc::clone(&self.free))) as Place)
            } else {
                Err(Reply::plain(452, "no room"))
            }
        })
    }
}

/// What a full quarantine refuses is the client's to send again: no message is taken that cannot be kept.
#[tokio::test]
async fn mail_for_a_full_quarantine_is_refused_for_now() {
    let rooms = Arc::new(OneRoom { free: Arc::new(AtomicUsize::new(1)), asked: Mutex::default() });
    let judges = vec![verdict(Hook::Message, Verdict::Quarantine("odd".to_owned()))];
    let gate = gate_with(listener(TlsMode::None), judges, Arc::clone(&rooms) as Arc<dyn Quarantines>);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    client.envelope("a@x.example", &["b@ours.example"]).await;
    client.send_data(MESSAGE).await;
    assert!(client.expect(452).await.text().contains("no room"));
    assert_eq!(gate.spool.totals().await.unwrap().messages, 1);
    let asked = rooms.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    assert!(
        asked.iter().all(|(name, size)| name == "odd" && *size >= MESSAGE.len() as u64 - 10),
        "{asked:?}"
    );
    let refusal = gate.records.0.lock().unwrap().iter().find_map(|record| match record {
        Record::Rejection(rejection) => Some((rejection.stage.clone(), rejection.by.clone())),
        _ => None,
    });
    assert_eq!(refusal, Some(("message".to_owned(), Some("quota".to_owned()))));
}

#[tokio::test]
async fn a_looping_message_is_refused() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.envelope("a@x.example", &["b@ours.example"]).await;
    let mut message = b"Received: from a by b; now\r\n".repeat(30);
    message.extend_from_slice(MESSAGE);
    client.send_data(&message).await;
    let reply = client.expect(554).await;
    assert!(reply.text().contains("5.4.6"), "{reply:?}");
}

#[tokio::test]
async fn a_full_disk_is_told_before_the_data() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    gate.spool.set_health(Health::Full);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 452).await;
}

#[tokio::test]
async fn one_address_gets_no_more_than_its_share() {
    let mut listener = listener(TlsMode::None);
    // The limit is the listener's, on however many addresses it listens.
    listener.addresses.push("127.0.0.1:0".parse().unwrap());
    listener.limits = SessionLimits { per_address: 1, ..SessionLimits::default() };
    let gate = gate(listener, Vec::new());
    let mut first = gate.client().await;
    first.hello("client.example").await;
    let mut second = Client::connect(gate.inbound.addresses()[1].1).await;
    let reply = second.expect(421).await;
    assert!(reply.text().contains("4.7.0"), "{reply:?}");
    second.expect_closed().await;
}

#[tokio::test]
async fn a_drain_lets_transactions_finish() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let mut idle = gate.client().await;
    idle.hello("client.example").await;
    let mut busy = gate.client().await;
    busy.hello("client.example").await;
    busy.envelope("a@x.example", &["b@ours.example"]).await;
    let Gate { inbound, spool, .. } = gate;
    let drain = tokio::spawn(inbound.drain(Duration::from_secs(120)));
    idle.expect(421).await;
    idle.expect_closed().await;
    busy.send_data(MESSAGE).await;
    busy.expect(250).await;
    busy.expect(421).await;
    drain.await.unwrap();
    assert_eq!(spool.claim(None, 10).await.unwrap().len(), 1);
}

/// A client that sends, and sends, and reads nothing; ends when the gateway has closed on it, or reads no more either.
async fn flood(address: SocketAddr, opening: &str, more: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let block = more.repeat(10_000);
    let mut sent = socket.write_all(opening.as_bytes()).await;
    while sent.is_ok() {
        let write = tokio::time::timeout(Duration::from_secs(10), socket.write_all(block.as_bytes()));
        match write.await {
            Ok(result) => sent = result,
            Err(_) => break,
        }
    }
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn time_runs_out_for_a_client_that_never_pauses() {
    let mut listener = listener(TlsMode::None);
    let mut smtp = server::Config::clone(&listener.smtp);
    smtp.timeouts.message = Duration::from_millis(100);
    listener.smtp = Arc::new(smtp);
    let gate = gate(listener, Vec::new());
    let opening = "EHLO c.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@ours.example>\r\nDATA\r\n";
    let client = flood(gate.address(), opening, "a line, and another\r\n");
    tokio::time::timeout(Duration::from_secs(10), client).await.expect("the message's time is up");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_cannot_hold_up_a_drain() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let stuck =
        flood(gate.address(), "EHLO c.example\r\n", "MAIL FROM:<a@x.example>\r\nMAIL FROM:<>\r\nRSET\r\n")
            .await;
    let begin = tokio::time::Instant::now();
    gate.inbound.drain(Duration::from_secs(30)).await;
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    drop(stuck);
}

#[tokio::test]
async fn a_handshake_that_does_not_get_on_cannot_hold_up_a_drain() {
    let gate = gate(listener(TlsMode::StartTls), Vec::new());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("STARTTLS", 220).await;
    let drain = gate.inbound.drain(Duration::from_secs(50));
    tokio::time::timeout(Duration::from_secs(10), drain).await.expect("at once");
    drop(client);
}

#[tokio::test]
async fn who_tries_address_after_address_is_shown_out() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    for number in 1..Rules::default().max_refusals {
        client.ask(&format!("RCPT TO:<guess{number}@other.example>"), 550).await;
    }
    let reply = client.ask("RCPT TO:<one@other.example>", 421).await;
    assert!(reply.text().contains("4.7.0"), "{reply:?}");
    client.expect_closed().await;
}
