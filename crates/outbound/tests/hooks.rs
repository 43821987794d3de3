//! What plugins can do before and after an attempt (on-deliver, on-delivery-result).

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use common::{HOUR, World, message_to, relay, to_relay};
use futures_util::future::BoxFuture;
use pintle_mail::{Address, Charset, FieldPosition, HeaderEdit, NextHop, Reply, TlsPolicy};
use pintle_outbound::{Channel, Config, Credentials, NamedCredentials, OutboundParts, Route};
use pintle_policy::{
    AttemptStatus, Call, Chain, DeliveryOutcome, Edit, Fate, Hook, Hooks, Judge, Piece, Ruling, Verdict, View,
};
use pintle_record::{Record, Unreported};
use pintle_spool::Spool;
use pintle_testkit::{Act, Script, Sink, SinkStep, StaticResolver};

/// A judge with a fixed ruling that keeps what it saw.
struct Oracle {
    name: Arc<str>,
    before: Ruling,
    after: Vec<Edit>,
    /// Its ruling is for deliveries to this recipient alone; none for all.
    only: Option<&'static str>,
    /// After an attempt, writes a note about each recipient.
    note_outcomes: bool,
    seen: Mutex<Vec<View>>,
    seen_after: Mutex<Vec<View>>,
    heard: Mutex<Vec<DeliveryOutcome>>,
}

impl Oracle {
    fn new(verdict: Verdict, edits: Vec<Edit>) -> Self {
        Self {
            name: "oracle".into(),
            before: Ruling { verdict, edits, fault: None },
            after: Vec::new(),
            only: None,
            note_outcomes: false,
            seen: Mutex::default(),
            seen_after: Mutex::default(),
            heard: Mutex::default(),
        }
    }
}

impl Judge for Oracle {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn hooks(&self) -> Hooks {
        Hooks::NONE.with(Hook::Deliver).with(Hook::DeliveryResult)
    }

    fn judge(&self, call: Call, view: View) -> BoxFuture<'_, Ruling> {
        assert_eq!(call, Call::Deliver);
        let recipients = &view.delivery.as_ref().unwrap().recipients;
        let meant = |only| recipients.iter().any(|recipient| recipient.address.as_str() == only);
        let ruling = if self.only.is_none_or(meant) { self.before.clone() } else { Verdict::Next.into() };
        self.seen.lock().unwrap().push(view);
        Box::pin(std::future::ready(ruling))
    }

    fn delivery_result(&self, outcomes: Arc<[DeliveryOutcome]>, view: View) -> BoxFuture<'_, Ruling> {
        self.seen_after.lock().unwrap().push(view);
        self.heard.lock().unwrap().extend(outcomes.iter().cloned());
        let mut edits = self.after.clone();
        let note = |outcome: &DeliveryOutcome| {
            let key = format!("recipient {}", outcome.recipient);
            Edit::Note(key, Some(outcome.status.name().as_bytes().to_vec()))
        };
        edits.extend(outcomes.iter().filter(|_| self.note_outcomes).map(note));
        let ruling = Ruling { edits, ..Ruling::from(Verdict::Next) };
        Box::pin(std::future::ready(ruling))
    }
}

fn with(oracle: &Arc<Oracle>) -> impl FnOnce(&mut OutboundParts) + use<> {
    let chain = Chain::new(vec![Arc::clone(oracle) as Arc<dyn Judge>]);
    |parts| parts.chain = Arc::new(ArcSwap::from_pointee(chain))
}

/// Strangers' mail whose context is lost must not pass for ours, which judges trust and sign.
#[tokio::test]
async fn no_judge_takes_mail_whose_context_is_lost_for_ours() {
    let (sink, world, oracle) = ruled(Verdict::Next, vec![]).await;
    for (n, context) in [&b""[..], b"{}", b"\0\0\0", b"{\"session\": 5}"].into_iter().enumerate() {
        let id = pintle_mail::QueueId::new(common::START, n as u128);
        let mut message = message_to(&["bob@example.net"]).message(id, common::START);
        message.entry.context = bytes::Bytes::from_static(context);
        world.outbound.spool().commit(message).await.unwrap();
    }
    for record in world.log.wait_for("deferral", 4).await {
        let Record::Deferral(deferral) = record else { unreachable!() };
        assert_eq!(deferral.reply.to_string().split(' ').next(), Some("451"));
    }
    world.calm().await;
    assert_eq!((oracle.seen.lock().unwrap().len(), sink.log().transactions.len()), (0, 0));
    assert_eq!(world.engine.totals().await.unwrap().messages, 4, "nothing is given up");
}

