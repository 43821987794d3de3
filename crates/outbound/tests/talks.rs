//! Whom one attempt asks: what is wrong with a session costs its message nothing, a deferral leads to the next exchanger,
//! and a next hop's weaknesses are remembered.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::net::SocketAddr;

use common::{HOUR, World, by_mx, to_relay};
use pintle_outbound::{Config, Route, Transfer};
use pintle_record::Record;
use pintle_testkit::{Act, Script, Sink, StaticResolver, Step};

fn last(text: &str) -> Act {
    Act::ReplyThenClose(text.into())
}

fn say(text: &str) -> Act {
    Act::Reply(text.into())
}

/// Sends these messages one after the other to a relay that behaves so. All that can be are delivered, and none is
/// deferred.
async fn undelayed(script: Script, messages: &[&[&str]], delivered: usize) -> Sink {
    let sink = Sink::start(script).await;
    let mut config = to_relay(&[sink.address()]);
    config.routes.add("sender.example", Route::Discard);
    let world = World::start(config, StaticResolver::new());
    for recipients in messages {
        world.mail(recipients).await;
        world.empty().await;
    }
    assert_eq!((sink.log().accepted().count(), world.log.count("deferral")), (delivered, 0));
    sink
}

/// RFC 5321 section 4.1.1.5 allows 250 alone. Who answers otherwise gets the next message over a new connection.
#[tokio::test]
async fn a_refused_rset_costs_the_next_message_nothing() {
    for reply in ["500 5.5.1 what?", "550 5.7.1 no", "451 4.3.0 not now", "421 4.3.2 bye"] {
        let script =
            Script::new().on_line(Step::Rcpt, "nobody", say("550 5.1.1 nobody")).on(Step::Rset, say(reply));
        let sink = undelayed(script, &[&["nobody@example.net"], &["bob@example.net"]], 1).await;
        assert_eq!(sink.log().count("EHLO"), 2, "{reply}");
    }
}

/// The end of a session that has carried mail says nothing about the message that it meets.
#[tokio::test]
async fn the_end_of_a_used_session_costs_the_message_nothing() {
    for (step, act) in [
        (Step::Mail, last("421 4.7.0 enough for one session")),
        (Step::Rcpt, last("421 4.7.0 enough for one session")),
        (Step::Data, last("421 4.7.0 enough for one session")),
        (Step::Rcpt, Act::Close),
        (Step::Data, Act::Close),
        (Step::Mail, Act::Raw(b"what is this?\r\n".to_vec())),
    ] {
        let script = Script::new().on_nth(step, 2, act);
        let sink = undelayed(script, &[&["bob@example.net"], &["bob@example.net"]], 2).await;
        assert_eq!(sink.log().count("EHLO"), 2, "{step:?}");
    }
}

/// What was said of single recipients before the end stands, and only the others are asked about again.
#[tokio::test]
async fn what_was_said_before_the_end_stands() {
    let script = Script::new().on_line(Step::Rcpt, "nobody", say("550 5.1.1 nobody")).on_nth(
        Step::Rcpt,
        3,
        last("421 4.7.0 enough"),
    );
    let messages: &[&[&str]] = &[&["bob@example.net"], &["nobody@example.net", "carl@example.net"]];
    let sink = undelayed(script, messages, 2).await;
    let log = sink.log();
    let asked = log.sessions;
    let lines: Vec<&str> = (0..asked).flat_map(|session| log.commands_of(session)).collect();
    assert_eq!(lines.iter().filter(|line| line.contains("nobody@")).count(), 1, "{lines:?}");
}

/// A new session that ends so is the next hop's word, and is not begun again and again.
#[tokio::test]
async fn the_end_of_a_new_session_is_a_deferral() {
    let sink = Sink::start(Script::new().on(Step::Rcpt, last("421 4.3.2 no service"))).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    assert_eq!(sink.log().count("EHLO"), 1);
}

fn chunking(sink: &Sink) -> Config {
    Config { transfer: Transfer::Chunking, ..to_relay(&[sink.address()]) }
}

