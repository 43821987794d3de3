//! The connection pool: sessions are limited, reused, and ended with QUIT. A drain or a crash loses no message.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{MINUTE, World, message_to, relay, to_relay, with_relay};
use pintle_mail::{NextHop, QueueId, UnixTime};
use pintle_outbound::{CommandOutcome, Select};
use pintle_spool::{
    Draft, Filter, Guard, Health, HoldReason, Listing, Memory, NewMessage, Page, Quarantine, Receipt,
    Settled, Settlement, Spool, SpoolError, SpoolFuture, Stored, Totals, Waiting,
};
use pintle_testkit::{Act, Script, Sink, SinkStep, StaticResolver, within};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

#[tokio::test]
async fn many_messages_share_few_sessions() {
    let sink = Sink::start(Script::new()).await;
    let mut config = to_relay(&[sink.address()]);
    config.sessions.per_hop = 3;
    let world = World::start(config, StaticResolver::new());
    for _ in 0..100 {
        world.mail(&["bob@example.net"]).await;
    }
    sink.wait_for(100).await;
    world.empty().await;
    assert!(sink.log().count("EHLO") <= 3, "{} sessions", sink.log().count("EHLO"));
    sink.assert_no_violations();
}

#[tokio::test]
async fn no_more_sessions_than_allowed_are_open() {
    let sink = Sink::start(Script::new().on(SinkStep::Message, Act::Hold)).await;
    let mut relay = relay(&[sink.address()]);
    relay.sessions = Some(2);
    let world = World::start(with_relay(relay), StaticResolver::new());
    for _ in 0..10 {
        world.mail(&["bob@example.net"]).await;
    }
    // Two messages are held at their end while all attempts have begun: a third session would be opened now.
    sink.wait_until("two messages in the sink's hands", |log| log.held == 2).await;
    // Those with which a next hop begins that has not worked yet.
    assert_eq!(world.queue().await.trying, 5);
    sink.release();
    sink.wait_for(10).await;
    assert_eq!((sink.log().sessions, sink.log().most_open), (2, 2));
}

