//! Recipients that plugins refused after the end of the data: they fail without an attempt, and the sender gets a report.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::sync::Arc;

use common::{HOUR, TestMessage, World, message_to, nobody, relay, to_relay};
use pintle_mail::{EnhancedCode, Notify, Reply, ReversePath};
use pintle_outbound::{Config, Route, Select};
use pintle_record::{Bounce, Record, Unreported};
use pintle_spool::{HoldReason, Memory, Quarantine, Spool};
use pintle_testkit::{Script, Sink, StaticResolver, within};

const TEXT: &str = "too many of these";

/// The recipients at these places are refused.
fn refusing(recipients: &[&str], refused: &[usize]) -> TestMessage {
    let mut message = message_to(recipients);
    for at in refused {
        message.recipients[*at].refused = Some(Reply::new(550, EnhancedCode(5, 7, 1), TEXT));
    }
    message
}

/// Mail to one sink, reports to the other.
fn config(sink: &Sink, home: &Sink) -> Config {
    let mut config = to_relay(&[sink.address()]);
    config.relays.insert("home".into(), relay(&[home.address()]));
    config.routes.add("sender.example", Route::Relay("home".into()));
    config
}

async fn sinks() -> (Sink, Sink) {
    (Sink::start(Script::new()).await, Sink::start(Script::new()).await)
}

async fn bounce(world: &World) -> Bounce {
    match world.log.wait_for("bounce", 1).await.remove(0) {
        Record::Bounce(bounce) => bounce,
        other => panic!("{other:?}"),
    }
}