#[tokio::test]
async fn what_we_wrote_ourselves_comes_in_a_session_of_our_own() {
    let (_sink, world, oracle) = ruled(Verdict::Next, vec![]).await;
    let id = pintle_mail::QueueId::new(common::START, 1);
    let mut message = message_to(&["bob@example.net"]).message(id, common::START);
    message.entry.parent = Some(pintle_mail::QueueId::new(common::START, 2));
    message.entry.context = bytes::Bytes::new();
    world.outbound.spool().commit(message).await.unwrap();
    world.empty().await;
    let view = oracle.seen.lock().unwrap()[0].clone();
    assert!(view.session.trusted && view.session.listener == "local");
}

/// A world in which a judge says this before each attempt.
async fn ruled(verdict: Verdict, edits: Vec<Edit>) -> (Sink, World, Arc<Oracle>) {
    let sink = Sink::start(Script::new()).await;
    let oracle = Arc::new(Oracle::new(verdict, edits));
    let world = World::start_with(quiet(&sink), StaticResolver::new(), with(&oracle));
    (sink, world, oracle)
}

/// Mail to the sink, reports nowhere.
fn quiet(sink: &Sink) -> Config {
    let mut config = to_relay(&[sink.address()]);
    config.routes.add("sender.example", Route::Discard);
    config
}

#[tokio::test]
async fn a_judge_sees_session_message_and_attempt() {
    let (sink, world, oracle) = ruled(Verdict::Next, vec![]).await;
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(1).await;
    world.empty().await;

    let view = oracle.seen.lock().unwrap()[0].clone();
    assert_eq!(view.session.hello.as_deref(), Some("client.example"));
    assert_eq!(view.transaction.unwrap().facts["listed"], "no");
    let message = view.message.unwrap();
    assert_eq!(message.header.named("Subject").next().unwrap().value(), "hello");
    assert!(message.body.as_ref().unwrap().size() > 0);
    let delivery = view.delivery.unwrap();
    assert_eq!((delivery.attempt, &delivery.next_hop), (1, &NextHop::Relay("next".into())));
    let heard = oracle.heard.lock().unwrap()[0].clone();
    assert_eq!(heard.status, AttemptStatus::Delivered);
    assert_eq!(heard.next_hop.as_deref(), Some("127.0.0.1"));
}

#[tokio::test]
async fn a_rejection_fails_and_a_deferral_waits() {
    let (sink, world, _) = ruled(Verdict::Reject(Some(Reply::plain(571, "not this way"))), vec![]).await;
    world.mail(&["bob@example.net"]).await;
    let Record::Bounce(bounce) = world.log.wait_for("bounce", 1).await.remove(0) else { unreachable!() };
    assert_eq!(bounce.reply.text, "not this way");
    assert_eq!(sink.log().sessions, 0);

    let wait = Duration::from_secs(77);
    let (_sink, world, oracle) = ruled(Verdict::Defer(None), vec![Edit::RetryAfter(wait)]).await;
    world.mail(&["bob@example.net"]).await;
    let Record::Deferral(deferral) = world.log.wait_for("deferral", 1).await.remove(0) else {
        unreachable!()
    };
    assert_eq!(deferral.next_attempt, common::START.plus(wait));
    world.mail(&["carl@example.net"]).await;
    world.log.wait_for("deferral", 2).await;
    assert_eq!(oracle.seen.lock().unwrap().len(), 2, "a plugin's deferral does not throttle the next hop");
}

fn discard(recipients: Vec<u32>) -> Edit {
    Edit::Fate { recipients, fate: Fate::Discard, hook: Hook::Deliver }
}

#[tokio::test]
async fn a_discard_drops_and_tells_the_log() {
    let (sink, world, oracle) = ruled(Verdict::Next, vec![discard(vec![])]).await;
    world.mail(&["bob@example.net"]).await;
    let Record::Discard(discard) = world.log.wait_for("discard", 1).await.remove(0) else { unreachable!() };
    assert_eq!((discard.stage.as_str(), discard.by.as_deref()), ("deliver", Some("oracle")));
    world.empty().await;
    assert_eq!((sink.log().sessions, oracle.heard.lock().unwrap().len()), (0, 0));
}

