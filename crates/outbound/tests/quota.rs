//! Quotas of quarantines, and what happens to new messages when one is full.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::sync::{Arc, Mutex};

use common::{World, config, message_to};
use pintle_dns::{DnsError, DnsRecordKind};
use pintle_mail::{NextHop, QueueId, UnixTime};
use pintle_outbound::{Config, QuarantineFull, Route, RouteTable, Select, WhenFull};
use pintle_record::Record;
use pintle_spool::{
    Amount, Draft, Filter, Guard, Health, HoldReason, Listing, Memory, NewMessage, Page, Quarantine, Receipt,
    Settled, Settlement, Spool, SpoolFuture, Stored, Totals, Waiting,
};
use pintle_testkit::{StaticResolver, within};
use tokio::sync::mpsc::UnboundedReceiver;

/// A spool that miscounts, on a disk with this much free.
struct MiscountingSpool {
    engine: Arc<Memory>,
    free: Option<u64>,
    /// Added to what lies in each quarantine.
    beyond: u64,
    /// Listed once in place of what lies there.
    stale: Mutex<Option<Listing>>,
}

impl Spool for MiscountingSpool {
    fn begin(&self) -> Result<Draft, pintle_spool::SpoolError> {
        self.engine.begin()
    }
    fn commit(&self, message: NewMessage) -> SpoolFuture<'_, Receipt> {
        self.engine.commit(message)
    }
    fn settle(&self, settlement: Settlement) -> SpoolFuture<'_, Settled> {
        self.engine.settle(settlement)
    }
    fn load(&self, id: QueueId) -> SpoolFuture<'_, Stored> {
        self.engine.load(id)
    }
    fn claim(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<Waiting>> {
        self.engine.claim(after, limit)
    }
    fn arrivals(&self) -> Option<UnboundedReceiver<Waiting>> {
        self.engine.arrivals()
    }
    fn hold(&self, id: QueueId, hold: HoldReason) -> SpoolFuture<'_, Option<HoldReason>> {
        self.engine.hold(id, hold)
    }
    fn release(&self, id: QueueId, at: UnixTime, guard: Guard) -> SpoolFuture<'_, Option<HoldReason>> {
        self.engine.release(id, at, guard)
    }
    fn reroute(&self, id: QueueId, ids: Vec<u32>, next_hop: Option<NextHop>) -> SpoolFuture<'_, ()> {
        self.engine.reroute(id, ids, next_hop)
    }
    fn set_context(&self, id: QueueId, context: bytes::Bytes) -> SpoolFuture<'_, ()> {
        self.engine.set_context(id, context)
    }
    fn list(&self, filter: Filter, page: Page) -> SpoolFuture<'_, Listing> {
        match self.stale.lock().unwrap().take() {
            Some(stale) => Box::pin(std::future::ready(Ok(stale))),
            None => self.engine.list(filter, page),
        }
    }
    fn totals(&self) -> SpoolFuture<'_, Totals> {
        Box::pin(async {
            let mut totals = self.engine.totals().await?;
            totals.quarantines.values_mut().for_each(|amount| amount.messages += self.beyond);
            Ok(totals)
        })
    }
    fn health(&self) -> Health {
        self.engine.health()
    }
    fn free(&self) -> Option<u64> {
        self.free
    }
    fn close(&self) -> SpoolFuture<'_, ()> {
        self.engine.close()
    }
}

/// Nothing is delivered, and a quarantine holds this many messages.
fn holding(messages: u64, when_full: WhenFull) -> Config {
    let mut config = config();
    config.routes = RouteTable::new(Route::Discard);
    config.quota.default.messages = messages;
    config.quota.when_full = when_full;
    config
}

/// A world over a spool that counts this many messages too many, with this much free.
fn odd(config: Config, beyond: u64, free: Option<u64>) -> World {
    let engine = Arc::new(Memory::new());
    let spool = MiscountingSpool { engine: Arc::clone(&engine), free, beyond, stale: Mutex::default() };
    World::over(engine, config, StaticResolver::new(), |parts| parts.spool = Arc::new(spool))
}

