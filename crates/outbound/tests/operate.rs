//! Operators' commands while deliveries run (retry, hold, release, bounce, reroute), and capture in place of delivery.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::sync::{Arc, Mutex};

use common::{MINUTE, World, config, message_to, relay, to_relay};
use futures_util::future::BoxFuture;
use pintle_mail::{EnhancedCode, NextHop, QueueId, Reply};
use pintle_outbound::{
    Capture, CapturedMessage, CommandOutcome, CommandResults, Config, OperateError, Route, RouteTable, Select,
};
use pintle_record::Record;
use pintle_spool::{Filter, HoldReason, Page, Quarantine, SpoolError};
use pintle_testkit::{Act, Script, Sink, SinkStep, StaticResolver, within};

fn one(id: QueueId) -> Select {
    Select::Ids(vec![id])
}

fn all() -> Select {
    Select::Matching(Filter::default())
}

/// A world whose next hop defers everything, with one message waiting.
async fn waiting() -> (Sink, World, QueueId) {
    let sink = Sink::start(Script::new().reply(SinkStep::Rcpt, "450 4.2.1 not yet")).await;
    let mut config = to_relay(&[sink.address()]);
    config.routes.add("sender.example", Route::Discard);
    let world = World::start(config, StaticResolver::new());
    let id = world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    (sink, world, id)
}

#[tokio::test]
async fn list_and_show_tell_how_each_recipient_stands() {
    let (_sink, world, id) = waiting().await;
    let page = Page { after: None, limit: 10 };
    let listing = world.handle.list(Filter::default(), page).await.unwrap();
    assert_eq!(listing.messages.len(), 1);
    assert_eq!(listing.messages[0].id, id);
    let shown = world.handle.show(id).await.unwrap();
    assert_eq!(shown.recipients[0].status.pending().unwrap().last.as_ref().unwrap().code, 450);
    let unknown = QueueId::from_bytes([9; 16]);
    let error = world.handle.show(unknown).await.unwrap_err();
    assert_eq!(error, OperateError::Spool(SpoolError::Unknown(unknown)));
}

#[tokio::test]
async fn retry_does_not_wait() {
    let (sink, world, id) = waiting().await;
    sink.follow(Script::new());
    assert_eq!(world.handle.retry(one(id)).await.unwrap().done(), 1);
    sink.wait_for(1).await;
    world.empty().await;
}

#[tokio::test]
async fn held_mail_waits_for_its_release() {
    let (sink, world, id) = waiting().await;
    sink.follow(Script::new());
    assert_eq!(world.handle.hold(all(), "looking at it").await.unwrap().done(), 1);
    world.clock.advance(MINUTE);
    let held = vec![CommandOutcome::Held("held: looking at it".into())];
    assert_eq!(outcomes(world.handle.retry(one(id)).await.unwrap()), held);
    world.calm().await;
    assert_eq!(world.queue().await.held, 1);
    assert_eq!(sink.log().accepted().count(), 0);
    world.handle.release(one(id), None).await.unwrap();
    sink.wait_for(1).await;
    world.empty().await;
    assert_eq!((world.log.count("hold"), world.log.count("release")), (1, 1));
}

#[tokio::test]
async fn a_bounce_by_hand_reports_and_removes() {
    let (_sink, world, id) = waiting().await;
    assert_eq!(world.handle.bounce(one(id), "the operator says no").await.unwrap().done(), 1);
    let bounce = world.log.wait_for("bounce", 1).await.remove(0);
    assert_eq!(bounce.id(), Some(id));
    let Record::Bounce(bounce) = bounce else { unreachable!() };
    assert_eq!(bounce.by.as_deref(), Some("operator"));
    assert_eq!(bounce.job.next_hop, NextHop::Relay("next".to_owned()));
    assert_eq!(world.log.wait_for("report", 1).await.len(), 1);
    world.empty().await;
    world.calm().await;
    assert_eq!(world.queue().await.jobs, 0);
}

/// A world with one message in the quarantine `spam`, from a sender whose reports would be delivered.
async fn quarantined() -> (Sink, World, QueueId) {
    let sink = Sink::start(Script::new()).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    let id = QueueId::new(common::START, 7);
    let mut message = message_to(&["bob@example.net"]).message(id, common::START);
    message.entry.hold = Some(HoldReason::Quarantine(Quarantine::new("spam", common::START)));
    world.outbound.spool().commit(message).await.unwrap();
    world.calm().await;
    (sink, world, id)
}

fn outcomes(acts: CommandResults) -> Vec<CommandOutcome> {
    acts.0.into_iter().map(|act| act.outcome).collect()
}