#[tokio::test]
async fn a_session_that_died_at_rest_costs_nobody_a_deferral() {
    let sink = Sink::start(Script::new()).await;
    let address = sink.address();
    let world = World::start(to_relay(&[address]), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(1).await;
    world.empty().await;
    sink.stop().await;
    let again = Sink::start_at(address, Script::new()).await;
    world.mail(&["bob@example.net"]).await;
    again.wait_for(1).await;
    world.empty().await;
    assert_eq!(world.log.count("deferral"), 0);
}

#[tokio::test]
async fn a_session_ended_by_421_at_rest_costs_nobody_a_deferral() {
    let script =
        Script::new().on_nth(SinkStep::Mail, 2, Act::ReplyThenClose("421 4.4.2 idle too long".into()));
    let sink = Sink::start(script).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    for number in 1..=2 {
        world.mail(&["bob@example.net"]).await;
        sink.wait_for(number).await;
        world.empty().await;
    }
    assert_eq!(world.log.count("deferral"), 0);
    assert_eq!(sink.log().count("EHLO"), 2);
}

#[tokio::test]
async fn a_session_carries_only_so_many_messages_and_says_goodbye() {
    let sink = Sink::start(Script::new()).await;
    let mut config = to_relay(&[sink.address()]);
    config.sessions.messages = 2;
    let world = World::start(config, StaticResolver::new());
    for number in 1..=4 {
        world.mail(&["bob@example.net"]).await;
        sink.wait_for(number).await;
        world.empty().await;
        world.calm().await;
    }
    assert_eq!(sink.log().count("EHLO"), 2);
    let log = sink.wait_idle().await;
    assert_eq!(log.count("QUIT"), 2);
}

#[tokio::test]
async fn idle_sessions_end_after_their_time() {
    let sink = Sink::start(Script::new()).await;
    let mut config = to_relay(&[sink.address()]);
    config.sessions.idle = Duration::ZERO;
    let world = World::start(config, StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(1).await;
    let log = sink.wait_idle().await;
    assert_eq!(log.count("QUIT"), 1);
}

#[tokio::test]
async fn a_drain_lets_attempts_finish_and_begins_nothing() {
    let sink = Sink::start(Script::new().on(SinkStep::Message, Act::Hold)).await;
    let mut config = to_relay(&[sink.address()]);
    config.sessions.per_hop = 1;
    let world = World::start(config, StaticResolver::new());
    world.mail(&["first@example.net"]).await;
    sink.wait_until("the message", |log| log.count("DATA") == 1).await;
    world.mail(&["second@example.net"]).await;
    let engine = Arc::clone(&world.engine);
    let drained = tokio::spawn(world.outbound.drain(MINUTE));
    sink.release();
    within("the drain", drained).await.unwrap();
    let log = sink.wait_idle().await;
    assert_eq!((log.accepted().count(), log.count("QUIT")), (1, 1));
    assert_eq!(engine.totals().await.unwrap().messages, 1, "the second waits for the next start");
}

#[tokio::test]
async fn a_drain_without_grace_cuts_off_and_loses_nothing() {
    let sink = Sink::start(Script::new().on(SinkStep::Message, Act::Hold)).await;
    let world = World::start(to_relay(&[sink.address()]), StaticResolver::new());
    world.mail(&["bob@example.net"]).await;
    sink.wait_until("the message", |log| log.count("DATA") == 1).await;
    let engine = Arc::clone(&world.engine);
    within("the drain", world.outbound.drain(Duration::ZERO)).await;
    assert_eq!(engine.totals().await.unwrap().messages, 1);
}

/// A spool with a fault that a test chooses.
struct FaultySpool {
    engine: Arc<Memory>,
    fault: SpoolFault,
    left: AtomicUsize,
}

enum SpoolFault {
    /// Settlements never return, as in a crash.
    Hang,
    /// The disk is full.
    Full,
    /// A message is held just before it is read for the first time, and the read returns when the gate opens.
    Late(Arc<Gate>),
    /// A message has been released, at this time, just before it is read.
    Released(UnixTime),
    /// A message has gone into quarantine just before it is released.
    Quarantined,
    /// Holds and releases take a while; how many run at once is counted.
    Slow(Arc<Peak>),
}

/// How many operations run now, and how many ran at once at most.
#[derive(Default)]
struct Peak {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Peak {
    async fn count(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Gate {
    held: Notify,
    answer: Notify,
    passed: AtomicBool,
}

impl Spool for FaultySpool {
    fn begin(&self) -> Result<Draft, SpoolError> {
        self.engine.begin()
    }
    fn commit(&self, message: NewMessage) -> SpoolFuture<'_, Receipt> {
        self.engine.commit(message)
    }
    fn settle(&self, settlement: Settlement) -> SpoolFuture<'_, Settled> {
        let take = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            return self.engine.settle(settlement);
        }
        match &self.fault {
            SpoolFault::Hang => Box::pin(std::future::pending()),
            SpoolFault::Full => Box::pin(std::future::ready(Err(SpoolError::Full))),
            SpoolFault::Late(_) | SpoolFault::Released(_) | SpoolFault::Quarantined | SpoolFault::Slow(_) => {
                self.engine.settle(settlement)
            }
        }
    }
    fn load(&self, id: QueueId) -> SpoolFuture<'_, Stored> {
        Box::pin(async move {
            match &self.fault {
                SpoolFault::Released(at) => drop(self.engine.release(id, *at, Guard::Any).await?),
                SpoolFault::Late(gate) if !gate.passed.swap(true, Ordering::SeqCst) => {
                    self.engine.hold(id, spam()).await?;
                    let stored = self.engine.load(id).await;
                    gate.held.notify_one();
                    gate.answer.notified().await;
                    return stored;
                }
                _ => {}
            }
            self.engine.load(id).await
        })
    }
    fn claim(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<Waiting>> {
        self.engine.claim(after, limit)
    }
    fn arrivals(&self) -> Option<UnboundedReceiver<Waiting>> {
        self.engine.arrivals()
    }
    fn hold(&self, id: QueueId, hold: HoldReason) -> SpoolFuture<'_, Option<HoldReason>> {
        let held = self.engine.hold(id, hold);
        if let SpoolFault::Slow(peak) = &self.fault {
            return Box::pin(async {
                peak.count().await;
                held.await
            });
        }
        held
    }
    fn release(&self, id: QueueId, at: UnixTime, guard: Guard) -> SpoolFuture<'_, Option<HoldReason>> {
        Box::pin(async move {
            match &self.fault {
                SpoolFault::Quarantined => drop(self.engine.hold(id, spam()).await?),
                SpoolFault::Slow(peak) => peak.count().await,
                _ => {}
            }
            self.engine.release(id, at, guard).await
        })
    }
    fn reroute(&self, id: QueueId, ids: Vec<u32>, next_hop: Option<NextHop>) -> SpoolFuture<'_, ()> {
        self.engine.reroute(id, ids, next_hop)
    }
    fn set_context(&self, id: QueueId, context: bytes::Bytes) -> SpoolFuture<'_, ()> {
        self.engine.set_context(id, context)
    }
    fn list(&self, filter: Filter, page: Page) -> SpoolFuture<'_, Listing> {
        self.engine.list(filter, page)
    }
    fn totals(&self) -> SpoolFuture<'_, Totals> {
        self.engine.totals()
    }
    fn health(&self) -> Health {
        self.engine.health()
    }
    fn close(&self) -> SpoolFuture<'_, ()> {
        self.engine.close()
    }
}

