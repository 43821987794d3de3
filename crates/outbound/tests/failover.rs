//! Failover within an attempt: a fault of a session costs its message nothing, a deferral leads to the next exchanger, and a
//! host's defects are remembered.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::net::SocketAddr;
use std::ops::Add;
use std::time::Duration;

use common::{HOUR, TestMessage, World, by_mx, message_to, to_relay};
use pintle_outbound::{Config, Route, Transfer};
use pintle_record::Record;
use pintle_testkit::{Act, Script, Sink, SinkStep, StaticResolver};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

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
        let script = Script::new()
            .on_line(SinkStep::Rcpt, "nobody", say("550 5.1.1 nobody"))
            .on(SinkStep::Rset, say(reply));
        let sink = undelayed(script, &[&["nobody@example.net"], &["bob@example.net"]], 1).await;
        assert_eq!(sink.log().count("EHLO"), 2, "{reply}");
    }
}

/// The end of a session that has carried mail says nothing about the message that it meets.
#[tokio::test]
async fn the_end_of_a_used_session_costs_the_message_nothing() {
    for (step, act) in [
        (SinkStep::Mail, last("421 4.7.0 enough for one session")),
        (SinkStep::Rcpt, last("421 4.7.0 enough for one session")),
        (SinkStep::Data, last("421 4.7.0 enough for one session")),
        (SinkStep::Rcpt, Act::Close),
        (SinkStep::Data, Act::Close),
        (SinkStep::Mail, Act::Raw(b"what is this?\r\n".to_vec())),
        (SinkStep::Mail, say("503 5.5.1 sender already given")),
        (SinkStep::Rcpt, say("503 5.5.1 MAIL first")),
        (SinkStep::Data, say("503 5.5.1 RCPT first")),
    ] {
        let script = Script::new().on_nth(step, 2, act);
        let sink = undelayed(script, &[&["bob@example.net"], &["bob@example.net"]], 2).await;
        assert_eq!(sink.log().count("EHLO"), 2, "{step:?}");
    }
}