#[tokio::test]
async fn what_is_released_from_a_quarantine_arrives_and_all_else_is_named() {
    let (sink, world, id) = quarantined().await;
    let stranger = QueueId::from_bytes([9; 16]);
    let both = || Select::Ids(vec![stranger, id]);
    let acts = world.handle.release_quarantined(both(), Some("anna")).await.unwrap();
    assert_eq!(outcomes(acts), [CommandOutcome::Unknown, CommandOutcome::Done]);
    let Record::Release(release) = world.log.wait_for("release", 1).await.remove(0) else { unreachable!() };
    assert_eq!((release.quarantine.as_deref(), release.user.as_deref()), (Some("spam"), Some("anna")));
    sink.wait_for(1).await;
    world.empty().await;
    let acts = world.handle.release_quarantined(both(), None).await.unwrap();
    assert_eq!(outcomes(acts), [CommandOutcome::Unknown, CommandOutcome::Unknown]);
}

#[tokio::test]
async fn what_is_deleted_from_a_quarantine_never_arrives_and_begets_nothing() {
    let (sink, world, id) = quarantined().await;
    let acts = world.handle.delete_quarantined(one(id), Some("anna")).await.unwrap();
    assert_eq!(outcomes(acts), [CommandOutcome::Done]);
    let Record::Discard(discard) = world.log.wait_for("discard", 1).await.remove(0) else { unreachable!() };
    assert_eq!((discard.stage.as_str(), discard.by.as_deref()), ("quarantine", Some("operator")));
    assert_eq!((discard.quarantine.as_deref(), discard.user.as_deref()), (Some("spam"), Some("anna")));
    world.empty().await;
    world.calm().await;
    assert_eq!(world.queue().await.jobs, 0);
    assert_eq!((sink.log().sessions, world.log.count("report")), (0, 0));
}

#[tokio::test]
async fn the_verbs_of_the_queue_respect_a_quarantine_and_the_other_way_round() {
    let (sink, world, id) = quarantined().await;
    let spam = || vec![CommandOutcome::Quarantined("spam".into())];
    assert_eq!(outcomes(world.handle.bounce(all(), "no").await.unwrap()), spam());
    assert_eq!(outcomes(world.handle.hold(one(id), "look").await.unwrap()), spam());
    assert_eq!(outcomes(world.handle.retry(one(id)).await.unwrap()), spam());
    assert_eq!(outcomes(world.handle.release_held(one(id), None).await.unwrap()), spam());
    let stranger = QueueId::from_bytes([9; 16]);
    for acts in [
        world.handle.retry(one(stranger)).await.unwrap(),
        world.handle.reroute(one(stranger), None).await.unwrap(),
    ] {
        assert_eq!(outcomes(acts), [CommandOutcome::Unknown]);
    }
    world.calm().await;
    assert_eq!((sink.log().sessions, world.log.count("report"), world.log.count("hold")), (0, 0, 0));

    let (_sink, world, other) = waiting().await;
    for acts in [
        world.handle.release_quarantined(one(other), None).await.unwrap(),
        world.handle.delete_quarantined(one(other), None).await.unwrap(),
    ] {
        assert_eq!(outcomes(acts), [CommandOutcome::NotQuarantined]);
    }
    assert_eq!(outcomes(world.handle.release(one(other), None).await.unwrap()), [CommandOutcome::NotHeld]);
    assert_eq!(world.log.count("release"), 0, "nothing was held");
}

#[tokio::test]
async fn a_new_configuration_counts_for_the_next_attempt() {
    let (_sink, world, id) = waiting().await;
    let other = Sink::start(Script::new()).await;
    world.handle.reload(to_relay(&[other.address()]), common::no_verification());
    world.handle.retry(one(id)).await.unwrap();
    other.wait_for(1).await;
    world.empty().await;
}

/// Two next hops; this one gets all mail.
fn one_of_two(sinks: [&Sink; 2], route: &str) -> Config {
    let mut config = config();
    for (name, sink) in ["old", "new"].iter().zip(sinks) {
        config.relays.insert((*name).into(), relay(&[sink.address()]));
    }
    config.routes = RouteTable::new(Route::Relay(route.into()));
    config
}

/// Where the message goes, as the queue has it.
async fn hops(world: &World, id: QueueId) -> Vec<String> {
    let found = world.handle.jobs(vec![id]).await.unwrap();
    found[&id].iter().map(|leg| leg.next_hop.to_string()).collect()
}