fn spam() -> HoldReason {
    HoldReason::Quarantine(Quarantine::new("spam", common::START))
}

fn unsettled(engine: &Arc<Memory>, fault: SpoolFault, times: usize) -> Arc<dyn Spool> {
    Arc::new(FaultySpool { engine: Arc::clone(engine), fault, left: AtomicUsize::new(times) })
}

/// Law 2: at least once. Between the next hop's 250 and the mark, a crash makes the delivery again.
#[tokio::test]
async fn a_crash_before_the_mark_delivers_again() {
    let sink = Sink::start(Script::new()).await;
    let engine = Arc::new(Memory::new());
    let spool = unsettled(&engine, SpoolFault::Hang, 1);
    let config = to_relay(&[sink.address()]);
    let world =
        World::over(Arc::clone(&engine), config.clone(), StaticResolver::new(), |parts| parts.spool = spool);
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(1).await;
    drop(world);
    assert_eq!(engine.totals().await.unwrap().messages, 1);

    // The arrivals of an engine are given out once, so what survives is carried over to a new one.
    let survivor = Arc::new(Memory::new());
    let id = engine.claim(None, 1).await.unwrap()[0].id;
    let received = common::START;
    survivor.commit(message_to(&["bob@example.net"]).message(id, received)).await.unwrap();
    let world = World::over(survivor, config, StaticResolver::new(), |_| {});
    let got = sink.wait_for(2).await;
    assert_eq!(got[0].message, got[1].message);
    world.empty().await;
}