#[tokio::test]
async fn a_discard_of_some_recipients_leaves_the_others() {
    let (sink, world, oracle) = ruled(Verdict::Accept, vec![discard(vec![1])]).await;
    world.mail(&["bob@example.net", "carl@example.net"]).await;
    assert_eq!(sink.wait_for(1).await[0].recipients(), ["bob@example.net"]);
    let Record::Discard(discard) = world.log.wait_for("discard", 1).await.remove(0) else { unreachable!() };
    assert_eq!((discard.recipients[0].as_str(), discard.by.as_deref()), ("carl@example.net", Some("oracle")));
    world.empty().await;
    let heard: Vec<u32> = oracle.heard.lock().unwrap().iter().map(|outcome| outcome.recipient).collect();
    assert_eq!(heard, [0], "nothing was tried for the other");
}

/// A plugin may know the ids of a message's other recipients, which are in other deliveries.
#[tokio::test]
async fn a_discard_drops_nothing_of_another_delivery() {
    let sink = Sink::start(Script::new()).await;
    let mut oracle = Oracle::new(Verdict::Next, vec![discard(vec![1, 7])]);
    oracle.only = Some("bob@example.net");
    let world = World::start_with(quiet(&sink), StaticResolver::new(), with(&Arc::new(oracle)));
    let mut mail = message_to(&["bob@example.net", "carl@example.net"]);
    mail.recipients[1].groups.insert("tenants".into(), "a".into());
    world.commit(mail).await;
    let mut taken: Vec<String> =
        sink.wait_for(2).await.iter().flat_map(|taken| taken.recipients()).map(str::to_owned).collect();
    taken.sort();
    assert_eq!(taken, ["bob@example.net", "carl@example.net"]);
    world.empty().await;
    assert_eq!(world.log.count("discard"), 0);
}

#[tokio::test]
async fn a_discard_has_no_effect_beside_a_deferral() {
    let (_sink, world, _) = ruled(Verdict::Defer(None), vec![discard(vec![])]).await;
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    assert_eq!((world.log.count("discard"), world.engine.totals().await.unwrap().messages), (0, 1));
}

#[tokio::test]
async fn header_and_body_are_changed_for_the_attempt_alone() {
    let edits = vec![
        Edit::Headers(vec![HeaderEdit::Add {
            at: FieldPosition::Top,
            name: "X-Way".into(),
            value: "out".into(),
        }]),
        Edit::Body(vec![Piece::Copy { offset: 0, len: u64::MAX }, Piece::Bytes("footer\r\n".into())]),
    ];
    let (sink, world, _) = ruled(Verdict::Next, edits).await;
    sink.follow(Script::new().on_nth(SinkStep::Message, 1, Act::Reply("451 4.2.0 again".into())));
    let mail = message_to(&["bob@example.net"]);
    let expected = format!("X-Way: out\r\n{}footer\r\n", mail.text());
    world.commit(mail).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    world.clock.advance(HOUR);
    assert_eq!(sink.wait_for(1).await[0].text(), expected);
}

/// The host encodes what plugins add for a next hop that is not told of SMTPUTF8.
#[tokio::test]
async fn a_judge_sees_smtputf8_as_the_next_hop_will() {
    for (said, needed) in [(true, false), (false, true), (true, true)] {
        let (sink, world, oracle) = ruled(Verdict::Next, vec![]).await;
        let mut mail = message_to(&["bob@example.net"]);
        (mail.params.smtputf8, mail.smtputf8) = (said, needed);
        if needed {
            mail.head = "Subject: für dich\r\n\r\n";
        }
        world.commit(mail).await;
        let taken = sink.wait_for(1).await;
        world.empty().await;
        assert_eq!(taken[0].sender.param("SMTPUTF8").is_some(), needed, "{said} {needed}");
        for seen in [&oracle.seen, &oracle.seen_after] {
            let transaction = seen.lock().unwrap()[0].transaction.clone().unwrap();
            assert_eq!(transaction.envelope.params.smtputf8, needed, "{said} {needed}");
        }
    }
}

