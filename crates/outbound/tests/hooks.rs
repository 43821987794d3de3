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
use pintle_policy::{Call, Chain, DeliveryOutcome, Edit, Hook, Hooks, Judge, Piece, Ruling, Verdict, View};
use pintle_record::{Record, Unreported};
use pintle_spool::Spool;
use pintle_testkit::{Act, Script, Sink, SinkStep, StaticResolver};

/// A judge with a fixed ruling that keeps what it saw.
struct Oracle {
    name: Arc<str>,
    before: Ruling,
    after: Vec<Edit>,
    seen: Mutex<Vec<View>>,
    heard: Mutex<Vec<DeliveryOutcome>>,
}

impl Oracle {
    fn new(verdict: Verdict, edits: Vec<Edit>) -> Self {
        Self {
            name: "oracle".into(),
            before: Ruling { verdict, edits, fault: None },
            after: Vec::new(),
            seen: Mutex::default(),
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
        self.seen.lock().unwrap().push(view);
        Box::pin(std::future::ready(self.before.clone()))
    }

    fn delivery_result(&self, outcomes: Arc<[DeliveryOutcome]>, _: View) -> BoxFuture<'_, Ruling> {
        self.heard.lock().unwrap().extend(outcomes.iter().cloned());
        let ruling = Ruling { edits: self.after.clone(), ..Ruling::from(Verdict::Next) };
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
    assert!(heard.delivered && !heard.retry);
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

#[tokio::test]
async fn a_discard_drops_and_tells_the_log() {
    let (sink, world, _) = ruled(Verdict::Discard, vec![]).await;
    world.mail(&["bob@example.net"]).await;
    let Record::Discard(discard) = world.log.wait_for("discard", 1).await.remove(0) else { unreachable!() };
    assert_eq!((discard.stage.as_str(), discard.by.as_deref()), ("deliver", Some("oracle")));
    world.empty().await;
    assert_eq!(sink.log().sessions, 0);
}

#[tokio::test]
async fn a_quarantine_holds_until_released() {
    let (sink, world, _) = ruled(Verdict::Quarantine("spam".into()), vec![]).await;
    let id = world.mail(&["bob@example.net"]).await;
    world.log.wait_for("hold", 1).await;
    world.calm().await;
    assert_eq!(world.queue().await.held, 1);
    assert!(world.handle.show(id).await.unwrap().entry.hold.is_some());
    assert_eq!(sink.log().sessions, 0);
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
async fn the_envelope_is_changed_for_the_attempt() {
    let address = |text: &str| Address::parse(text, Charset::Ascii).unwrap();
    let edits = vec![
        Edit::RewriteRecipient(0, address("robert@example.net")),
        Edit::RemoveRecipient(1),
        Edit::RewriteSender(pintle_mail::ReversePath::Address(address("srs@gate.example"))),
    ];
    let (sink, world, _) = ruled(Verdict::Next, edits).await;
    world.mail(&["bob@example.net", "carl@example.net"]).await;
    let got = sink.wait_for(1).await;
    assert_eq!(got[0].recipients(), ["robert@example.net"]);
    assert_eq!(got[0].sender.address, "srs@gate.example");
    world.empty().await;
    assert_eq!((world.log.count("delivery"), world.log.count("discard")), (1, 1));
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
