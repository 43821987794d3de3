//! A disk that fails or is full for a while, and the recovery of the index: nothing is lost, no caller waits in vain,
//! and the spool recovers by itself.

use std::time::{Duration, Instant};

use super::*;
use crate::SpoolFuture;
use crate::fault::{CrashPoint, InjectedFault};

/// Long enough for short waits, and far below the timeout of a client.
const SOON: Duration = Duration::from_secs(20);

/// Waits until the spool accepts mail again.
async fn well(spool: &Embedded) {
    let until = Instant::now() + SOON;
    while spool.health() != Health::Accepting {
        assert!(Instant::now() < until, "{:?}", spool.health());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn assert_there(spool: &Embedded, samples: &[Sample]) {
    for sample in samples {
        sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
    }
    let ids: Vec<QueueId> = spool.claim(None, 100).await.unwrap().iter().map(|one| one.id).collect();
    assert_eq!(ids, samples.iter().map(Sample::id).collect::<Vec<_>>());
}

fn log_octets(store: &FolderStore) -> Vec<u8> {
    let mut names = names(&store.folder.join("segments"));
    names.sort();
    names.iter().flat_map(|name| fs::read(store.folder.join("segments").join(name)).unwrap()).collect()
}

/// What keeps a new index, and an old one, from being written.
struct Obstacle {
    unreferenced: PathBuf,
    away: PathBuf,
}

impl Obstacle {
    fn new(store: &FolderStore) -> Self {
        let unreferenced = store.folder.join("unreferenced");
        let away = store.folder.join("away");
        fs::rename(&unreferenced, &away).unwrap();
        fs::write(&unreferenced, "no folder").unwrap();
        let database = rusqlite::Connection::open(store.folder.join("envelopes.db")).unwrap();
        database.execute("DELETE FROM log", []).unwrap();
        Self { unreferenced, away }
    }

    fn clear(self) {
        fs::remove_file(&self.unreferenced).unwrap();
        fs::rename(&self.away, &self.unreferenced).unwrap();
    }
}

/// The index fails to store the batch, cannot be brought up, and cannot be rebuilt: what is in the log counts all the
/// same.
#[tokio::test]
async fn an_index_that_cannot_be_written_breaks_nothing_and_is_tried_again() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let (one, two) = (Sample::small(1), Sample::large(2));
    one.commit(&*spool).await.unwrap();
    let obstacle = Obstacle::new(&store);
    store.faults.arm(CrashPoint::Commit, InjectedFault::Io);
    two.commit(&*spool).await.unwrap();
    assert!(!matches!(spool.health(), Health::Broken(_) | Health::Accepting), "{:?}", spool.health());
    assert_eq!(spool.begin().err().unwrap().reply().code, 451);
    // No caller is told that there is no such message.
    assert!(matches!(spool.load(two.id()).await, Err(SpoolError::Store(_))));
    obstacle.clear();
    well(&spool).await;
    assert_there(&spool, &[one, two]).await;
    let three = Sample::small(3);
    three.commit(&*spool).await.unwrap();
    assert!(spool.settle(one.all_done()).await.unwrap().removed);
    spool.close().await.unwrap();
    drop(spool);
    let spool = store.engine();
    assert_there(&spool, &[two, three]).await;
    spool.close().await.unwrap();
}

/// Whether the same may succeed a moment later.
fn passes(error: &SpoolError) -> bool {
    matches!(error, SpoolError::Store(_) | SpoolError::Unavailable(_))
}

#[tokio::test]
async fn some_errors_of_the_index_one_after_the_other_cost_nothing() {
    use CrashPoint::{Begin, CatchUp, Commit, Inserted, Rebuild, Reopen};
    let chains: &[&[(CrashPoint, u32)]] = &[
        &[(Begin, 1)],
        &[(Begin, 2)],
        &[(Begin, 2), (Rebuild, 1)],
        &[(Begin, 5)],
        &[(Inserted, 2)],
        &[(Inserted, 2), (Reopen, 1)],
        &[(Commit, 1), (CatchUp, 1)],
        &[(Commit, 1), (CatchUp, 1), (Rebuild, 1)],
        &[(Commit, 1), (CatchUp, 1), (Reopen, 1)],
        &[(Commit, 1), (CatchUp, 1), (Rebuild, 2), (Reopen, 2)],
        &[(Commit, 1), (CatchUp, 1), (Rebuild, 6)],
        &[(Commit, 3), (CatchUp, 3), (Rebuild, 3), (Reopen, 3)],
    ];
    for chain in chains {
        let mut store = FolderStore::new();
        let spool = store.engine();
        let (one, two, three) = (Sample::small(1).to(2), Sample::large(2), Sample::small(3));
        one.commit(&*spool).await.unwrap();
        three.commit(&*spool).await.unwrap();
        for (point, times) in *chain {
            store.faults.arm_times(*point, InjectedFault::Io, *times);
        }
        // Refused before anything was written, or done.
        let until = Instant::now() + SOON;
        while let Err(error) = two.commit(&*spool).await {
            assert!(passes(&error) && Instant::now() < until, "{chain:?}: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while let Err(error) = spool.settle(one.settlement(2, delivered())).await {
            assert!(passes(&error) && Instant::now() < until, "{chain:?}: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        well(&spool).await;
        assert_there(&spool, &[one, two, three]).await;
        assert_eq!(spool.load(one.id()).await.unwrap().recipients[1].status, delivered());
        store.faults.disarm();
        assert!(spool.settle(three.all_done()).await.unwrap().removed);
        spool.close().await.unwrap();
        drop(spool);
        let spool = store.engine();
        assert_there(&spool, &[one, two]).await;
        assert_eq!(spool.load(one.id()).await.unwrap().recipients[1].status, delivered());
        assert!(names(&store.folder.join("damaged")).is_empty());
        spool.close().await.unwrap();
    }
}

/// While something keeps failing, durable operations are answered, nothing more goes into the log, and retries have a
/// back-off.
#[tokio::test]
async fn an_index_that_fails_for_long_is_waited_for() {
    for (fault, code) in [(InjectedFault::Io, 451), (InjectedFault::NoSpace, 452)] {
        let mut store = FolderStore::new();
        let spool = store.engine();
        let (one, two, late) = (Sample::small(1), Sample::large(2), Sample::small(3));
        one.commit(&*spool).await.unwrap();
        let begun = late.message(&*spool).await.unwrap();
        store.faults.arm(CrashPoint::Commit, fault);
        store.faults.arm_times(CrashPoint::CatchUp, fault, 10_000);
        store.faults.arm_times(CrashPoint::Rebuild, fault, 10_000);
        two.commit(&*spool).await.unwrap();
        let expected = if code == 452 { Health::Full } else { spool.health() };
        assert!(spool.health() == expected && expected != Health::Accepting);
        assert!(!matches!(expected, Health::Broken(_)), "{expected:?}");
        let (before, log) = (store.faults.left(), log_octets(&store));
        assert_eq!(spool.begin().err().unwrap().reply().code, code);
        assert_eq!(spool.commit(begun).await.unwrap_err().reply().code, code);
        let refused = spool.settle(one.all_done()).await.unwrap_err();
        assert!(matches!(refused, SpoolError::Full | SpoolError::Store(_)));
        let waiting: Vec<SpoolFuture<'_, _>> =
            (0..200).map(|_| spool.release(one.id(), LATER, Guard::Any)).collect();
        for refused in waiting {
            assert!(matches!(refused.await, Err(SpoolError::Full | SpoolError::Store(_))));
        }
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        let tries = before - store.faults.left();
        assert!((1..=12).contains(&tries), "{tries}");
        assert!(log_octets(&store) == log, "the log went on");
        assert!(spool.load(two.id()).await.is_err() && spool.claim(None, 9).await.is_err());
        store.faults.disarm();
        well(&spool).await;
        assert_there(&spool, &[one, two]).await;
        assert!(spool.settle(one.all_done()).await.unwrap().removed);
        late.commit(&*spool).await.unwrap();
        spool.close().await.unwrap();
        drop(spool);
        let spool = store.engine();
        assert_there(&spool, &[two, late]).await;
        spool.close().await.unwrap();
    }
}

/// Errors before anything of a batch is written: the batch is refused, and the next ones are until the index works again.
#[tokio::test]
async fn a_transaction_that_never_begins_is_told_and_passes() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let (one, two) = (Sample::small(1), Sample::small(2));
    one.commit(&*spool).await.unwrap();
    store.faults.arm_times(CrashPoint::Begin, InjectedFault::Io, 10_000);
    store.faults.arm_times(CrashPoint::Rebuild, InjectedFault::Io, 10_000);
    assert!(two.commit(&*spool).await.is_err_and(|error| passes(&error)));
    assert!(matches!(spool.health(), Health::Unavailable(_)));
    let left = store.faults.left();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(left - store.faults.left() <= 8);
    store.faults.disarm();
    well(&spool).await;
    two.commit(&*spool).await.unwrap();
    assert_there(&spool, &[one, two]).await;
    spool.close().await.unwrap();
}

#[tokio::test]
async fn closing_waits_for_no_index() {
    for fault in [InjectedFault::Io, InjectedFault::NoSpace] {
        let mut store = FolderStore::new();
        let spool = store.engine();
        let (one, two) = (Sample::small(1), Sample::small(2));
        store.faults.arm(CrashPoint::Commit, fault);
        store.faults.arm_times(CrashPoint::CatchUp, fault, 10_000);
        store.faults.arm_times(CrashPoint::Rebuild, fault, 10_000);
        one.commit(&*spool).await.unwrap();
        let refused = spool.settle(one.all_done());
        let begun = Instant::now();
        spool.close().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert!(refused.await.is_err());
        drop(spool);
        let spool = store.engine();
        store.faults.disarm();
        two.commit(&*spool).await.unwrap();
        assert_there(&spool, &[one, two]).await;
        spool.close().await.unwrap();
    }
}

/// The space that an outcome needs comes from the reserve file alone.
#[tokio::test]
async fn what_is_given_up_on_a_full_disk_is_room_for_outcomes() {
    let store = FolderStore::new();
    let config = EmbeddedConfig { reserve: 2 * 1024 * 1024, ..store.config() };
    let spool = Embedded::open_with(&config, &store.faults).unwrap();
    let samples: Vec<Sample> = (1..=4).map(Sample::small).collect();
    for sample in &samples[..3] {
        sample.commit(&spool).await.unwrap();
    }
    let (ballast, begun) = (store.folder.join("ballast"), samples[3].message(&spool).await.unwrap());
    let size = fs::metadata(&ballast).unwrap().len();
    assert_eq!(size, 512 * 1024);
    // Half of the reserve file would be enough. Without it the quota is exceeded already.
    store.faults.quota(store.folder.clone(), octets(&store.folder) - size / 2);
    assert_eq!(spool.health(), Health::Full);
    assert!(spool.settle(samples[0].all_done()).await.unwrap().removed);
    assert!(!ballast.exists());
    spool.settle(samples[1].settlement(1, deferred(1))).await.unwrap();
    assert_eq!(spool.begin().err().unwrap(), SpoolError::Full);
    assert_eq!(spool.health(), Health::Full);
    assert!(!ballast.exists(), "it was made again on a full disk");
    // There is room again.
    store.faults.quota(store.folder.clone(), u64::MAX);
    assert_eq!(spool.health(), Health::Accepting);
    spool.commit(begun).await.unwrap();
    // The next batch comes after the housekeeping of the last one.
    spool.release(samples[2].id(), LATER, Guard::Any).await.unwrap();
    assert_eq!(fs::metadata(&ballast).unwrap().len(), size);
    assert_eq!(spool.load(samples[1].id()).await.unwrap().recipients[0].status, deferred(1));
    spool.close().await.unwrap();
}

fn octets(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.map(|path| if path.is_dir() { octets(&path) } else { fs::metadata(path).unwrap().len() }).sum()
}

/// A spool in which the compactor has work, and no thread but the test's.
async fn thinned() -> (FolderStore, Embedded, Box<Committer>, Vec<Sample>) {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let samples: Vec<Sample> = (0..120).map(Sample::small).collect();
    for sample in &samples {
        sample.commit(&*spool).await.unwrap();
    }
    spool.close().await.unwrap();
    drop(spool);
    let (engine, mut committer) = Embedded::prepare(&store.config(), &store.faults).unwrap();
    let most = samples.iter().filter(|sample| sample.number % 10 != 0 && sample.number != 119);
    committer.turn(most.map(settle).collect());
    assert!(committer.has_work());
    (store, engine, Box::new(committer), samples)
}

fn settle(sample: &Sample) -> Operation {
    Operation::Settle(StagedSettlement::new(sample.all_done()).unwrap(), oneshot::channel().0)
}

fn staged(message: NewMessage) -> StagedMessage {
    StagedMessage::new(message).unwrap()
}

/// No caller waits for compaction, so no caller is refused for it.
#[tokio::test]
async fn a_message_that_compaction_cannot_move_costs_no_other() {
    for fault in [InjectedFault::Io, InjectedFault::NoSpace] {
        let (store, engine, mut committer, samples) = thinned().await;
        let late = Sample::small(500);
        let (answer, committed) = oneshot::channel();
        let (other, settled) = oneshot::channel();
        let mine = Operation::Commit(Box::new(staged(late.message(&engine).await.unwrap())), answer);
        store.faults.arm(CrashPoint::Moved, fault);
        let last = StagedSettlement::new(samples[119].all_done()).unwrap();
        committer.turn(vec![mine, Operation::Settle(last, other)]);
        assert_eq!(store.faults.left(), 0, "nothing was moved");
        committed.await.unwrap().unwrap();
        assert!(settled.await.unwrap().unwrap().removed);
        assert_eq!(engine.health(), Health::Accepting);
        committer.turn_all();
        let stay = || samples.iter().filter(|sample| sample.number.is_multiple_of(10)).chain([&late]);
        for sample in stay() {
            sample.assert_same(&engine.load(sample.id()).await.unwrap()).await;
        }
        drop((engine, committer));
        let spool = Embedded::open(&store.config()).unwrap();
        for sample in stay() {
            sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
        }
        spool.close().await.unwrap();
    }
}

/// The design in one number: one sync of the log makes a batch durable, whatever it holds.
#[tokio::test]
async fn a_batch_costs_one_sync() {
    let store = FolderStore::new();
    let (engine, mut committer) = Embedded::prepare(&store.config(), &store.faults).unwrap();
    let samples: Vec<Sample> = (1..=12).map(Sample::small).collect();
    let mut messages = Vec::new();
    for sample in &samples {
        messages.push(sample.message(&engine).await.unwrap());
    }
    let bounce = Sample::small(60).message(&engine).await.unwrap();
    let syncs = |committer: &mut Committer, batch: Vec<Operation>| {
        let before = store.faults.syncs();
        committer.turn(batch);
        store.faults.syncs() - before
    };
    let commit = |message| Operation::Commit(Box::new(staged(message)), oneshot::channel().0);
    let commits = messages.into_iter().map(commit);
    assert_eq!(syncs(&mut committer, commits.collect()), 1);
    let with_bounce = Settlement { children: vec![bounce], ..samples[0].all_done() };
    let mut batch: Vec<Operation> = samples[1..9].iter().map(settle).collect();
    let with_bounce = StagedSettlement::new(with_bounce).unwrap();
    batch.push(Operation::Settle(with_bounce, oneshot::channel().0));
    let hold = Amendment::Hold(HoldReason::Operator("look".to_owned()));
    batch.push(Operation::Amend(samples[10].id(), hold, Guard::Any, oneshot::channel().0));
    assert_eq!(syncs(&mut committer, batch), 1);
    // An operation without a record needs none.
    assert_eq!(syncs(&mut committer, vec![settle(&samples[0])]), 0);
    assert_eq!(engine.totals().await.unwrap().messages, 4);
}