/// A message may end with its header (RFC 5322 section 3.5); a judge that changes nothing adds nothing.
#[tokio::test]
async fn a_message_of_a_header_alone_is_sent_as_it_came() {
    let (sink, world, _) = ruled(Verdict::Next, vec![]).await;
    let mut mail = message_to(&["bob@example.net"]);
    (mail.head, mail.body) = ("Subject: all of it\r\n", String::new());
    world.commit(mail).await;
    assert_eq!(sink.wait_for(1).await[0].text(), "Subject: all of it\r\n");
}

#[tokio::test]
async fn an_attempt_can_be_sent_another_way() {
    let (one, two) =
        (Sink::start(Script::new()).await, Sink::start(Script::new().login("special", "secret")).await);
    let edits = vec![
        Edit::NextHop(NextHop::Relay("other".into())),
        Edit::Tls(TlsPolicy::Opportunistic),
        Edit::Source("127.0.0.5".parse().unwrap()),
        Edit::Credentials("named".into()),
    ];
    let oracle = Arc::new(Oracle::new(Verdict::Next, edits));
    let mut config = quiet(&one);
    config.relays.insert("other".into(), relay(&[two.address()]));
    let credentials = Credentials { over: Channel::Plain, ..Credentials::new("special", "secret") };
    let relays = ["other".to_owned()].into();
    config.credentials.insert("named".into(), NamedCredentials { credentials, relays });
    let world = World::start_with(config, StaticResolver::new(), with(&oracle));
    world.mail(&["bob@example.net"]).await;
    let got = two.wait_for(1).await;
    assert_eq!(got[0].peer.ip().to_string(), "127.0.0.5");
    assert_eq!(got[0].user.as_deref(), Some("special"));
    assert_eq!(one.log().sessions, 0);
}

#[tokio::test]
async fn the_sender_is_changed_for_the_attempt() {
    let address = |text: &str| Address::parse(text, Charset::Ascii).unwrap();
    let edits = vec![Edit::RewriteSender(pintle_mail::ReversePath::Address(address("srs@gate.example")))];
    let (sink, world, _) = ruled(Verdict::Next, edits).await;
    world.mail(&["bob@example.net"]).await;
    assert_eq!(sink.wait_for(1).await[0].sender.address, "srs@gate.example");
    world.empty().await;
    let Record::Delivery(delivery) = world.log.wait_for("delivery", 1).await.remove(0) else {
        unreachable!()
    };
    assert_eq!(delivery.job.sender.as_str(), "anna@sender.example");
}

/// The exchangers of another domain than the recipients': with the TLS that the configuration demands, and with the same
/// care for loops and inside addresses.
#[tokio::test]
async fn a_judge_can_choose_the_exchangers_of_another_domain() {
    let ca = pintle_testkit::TestCa::new();
    let leaf = ca.issue(&["mx.other.example"]);
    let sink = Sink::start(Script::new().starttls(&leaf)).await;
    let resolver = StaticResolver::new()
        .with_mx("other.example", 10, "mx.other.example")
        .with_address("mx.other.example", "127.0.0.1")
        .with_mx("ours.example", 10, "gate.example.org")
        .with_mx("inside.example", 10, "ten.inside.example")
        .with_address("ten.inside.example", "10.1.2.3");
    let mut config = common::by_mx(sink.address().port());
    config.mx.tls = TlsPolicy::Verified;
    let start = |domain: &str| {
        let oracle = Oracle::new(Verdict::Next, vec![Edit::NextHop(NextHop::Mx(domain.into()))]);
        let oracle = Arc::new(oracle);
        let world = World::start_with(config.clone(), resolver.clone(), |parts| {
            parts.tls = common::trusting(&ca);
            with(&oracle)(parts);
        });
        (world, oracle)
    };
    let (world, oracle) = start("other.example");
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(1).await;
    world.empty().await;
    world.mail(&["carl@example.com"]).await;
    sink.wait_for(2).await;
    world.empty().await;
    let deliveries = world.log.wait_for("delivery", 2).await;
    for (delivery, used) in deliveries.iter().zip([0, 1]) {
        let Record::Delivery(delivery) = delivery else { unreachable!() };
        assert_eq!(delivery.job.next_hop, NextHop::Mx("other.example".into()));
        assert!(delivery.peer.tls.as_ref().unwrap().verified);
        assert_eq!(
            delivery.peer.session_use, used,
            "both domains' mail shares the session with that next hop"
        );
    }
    let heard = oracle.heard.lock().unwrap()[0].clone();
    let detail =
        |name: &str| heard.details.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    assert_eq!(
        (detail("tls.version").as_deref(), detail("address").as_deref()),
        (Some("TLSv1.3"), Some("127.0.0.1"))
    );
    assert!(detail("tls.cipher").is_some_and(|cipher| cipher.starts_with("TLS_")));
    assert!(detail("duration-ms").unwrap().parse::<u64>().is_ok());

    for (domain, reply) in [("ours.example", "554 5.4.6"), ("inside.example", "550 5.4.4")] {
        let (world, _) = start(domain);
        world.mail(&["bob@example.net"]).await;
        let Record::Bounce(bounce) = world.log.wait_for("bounce", 1).await.remove(0) else { unreachable!() };
        assert!(bounce.reply.to_string().starts_with(reply), "{domain}: {}", bounce.reply);
    }
    assert_eq!(sink.log().sessions, 1);
}

