//! Delivery to next hops: routes, mail exchangers, outcomes by recipient, retries, and the throttle of a next hop.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::net::SocketAddr;

use common::{MINUTE, World, by_mx, message_to, nobody, relay, to_relay, with_relay};
use pintle_dns::{DnsError, DnsRecordKind};
use pintle_mail::{Charset, NextHop, ReversePath};
use pintle_outbound::{Protocol, Route, RouteTable};
use pintle_record::Record;
use pintle_testkit::{Act, Script, Sink, SinkStep, StaticResolver};

/// Exchangers on this port.
fn reply_of(record: &Record) -> String {
    match record {
        Record::Delivery(delivery) => delivery.reply.to_string(),
        Record::Deferral(deferral) => deferral.reply.to_string(),
        Record::Bounce(bounce) => bounce.reply.to_string(),
        other => panic!("no reply in {other:?}"),
    }
}

fn recipient_of(record: &Record) -> String {
    match record {
        Record::Delivery(delivery) => delivery.job.recipient.to_string(),
        Record::Deferral(deferral) => deferral.job.recipient.to_string(),
        Record::Bounce(bounce) => bounce.job.recipient.to_string(),
        other => panic!("no recipient in {other:?}"),
    }
}

#[tokio::test]
async fn a_message_arrives_as_it_was_and_leaves_nothing_behind() {
    let sink = Sink::start(Script::new()).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    let id = world.mail(&["bob@example.net", "carl@example.com"]).await;
    let got = sink.wait_for(1).await;
    assert_eq!(got[0].text(), message_to(&[]).text());
    assert_eq!(got[0].sender.address, "anna@sender.example");
    assert_eq!(got[0].recipients(), ["bob@example.net", "carl@example.com"]);
    assert_eq!(got[0].hello, "gate.example.org");
    world.empty().await;
    let delivered = world.log.wait_for("delivery", 2).await;
    assert!(delivered.iter().all(|record| record.id() == Some(id)));
    world.calm().await;
    assert_eq!(world.queue().await.jobs, 0);
    sink.assert_no_violations();
}

#[tokio::test]
async fn what_was_pending_before_the_start_is_delivered() {
    let sink = Sink::start(Script::new()).await;
    let engine = std::sync::Arc::new(pintle_spool::Memory::new());
    for number in 0..3 {
        let id = pintle_mail::QueueId::new(common::START, number);
        let message = message_to(&["bob@example.net"]).message(id, common::START);
        pintle_spool::Spool::commit(engine.as_ref(), message).await.unwrap();
    }
    let world = World::over(engine, to_relay(&[sink.address()]), StaticResolver::new(), |_| {});
    sink.wait_for(3).await;
    world.empty().await;
}

#[tokio::test]
async fn recipients_with_different_routes_travel_apart() {
    let (one, two) = (Sink::start(Script::new()).await, Sink::start(Script::new()).await);
    let mut config = to_relay(&[one.address()]);
    config.relays.insert("other".into(), relay(&[two.address()]));
    config.routes = RouteTable::new(Route::Relay("next".into()))
        .with(".example.com", Route::Relay("other".into()))
        .with("void.example", Route::Discard);
    let world = World::start(config, StaticResolver::new());
    world.mail(&["a@x.example", "b@sub.example.com", "c@void.example"]).await;
    assert_eq!(one.wait_for(1).await[0].recipients(), ["a@x.example"]);
    assert_eq!(two.wait_for(1).await[0].recipients(), ["b@sub.example.com"]);
    world.empty().await;
    assert_eq!(world.log.wait_for("discard", 1).await.len(), 1);
}

