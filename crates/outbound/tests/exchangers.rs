//! Which addresses of mail exchangers are connected to, since strangers publish them.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use common::{World, by_mx, message_to};
use pintle_mail::{Charset, ReversePath};
use pintle_record::{Record, Unreported};
use pintle_testkit::{Script, Sink, StaticResolver};

/// The reply with which the first delivery failed.
async fn failed(world: &World) -> String {
    match world.log.wait_for("bounce", 1).await.remove(0) {
        Record::Bounce(bounce) => bounce.reply.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Exchangers at addresses that are not public are not connected to; the sender gets a bounce at once.
#[tokio::test]
async fn an_exchanger_inside_fails_at_once() {
    let sink = Sink::start(Script::new()).await;
    let mut config = by_mx(sink.address().port());
    config.mx.networks.clear();
    for address in
        ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "169.254.169.254", "10.1.2.3", "64:ff9b::127.0.0.1"]
    {
        let resolver = StaticResolver::new()
            .with_mx("trap.example", 10, "mx.trap.example")
            .with_address("mx.trap.example", address);
        let world = World::start(config.clone(), resolver);
        world.mail(&["bob@trap.example"]).await;
        let reply = failed(&world).await;
        assert!(reply.starts_with("550 5.4.4") && reply.contains("mx.trap.example"), "{address}: {reply}");
    }
    let world = World::start(config, StaticResolver::new().with_address("trap.example", "127.0.0.1"));
    for recipient in ["bob@trap.example", "bob@[127.0.0.1]", "bob@[IPv6:::ffff:127.0.0.1]"] {
        world.mail(&[recipient]).await;
    }
    for bounce in world.log.wait_for("bounce", 3).await {
        let Record::Bounce(bounce) = bounce else { unreachable!() };
        assert!(bounce.reply.to_string().starts_with("550 5.4.4"), "{bounce:?}");
    }
    assert_eq!(sink.log().sessions, 0);
}

/// The sender's address is a stranger's word too, and a report must not lead inside by it.
#[tokio::test]
async fn no_report_goes_to_an_address_inside() {
    let sink = Sink::start(Script::new()).await;
    let mut config = by_mx(sink.address().port());
    config.mx.networks.clear();
    let resolver = StaticResolver::new()
        .with_address("trap.example", "127.0.0.1")
        .with_address("v6.example", "fd00::1")
        .with_address("six.example", "2002:7f00:1::1")
        .with_mx("mx.example", 10, "trap.example");
    for sender in [
        "anna@[127.0.0.1]",
        "anna@[IPv6:::1]",
        "anna@[IPv6:::ffff:127.0.0.1]",
        "anna@[IPv6:64:ff9b::127.0.0.1]",
        "anna@trap.example",
        "anna@v6.example",
        "anna@six.example",
        "anna@mx.example",
    ] {
        let world = World::start(config.clone(), resolver.clone());
        let mut mail = message_to(&["bob@trap.example"]);
        mail.sender = ReversePath::parse(sender, Charset::Ascii).unwrap();
        world.commit(mail).await;
        let Record::Bounce(second) = world.log.wait_for("bounce", 2).await.remove(1) else { unreachable!() };
        assert!(second.reply.to_string().starts_with("550 5.4.4"), "{sender}: {second:?}");
        assert_eq!(second.unreported, Some(Unreported::NullSender), "{sender}");
        world.empty().await;
    }
    assert_eq!(sink.log().sessions, 0);
}

#[tokio::test]
async fn only_the_addresses_that_may_be_are_tried() {
    let sink = Sink::start(Script::new()).await;
    let resolver = StaticResolver::new()
        .with_mx("mixed.example", 10, "inside.example")
        .with_mx("mixed.example", 20, "mixed.example")
        .with_address("inside.example", "10.1.2.3")
        .with_address("mixed.example", "192.168.0.1")
        .with_address("mixed.example", "127.0.0.1");
    let world = World::start(by_mx(sink.address().port()), resolver);
    world.mail(&["bob@mixed.example"]).await;
    sink.wait_for(1).await;
}

/// The mail would come in again at our own listener, thirty times.
#[tokio::test]
async fn an_exchanger_that_is_our_listener_on_a_wildcard_address_is_a_loop() {
    let sink = Sink::start(Script::new()).await;
    let port = sink.address().port();
    let mut config = by_mx(port);
    config.listeners = vec![([0, 0, 0, 0], port).into()];
    for address in ["127.0.0.1", "127.0.0.77", "0.0.0.0", "::ffff:127.0.0.1"] {
        let resolver = StaticResolver::new().with_address("loop.example", address);
        let world = World::start(config.clone(), resolver);
        world.mail(&["bob@loop.example"]).await;
        let reply = failed(&world).await;
        assert!(reply.starts_with("554 5.4.6"), "{address}: {reply}");
    }
    assert_eq!(sink.log().sessions, 0);
}

/// RFC 5321 section 5.1: if one of several equal exchangers is ourselves by its address, none of them is tried, whichever
/// comes first; a better one is.
#[tokio::test]
async fn none_is_tried_that_is_no_better_than_ourselves() {
    let sink = Sink::start(Script::new()).await;
    let mut config = by_mx(sink.address().port());
    config.own_addresses = vec!["127.0.0.9".parse().unwrap()];
    let resolver = StaticResolver::new()
        .with_mx("equal.example", 10, "other.example")
        .with_mx("equal.example", 10, "hidden.example")
        .with_mx("equal.example", 20, "worse.example")
        .with_mx("better.example", 5, "other.example")
        .with_mx("better.example", 10, "hidden.example")
        .with_address("hidden.example", "127.0.0.9")
        .with_address("worse.example", "127.0.0.1")
        .with_address("other.example", "127.0.0.1");
    let world = World::start(config, resolver);
    let rounds = 12;
    for _ in 0..rounds {
        world.mail(&["bob@equal.example"]).await;
    }
    for bounce in world.log.wait_for("bounce", rounds).await {
        let Record::Bounce(bounce) = bounce else { unreachable!() };
        assert!(bounce.reply.to_string().starts_with("554 5.4.6"), "{bounce:?}");
    }
    assert_eq!(sink.log().sessions, 0);
    world.mail(&["bob@better.example"]).await;
    sink.wait_for(1).await;
}

/// Each costs two questions.
#[tokio::test]
async fn a_domain_with_thousands_of_exchangers_costs_no_thousands_of_questions() {
    let domain = "many.example";
    let mut resolver = StaticResolver::new();
    for number in 0..2_000 {
        resolver = resolver.with_mx(domain, number, &format!("mx{number}.{domain}"));
    }
    let world = World::start(by_mx(1), resolver.clone());
    world.mail(&["bob@many.example"]).await;
    failed(&world).await;
    assert!(resolver.asked().len() < 100, "{} questions", resolver.asked().len());
}
