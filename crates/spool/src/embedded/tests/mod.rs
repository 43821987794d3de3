//! The conformance suite on the embedded engine, and what only this engine promises.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use pintle_mail::{Body, BodyFuture, Bytes};
use tempfile::TempDir;

mod contexts;
mod damage;
mod downgrade;
mod index_recovery;
mod inspection;
mod model;
mod tampering;

use super::*;
use crate::Content;
use crate::conformance::messages::{LATER, NOW, Sample, deferred, delivered, in_quarantine, read_all};
use crate::conformance::{self, Store, Subject};
use crate::fault::InjectedFault;

/// Octets of a segment: small enough that tests fill several.
const SEGMENT: u64 = 256 * 1024;

struct EmbeddedSubject;

struct FolderStore {
    folder: PathBuf,
    faults: Faults,
    after_crash: Arc<Mutex<Option<PathBuf>>>,
    _keep: TempDir,
}

impl Subject for EmbeddedSubject {
    fn store(&self) -> Box<dyn Store> {
        Box::new(FolderStore::new())
    }
}

impl FolderStore {
    fn new() -> Self {
        // In memory where there is such a folder: a test of what is synced does not need the disk to sync.
        let keep = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        Self {
            folder: keep.path().join("spool"),
            faults: Faults::none(),
            after_crash: Arc::default(),
            _keep: keep,
        }
    }

    fn config(&self) -> EmbeddedConfig {
        EmbeddedConfig { segment_size: SEGMENT, reserve: 0, ..EmbeddedConfig::new(&self.folder) }
    }

    fn engine(&mut self) -> Arc<Embedded> {
        if let Some(folder) = self.after_crash.lock().take() {
            self.folder = folder;
            self.faults = Faults::none();
        }
        let (from, to) = (self.folder.clone(), self.folder.with_extension("crashed"));
        let after_crash = self.after_crash.clone();
        self.faults.at_crash(move |unsynced| {
            copy(&from, &to, unsynced);
            *after_crash.lock() = Some(to);
        });
        Arc::new(Embedded::open_with(&self.config(), &self.faults).unwrap())
    }

    /// Changes one octet of a file while the engine does not see it.
    fn corrupt(&self, path: &str, find: &[u8]) {
        let path = self.folder.join(path);
        let mut octets = fs::read(&path).unwrap();
        let at = octets.windows(find.len()).position(|part| part == find).unwrap();
        octets[at] ^= 0x20;
        fs::write(path, octets).unwrap();
    }
}

impl Store for FolderStore {
    fn open(&mut self) -> Arc<dyn Spool> {
        self.engine()
    }

    fn faults(&self) -> Option<Faults> {
        Some(self.faults.clone())
    }

    fn litter(&self) -> Vec<String> {
        let database = rusqlite::Connection::open(self.folder.join("envelopes.db")).unwrap();
        let needed = |sql: &str| -> Vec<String> {
            let mut select = database.prepare(sql).unwrap();
            let names = select.query_map([], |row| row.get(0)).unwrap();
            names.map(Result::unwrap).collect()
        };
        let bodies = needed("SELECT file FROM message WHERE file IS NOT NULL");
        let segments = needed(
            "SELECT printf('%016x.log', segment) FROM message UNION
            SELECT printf('%016x.log', segment) FROM mark UNION SELECT printf('%016x.log', newer) FROM edge",
        );
        let orphans =
            needed("SELECT hex(message) FROM recipient WHERE message NOT IN (SELECT id FROM message)");
        let contexts =
            needed("SELECT hex(message) FROM context WHERE message NOT IN (SELECT id FROM message)");
        let mut litter = [orphans, contexts].concat();
        litter.extend(names(&self.folder.join("bodies")).into_iter().filter(|name| !bodies.contains(name)));
        let mut logs = names(&self.folder.join("segments"));
        logs.sort();
        // The newest segment is being written to, or was made in advance beside it.
        logs.truncate(logs.len().saturating_sub(2));
        litter.extend(logs.into_iter().filter(|name| !segments.contains(name)));
        litter
    }
}

/// The names of the files in `damaged/`.
fn kept(store: &FolderStore) -> Vec<String> {
    let mut names = names(&store.folder.join("damaged"));
    names.sort();
    names
}