/// A next hop that a plugin has chosen is down. Other mail for the recipients' own next hop does not wait for it.
#[tokio::test]
async fn trouble_at_a_chosen_next_hop_does_not_throttle_the_job_s() {
    let down = common::nobody().await;
    let (sink, world, _) = {
        let sink = Sink::start(Script::new()).await;
        let mut config = quiet(&sink);
        config.relays.insert("down".into(), relay(&[down]));
        let mut oracle = Oracle::new(Verdict::Next, vec![Edit::NextHop(NextHop::Relay("down".into()))]);
        oracle.only = Some("bob@example.net");
        let oracle = Arc::new(oracle);
        let world = World::start_with(config, StaticResolver::new(), with(&oracle));
        (sink, world, oracle)
    };
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    world.mail(&["carl@example.net"]).await;
    sink.wait_for(1).await;
}

/// Notes that on-delivery-result sets are stored; what on-deliver sets lasts until the on-delivery-result of its attempt.
#[tokio::test]
async fn notes_of_a_result_are_stored_for_later_attempts_and_a_restart() {
    let again = Script::new().on(SinkStep::Message, Act::Reply("451 4.2.0 again".into()));
    let sink = Sink::start(again).await;
    let note = |key: &str, value: &[u8]| Edit::Note(key.into(), Some(value.into()));
    let mut oracle =
        Oracle::new(Verdict::Next, vec![note("before", b"1"), Edit::Fact("tried".into(), "1".into())]);
    // What on-delivery-result sets is stored, also if on-deliver has set it to the same.
    oracle.before.edits.push(note("both", b"3"));
    oracle.after = vec![note("after", b"2"), note("both", b"3"), Edit::Score("late".into(), 1.5)];
    let (oracle, engine) = (Arc::new(oracle), Arc::new(pintle_spool::Memory::new()));
    let (config, resolver) = (quiet(&sink), StaticResolver::new());
    let world = World::over(Arc::clone(&engine), config.clone(), resolver.clone(), with(&oracle));
    let id = world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    let notes = |view: &View| {
        let transaction = view.transaction.clone().unwrap();
        let note = |key: &str| transaction.notes.get("oracle", key).map(<[u8]>::to_vec);
        (note("before"), note("after"), transaction.facts.contains_key("tried"), transaction.score())
    };
    assert_eq!(notes(&oracle.seen.lock().unwrap()[0]), (None, None, false, 0.0));
    assert_eq!(notes(&oracle.seen_after.lock().unwrap()[0]), (Some(b"1".to_vec()), None, true, 0.0));
    let World { outbound, clock, .. } = world;
    outbound.drain(HOUR).await;
    clock.advance(HOUR);
    let world = World::under(clock, engine, config, resolver, with(&oracle));
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    assert_eq!(notes(&oracle.seen.lock().unwrap()[1]), (None, Some(b"2".to_vec()), false, 1.5));
    let transaction = oracle.seen.lock().unwrap()[1].transaction.clone().unwrap();
    assert_eq!(transaction.notes.get("oracle", "both"), Some(&b"3"[..]));
    let stored = world.handle.show(id).await.unwrap();
    assert_eq!(stored.recipients[0].status.pending().unwrap().attempts, 2);
    sink.follow(Script::new());
    world.clock.advance(HOUR);
    world.empty().await;
}