#[tokio::test]
async fn the_next_exchanger_is_tried_when_the_first_is_out() {
    let sink = Sink::start(Script::new()).await;
    let port = sink.address().port();
    let resolver = StaticResolver::new()
        .with_mx("example.net", 10, "first.example.net")
        .with_mx("example.net", 20, "nowhere.example.net")
        .with_mx("example.net", 30, "second.example.net")
        // No host listens there.
        .with_address("first.example.net", "127.0.0.77")
        .with_address("second.example.net", "127.0.0.1");
    let world = World::start(by_mx(port), resolver);
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(1).await;
    let Record::Delivery(delivery) = world.log.wait_for("delivery", 1).await.remove(0) else {
        unreachable!()
    };
    assert_eq!(delivery.peer.host.as_deref(), Some("second.example.net"));
    assert_eq!(delivery.job.next_hop, NextHop::Mx("example.net".into()));
}

#[tokio::test]
async fn an_exchanger_that_greets_with_an_error_is_passed_over() {
    for greeting in ["421 4.3.2 busy", "554 5.3.2 no service"] {
        let sick = Sink::start(Script::new().reply(SinkStep::Connect, greeting)).await;
        let well =
            Sink::start_at(SocketAddr::from(([127, 0, 0, 2], sick.address().port())), Script::new()).await;
        let resolver = StaticResolver::new()
            .with_mx("example.net", 10, "sick.example.net")
            .with_mx("example.net", 20, "well.example.net")
            .with_address("sick.example.net", "127.0.0.1")
            .with_address("well.example.net", "127.0.0.2");
        let world = World::start(by_mx(sick.address().port()), resolver);
        world.mail(&["bob@example.net"]).await;
        well.wait_for(1).await;
        world.empty().await;
    }
}

#[tokio::test]
async fn when_every_exchanger_refuses_us_the_mail_waits() {
    let sink = Sink::start(Script::new().reply(SinkStep::Connect, "554 5.3.2 go away")).await;
    let resolver = StaticResolver::new().with_address("example.net", "127.0.0.1");
    let world = World::start(by_mx(sink.address().port()), resolver);
    world.mail(&["bob@example.net"]).await;
    let deferred = world.log.wait_for("deferral", 1).await;
    assert!(reply_of(&deferred[0]).contains("go away"), "{deferred:?}");
    assert_eq!(world.log.count("bounce"), 0);
}

#[tokio::test]
async fn a_domain_without_mx_is_its_own_exchanger() {
    let sink = Sink::start(Script::new()).await;
    let resolver = StaticResolver::new().with_address("example.net", "127.0.0.1");
    let world = World::start(by_mx(sink.address().port()), resolver);
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(1).await;
}

#[tokio::test]
async fn an_address_literal_asks_no_dns() {
    let sink = Sink::start(Script::new()).await;
    let resolver = StaticResolver::new();
    let world = World::start(by_mx(sink.address().port()), resolver.clone());
    world.mail(&["bob@[127.0.0.1]"]).await;
    assert_eq!(sink.wait_for(1).await[0].recipients(), ["bob@[127.0.0.1]"]);
    assert!(resolver.asked().is_empty());
}

/// What DNS says decides between failure and waiting.
#[tokio::test]
async fn dns_answers_fail_or_defer() {
    let resolver = StaticResolver::new()
        .with_mx("null.example", 0, ".")
        .with_mx("empty.example", 10, "no-address.example")
        .with_address("other.example", "127.0.0.1")
        .with_fault("broken.example", DnsRecordKind::Mx, DnsError::ServFail);
    let world = World::start(by_mx(1), resolver);
    for (domain, event, code) in [
        ("null.example", "bounce", "556 5.1.10"),
        ("unknown.example", "bounce", "550 5.1.2"),
        ("empty.example", "bounce", "550 5.4.4"),
        ("broken.example", "deferral", "451 4.4.3"),
    ] {
        let before = world.log.count(event);
        world.mail(&[&format!("bob@{domain}")]).await;
        let record = world.log.wait_for(event, before + 1).await.remove(before);
        assert!(reply_of(&record).starts_with(code), "{domain}: {record:?}");
    }
}