/// What has been delivered is not delivered again only because the disk is full for a while.
#[tokio::test]
async fn a_mark_that_is_refused_is_tried_again_and_the_delivery_is_not() {
    let sink = Sink::start(Script::new()).await;
    let engine = Arc::new(Memory::new());
    let spool = unsettled(&engine, SpoolFault::Full, 2);
    let world = World::over(engine, to_relay(&[sink.address()]), StaticResolver::new(), |parts| {
        parts.spool = spool;
    });
    world.mail(&["bob@example.net"]).await;
    sink.wait_for(1).await;
    within("the mark", async {
        while world.engine.totals().await.unwrap().messages > 0 {
            world.clock.advance(MINUTE);
            world.settled().await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    world.calm().await;
    assert_eq!(sink.log().count("DATA"), 1);
}

/// An attempt finds the message held and is late to come back with that; meanwhile an operator has released it, which is
/// the later word.
#[tokio::test]
async fn a_release_is_not_undone_by_a_hold_that_came_before_it() {
    let sink = Sink::start(Script::new()).await;
    let (engine, gate) = (Arc::new(Memory::new()), Arc::new(Gate::default()));
    let spool = unsettled(&engine, SpoolFault::Late(Arc::clone(&gate)), 0);
    let world = World::over(engine, to_relay(&[sink.address()]), StaticResolver::new(), |parts| {
        parts.spool = spool;
    });
    let id = world.mail(&["bob@example.net"]).await;
    within("the hold", gate.held.notified()).await;
    let which = Select::Ids(vec![id]);
    assert_eq!(world.handle.release(which, None).await.unwrap().done(), 1);
    gate.answer.notify_one();
    sink.wait_for(1).await;
    world.empty().await;
}

/// Its retention is over, and an operator releases it before the expiry is settled: it is ordinary mail again, and no old
/// one.
#[tokio::test]
async fn a_release_in_the_last_moment_is_neither_expired_nor_reported() {
    let sink = Sink::start(Script::new()).await;
    let engine = Arc::new(Memory::new());
    let month = common::HOUR * 24 * 31;
    let spool = unsettled(&engine, SpoolFault::Released(common::START.plus(month)), 0);
    let world = World::over(engine, to_relay(&[sink.address()]), StaticResolver::new(), |parts| {
        parts.spool = spool;
    });
    let mut message = message_to(&["bob@example.net"]).message(QueueId::new(common::START, 1), common::START);
    message.entry.hold = Some(spam());
    world.outbound.spool().commit(message).await.unwrap();
    world.calm().await;
    world.clock.advance(month);
    let got = sink.wait_for(1).await;
    assert_eq!(got[0].recipients(), ["bob@example.net"]);
    world.empty().await;
    assert_eq!((world.log.count("expiration"), world.log.count("report")), (0, 0));
}

/// An operator releases all held mail, and one of the messages goes into quarantine at that moment.
#[tokio::test]
async fn a_release_of_many_spares_what_goes_into_quarantine_meanwhile() {
    let sink = Sink::start(Script::new()).await;
    let engine = Arc::new(Memory::new());
    let spool = unsettled(&engine, SpoolFault::Quarantined, 0);
    let world = World::over(engine, to_relay(&[sink.address()]), StaticResolver::new(), |parts| {
        parts.spool = spool;
    });
    let id = QueueId::new(common::START, 1);
    let mut message = message_to(&["bob@example.net"]).message(id, common::START);
    message.entry.hold = Some(HoldReason::Operator("look".into()));
    world.outbound.spool().commit(message).await.unwrap();
    let acts = world.handle.release_held(Select::Matching(Filter::default()), None).await.unwrap();
    assert_eq!(acts.0[0].outcome, CommandOutcome::Quarantined("spam".into()));
    world.calm().await;
    assert_eq!(world.engine.load(id).await.unwrap().entry.hold, Some(spam()));
    assert_eq!((world.log.count("release"), sink.log().sessions), (0, 0));
}

/// An operation on a whole spool must not ask the store for all messages at once.
#[tokio::test]
async fn a_hold_and_a_release_of_many_run_some_at_a_time() {
    const MESSAGES: u128 = 1_000;
    let (engine, peak) = (Arc::new(Memory::new()), Arc::new(Peak::default()));
    let spool = unsettled(&engine, SpoolFault::Slow(Arc::clone(&peak)), 0);
    for number in 0..MESSAGES {
        let id = QueueId::new(common::START, number);
        engine.commit(message_to(&["bob@example.net"]).message(id, common::START)).await.unwrap();
    }
    let mut config = common::config();
    config.routes = pintle_outbound::RouteTable::new(pintle_outbound::Route::Relay("nobody".into()));
    let world = World::over(engine, config, StaticResolver::new(), |parts| parts.spool = spool);
    let all = || Select::Matching(Filter::default());
    assert_eq!(world.handle.hold(all(), "look").await.unwrap().done(), 1_000);
    let held = peak.most.swap(0, Ordering::SeqCst);
    assert_eq!(world.handle.release(all(), None).await.unwrap().done(), 1_000);
    let released = peak.most.load(Ordering::SeqCst);
    assert!((2..=256).contains(&held) && (2..=256).contains(&released), "{held}, {released}");
}
