//! Recipients that plugins have put into groups: those of different groups never share a delivery.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use common::{HOUR, TestMessage, World, message_to, relay, to_relay};
use futures_util::future::BoxFuture;
use pintle_mail::{FieldPosition, HeaderEdit, NextHop, QueueId};
use pintle_outbound::{Config, OutboundParts, Route, Select, dry_run};
use pintle_policy::{Call, Chain, DeliveryOutcome, Edit, Hook, Hooks, Judge, Ruling, Verdict, View};
use pintle_spool::{Memory, Spool, Waiting};
use pintle_testkit::{Act, Script, Sink, SinkStep, SinkTransaction, StaticResolver};

/// A judge that writes the group of a delivery's recipients into its header.
struct Tenants {
    name: Arc<str>,
    /// The recipients of each call before an attempt.
    asked: Mutex<Vec<Vec<u32>>>,
    /// The recipients of each call after an attempt.
    told: Mutex<Vec<Vec<u32>>>,
}

impl Tenants {
    fn new() -> Arc<Self> {
        Arc::new(Self { name: "tenants".into(), asked: Mutex::default(), told: Mutex::default() })
    }

    fn chain(self: &Arc<Self>) -> Chain {
        Chain::new(vec![Arc::clone(self) as Arc<dyn Judge>])
    }

    fn asked(&self) -> Vec<Vec<u32>> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort();
        asked
    }
}

impl Judge for Tenants {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn hooks(&self) -> Hooks {
        Hooks::NONE.with(Hook::Deliver).with(Hook::DeliveryResult)
    }

    fn judge(&self, _: Call, view: View) -> BoxFuture<'_, Ruling> {
        let recipients = &view.delivery.as_ref().unwrap().recipients;
        assert!(recipients.windows(2).all(|pair| pair[0].groups == pair[1].groups), "{recipients:?}");
        self.asked.lock().unwrap().push(recipients.iter().map(|recipient| recipient.id).collect());
        let value = recipients[0].groups.get("tenants").map_or("none", String::as_str);
        let (name, value) = ("X-Tenant".into(), value.into());
        let edits = vec![Edit::Headers(vec![HeaderEdit::Add { at: FieldPosition::Top, name, value }])];
        Box::pin(std::future::ready(Ruling { edits, ..Ruling::from(Verdict::Next) }))
    }

    fn delivery_result(&self, outcomes: Arc<[DeliveryOutcome]>, _: View) -> BoxFuture<'_, Ruling> {
        self.told.lock().unwrap().push(outcomes.iter().map(|outcome| outcome.recipient).collect());
        Box::pin(std::future::ready(Verdict::Next.into()))
    }
}

fn with(tenants: &Arc<Tenants>) -> impl FnOnce(&mut OutboundParts) + use<> {
    let chain = tenants.chain();
    |parts| parts.chain = Arc::new(ArcSwap::from_pointee(chain))
}

/// Four recipients of one domain: two in the group `a`, one in `b`, one in none.
fn in_groups() -> TestMessage {
    let mut message = message_to(&["r0@example.net", "r1@example.net", "r2@example.net", "r3@example.net"]);
    for (id, group) in [(0, "a"), (1, "b"), (2, "a")] {
        message.recipients[id].groups.insert("tenants".into(), group.into());
    }
    message
}

/// The recipients of each transaction with the group in its header, in order.
fn taken(transactions: &[SinkTransaction]) -> Vec<(Vec<&str>, String)> {
    let group = |text: &str| text.lines().next().unwrap_or_default().replace("X-Tenant: ", "");
    let mut taken: Vec<_> =
        transactions.iter().map(|taken| (taken.recipients(), group(taken.text()))).collect();
    taken.sort();
    taken
}

fn expected() -> Vec<(Vec<&'static str>, String)> {
    vec![
        (vec!["r0@example.net", "r2@example.net"], "a".to_owned()),
        (vec!["r1@example.net"], "b".to_owned()),
        (vec!["r3@example.net"], "none".to_owned()),
    ]
}

const ASKED: [&[u32]; 3] = [&[0, 2], &[1], &[3]];

#[tokio::test]
async fn each_group_is_a_delivery_of_its_own() {
    let (sink, tenants) = (Sink::start(Script::new()).await, Tenants::new());
    let world = World::start_with(to_relay(&[sink.address()]), StaticResolver::new(), with(&tenants));
    world.commit(in_groups()).await;
    assert_eq!(taken(&sink.wait_for(3).await), expected());
    world.empty().await;
    assert_eq!(tenants.asked(), ASKED);
    let mut told = tenants.told.lock().unwrap().clone();
    told.sort();
    assert_eq!(told, ASKED);
}