/// RFC 5321 section 5.1: exchangers that are not better than ourselves are not tried.
#[tokio::test]
async fn mail_that_would_come_back_to_us_fails() {
    let sink = Sink::start(Script::new()).await;
    let mut config = by_mx(sink.address().port());
    config.own_names = vec!["alias.example.org".into()];
    config.own_addresses = vec!["127.0.0.9".parse().unwrap()];
    let resolver = StaticResolver::new()
        .with_mx("one.example", 10, "gate.example.org")
        .with_mx("one.example", 20, "backup.example")
        .with_mx("two.example", 10, "alias.example.org")
        .with_mx("three.example", 10, "hidden.example")
        .with_mx("three.example", 20, "backup.example")
        .with_address("hidden.example", "127.0.0.9")
        .with_address("backup.example", "127.0.0.1");
    let world = World::start(config, resolver);
    for domain in ["one.example", "two.example", "three.example"] {
        world.mail(&[&format!("bob@{domain}")]).await;
    }
    let bounces = world.log.wait_for("bounce", 3).await;
    for bounce in &bounces {
        assert!(reply_of(bounce).starts_with("554 5.4.6"), "{bounce:?}");
    }
    assert_eq!(sink.log().count("MAIL FROM:<anna"), 0, "nothing was sent in a circle");
}

#[tokio::test]
async fn each_recipient_has_its_own_outcome() {
    let script = Script::new()
        .on_line(SinkStep::Rcpt, "later@", Act::Reply("450 4.2.1 mailbox busy".into()))
        .on_line(SinkStep::Rcpt, "never@", Act::Reply("550 5.1.1 no such user".into()));
    let sink = Sink::start(script).await;
    let mut config = to_relay(&[sink.address()]);
    // The report goes elsewhere, so that the sink sees the message alone.
    config.routes.add("sender.example", Route::Discard);
    let world = World::start(config, StaticResolver::new());
    let id = world.mail(&["now@example.net", "later@example.net", "never@example.net"]).await;
    assert_eq!(recipient_of(&world.log.wait_for("delivery", 1).await[0]), "now@example.net");
    assert_eq!(recipient_of(&world.log.wait_for("deferral", 1).await[0]), "later@example.net");
    assert_eq!(recipient_of(&world.log.wait_for("bounce", 1).await[0]), "never@example.net");
    world.calm().await;

    let stored = world.handle.show(id).await.unwrap();
    let pending: Vec<bool> = stored.recipients.iter().map(|state| state.status.pending().is_some()).collect();
    assert_eq!(pending, [false, true, false]);

    sink.follow(Script::new());
    world.clock.advance(MINUTE);
    let got = sink.wait_for(2).await;
    assert_eq!(got[1].recipients(), ["later@example.net"], "only who is left is tried again");
    world.empty().await;
}

#[tokio::test]
async fn waits_grow_and_survive_in_the_spool() {
    let script = Script::new().reply(SinkStep::Rcpt, "450 4.2.1 not yet");
    let sink = Sink::start(script).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    let id = world.mail(&["bob@example.net"]).await;
    for (attempts, wait) in [(1, 1), (2, 5), (3, 15)] {
        world.log.wait_for("deferral", attempts).await;
        world.calm().await;
        let stored = world.handle.show(id).await.unwrap();
        let pending = stored.recipients[0].status.pending().unwrap().clone();
        assert_eq!(pending.attempts as usize, attempts);
        assert_eq!(pending.next_attempt, pintle_outbound::Clock::now(&world.clock).plus(wait * MINUTE));
        assert_eq!(pending.last.unwrap().text, "not yet");
        world.clock.advance(wait * MINUTE);
    }
}

