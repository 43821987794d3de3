//! TLS with next hops, the fallback to plain text, and credentials.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::time::Duration;

use common::{World, by_mx, message_to, relay, to_relay, trusting, with_relay};
use pintle_mail::TlsPolicy;
use pintle_outbound::{Channel, Config, Credentials, Endpoint};
use pintle_record::{Deferral, Delivery, Record};
use pintle_testkit::{Act, Script, Sink, SinkStep, StaticResolver, TestCa};

async fn delivered(world: &World) -> Delivery {
    match world.log.wait_for("delivery", 1).await.remove(0) {
        Record::Delivery(delivery) => delivery,
        other => panic!("{other:?}"),
    }
}

async fn deferred(world: &World) -> Deferral {
    match world.log.wait_for("deferral", 1).await.remove(0) {
        Record::Deferral(deferral) => deferral,
        other => panic!("{other:?}"),
    }
}

fn demanding(sink: &Sink, tls: TlsPolicy) -> Config {
    let mut relay = relay(&[sink.address()]);
    relay.tls = tls;
    with_relay(relay)
}

/// A name in place of the address, so that a certificate can be verified.
fn named(sink: &Sink, tls: TlsPolicy) -> (Config, StaticResolver) {
    let mut relay = relay(&[]);
    relay.hosts = vec![Endpoint::Tcp { host: "mail.example.net".into(), port: sink.address().port() }];
    relay.tls = tls;
    let resolver = StaticResolver::new().with_address("mail.example.net", "127.0.0.1");
    (with_relay(relay), resolver)
}

#[tokio::test]
async fn tls_is_used_where_it_is_offered() {
    let leaf = TestCa::new().issue(&["elsewhere.example"]);
    let sink = Sink::start(Script::new().starttls(&leaf)).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    assert_eq!(sink.wait_for(1).await[0].tls.as_deref(), Some("TLSv1.3"));
    let tls = delivered(&world).await.peer.tls.unwrap();
    assert_eq!((tls.version.as_str(), tls.verified), ("TLSv1.3", false));
    sink.assert_no_violations();
}

/// In TLS 1.3 the client has finished before the server refuses, say for want of a certificate of ours; and some end the
/// session over the word STARTTLS.
#[tokio::test]
async fn a_session_that_ends_over_tls_leads_back_to_plain_text() {
    let leaf = TestCa::new().issue(&["127.0.0.1"]);
    for (step, nth, act) in [
        (SinkStep::Ehlo, 2, Act::Close),
        (SinkStep::StartTls, 1, Act::Close),
        (SinkStep::StartTls, 1, Act::ReplyThenClose("421 4.7.0 no TLS today".into())),
        (SinkStep::Ehlo, 2, Act::Hold),
    ] {
        let sink = Sink::start(Script::new().starttls(&leaf).on_nth(step, nth, act)).await;
        let mut config = to_relay(&[sink.address()]);
        config.timeouts.command = Duration::from_secs(2);
        let world = World::start(config, StaticResolver::new());
        world.mail(&["bob@example.net"]).await;
        assert_eq!(sink.wait_for(1).await[0].tls, None, "{step:?}");
        world.empty().await;
        assert_eq!(world.log.count("deferral"), 0, "{step:?}");
    }
}

/// TLS fails once, as on a busy host, which then wants it all the same: nothing is said about the message.
#[tokio::test]
async fn a_host_that_insists_on_tls_gets_it_again() {
    let leaf = TestCa::new().issue(&["127.0.0.1"]);
    for reply in ["530 5.7.0 Must issue a STARTTLS command first", "550 5.7.10 encryption needed"] {
        let script = Script::new().starttls(&leaf);
        let script = script.on_nth(SinkStep::StartTls, 1, Act::Raw(b"220 ready\r\n".to_vec()));
        let script = script.on_nth(SinkStep::Mail, 1, Act::Reply(reply.into()));
        let sink = Sink::start(script).await;
        let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
        world.mail(&["bob@example.net"]).await;
        assert_eq!(sink.wait_for(1).await[0].tls.as_deref(), Some("TLSv1.3"));
        world.empty().await;
        assert_eq!((world.log.count("deferral"), world.log.count("bounce")), (0, 0), "{reply}");
    }
}

/// Where it gets none, the mail waits.
#[tokio::test]
async fn mail_for_a_host_that_insists_on_tls_waits_until_tls_works() {
    let leaf = TestCa::new().issue(&["127.0.0.1"]);
    let script = Script::new().starttls(&leaf).on(SinkStep::StartTls, Act::Raw(b"220 ready\r\n".to_vec()));
    let sink =
        Sink::start(script.reply(SinkStep::Mail, "530 5.7.0 Must issue a STARTTLS command first")).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    assert_eq!(deferred(&world).await.reply.code, 530);
    world.calm().await;
    assert_eq!((sink.log().count("STARTTLS"), sink.log().count("MAIL")), (2, 2), "once more, and no oftener");
}