#[tokio::test]
async fn what_waits_goes_by_new_routes_without_a_restart() {
    let old = Sink::start(Script::new().reply(SinkStep::Rcpt, "450 4.2.1 not yet")).await;
    let new = Sink::start(Script::new()).await;
    let world = World::start(one_of_two([&old, &new], "old"), StaticResolver::new());
    let id = world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    let held = world.mail(&["eva@example.net"]).await;
    world.log.wait_for("deferral", 2).await;
    world.calm().await;
    world.handle.hold(one(held), "look").await.unwrap();
    assert_eq!(hops(&world, id).await, ["relay:old"]);
    world.handle.reload(one_of_two([&old, &new], "new"), common::no_verification());
    new.wait_for(1).await;
    world.log.wait_for("delivery", 1).await;
    world.calm().await;
    assert_eq!(hops(&world, held).await, ["relay:new"]);
    world.handle.release(one(held), None).await.unwrap();
    new.wait_for(2).await;
    world.empty().await;
    assert_eq!(old.log().accepted().count(), 0);
}

#[tokio::test]
async fn what_is_under_way_moves_when_it_has_come_back() {
    let script = Script::new().on(SinkStep::Rcpt, Act::Hold).reply(SinkStep::Message, "451 4.2.1 not yet");
    let old = Sink::start(script).await;
    let new = Sink::start(Script::new()).await;
    let world = World::start(one_of_two([&old, &new], "old"), StaticResolver::new());
    let id = world.mail(&["bob@example.net"]).await;
    old.wait_until("RCPT", |log| log.count("RCPT") > 0).await;
    world.handle.reload(one_of_two([&old, &new], "new"), common::no_verification());
    assert_eq!(world.handle.reroute(one(id), None).await.unwrap().done(), 1);
    assert_eq!(hops(&world, id).await, ["relay:old"], "its mail is on the wire");
    old.release();
    new.wait_for(1).await;
    world.empty().await;
}

#[tokio::test]
async fn an_operators_choice_stands_over_routes_until_it_is_taken_back() {
    let old = Sink::start(Script::new().reply(SinkStep::Rcpt, "450 4.2.1 not yet")).await;
    let new = Sink::start(Script::new().reply(SinkStep::Rcpt, "451 4.2.1 nor here")).await;
    let world = World::start(one_of_two([&old, &new], "old"), StaticResolver::new());
    let id = world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    let choice = NextHop::Relay("new".into());
    assert_eq!(world.handle.reroute(one(id), Some(&choice)).await.unwrap().done(), 1);
    world.log.wait_for("deferral", 2).await;
    assert_eq!(hops(&world, id).await, ["relay:new"]);
    assert_eq!(world.handle.reroute(all(), None).await.unwrap().done(), 1);
    world.log.wait_for("deferral", 3).await;
    assert_eq!(hops(&world, id).await, ["relay:old"]);
}

#[tokio::test]
async fn nothing_can_be_asked_of_what_has_stopped() {
    let (_sink, world, id) = waiting().await;
    within("the drain", world.outbound.drain(MINUTE)).await;
    assert_eq!(world.handle.retry(one(id)).await, Err(OperateError::Stopped));
}

/// Keeps what it is given, and refuses who is called "no".
#[derive(Default)]
struct Box_(Mutex<Vec<String>>);

impl Capture for Box_ {
    fn capture(&self, captured: CapturedMessage) -> BoxFuture<'_, Reply> {
        Box::pin(async move {
            let body = captured.body.read(0, usize::MAX).await.unwrap();
            let text = [captured.head.as_ref(), body.as_ref()].concat();
            self.0.lock().unwrap().push(String::from_utf8(text).unwrap());
            match captured.envelope.recipients[0].address.domain() {
                "no.example" => Reply::new(550, EnhancedCode(5, 7, 1), "not captured"),
                _ => Reply::new(250, EnhancedCode(2, 0, 0), "captured"),
            }
        })
    }
}

#[tokio::test]
async fn captured_mail_goes_nowhere_else() {
    let capture = Arc::new(Box_::default());
    let given = Arc::clone(&capture) as Arc<dyn Capture>;
    let mut config = config();
    config.relays.insert("next".into(), relay(&[]));
    let world = World::start_with(config, StaticResolver::new(), |parts| parts.capture = Some(given));
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("delivery", 1).await;
    world.mail(&["bob@no.example"]).await;
    world.log.wait_for("bounce", 1).await;
    // The report to the sender is captured too.
    world.log.wait_for("delivery", 2).await;
    world.empty().await;
    let captured = capture.0.lock().unwrap();
    assert_eq!(captured[0], message_to(&[]).text());
    assert!(captured[2].contains("not captured"), "{}", captured[2]);
}