fn names(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// Copies a spool folder as a crash would leave it: from the given offsets on, files have only zeros.
fn copy(from: &Path, to: &Path, unsynced: &HashMap<PathBuf, u64>) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let path = file.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match unsynced.get(&path) {
            _ if path.is_dir() => copy(&path, &target, unsynced),
            _ if path.extension().is_some_and(|extension| extension == "db-shm") => {}
            // Even the name of a file that was never synced may be gone.
            Some(_) if path.extension().is_some_and(|extension| extension == "body") => {}
            unsynced => {
                let mut octets = fs::read(&path).unwrap();
                if let Some(start) = unsynced.and_then(|start| usize::try_from(*start).ok()) {
                    octets[start..].fill(0);
                }
                fs::write(target, octets).unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms() {
    conformance::run(&EmbeddedSubject).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_survives_a_kill_at_every_point() {
    conformance::crash::run(&EmbeddedSubject, InjectedFault::Crash).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_survives_a_power_cut_at_every_point() {
    conformance::crash::run(&EmbeddedSubject, InjectedFault::PowerLoss).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_bears_a_failing_disk() {
    conformance::crash::failing_disks(&EmbeddedSubject).await;
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    assert!(matches!(Embedded::open(&store.config()), Err(OpenError::Locked(path)) if path == store.folder));
    spool.close().await.unwrap();
    let again = Embedded::open(&store.config()).unwrap();
    again.close().await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let mut store = FolderStore::new();
    store.engine().close().await.unwrap();
    let database = rusqlite::Connection::open(store.folder.join("envelopes.db")).unwrap();
    database.execute_batch("PRAGMA user_version = 4").unwrap();
    let refused = Embedded::open(&store.config());
    assert!(matches!(refused, Err(OpenError::Newer { found: 4, known: 3, .. })));
}

#[tokio::test]
async fn a_disk_below_its_reserve_is_full_before_the_data() {
    let store = FolderStore::new();
    let config = EmbeddedConfig { reserve: u64::MAX, ..store.config() };
    let spool = Embedded::open(&config).unwrap();
    assert!(matches!(spool.begin(), Err(SpoolError::Full)));
    assert_eq!(spool.health(), Health::Full);
    // Bounces may use the reserve.
    let bounce = NewMessage {
        id: Sample::small(1).id(),
        head: Sample::small(1).head(),
        content: Sample::small(1).body().into(),
        entry: Sample::small(1).entry(),
    };
    spool.commit(bounce).await.unwrap();
    spool.close().await.unwrap();
}

/// Accepted, it would be a message without its body.
#[tokio::test]
async fn a_body_that_another_engine_has_staged_is_refused() {
    struct Elsewhere;
    impl Body for Elsewhere {
        fn size(&self) -> u64 {
            7
        }

        fn read(&self, _: u64, _: usize) -> BodyFuture<'_> {
            Box::pin(std::future::ready(Ok(Bytes::new())))
        }
    }

    let store = FolderStore::new();
    let spool = Embedded::open(&store.config()).unwrap();
    let (parent, sample) = (Sample::small(1), Sample::small(2));
    parent.commit(&spool).await.unwrap();
    let child = || NewMessage {
        id: sample.id(),
        head: sample.head(),
        content: Content::staged(Elsewhere),
        entry: sample.entry(),
    };
    assert!(matches!(spool.commit(child()).await, Err(SpoolError::Store(_))));
    let settlement = Settlement { children: vec![child()], ..parent.all_done() };
    assert!(matches!(spool.settle(settlement).await, Err(SpoolError::Store(_))));
    parent.assert_same(&spool.load(parent.id()).await.unwrap()).await;
    // An engine without files stages bodies in memory, and every engine takes those.
    let message = sample.message(&crate::Memory::new()).await.unwrap();
    spool.commit(message).await.unwrap();
    sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
    spool.close().await.unwrap();
}

/// Operations that make room must not need room: the reserve file is deleted for them.
#[tokio::test]
async fn outcomes_are_written_down_on_a_full_disk() {
    let store = FolderStore::new();
    let config = EmbeddedConfig { reserve: 64 * 1024, ..store.config() };
    let spool = Embedded::open_with(&config, &store.faults).unwrap();
    let (one, two) = (Sample::small(1), Sample::small(2));
    one.commit(&spool).await.unwrap();
    assert!(store.folder.join("ballast").exists());
    store.faults.arm(CrashPoint::Inserted, InjectedFault::NoSpace);
    assert_eq!(two.commit(&spool).await, Err(SpoolError::Full));
    store.faults.arm(CrashPoint::Settled, InjectedFault::NoSpace);
    assert!(spool.settle(one.all_done()).await.unwrap().removed);
    assert_eq!(spool.health(), Health::Accepting);
    two.commit(&spool).await.unwrap();
    spool.close().await.unwrap();
}

/// The compactor has work when the spool breaks: the committer must not spin on it.
#[tokio::test]
async fn a_broken_spool_stands_still() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let samples: Vec<Sample> = (0..120).map(Sample::small).collect();
    for sample in &samples {
        sample.commit(&*spool).await.unwrap();
    }
    spool.close().await.unwrap();
    drop(spool);
    let (engine, mut committer) = Embedded::prepare(&store.config(), &store.faults).unwrap();
    let settle = |sample: &Sample| {
        let settlement = StagedSettlement::new(sample.all_done()).unwrap();
        Operation::Settle(settlement, oneshot::channel().0)
    };
    let most = samples.iter().filter(|sample| sample.number % 10 != 0 && sample.number != 119);
    committer.turn(most.map(settle).collect());
    assert!(committer.has_work());
    store.faults.arm(CrashPoint::Sync, InjectedFault::Io);
    committer.turn(vec![settle(&samples[119])]);
    assert!(matches!(engine.health(), Health::Broken(_)));
    assert!(!committer.has_work());
}

#[tokio::test]
async fn drafts_beyond_the_budget_spill_early_and_leave_nothing() {
    let store = FolderStore::new();
    let mut config = store.config();
    config.drafts.budget = 15_000;
    let spool = Embedded::open(&config).unwrap();
    let (one, two) = (Sample::small(1), Sample::small(2));
    let first = one.content(&spool).await.unwrap();
    let second = two.content(&spool).await.unwrap();
    assert_eq!(names(&store.folder.join("bodies")).len(), 1);
    assert!(read_all(&first).await == one.body() && read_all(&second).await == two.body());
    drop((first, second));
    assert!(names(&store.folder.join("bodies")).is_empty());
    let third = Sample::small(3).content(&spool).await.unwrap();
    assert!(names(&store.folder.join("bodies")).is_empty(), "dropped drafts give their memory back");
    drop(third);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_record_is_set_aside_and_the_rest_is_served() {
    for part in ["head", "context", "body"] {
        let mut store = FolderStore::new();
        let spool = store.engine();
        let (bad, good) = (Sample::small(1), Sample::small(2));
        bad.commit(&*spool).await.unwrap();
        good.commit(&*spool).await.unwrap();
        spool.close().await.unwrap();
        drop(spool);
        let (head, body) = (bad.head(), bad.body());
        let find: &[u8] = match part {
            "head" => &head,
            "context" => b"{\"session\":1}",
            _ => &body[5_000..5_050],
        };
        store.corrupt("segments/0000000000000001.log", find);

        let spool = store.engine();
        assert!(
            matches!(spool.load(bad.id()).await, Err(SpoolError::Damaged(id, _)) if id == bad.id()),
            "{part}"
        );
        good.assert_same(&spool.load(good.id()).await.unwrap()).await;
        // The intact message is settled after the other was set aside, since there is one inbox.
        spool.settle(good.all_done()).await.unwrap();
        assert!(spool.claim(None, 10).await.unwrap().is_empty());
        assert_eq!(spool.totals().await.unwrap().damaged, 1);
        assert_eq!(kept(&store), [format!("{}.record", bad.id()), format!("{}.txt", bad.id())]);
        spool.close().await.unwrap();
    }
}

/// Row 18 of `docs/message-states.md`.
#[tokio::test]
async fn a_crash_while_setting_aside_loses_neither_evidence_nor_others() {
    for (point, fault) in [
        (CrashPoint::Commit, InjectedFault::Crash),
        (CrashPoint::Commit, InjectedFault::PowerLoss),
        (CrashPoint::Committed, InjectedFault::Crash),
        (CrashPoint::Committed, InjectedFault::PowerLoss),
    ] {
        let mut store = FolderStore::new();
        let spool = store.engine();
        let (bad, good) = (Sample::small(1), Sample::small(2));
        bad.commit(&*spool).await.unwrap();
        good.commit(&*spool).await.unwrap();
        spool.close().await.unwrap();
        drop(spool);
        store.corrupt("segments/0000000000000001.log", &bad.head());
        let spool = store.engine();
        store.faults.arm(point, fault);
        assert!(spool.load(bad.id()).await.is_err());
        assert!(spool.release(good.id(), LATER, Guard::Any).await.is_err());
        assert!(store.faults.crashed());
        let _ = spool.close().await;
        drop(spool);

        let spool = store.engine();
        assert!(spool.load(bad.id()).await.is_err());
        good.assert_same(&spool.load(good.id()).await.unwrap()).await;
        spool.release(good.id(), LATER, Guard::Any).await.unwrap();
        assert_eq!(spool.totals().await.unwrap().damaged, 1, "{point:?}");
        spool.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_large_body_is_set_aside_when_it_is_read() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let bad = Sample::large(1);
    bad.commit(&*spool).await.unwrap();
    spool.close().await.unwrap();
    let body = bad.body();
    let file = format!("bodies/{}", names(&store.folder.join("bodies"))[0]);
    store.corrupt(&file, &body[1_000_000..1_000_050]);

    let spool = store.engine();
    let stored = spool.load(bad.id()).await.unwrap();
    assert_eq!(stored.body.read(0, 100).await.unwrap(), body[..100]);
    assert!(stored.body.read(1_000_000, 100).await.is_err());
    let unknown = SpoolError::Unknown(bad.id());
    assert_eq!(spool.settle(bad.settlement(1, delivered())).await, Err(unknown));
    assert_eq!(spool.totals().await.unwrap().damaged, 1);
    spool.close().await.unwrap();
    drop(spool);
    // The evidence survives the next start.
    store.engine().close().await.unwrap();
    let id = bad.id();
    assert_eq!(kept(&store), [format!("{id}.body"), format!("{id}.record"), format!("{id}.txt")]);
    assert!(names(&store.folder.join("bodies")).is_empty());
}

#[tokio::test]
async fn compaction_moves_messages_and_frees_segments() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let samples: Vec<Sample> = (0..200).map(Sample::small).collect();
    for sample in &samples {
        sample.commit(&*spool).await.unwrap();
    }
    let full = names(&store.folder.join("segments")).len();
    let (stay, go): (Vec<&Sample>, Vec<&Sample>) = samples.iter().partition(|sample| sample.number % 20 == 7);
    for sample in go {
        spool.settle(sample.all_done()).await.unwrap();
    }
    // Each operation lets the compactor take a step.
    for _ in 0..200 {
        spool.release(stay[0].id(), LATER, Guard::Any).await.unwrap();
    }
    let left = names(&store.folder.join("segments")).len();
    assert!(full >= 8 && left <= 2, "{left} of {full} segments are left");
    for sample in &stay {
        sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
    }
    spool.close().await.unwrap();
    drop(spool);
    let spool = store.engine();
    for sample in &stay {
        sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
    }
    spool.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_is_delivered_nothing_is_left() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let samples: Vec<Sample> = (0..200).map(|number| Sample::small(number).to(2)).collect();
    let mut messages = Vec::new();
    for sample in &samples {
        messages.push(sample.message(&*spool).await.unwrap());
        // Refused within a batch whose other records must still be counted where they are.
        messages.push(samples[0].message(&*spool).await.unwrap());
    }
    let commits: Vec<_> = messages.into_iter().map(|message| spool.commit(message)).collect();
    let mut refused = 0;
    for commit in commits {
        refused += u32::from(commit.await.is_err());
    }
    assert_eq!(refused, 200);
    for recipient in [1, 2] {
        let settlements =
            samples.iter().map(|sample| spool.settle(sample.settlement(recipient, delivered())));
        for settled in settlements.collect::<Vec<_>>() {
            assert_eq!(settled.await.unwrap().removed, recipient == 2);
        }
    }
    // The answer comes before the housekeeping of its batch. The next batch comes after both.
    assert!(spool.release(samples[0].id(), LATER, Guard::Any).await.is_err());
    assert_eq!(spool.totals().await.unwrap(), Totals::default());
    // The segment that is written to, and the next one.
    assert!(names(&store.folder.join("segments")).len() <= 2);
    let database = rusqlite::Connection::open(store.folder.join("envelopes.db")).unwrap();
    let rows = "SELECT (SELECT count(*) FROM message) + (SELECT count(*) FROM recipient)";
    let left: u32 = database.query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn an_operator_can_ask_the_database() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let sample = Sample::small(1).to(2);
    sample.commit(&*spool).await.unwrap();
    spool.settle(sample.settlement(2, delivered())).await.unwrap();
    let database = rusqlite::Connection::open(store.folder.join("envelopes.db")).unwrap();
    let row = |recipient: &str| -> (String, String, String) {
        let sql = "SELECT id, sender, status FROM queue WHERE recipient = ?";
        database.query_row(sql, [recipient], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    };
    let (id, sender) = (sample.id().to_string(), "sender1@example.net".to_owned());
    assert_eq!(row("r1.n1@example1.org"), (id.clone(), sender.clone(), "fresh".to_owned()));
    assert_eq!(row("r2.n1@example2.org"), (id, sender, "{\"done\":\"delivered\"}".to_owned()));
    spool.close().await.unwrap();
}