/// What was said of single recipients before the end stands, and only the others are asked about again.
#[tokio::test]
async fn what_was_said_before_the_end_stands() {
    let script = Script::new().on_line(SinkStep::Rcpt, "nobody", say("550 5.1.1 nobody")).on_nth(
        SinkStep::Rcpt,
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
    let sink = Sink::start(Script::new().on(SinkStep::Rcpt, last("421 4.3.2 no service"))).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    assert_eq!(sink.log().count("EHLO"), 1);
}

/// It has lost a command, or its mind; nothing is said about the message.
#[tokio::test]
async fn a_new_session_that_is_out_of_step_is_a_deferral() {
    for step in [SinkStep::Mail, SinkStep::Data] {
        // Once with commands sent ahead, and once without.
        let script = Script::new().on_nth(step, 1, say("503 5.5.1 bad sequence"));
        let sink = Sink::start(script.on_nth(step, 2, say("503 5.5.1 bad sequence"))).await;
        let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
        world.mail(&["bob@example.net"]).await;
        world.log.wait_for("deferral", 1).await;
        world.calm().await;
        world.clock.advance(HOUR);
        sink.wait_for(1).await;
        world.empty().await;
        assert_eq!(world.log.count("bounce"), 0, "{step:?}");
    }
}

/// A proxy that lets PIPELINING through: to commands that come along with MAIL it says this, and forgets them.
async fn forgetful(listener: TcpListener, ahead: &str) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mx.example.net\r\n").await.unwrap();
        let mut octets = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut octets).await {
            let text = String::from_utf8_lossy(&octets[..read]);
            let reply = match text.get(..4) {
                Some("EHLO") => "250-mx.example.net\r\n250 PIPELINING",
                Some("DATA") => "354 go",
                Some("MAIL") if text.lines().count() > 1 => ahead,
                _ => "250 ok",
            };
            stream.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_next_hop_that_loses_commands_gets_one_at_a_time() {
    // Some is waited for in vain; or a reply tells at once.
    for (ahead, deferrals) in [("250 ok", 1), ("250 ok\r\n250 ok\r\n503 RCPT first", 0)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = to_relay(&[listener.local_addr().unwrap()]);
        config.timeouts.rcpt = Duration::from_secs(1);
        let world = World::start(config, StaticResolver::new());
        let delivered = async {
            world.mail(&["bob@example.net"]).await;
            world.log.wait_for("deferral", deferrals).await;
            if deferrals > 0 {
                world.calm().await;
                world.clock.advance(HOUR);
            }
            world.log.wait_for("delivery", 1).await;
        };
        tokio::select! {
            () = forgetful(listener, ahead) => {}
            () = delivered => {}
        }
        assert_eq!(world.log.count("deferral"), deferrals);
    }
}

/// Several ports of one address are several hosts.
#[tokio::test]
async fn the_second_host_of_a_relay_may_be_another_port() {
    let later = Sink::start(Script::new().reply(SinkStep::Rcpt, "450 4.2.0 later")).await;
    let sink = Sink::start(Script::new()).await;
    let world = World::start(to_relay(&[later.address(), sink.address()]), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("delivery", 1).await;
    assert_eq!((later.log().count("MAIL"), sink.log().accepted().count()), (1, 1));
}

fn chunking(sink: &Sink) -> Config {
    Config { transfer: Transfer::Chunking, ..to_relay(&[sink.address()]) }
}

#[tokio::test]
async fn a_next_hop_that_fails_at_bdat_gets_data_from_then_on() {
    let sink = Sink::start(Script::new().on_nth(SinkStep::Message, 1, Act::Close)).await;
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
    let sink = Sink::start(Script::new().on_nth(SinkStep::Message, 1, say("500 5.5.1 what?"))).await;
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
        (SinkStep::Mail, say("451 4.3.0 not now")),
        (SinkStep::Rcpt, say("450 4.2.0 greylisted")),
        (SinkStep::Data, say("451 4.3.0 not now")),
        (SinkStep::Message, say("451 4.3.0 not now")),
        (SinkStep::Rcpt, last("421 4.3.2 no service")),
        (SinkStep::Mail, Act::Close),
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
    let picky = Script::new().on_line(SinkStep::Rcpt, "bob", say("450 4.2.0 later"));
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
    let later = Script::new().on_nth(SinkStep::Rcpt, 1, say("450 4.2.0 greylisted"));
    let mx =
        Exchangers::start(vec![later, Script::new().reply(SinkStep::Rcpt, "550 5.7.1 no relaying")]).await;
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
    let later = || Script::new().reply(SinkStep::Rcpt, "450 4.2.0 greylisted");
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
    let mx = Exchangers::start(vec![Script::new().on(SinkStep::Message, Act::Close), Script::new()]).await;
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

/// A message that only some hosts can carry.
fn needy() -> TestMessage {
    let recipients = vec![common::recipient(0, "b\u{f6}b@example.net")];
    TestMessage { recipients, ..message_to(&[]) }
}

/// What a host does not offer it was not asked for, and has not refused.
#[tokio::test]
async fn an_exchanger_that_lacks_what_a_message_needs_does_not_speak_for_the_domain() {
    let bare = || Script::new().hide("SMTPUTF8");
    let mx = Exchangers::start(vec![bare(), Script::new()]).await;
    let world = mx.world();
    world.commit(needy()).await;
    mx.sinks[1].wait_for(1).await;
    world.empty().await;
    assert_eq!((world.log.count("bounce"), mx.mails()), (0, vec![0, 1]));
    // Where all lack it, the sender hears at once; and a message too large for the best one is too large.
    let small = Script::new().hide("SIZE").offer("SIZE 10");
    for scripts in [vec![bare(), bare()], vec![small, Script::new()]] {
        let mx = Exchangers::start(scripts).await;
        let world = mx.world();
        world.commit(needy()).await;
        world.log.wait_for("bounce", 1).await;
        assert_eq!((world.log.count("deferral"), mx.mails()), (0, vec![0, 0]));
    }
}

/// The best exchanger is away, or its session breaks, or it says later; and the next one lacks what the message needs, or room
/// for it. The best one may not.
#[tokio::test]
async fn what_a_stand_in_lacks_the_better_exchanger_is_waited_for() {
    for (step, act) in [
        (SinkStep::Connect, say("421 4.3.2 busy")),
        (SinkStep::Rcpt, Act::Close),
        (SinkStep::Mail, say("450 4.3.0 later")),
    ] {
        for worse in [Script::new().hide("SMTPUTF8"), Script::new().hide("SIZE").offer("SIZE 10")] {
            let mut first = Script::new().on_nth(step, 1, act.clone());
            if step == SinkStep::Connect {
                // It is looked for again after the stand-in has been asked.
                first = first.on_nth(step, 2, act.clone());
            }
            let mx = Exchangers::start(vec![first, worse]).await;
            let world = mx.world();
            world.commit(needy()).await;
            world.log.wait_for("deferral", 1).await;
            world.calm().await;
            world.clock.advance(HOUR);
            mx.sinks[0].wait_for(1).await;
            world.empty().await;
            assert_eq!(world.log.count("bounce"), 0, "{step:?}");
        }
    }
}

/// A next hop may refuse a message before its end and read no further.
#[tokio::test]
async fn a_refusal_amid_the_message_is_heard_though_the_rest_is_not_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = to_relay(&[listener.local_addr().unwrap()]);
    config.routes.add("sender.example", Route::Discard);
    let world = World::start(config, StaticResolver::new());
    let mut large = message_to(&["bob@example.net"]);
    large.body = "x".repeat(998).add("\r\n").repeat(32_000);
    world.commit(large).await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 mx.example.net\r\n").await.unwrap();
    for (verb, reply) in [
        ("EHLO", "250 mx"),
        ("MAIL", "250 ok"),
        ("RCPT", "250 ok"),
        ("DATA", "354 go"),
        ("", "552 5.3.4 enough"),
    ] {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.starts_with(verb), "{line}");
        stream.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
    }
    let Record::Bounce(bounce) = world.log.wait_for("bounce", 1).await.remove(0) else { unreachable!() };
    assert!(bounce.reply.to_string().contains("enough"), "{bounce:?}");
}

/// A stranger lists our neighbour's exchanger among dead ones, in a moment in which it has no time.
#[tokio::test]
async fn what_is_dead_for_one_domain_is_not_so_for_another() {
    let mx = Exchangers::start(vec![
        Script::new().on_nth(SinkStep::Connect, 1, say("421 4.3.2 busy")),
        Script::new(),
    ])
    .await;
    let mut resolver = mx.resolver.clone();
    for (number, address) in
        (1..).zip(["127.0.0.1", "127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4", "127.0.1.5"])
    {
        let name = format!("mx{number}.trap.example");
        resolver = resolver.with_mx("trap.example", number, &name).with_address(&name, address);
    }
    let world = World::start(by_mx(mx.port), resolver);
    world.mail(&["eve@trap.example"]).await;
    world.log.wait_for("deferral", 1).await;
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("delivery", 1).await;
    assert_eq!(mx.mails(), [1, 0]);
}