/// Puts a message there as one that has come in.
async fn hold(world: &World, number: u128, name: &str) -> QueueId {
    let id = QueueId::new(common::START, number);
    let mut message = message_to(&["bob@example.net"]).message(id, common::START);
    message.entry.hold = Some(HoldReason::Quarantine(Quarantine::new(name, common::START)));
    world.outbound.spool().commit(message).await.unwrap();
    id
}

async fn held(world: &World, name: &str) -> Vec<QueueId> {
    let filter = Filter { quarantine: Some(name.to_owned()), ..Filter::default() };
    let listing = world.engine.list(filter, Page { after: None, limit: 1_000 }).await.unwrap();
    listing.messages.iter().map(|message| message.id).collect()
}

fn full<T: std::fmt::Debug>(asked: Result<T, QuarantineFull>) -> QuarantineFull {
    let full = asked.unwrap_err();
    let reply = full.reply().to_string();
    assert!(reply.starts_with("452 4.3.1"), "{reply}");
    assert!(!reply.contains("quarantine"), "a client need not know that it would be held: {reply}");
    full
}

#[tokio::test]
async fn a_burst_gets_as_many_places_as_there_are() {
    let world = odd(holding(5, WhenFull::Refuse), 0, None);
    for number in 0..2 {
        hold(&world, number, "spam").await;
    }
    let asking = (0..50).map(|_| world.handle.quarantine_room("spam", 10));
    let asked = futures_util::future::join_all(asking).await;
    let (mut rooms, refused): (Vec<_>, Vec<_>) = asked.into_iter().partition(Result::is_ok);
    assert_eq!((rooms.len(), refused.len()), (3, 47));
    let limit = Amount { messages: 5, bytes: 1 << 30 };
    for asked in refused {
        assert_eq!(full(asked), QuarantineFull::Quota("spam".into(), limit));
    }
    assert!(world.handle.quarantine_room("other", 10).await.is_ok(), "each has its own");
    // One of them comes to lie there, another to nothing.
    hold(&world, 7, "spam").await;
    rooms.truncate(1);
    assert!(world.handle.quarantine_room("spam", 10).await.is_ok());
    assert!(held(&world, "spam").await.len() == 3);
}

#[tokio::test]
async fn sizes_are_bounded_too() {
    let mut config = holding(100, WhenFull::Refuse);
    config.quota.bytes.insert("spam".into(), 1_000);
    let world = odd(config, 0, None);
    let room = world.handle.quarantine_room("spam", 600).await.unwrap();
    full(world.handle.quarantine_room("spam", 401).await);
    assert!(world.handle.quarantine_room("other", 401).await.is_ok());
    drop(room);
    assert!(world.handle.quarantine_room("spam", 1_000).await.is_ok());
}