#[tokio::test]
async fn groups_stay_apart_after_a_deferral_and_a_restart() {
    let again = Script::new().on(SinkStep::Message, Act::Reply("451 4.2.0 again".into()));
    let (sink, tenants, engine) = (Sink::start(again).await, Tenants::new(), Arc::new(Memory::new()));
    let (config, resolver) = (to_relay(&[sink.address()]), StaticResolver::new());
    let world = World::over(Arc::clone(&engine), config.clone(), resolver.clone(), with(&tenants));
    let id = world.commit(in_groups()).await;
    world.log.wait_for("deferral", 4).await;
    world.calm().await;
    let World { outbound, clock, .. } = world;
    outbound.drain(HOUR).await;

    sink.follow(Script::new());
    let tenants = Tenants::new();
    clock.advance(HOUR);
    let world = World::under(clock, engine, config, resolver, with(&tenants));
    assert_eq!(taken(&sink.wait_for(3).await), expected());
    world.empty().await;
    assert_eq!(tenants.asked(), ASKED);
    assert!(world.handle.show(id).await.is_err());
}

#[tokio::test]
async fn an_operator_moves_groups_without_mixing_them() {
    let (old, new) = (Sink::start(Script::new()).await, Sink::start(Script::new()).await);
    let tenants = Tenants::new();
    let mut config = to_relay(&[old.address()]);
    config.relays.insert("other".into(), relay(&[new.address()]));
    let world = World::start_with(config, StaticResolver::new(), with(&tenants));
    let mut message = in_groups();
    message.hold = Some(pintle_spool::HoldReason::Operator("to be moved".into()));
    let id = world.commit(message).await;
    world.settled().await;
    let one = || Select::Ids(vec![id]);
    world.handle.reroute(one(), Some(&NextHop::Relay("other".into()))).await.unwrap();
    let jobs = world.handle.jobs(vec![id]).await.unwrap();
    let mut recipients: Vec<_> = jobs[&id].iter().map(|job| job.recipients.to_vec()).collect();
    recipients.sort();
    assert_eq!(recipients, ASKED);
    world.handle.release(one(), None).await.unwrap();
    assert_eq!(taken(&new.wait_for(3).await), expected());
    world.empty().await;
    assert_eq!((tenants.asked(), old.log().sessions), (ASKED.map(<[u32]>::to_vec).into(), 0));
}

/// `pintle try` shows each delivery, and what plugins refused.
#[tokio::test]
async fn a_dry_run_shows_each_delivery() {
    let (engine, tenants) = (Memory::new(), Tenants::new());
    let mut config = Config::new("gate.example");
    config.routes.add("example.net", Route::Relay("next".into()));
    let id = QueueId::new(common::START, 1);
    let mut message = in_groups();
    let reply = pintle_mail::Reply::plain(550, "not for this one");
    message.recipients[2].refused = Some(reply.clone());
    engine.commit(message.message(id, common::START)).await.unwrap();
    let stored = engine.load(id).await.unwrap();
    let waiting: Vec<Waiting> = engine.claim(None, 1).await.unwrap();
    let records = pintle_record::NoRecords;
    let message = (&waiting[0], &stored);
    let planned = dry_run::deliveries(&config, &tenants.chain(), &records, message, common::START).await;
    let ids = |recipients: &[pintle_mail::Recipient]| recipients.iter().map(|r| r.id).collect::<Vec<_>>();
    let mut shown: Vec<_> = planned
        .iter()
        .map(|one| (ids(&one.recipients), one.groups.get("tenants").cloned(), one.refused.clone()))
        .collect();
    shown.sort_by(|one, other| one.0.cmp(&other.0));
    let group = |name: &str| Some(name.to_owned());
    assert_eq!(
        shown,
        [
            (vec![0], group("a"), None),
            (vec![1], group("b"), None),
            (vec![2], group("a"), Some(reply)),
            (vec![3], None, None),
        ]
    );
    assert!(planned.iter().all(|one| one.next_hop == NextHop::Relay("next".into())));
    assert_eq!(tenants.asked(), [vec![0], vec![1], vec![3]]);
}