/// Older servers say 552 where 452 is meant (RFC 5321 section 4.5.3.1.10): the rest goes at once.
#[tokio::test]
async fn recipients_beyond_a_server_s_limit_follow_at_once() {
    for reply in ["452 4.5.3 too many recipients", "552 too many recipients", "550 5.5.3 too many recipients"]
    {
        let script = Script::new().on_nth(SinkStep::Rcpt, 3, Act::Reply(reply.into()));
        let sink = Sink::start(script).await;
        let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
        world.mail(&["a@example.net", "b@example.net", "c@example.net"]).await;
        let got = sink.wait_for(2).await;
        assert_eq!(got[0].recipients(), ["a@example.net", "b@example.net"]);
        assert_eq!(got[1].recipients(), ["c@example.net"]);
        world.empty().await;
        assert_eq!(world.log.count("deferral"), 0);
    }
}

/// Back pressure speaks for the whole next hop: one probe later, not each message.
#[tokio::test]
async fn a_next_hop_without_resources_is_put_off_as_a_whole() {
    let script = Script::new().reply(SinkStep::Mail, "452 4.3.1 Insufficient system resources");
    let sink = Sink::start(script).await;
    let mut config = to_relay(&[sink.address()]);
    config.sessions.total = 1;
    let world = World::start(config, StaticResolver::new());
    for _ in 0..5 {
        world.mail(&["bob@example.net"]).await;
    }
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    assert_eq!(sink.log().count("MAIL"), 1, "the other four wait");
    let hop = world.queue().await.hops.remove(0);
    assert!(hop.put_off.is_some() && hop.jobs == 5, "{hop:?}");
    sink.follow(Script::new());
    world.clock.advance(MINUTE);
    sink.wait_for(5).await;
    world.empty().await;
}

#[tokio::test]
async fn a_relay_s_hosts_are_tried_in_order_and_it_may_come_back() {
    let gone = nobody().await;
    let sink = Sink::start(Script::new()).await;
    let world = World::start(to_relay(&[gone, sink.address()]), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(1).await;

    let world = World::start(to_relay(&[gone]), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    let deferred = world.log.wait_for("deferral", 1).await;
    assert!(reply_of(&deferred[0]).starts_with("451 4.4.1"), "{deferred:?}");
    world.calm().await;
    let back = Sink::start_at(gone, Script::new()).await;
    world.clock.advance(MINUTE);
    back.wait_for(1).await;
}

#[tokio::test]
async fn lmtp_answers_for_each_recipient() {
    let script = Script::new()
        .lmtp()
        .on_line(SinkStep::Message, "full@", Act::Reply("452 4.2.2 mailbox full".into()))
        .on_line(SinkStep::Message, "gone@", Act::Reply("550 5.1.1 gone".into()));
    let sink = Sink::start(script).await;
    let mut relay = relay(&[sink.address()]);
    relay.protocol = Protocol::Lmtp;
    let mut config = with_relay(relay);
    config.routes = RouteTable::new(Route::Lmtp("next".into())).with("sender.example", Route::Discard);
    let world = World::start(config, StaticResolver::new());
    world.mail(&["ok@example.net", "full@example.net", "gone@example.net"]).await;
    assert_eq!(recipient_of(&world.log.wait_for("delivery", 1).await[0]), "ok@example.net");
    assert_eq!(recipient_of(&world.log.wait_for("deferral", 1).await[0]), "full@example.net");
    assert_eq!(recipient_of(&world.log.wait_for("bounce", 1).await[0]), "gone@example.net");
    sink.assert_no_violations();
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    let sink = Sink::start(Script::new()).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    let mut large = message_to(&["bob@example.net"]);
    large.body = ".x\r\nsome line of text that repeats itself\r\n".repeat(50_000);
    let text = large.text();
    world.commit(large).await;
    assert!(sink.wait_for(1).await[0].text() == text);
}

#[tokio::test]
async fn a_null_sender_stays_null() {
    let sink = Sink::start(Script::new()).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    let mut report = message_to(&["bob@example.net"]);
    report.sender = ReversePath::parse("", Charset::Ascii).unwrap();
    world.commit(report).await;
    assert_eq!(sink.wait_for(1).await[0].sender.address, "");
}