#[tokio::test]
async fn the_oldest_make_room_where_the_operator_wants_it() {
    let world = odd(holding(4, WhenFull::DropOldest), 0, None);
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(hold(&world, number, "spam").await);
        hold(&world, 100 + number, "other").await;
    }
    let room = world.handle.quarantine_room("spam", 10).await.unwrap();
    assert_eq!(held(&world, "spam").await, ids[1..]);
    assert_eq!(held(&world, "other").await.len(), 4);
    let Record::Discard(discard) = world.log.wait_for("discard", 1).await.remove(0) else { unreachable!() };
    assert_eq!(
        (discard.id, discard.by.as_deref(), discard.stage.as_str()),
        (ids[0], Some("quota"), "quarantine")
    );
    assert_eq!(discard.quarantine.as_deref(), Some("spam"));
    assert_eq!(world.log.count("report"), 0);
    drop(room);
    // The queue does not keep the jobs of deleted messages.
    within("the queue to forget", async {
        while world.queue().await.held != 7 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A message that is released at the last moment is no longer the oldest of its quarantine.
#[tokio::test]
async fn what_has_been_released_is_not_dropped() {
    let engine = Arc::new(Memory::new());
    let spool = Arc::new(MiscountingSpool {
        free: None,
        beyond: 0,
        engine: Arc::clone(&engine),
        stale: Mutex::default(),
    });
    let mut config = holding(3, WhenFull::DropOldest);
    // By MX, and nothing is found: it stays in the queue.
    config.routes = RouteTable::default();
    let shared = Arc::clone(&spool) as Arc<dyn Spool>;
    let resolver = StaticResolver::new().with_fault("example.net", DnsRecordKind::Mx, DnsError::ServFail);
    let world = World::over(engine, config, resolver, |parts| parts.spool = shared);
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(hold(&world, number, "spam").await);
    }
    let filter = Filter { quarantine: Some("spam".into()), ..Filter::default() };
    let before = world.engine.list(filter, Page { after: None, limit: 100 }).await.unwrap();
    *spool.stale.lock().unwrap() = Some(before);
    let which = Select::Ids(vec![ids[0]]);
    assert_eq!(world.handle.release_quarantined(which, None).await.unwrap().done(), 1);
    world.log.wait_for("deferral", 1).await;
    assert!(world.handle.quarantine_room("spam", 10).await.is_ok());
    assert_eq!(held(&world, "spam").await, ids[2..]);
    let stored = world.handle.show(ids[0]).await.unwrap();
    assert!(stored.entry.hold.is_none() && stored.recipients[0].status.pending().is_some());
}

/// Dropping cannot be undone, so it does not hang on a total that was kept along the way.
#[tokio::test]
async fn nothing_is_dropped_on_a_wrong_count() {
    let world = odd(holding(4, WhenFull::DropOldest), 1_000, None);
    for number in 0..3 {
        hold(&world, number, "spam").await;
    }
    assert!(world.handle.quarantine_room("spam", 10).await.is_ok());
    assert_eq!(held(&world, "spam").await.len(), 3);
    assert_eq!(world.log.count("discard"), 0);
}

#[tokio::test]
async fn what_would_never_fit_drives_nothing_out() {
    let mut config = holding(4, WhenFull::DropOldest);
    config.quota.default.bytes = 10_000;
    let world = odd(config, 0, None);
    for number in 0..4 {
        hold(&world, number, "spam").await;
    }
    full(world.handle.quarantine_room("spam", 10_001).await);
    assert_eq!(held(&world, "spam").await.len(), 4);
}

/// What fills the disk may be something else, so nothing is dropped for it.
#[tokio::test]
async fn held_mail_leaves_a_share_of_the_disk_alone() {
    let mut config = holding(100, WhenFull::DropOldest);
    config.quota.disk_percent = 50;
    let world = odd(config, 0, Some(10_000));
    let id = hold(&world, 1, "spam").await;
    let size = world.engine.totals().await.unwrap().bytes;
    let most = (size + 10_000) / 2 - size;
    let room = world.handle.quarantine_room("spam", most).await.unwrap();
    assert_eq!(full(world.handle.quarantine_room("other", 1_000).await), QuarantineFull::Disk);
    assert_eq!(held(&world, "spam").await, [id]);
    drop(room);
    assert!(world.handle.quarantine_room("other", most).await.is_ok());
    // What an operator holds counts as well.
    let mut kept = message_to(&["bob@example.net"]).message(QueueId::new(common::START, 9), common::START);
    kept.entry.hold = Some(HoldReason::Operator("look".into()));
    world.outbound.spool().commit(kept).await.unwrap();
    assert_eq!(full(world.handle.quarantine_room("other", most).await), QuarantineFull::Disk);
    assert_eq!(world.log.count("discard"), 0);
}

/// Plugins name quarantines, and each has a quota of its own.
#[tokio::test]
async fn there_are_not_more_quarantines_than_somebody_could_look_at() {
    let world = odd(holding(100, WhenFull::Refuse), 0, None);
    let mut rooms = Vec::new();
    for number in 0..100 {
        rooms.push(world.handle.quarantine_room(&format!("q{number}"), 1).await.unwrap());
    }
    let refused = full(world.handle.quarantine_room("one more", 1).await);
    assert_eq!(refused, QuarantineFull::Names("one more".into()));
    assert!(world.handle.quarantine_room("q7", 1).await.is_ok());
}
