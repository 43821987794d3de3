//! A wall clock that is set, ahead or back, at any moment: no message expires because of it, and none is delayed by it.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{FakeClock, HOUR, MINUTE, World, message_to, to_relay};
use pintle_mail::{QueueId, UnixTime};
use pintle_outbound::Config;
use pintle_spool::{Filter, HoldReason, Memory, Page, Quarantine, Spool};
use pintle_testkit::{Script, Sink, SinkStep, StaticResolver};

const DAY: Duration = Duration::from_secs(24 * 3600);
const DAY_MS: i64 = 24 * 3_600_000;

fn not_yet() -> Script {
    Script::new().reply(SinkStep::Rcpt, "450 4.2.1 not yet")
}

async fn refusing() -> (Sink, Config) {
    let sink = Sink::start(not_yet()).await;
    let config = to_relay(&[sink.address()]);
    (sink, config)
}

fn gone(world: &World) -> [usize; 4] {
    ["expiration", "bounce", "report", "discard"].map(|event| world.log.count(event))
}

/// Waits until the runner has read the clocks and has begun what is due by them.
async fn seen(world: &World) {
    world.settled().await;
    world.calm().await;
}

fn restarted(world: &World, clock: FakeClock, config: Config) -> World {
    World::under(clock, Arc::clone(&world.engine), config, StaticResolver::new(), |_| {})
}

#[tokio::test]
async fn four_seconds_of_a_clock_six_days_ahead_cost_nothing() {
    let (sink, config) = refusing().await;
    let world = World::start(config, StaticResolver::new());
    for _ in 0..10 {
        world.mail(&["bob@example.net"]).await;
    }
    world.log.wait_for("deferral", 10).await;
    seen(&world).await;
    world.clock.set(6 * DAY_MS);
    for _ in 0..4 {
        world.clock.advance(Duration::from_secs(1));
        seen(&world).await;
    }
    assert!(world.handle.clock_step().is_some_and(|step| step.is_ahead()), "it is seen");
    world.clock.set(-6 * DAY_MS);
    seen(&world).await;
    assert_eq!(gone(&world), [0; 4]);
    sink.follow(Script::new());
    world.clock.advance(MINUTE);
    world.log.wait_for("delivery", 10).await;
    world.empty().await;
}