/// Two deliveries of one message end at once, and neither loses the other's notes.
#[tokio::test]
async fn deliveries_that_end_at_once_keep_each_other_s_notes() {
    let again = Script::new().on(SinkStep::Message, Act::Reply("451 4.2.0 again".into()));
    let sink = Sink::start(again).await;
    let mut oracle = Oracle::new(Verdict::Next, vec![]);
    oracle.note_outcomes = true;
    let oracle = Arc::new(oracle);
    let world = World::start_with(quiet(&sink), StaticResolver::new(), with(&oracle));
    let recipients: Vec<String> = (0..12).map(|n| format!("r{n}@example.net")).collect();
    let mut mail = message_to(&recipients.iter().map(String::as_str).collect::<Vec<_>>());
    for recipient in &mut mail.recipients {
        recipient.groups.insert("tenants".into(), recipient.id.to_string());
    }
    let id = world.commit(mail).await;
    world.log.wait_for("deferral", 12).await;
    world.calm().await;
    let context = world.handle.show(id).await.unwrap().entry.context;
    let frozen = pintle_policy::Frozen::from_bytes(&context).unwrap();
    let envelope = world.handle.show(id).await.unwrap().entry.envelope;
    let transaction = frozen.thaw(id, envelope).transaction.unwrap();
    for n in 0..12 {
        assert_eq!(transaction.notes.get("oracle", &format!("recipient {n}")), Some(&b"deferred"[..]));
    }
}

/// The edits of a ruling apply together or not at all, and so they are stored.
#[tokio::test]
async fn edits_that_cannot_be_made_after_an_attempt_are_not_stored() {
    let again = Script::new().on(SinkStep::Message, Act::Reply("451 4.2.0 again".into()));
    let sink = Sink::start(again).await;
    let mut oracle = Oracle::new(Verdict::Next, vec![]);
    oracle.after = vec![Edit::Note("after".into(), Some(b"2".to_vec())), Edit::GrantRelay(99)];
    let world = World::start_with(quiet(&sink), StaticResolver::new(), with(&Arc::new(oracle)));
    let id = world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    assert_eq!(world.handle.show(id).await.unwrap().entry.context, common::context(id));
    assert_eq!(world.log.count("plugin-fault"), 1);
}

/// A report of ours has no stored context; its notes are stored all the same, and it stays ours.
#[tokio::test]
async fn notes_about_a_report_of_ours_are_stored() {
    let again = Script::new().on(SinkStep::Message, Act::Reply("451 4.2.0 again".into()));
    let sink = Sink::start(again).await;
    let mut oracle = Oracle::new(Verdict::Next, vec![]);
    oracle.after = vec![Edit::Note("after".into(), Some(b"2".to_vec()))];
    let oracle = Arc::new(oracle);
    let world = World::start_with(quiet(&sink), StaticResolver::new(), with(&oracle));
    let id = pintle_mail::QueueId::new(common::START, 1);
    let mut message = message_to(&["bob@example.net"]).message(id, common::START);
    message.entry.parent = Some(pintle_mail::QueueId::new(common::START, 2));
    message.entry.context = bytes::Bytes::new();
    world.outbound.spool().commit(message).await.unwrap();
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    world.clock.advance(HOUR);
    world.log.wait_for("deferral", 2).await;
    let view = oracle.seen.lock().unwrap()[1].clone();
    assert!(view.session.trusted && view.session.listener == "local");
    assert_eq!(view.transaction.unwrap().notes.get("oracle", "after"), Some(&b"2"[..]));
}

#[tokio::test]
async fn what_is_said_after_the_attempt_counts() {
    let sink = Sink::start(Script::new().reply(SinkStep::Rcpt, "550 5.1.1 no")).await;
    let mut oracle = Oracle::new(Verdict::Next, vec![]);
    oracle.after = vec![Edit::NoBounce(0)];
    let oracle = Arc::new(oracle);
    let world = World::start_with(quiet(&sink), StaticResolver::new(), with(&oracle));
    world.mail(&["bob@example.net"]).await;
    let Record::Bounce(bounce) = world.log.wait_for("bounce", 1).await.remove(0) else { unreachable!() };
    assert_eq!(bounce.unreported, Some(Unreported::Suppressed));
    world.empty().await;
    assert_eq!(world.log.count("report"), 0);
}