/// RFC 7435: what cannot be encrypted goes in plain text, over a new connection, and so does the next for a while.
#[tokio::test]
async fn a_failing_handshake_leads_back_to_plain_text_and_is_remembered() {
    let leaf = TestCa::new().issue(&["127.0.0.1"]);
    let script = Script::new().starttls(&leaf).on(SinkStep::StartTls, Act::Raw(b"220 ready\r\n".to_vec()));
    let sink = Sink::start(script).await;
    let mut config = to_relay(&[sink.address()]);
    config.sessions.messages = 1;
    let world = World::start(config, StaticResolver::new());
    for number in 1..=2 {
        world.mail(&["bob@example.net"]).await;
        let got = sink.wait_for(number).await;
        assert_eq!(got[number - 1].tls, None);
        world.log.wait_for("delivery", number).await;
    }
    assert_eq!(sink.log().count("STARTTLS"), 1);
    assert_eq!(world.log.count("deferral"), 0);
}

#[tokio::test]
async fn required_tls_never_falls_back() {
    let leaf = TestCa::new().issue(&["127.0.0.1"]);
    let broken = Script::new().starttls(&leaf).on(SinkStep::StartTls, Act::Raw(b"220 ready\r\n".to_vec()));
    for script in [Script::new(), broken] {
        let sink = Sink::start(script).await;
        let world = World::start(demanding(&sink, TlsPolicy::Required), StaticResolver::new());
        world.mail(&["bob@example.net"]).await;
        let reply = deferred(&world).await.reply.to_string();
        assert!(reply.starts_with("451 4.7."), "{reply}");
        assert_eq!(sink.log().count("MAIL"), 0);
    }
}

#[tokio::test]
async fn verification_wants_the_right_name_and_authority() {
    let ca = TestCa::new();
    for (leaf, good) in [
        (ca.issue(&["mail.example.net"]), true),
        (ca.issue(&["other.example.net"]), false),
        (TestCa::new().issue(&["mail.example.net"]), false),
    ] {
        let sink = Sink::start(Script::new().starttls(&leaf)).await;
        let (config, resolver) = named(&sink, TlsPolicy::Verified);
        let world = World::start_with(config, resolver, |parts| parts.tls = trusting(&ca));
        world.mail(&["bob@example.net"]).await;
        if good {
            assert!(delivered(&world).await.peer.tls.unwrap().verified);
        } else {
            let reply = deferred(&world).await.reply.to_string();
            assert!(reply.starts_with("451 4.7.5"), "{reply}");
            assert_eq!(sink.log().count("MAIL"), 0);
        }
    }
}

#[tokio::test]
async fn a_smart_host_with_implicit_tls_and_a_login() {
    let ca = TestCa::new();
    let leaf = ca.issue(&["mail.example.net"]);
    let sink = Sink::start(Script::new().implicit_tls(&leaf).login("gate", "secret")).await;
    let (mut config, resolver) = named(&sink, TlsPolicy::Verified);
    let relay = config.relays.get_mut("next").unwrap();
    relay.implicit_tls = true;
    relay.credentials = Some(Credentials::new("gate", "secret"));
    let world = World::start_with(config, resolver, |parts| parts.tls = trusting(&ca));
    world.mail(&["bob@example.net"]).await;
    let got = sink.wait_for(1).await;
    assert_eq!(got[0].user.as_deref(), Some("gate"));
    assert!(delivered(&world).await.peer.tls.unwrap().verified);
    sink.assert_no_violations();
}

#[tokio::test]
async fn a_refused_login_defers_and_is_the_operator_s_to_mend() {
    let leaf = TestCa::new().issue(&["127.0.0.1"]);
    let sink = Sink::start(Script::new().starttls(&leaf).login("gate", "secret")).await;
    let mut config = demanding(&sink, TlsPolicy::Required);
    let credentials = Credentials { over: Channel::Tls, ..Credentials::new("gate", "wrong") };
    config.relays.get_mut("next").unwrap().credentials = Some(credentials);
    let world = World::start(config, StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    let reply = deferred(&world).await.reply;
    assert_eq!(reply.code / 100, 5, "the next hop's own words: {reply}");
    assert_eq!(sink.log().count("MAIL"), 0);
}

/// RFC 8689: such a message goes to no host that is not authenticated, whatever the configuration allows.
#[tokio::test]
async fn a_message_that_requires_tls_goes_nowhere_without() {
    let sink = Sink::start(Script::new()).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    let mut mail = message_to(&["bob@example.net"]);
    mail.params.require_tls = true;
    world.commit(mail).await;
    deferred(&world).await;
    assert_eq!(sink.log().count("MAIL"), 0);
}

/// A stranger can make TLS fail at any address under a name of his own, for which no host has a certificate.
#[tokio::test]
async fn a_stranger_s_name_for_a_host_costs_nobody_else_tls() {
    let leaf = TestCa::new().issue(&["mx.example.net"]);
    let script =
        Script::new().starttls(&leaf).on_nth(SinkStep::StartTls, 1, Act::Raw(b"220 ready\r\n".to_vec()));
    let sink = Sink::start(script).await;
    let mut resolver = StaticResolver::new();
    for domain in ["trap.example", "example.net"] {
        let host = format!("mx.{domain}");
        resolver = resolver.with_mx(domain, 10, &host).with_address(&host, "127.0.0.1");
    }
    let world = World::start(by_mx(sink.address().port()), resolver);
    for (recipient, tls) in [("eve@trap.example", false), ("bob@example.net", true)] {
        world.mail(&[recipient]).await;
        world.empty().await;
        assert_eq!(sink.log().transactions.pop().unwrap().tls.is_some(), tls, "{recipient}");
    }
}