#[tokio::test]
async fn a_clock_that_stays_ahead_makes_nobody_older_than_he_is() {
    let (_sink, config) = refusing().await;
    let world = World::start(config, StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    let mut deferrals = 1;
    world.log.wait_for("deferral", deferrals).await;
    world.clock.set(400 * DAY_MS);
    for _ in 0..39 {
        seen(&world).await;
        world.clock.advance(3 * HOUR);
        deferrals += 1;
        world.log.wait_for("deferral", deferrals).await;
    }
    seen(&world).await;
    assert_eq!(world.log.count("expiration"), 0, "four days and 21 hours have passed");
    world.clock.advance(3 * HOUR);
    world.log.wait_for("expiration", 1).await;
}

#[tokio::test]
async fn mail_taken_under_a_clock_years_ahead_goes_out_after_a_restart_under_the_right_one() {
    let (sink, config) = refusing().await;
    let ahead = FakeClock::new();
    ahead.set(4 * 365 * DAY_MS);
    let engine = Arc::new(Memory::new());
    let world = World::under(ahead, engine, config.clone(), StaticResolver::new(), |_| {});
    let tried = world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    // And one that was never tried.
    let fresh =
        message_to(&["carl@example.net"]).message(QueueId::new(world.clock_now(), 99), world.clock_now());
    let engine = Arc::clone(&world.engine);
    drop(world.outbound);
    engine.commit(fresh).await.unwrap();
    sink.follow(Script::new());
    let world = World::over(engine, config, StaticResolver::new(), |_| {});
    world.log.wait_for("delivery", 1).await;
    assert!(world.handle.next_attempt(common::START.plus(1_000 * DAY)) <= common::START.plus(3 * HOUR));
    world.clock.advance(3 * HOUR);
    world.log.wait_for("delivery", 2).await;
    world.empty().await;
    assert!(sink.log().transactions.len() > 1, "{tried}");
}

#[tokio::test]
async fn a_clock_set_back_holds_up_no_retry() {
    let (sink, config) = refusing().await;
    let world = World::start(config, StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    seen(&world).await;
    world.clock.set(-1_500 * DAY_MS);
    sink.follow(Script::new());
    world.clock.advance(MINUTE);
    world.log.wait_for("delivery", 1).await;
    assert!(world.handle.clock_step().is_some_and(|step| !step.is_ahead()));
}

#[tokio::test]
async fn a_restart_under_a_clock_ahead_tries_first_and_waits_before_it_gives_up() {
    let (sink, config) = refusing().await;
    let world = World::start(config.clone(), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    let ahead = FakeClock::new();
    ahead.set(6 * DAY_MS);
    let again = restarted(&world, ahead, config);
    drop(world.outbound);
    again.log.wait_for("deferral", 1).await;
    for _ in 0..5 {
        seen(&again).await;
        again.clock.advance(MINUTE);
    }
    assert_eq!(gone(&again), [0; 4], "tried, and neither warned of nor expired");
    // The time service finds out.
    again.clock.set(-6 * DAY_MS);
    for n in 1..=10 {
        seen(&again).await;
        again.clock.advance(3 * HOUR);
        again.log.wait_for("deferral", n).await;
    }
    assert_eq!(again.log.count("expiration"), 0, "it is a day old, whatever was read at the start");
    sink.follow(Script::new());
    again.clock.advance(3 * HOUR);
    again.log.wait_for("delivery", 1).await;
}

async fn quarantined(world: &World) -> QueueId {
    let id = QueueId::new(common::START, 7);
    let mut message = message_to(&["bob@example.net"]).message(id, common::START);
    message.entry.hold = Some(HoldReason::Quarantine(Quarantine::new("spam", common::START)));
    world.outbound.spool().commit(message).await.unwrap();
    seen(world).await;
    id
}

async fn lies_there(world: &World) -> bool {
    let filter = Filter { quarantined: Some(true), ..Filter::default() };
    let listing = world.engine.list(filter, Page { after: None, limit: 10 }).await.unwrap();
    listing.messages.len() == 1
}

#[tokio::test]
async fn no_quarantine_is_emptied_by_a_clock_that_jumps() {
    let (_sink, config) = refusing().await;
    let world = World::start(config.clone(), StaticResolver::new());
    quarantined(&world).await;
    world.clock.set(40 * DAY_MS);
    for _ in 0..20 {
        world.clock.advance(DAY);
        seen(&world).await;
    }
    assert!(lies_there(&world).await && gone(&world) == [0; 4], "twenty days have passed, and not sixty");
    let cutoff = world.handle.stored_before(30 * DAY);
    assert!(cutoff < common::START, "nor does a command take it for older");
    // A restart under that clock cannot know; but it waits.
    let ahead = FakeClock::new();
    ahead.set(60 * DAY_MS);
    let again = restarted(&world, ahead, config);
    drop(world.outbound);
    again.clock.advance(5 * HOUR);
    seen(&again).await;
    assert!(lies_there(&again).await && gone(&again) == [0; 4]);
    again.clock.set(-40 * DAY_MS);
    again.clock.advance(9 * DAY);
    seen(&again).await;
    assert!(lies_there(&again).await && gone(&again) == [0; 4], "it is set right, and 29 days have passed");
    again.clock.advance(2 * DAY);
    again.log.wait_for("expiration", 1).await;
}

/// Its time was written by a clock that was years ahead, or not set yet: it counts from when the queue got to know it.
#[tokio::test]
async fn a_quarantine_under_a_wrong_clock_ends_all_the_same() {
    for since in [common::START.millis() + 1_500 * DAY_MS, 0] {
        let (_sink, config) = refusing().await;
        let world = World::start(config, StaticResolver::new());
        let mut message =
            message_to(&["bob@example.net"]).message(QueueId::new(common::START, 7), common::START);
        message.entry.hold =
            Some(HoldReason::Quarantine(Quarantine::new("spam", UnixTime::from_millis(since))));
        world.outbound.spool().commit(message).await.unwrap();
        seen(&world).await;
        world.clock.advance(29 * DAY);
        seen(&world).await;
        assert!(lies_there(&world).await && gone(&world) == [0; 4]);
        world.clock.advance(2 * DAY);
        world.log.wait_for("expiration", 1).await;
    }
}
