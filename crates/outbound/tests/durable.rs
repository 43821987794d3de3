//! Delivery from the spool engine that the product uses: accepted mail is delivered, across restarts too.

#![allow(clippy::unwrap_used, reason = "what is not there fails the test, and the place is told")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{MINUTE, World, message_to, to_relay};
use pintle_outbound::Config;
use pintle_spool::{Embedded, EmbeddedConfig, Memory, Spool};
use pintle_testkit::{Act, Script, Sink, SinkStep, StaticResolver, TempDir, within};

fn open(folder: &TempDir) -> Arc<dyn Spool> {
    Arc::new(Embedded::open(&EmbeddedConfig::new(folder.path())).unwrap())
}

fn world(spool: &Arc<dyn Spool>, config: Config) -> World {
    let spool = Arc::clone(spool);
    World::over(Arc::new(Memory::new()), config, StaticResolver::new(), |parts| {
        parts.spool = spool;
    })
}

async fn empty(world: &World) {
    within("the spool to be empty", async {
        while world.outbound.spool().totals().await.unwrap().messages > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Both from memory and, with nothing kept there, from disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_arrives_once_and_whole() {
    for warm in [0, 1_000_000] {
        let folder = TempDir::new().unwrap();
        let sink = Sink::start(Script::new()).await;
        let mut engine = EmbeddedConfig::new(folder.path());
        engine.warm = warm;
        let spool = Arc::new(Embedded::open(&engine).unwrap()) as Arc<dyn Spool>;
        let world = world(&spool, to_relay(&[sink.address()]));
        for _ in 0..50 {
            world.mail(&["bob@example.net", "carl@example.net"]).await;
        }
        let got = sink.wait_for(50).await;
        empty(&world).await;
        assert!(got.iter().all(|transaction| transaction.text() == message_to(&[]).text()));
        assert_eq!(sink.log().count("DATA"), 50);
        within("the drain", world.outbound.drain(MINUTE)).await;
        spool.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_takes_up_what_was_left() {
    let folder = TempDir::new().unwrap();
    let sink =
        Sink::start(Script::new().on_line(SinkStep::Rcpt, "carl@", Act::Reply("450 4.2.1 later".into())))
            .await;
    let spool = open(&folder);
    let before = world(&spool, to_relay(&[sink.address()]));
    for _ in 0..10 {
        before.mail(&["bob@example.net", "carl@example.net"]).await;
    }
    before.log.wait_for("deferral", 10).await;
    within("the drain", before.outbound.drain(MINUTE)).await;
    spool.close().await.unwrap();
    drop(spool);

    sink.follow(Script::new());
    let spool = open(&folder);
    let after = world(&spool, to_relay(&[sink.address()]));
    after.clock.advance(MINUTE);
    let got = sink.wait_for(20).await;
    assert!(got[10..].iter().all(|transaction| transaction.recipients() == ["carl@example.net"]));
    empty(&after).await;
    within("the drain", after.outbound.drain(MINUTE)).await;
    spool.close().await.unwrap();
}

/// The row of a message in the index is flipped between the look at the start and the first question.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_made_anew_holds_the_start_up_for_a_moment() {
    let folder = TempDir::new().unwrap();
    let sink = Sink::start(Script::new().on(SinkStep::Rcpt, Act::Reply("450 4.2.1 later".into()))).await;
    let spool = open(&folder);
    let before = world(&spool, to_relay(&[sink.address()]));
    let id = before.mail(&["bob@example.net"]).await;
    before.log.wait_for("deferral", 1).await;
    within("the drain", before.outbound.drain(MINUTE)).await;
    spool.close().await.unwrap();
    drop(spool);

    let spool = open(&folder);
    let path = folder.path().join("envelopes.db");
    let mut octets = std::fs::read(&path).unwrap();
    let at = octets.windows(15).position(|part| part == b"bob@example.net").unwrap();
    octets[at] ^= 1;
    std::fs::write(&path, octets).unwrap();
    let after = world(&spool, to_relay(&[sink.address()]));
    let mut waited = Duration::ZERO;
    while after.handle.jobs(vec![id]).await.unwrap().values().all(Vec::is_empty) {
        assert!(waited < Duration::from_secs(5), "nobody asks again");
        after.clock.advance(Duration::from_millis(100));
        waited += Duration::from_millis(100);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    within("the drain", after.outbound.drain(MINUTE)).await;
    spool.close().await.unwrap();
}