#[tokio::test]
async fn a_next_hop_that_fails_at_bdat_gets_data_from_then_on() {
    let sink = Sink::start(Script::new().on_nth(Step::Message, 1, Act::Close)).await;
    let world = World::start(chunking(&sink), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    world.clock.advance(HOUR);
    sink.wait_for(1).await;
    world.empty().await;
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(2).await;
    // A chunk for the header, and one for the body.
    assert_eq!((sink.log().count("BDAT"), sink.log().count("DATA")), (2, 2));
}

/// A proxy that lets CHUNKING through: its 500 is about the command.
#[tokio::test]
async fn a_next_hop_that_does_not_know_bdat_gets_data_at_once() {
    let sink = Sink::start(Script::new().on_nth(Step::Message, 1, say("500 5.5.1 what?"))).await;
    let world = World::start(chunking(&sink), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(1).await;
    world.empty().await;
    assert_eq!((world.log.count("deferral"), world.log.count("bounce")), (0, 0));
    assert_eq!((sink.log().count("BDAT"), sink.log().count("DATA")), (2, 1));
}

/// Exchangers of example.net at one port of several addresses, the best one first.
struct Exchangers {
    sinks: Vec<Sink>,
    port: u16,
    resolver: StaticResolver,
}

impl Exchangers {
    async fn start(scripts: Vec<Script>) -> Self {
        let mut all = Self { sinks: Vec::new(), port: 0, resolver: StaticResolver::new() };
        for (number, script) in (1..).zip(scripts) {
            let sink = Sink::start_at(SocketAddr::from(([127, 0, 0, number], all.port)), script).await;
            all.port = sink.address().port();
            let name = format!("mx{number}.example.net");
            all.resolver = all
                .resolver
                .with_mx("example.net", u16::from(number) * 10, &name)
                .with_address(&name, &format!("127.0.0.{number}"));
            all.sinks.push(sink);
        }
        all
    }

    fn world(&self) -> World {
        World::start(by_mx(self.port), self.resolver.clone())
    }

    fn mails(&self) -> Vec<usize> {
        self.sinks.iter().map(|sink| sink.log().count("MAIL")).collect()
    }
}

/// RFC 5321 section 5.1.
#[tokio::test]
async fn the_next_exchanger_is_asked_when_the_first_puts_off() {
    for (step, act) in [
        (Step::Mail, say("451 4.3.0 not now")),
        (Step::Rcpt, say("450 4.2.0 greylisted")),
        (Step::Data, say("451 4.3.0 not now")),
        (Step::Message, say("451 4.3.0 not now")),
        (Step::Rcpt, last("421 4.3.2 no service")),
        (Step::Mail, Act::Close),
    ] {
        let mx = Exchangers::start(vec![Script::new().on(step, act), Script::new()]).await;
        let world = mx.world();
        world.mail(&["bob@example.net", "carl@example.net"]).await;
        let got = mx.sinks[1].wait_for(1).await;
        assert_eq!(got[0].recipients(), ["bob@example.net", "carl@example.net"], "{step:?}");
        world.empty().await;
        assert_eq!(world.log.count("deferral"), 0, "{step:?}");
        for delivery in world.log.wait_for("delivery", 2).await {
            let Record::Delivery(delivery) = delivery else { unreachable!() };
            assert_eq!(delivery.peer.host.as_deref(), Some("mx2.example.net"));
        }
    }
}

/// Only those whom the first puts off, and each message asks the first first.
#[tokio::test]
async fn the_first_exchanger_stays_the_first() {
    let picky = Script::new().on_line(Step::Rcpt, "bob", say("450 4.2.0 later"));
    let mx = Exchangers::start(vec![picky, Script::new()]).await;
    let world = mx.world();
    for number in 1..=2 {
        world.mail(&["bob@example.net", "carl@example.net"]).await;
        assert_eq!(mx.sinks[0].wait_for(number).await[number - 1].recipients(), ["carl@example.net"]);
        assert_eq!(mx.sinks[1].wait_for(number).await[number - 1].recipients(), ["bob@example.net"]);
        world.empty().await;
    }
    assert_eq!(mx.sinks[0].log().count("EHLO"), 1, "the session with the first one rests");
    mx.sinks[1].wait_idle().await;
}

/// A stand-in that does not know the users, or the domain any more, returns no mail that the first one wants later.
#[tokio::test]
async fn a_stand_in_s_refusal_is_not_believed_when_the_first_says_later() {
    let later = Script::new().on_nth(Step::Rcpt, 1, say("450 4.2.0 greylisted"));
    let mx = Exchangers::start(vec![later, Script::new().reply(Step::Rcpt, "550 5.7.1 no relaying")]).await;
    let world = mx.world();
    world.mail(&["bob@example.net"]).await;
    let Record::Deferral(deferral) = world.log.wait_for("deferral", 1).await.remove(0) else {
        unreachable!()
    };
    assert!(deferral.reply.to_string().contains("greylisted"), "{deferral:?}");
    assert_eq!(deferral.peer.host.as_deref(), Some("mx1.example.net"));
    world.calm().await;
    world.clock.advance(HOUR);
    mx.sinks[0].wait_for(1).await;
    world.empty().await;
    assert_eq!((mx.mails(), world.log.count("bounce")), (vec![2, 1], 0));
}

#[tokio::test]
async fn no_more_than_two_exchangers_are_asked_in_one_attempt() {
    let later = || Script::new().reply(Step::Rcpt, "450 4.2.0 greylisted");
    let mx = Exchangers::start(vec![later(), later(), later()]).await;
    let world = mx.world();
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    assert_eq!(mx.mails(), [1, 1, 0]);
}

/// After the end of a message silence may mean that it was taken.
#[tokio::test]
async fn a_message_whose_fate_is_not_known_goes_to_no_other_exchanger() {
    let mx = Exchangers::start(vec![Script::new().on(Step::Message, Act::Close), Script::new()]).await;
    let world = mx.world();
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    assert_eq!(mx.mails(), [1, 0]);
}

/// An attempt tries five addresses, and must not try the same five for ever.
#[tokio::test]
async fn a_living_exchanger_behind_six_dead_ones_is_reached() {
    let sink = Sink::start(Script::new()).await;
    let mut resolver = StaticResolver::new();
    for number in 1..=6 {
        let name = format!("dead{number}.example.net");
        let address = format!("127.0.1.{number}");
        resolver = resolver.with_mx("example.net", number, &name).with_address(&name, &address);
    }
    let resolver =
        resolver.with_mx("example.net", 10, "mx.example.net").with_address("mx.example.net", "127.0.0.1");
    let world = World::start(by_mx(sink.address().port()), resolver);
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    world.clock.advance(HOUR);
    sink.wait_for(1).await;
    world.empty().await;
    // From now on it is known.
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(2).await;
    world.empty().await;
    assert_eq!(world.log.count("deferral"), 1);
}