/// Waits until the queue holds this number of jobs.
async fn held(world: &World, jobs: usize) {
    within("the queue to have read the spool", async {
        while world.queue().await.held != jobs {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_others_receive_the_message_and_the_sender_a_report() {
    let (sink, home) = sinks().await;
    let world = World::start(config(&sink, &home), StaticResolver::new());
    world.commit(refusing(&["bob@example.net", "carl@example.net", "dora@example.net"], &[1])).await;
    assert_eq!(sink.wait_for(1).await[0].recipients(), ["bob@example.net", "dora@example.net"]);
    let report = home.wait_for(1).await[0].text().to_owned();
    assert!(report.contains("Final-Recipient: rfc822; carl@example.net"), "{report}");
    assert!(
        report.contains("Status: 5.7.1") && report.contains(TEXT) && !report.contains("bob@"),
        "{report}"
    );
    let bounce = bounce(&world).await;
    assert_eq!((bounce.job.recipient.as_str(), bounce.reply.text.as_ref()), ("carl@example.net", TEXT));
    assert_eq!((bounce.by.as_deref(), bounce.job.attempt), (Some("plugins"), 0));
    assert_eq!(bounce.job.next_hop.to_string(), "relay:next", "the hop that it would have gone to");
    assert!(bounce.report.is_some());
    world.empty().await;
    assert_eq!(world.log.count("delivery"), 3);
}

#[tokio::test]
async fn a_message_whose_recipients_are_all_refused_opens_no_connection() {
    let (sink, home) = sinks().await;
    let world = World::start(config(&sink, &home), StaticResolver::new());
    world.commit(refusing(&["bob@example.net", "carl@example.net"], &[0, 1])).await;
    let report = home.wait_for(1).await[0].text().to_owned();
    assert!(
        report.contains("bob@example.net") && report.contains("carl@example.net"),
        "one report: {report}"
    );
    world.empty().await;
    assert_eq!(sink.log().sessions, 0);
}

/// Groups keep deliveries apart, and a refused recipient has none.
#[tokio::test]
async fn refused_recipients_of_several_groups_share_one_report() {
    let (sink, home) = sinks().await;
    let world = World::start(config(&sink, &home), StaticResolver::new());
    let recipients: Vec<String> = (0..20).map(|n| format!("r{n}@example.net")).collect();
    let names: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let mut message = refusing(&names, &(0..19).collect::<Vec<_>>());
    for recipient in &mut message.recipients {
        recipient.groups.insert("tenants".into(), recipient.id.to_string());
    }
    world.commit(message).await;
    let report = home.wait_for(1).await[0].text().to_owned();
    assert_eq!(report.matches("Final-Recipient:").count(), 19, "{report}");
    assert_eq!(sink.wait_for(1).await[0].recipients(), ["r19@example.net"]);
    world.empty().await;
    assert_eq!((world.log.count("report"), home.log().transactions.len()), (1, 1));
}

/// The next hop is down, and the report does not wait for it; nor does the refusal touch the other recipient.
#[tokio::test]
async fn a_refusal_does_not_wait_for_the_next_hop() {
    let home = Sink::start(Script::new()).await;
    let mut config = to_relay(&[nobody().await]);
    config.relays.insert("home".into(), relay(&[home.address()]));
    config.routes.add("sender.example", Route::Relay("home".into()));
    let world = World::start(config, StaticResolver::new());
    world.mail(&["eve@example.net"]).await;
    world.log.wait_for("deferral", 1).await;
    world.calm().await;
    let id = world.commit(refusing(&["bob@example.net", "carl@example.net"], &[0])).await;
    home.wait_for(1).await;
    world.settled().await;
    let stored = world.handle.show(id).await.unwrap();
    let pending: Vec<_> =
        stored.recipients.iter().map(|state| state.status.pending().map(|p| p.attempts)).collect();
    assert_eq!(pending, [None, Some(0)]);
    assert_eq!(bounce(&world).await.job.recipient.as_str(), "bob@example.net");
}

#[tokio::test]
async fn no_report_goes_to_a_null_reverse_path_or_where_none_is_wanted() {
    let (sink, home) = sinks().await;
    for (null, unreported) in [(true, Unreported::NullSender), (false, Unreported::NotWanted)] {
        let world = World::start(config(&sink, &home), StaticResolver::new());
        let mut message = refusing(&["bob@example.net"], &[0]);
        if null {
            message.sender = ReversePath::Null;
        } else {
            message.recipients[0].params.notify = Some(Notify::NEVER);
        }
        world.commit(message).await;
        assert_eq!(bounce(&world).await.unreported, Some(unreported));
        world.empty().await;
    }
    assert_eq!((sink.log().sessions, home.log().sessions), (0, 0));
}

#[tokio::test]
async fn a_refusal_survives_a_restart_and_waits_while_the_message_is_held() {
    let (sink, home) = sinks().await;
    let engine = Arc::new(Memory::new());
    let id = pintle_mail::QueueId::new(common::START, 1);
    let mut message = refusing(&["bob@example.net", "carl@example.net"], &[0]);
    message.hold = Some(HoldReason::Quarantine(Quarantine::new("doubtful", common::START)));
    engine.commit(message.message(id, common::START)).await.unwrap();
    let (config, resolver) = (config(&sink, &home), StaticResolver::new());
    let world = World::over(Arc::clone(&engine), config.clone(), resolver.clone(), |_| {});
    held(&world, 2).await;
    assert_eq!(home.log().sessions, 0, "no report about quarantined mail");
    world.outbound.drain(HOUR).await;

    let world = World::over(engine, config, resolver, |_| {});
    held(&world, 2).await;
    world.handle.release_quarantined(Select::Ids(vec![id]), None).await.unwrap();
    assert_eq!(sink.wait_for(1).await[0].recipients(), ["carl@example.net"]);
    let bounce = bounce(&world).await;
    assert_eq!(bounce.job.recipient.as_str(), "bob@example.net");
    world.calm().await;
    // The engine announces the report to the first world.
    assert_eq!(
        world.engine.claim(None, 10).await.unwrap().iter().map(|one| one.id).next_back(),
        bounce.report
    );
}

/// A route that leads nowhere drops what goes there, but a refusal is reported all the same.
#[tokio::test]
async fn a_refused_recipient_of_a_route_to_nowhere_fails() {
    let (sink, home) = sinks().await;
    let mut config = config(&sink, &home);
    config.routes.add("nowhere.example", Route::Discard);
    let world = World::start(config, StaticResolver::new());
    world.commit(refusing(&["bob@nowhere.example", "carl@nowhere.example"], &[1])).await;
    assert!(home.wait_for(1).await[0].text().contains("carl@nowhere.example"));
    world.empty().await;
    let Record::Discard(discard) = world.log.wait_for("discard", 1).await.remove(0) else { unreachable!() };
    assert_eq!((discard.recipients[0].as_str(), discard.stage.as_str()), ("bob@nowhere.example", "route"));
    assert_eq!(world.log.count("bounce"), 1);
}
