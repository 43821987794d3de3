//! Tampering with a spool folder: parts that vanish and come back, copies from another day, octets that hide others.
//! What was acknowledged is served or kept all the same.

use super::damage::remove_index;
use super::*;
use crate::fault::{CrashPoint, InjectedFault};
use crate::{NewMessage, inspect, repair};

const FIRST: &str = "segments/0000000000000001.log";

fn sql(store: &FolderStore, sql: &str) -> usize {
    rusqlite::Connection::open(store.folder.join("envelopes.db")).unwrap().execute(sql, []).unwrap()
}

fn count(store: &FolderStore, sql: &str) -> i64 {
    let database = rusqlite::Connection::open(store.folder.join("envelopes.db")).unwrap();
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

async fn bring(store: &mut FolderStore, numbers: std::ops::RangeInclusive<u32>) -> Vec<Sample> {
    let samples: Vec<Sample> = numbers.map(Sample::small).collect();
    bring_all(store, &samples).await;
    samples
}

async fn bring_all(store: &mut FolderStore, samples: &[Sample]) {
    let spool = store.engine();
    for sample in samples {
        sample.commit(&*spool).await.unwrap();
    }
    spool.close().await.unwrap();
}

/// Commits a message, and then these children of it in one operation, whose last record defers the parent.
async fn commit_with_children(spool: &Embedded, parent: Sample, samples: &[Sample]) {
    parent.commit(spool).await.unwrap();
    let mut children: Vec<NewMessage> = Vec::new();
    for sample in samples {
        children.push(sample.message(spool).await.unwrap());
    }
    spool.settle(Settlement { children, ..parent.settlement(1, deferred(1)) }).await.unwrap();
}

async fn assert_served(store: &mut FolderStore, samples: &[Sample]) {
    let spool = store.engine();
    let served: Vec<QueueId> = spool.claim(None, 1000).await.unwrap().iter().map(|one| one.id).collect();
    assert_eq!(served, samples.iter().map(Sample::id).collect::<Vec<_>>());
    for sample in samples {
        sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
    }
    spool.close().await.unwrap();
}

/// The offsets of the records in a segment.
fn records(octets: &[u8]) -> Vec<usize> {
    let marks = octets.windows(4).enumerate().filter(|(_, four)| four == b"PNT3");
    marks.map(|(at, _)| at).collect()
}

#[tokio::test]
async fn an_index_rebuilt_within_a_batch_frees_no_segment_that_is_needed() {
    let mut store = FolderStore::new();
    let samples = bring(&mut store, 1..=2).await;
    let spool = store.engine();
    // The index fails to store the batch, and cannot be brought up to the log.
    sql(&store, "DELETE FROM log");
    store.faults.arm(CrashPoint::Commit, InjectedFault::Io);
    spool.settle(samples[0].all_done()).await.unwrap();
    assert_eq!(spool.totals().await.unwrap().messages, 1);
    samples[1].assert_same(&spool.load(samples[1].id()).await.unwrap()).await;
    spool.close().await.unwrap();
    drop(spool);
    assert!(store.folder.join(FIRST).exists());
    assert_served(&mut store, &samples[1..]).await;
}

#[tokio::test]
async fn a_stray_mark_rebuilds_the_index_and_keeps_no_thread_busy() {
    let mut store = FolderStore::new();
    let samples = bring(&mut store, 1..=2).await;
    sql(&store, "INSERT INTO mark (segment, message) VALUES (1, x'00112233445566778899aabbccddeeff')");
    assert_served(&mut store, &samples).await;
    assert_eq!(count(&store, "SELECT count(*) FROM mark"), 0);
}

#[tokio::test]
async fn one_damaged_header_costs_no_others_of_the_last_batch() {
    for with_index in [true, false] {
        let mut store = FolderStore::new();
        let samples: Vec<Sample> = (1..=4).map(Sample::small).collect();
        let spool = store.engine();
        commit_with_children(&spool, samples[3], &samples[..3]).await;
        spool.close().await.unwrap();
        drop(spool);
        if !with_index {
            // Later records say that all was durable.
            assert_served(&mut store, &samples).await;
            remove_index(&store);
        }
        let path = store.folder.join(FIRST);
        let mut octets = fs::read(&path).unwrap();
        // After the start, the parent and the first child.
        let second = records(&octets)[3];
        octets[second + 41] ^= 4;
        fs::write(&path, octets).unwrap();
        let found = inspect(&store.folder, &mut |_, _| ()).unwrap();
        assert_eq!(found.messages, 3, "{:?}", found.problems);
        // An index that was there has the message, until it is loaded.
        let spool = store.engine();
        assert!(spool.load(samples[1].id()).await.is_err());
        assert!(spool.release(samples[1].id(), LATER, Guard::Any).await.is_err());
        spool.close().await.unwrap();
        drop(spool);
        for _ in 0..2 {
            assert_served(&mut store, &[samples[0], samples[2], samples[3]]).await;
        }
    }
}

#[tokio::test]
async fn what_was_never_whole_does_not_come_alive_later() {
    let mut store = FolderStore::new();
    let one = Sample::small(9);
    let spool = store.engine();
    commit_with_children(&spool, one, &[1, 2, 3].map(Sample::small)).await;
    spool.close().await.unwrap();
    drop(spool);
    // The power failed while the four records of the operation were being written: the last one never reached the disk.
    let path = store.folder.join(FIRST);
    let mut octets = fs::read(&path).unwrap();
    let last = records(&octets)[5];
    octets[last..].fill(0);
    fs::write(&path, octets).unwrap();
    remove_index(&store);
    // Their sequence numbers are used again, and the messages that use them are removed.
    for _ in 0..4 {
        assert_served(&mut store, &[one]).await;
    }
    let late = Sample::small(10);
    bring_all(&mut store, &[late]).await;
    remove_index(&store);
    assert_served(&mut store, &[one, late]).await;
}

#[tokio::test]
async fn a_segment_that_an_earlier_run_filled_is_emptied() {
    let mut store = FolderStore::new();
    let samples = bring(&mut store, 1..=60).await;
    let spool = Embedded::open_inline(&store.config(), &Faults::none()).unwrap();
    for sample in samples.iter().filter(|sample| sample.number % 20 != 3) {
        spool.settle(sample.all_done()).await.unwrap();
    }
    spool.close().await.unwrap();
    drop(spool);
    assert!(!store.folder.join(FIRST).exists(), "{:?}", names(&store.folder.join("segments")));
    let stay: Vec<Sample> = samples.into_iter().filter(|sample| sample.number % 20 == 3).collect();
    assert_served(&mut store, &stay).await;
}

#[tokio::test]
async fn a_segment_that_comes_back_is_not_thrown_away() {
    for cut in [false, true] {
        let mut store = FolderStore::new();
        let samples = bring(&mut store, 1..=60).await;
        let path = store.folder.join(FIRST);
        let whole = fs::read(&path).unwrap();
        match cut {
            true => fs::write(&path, &whole[..whole.len() / 2]).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        }
        store.engine().close().await.unwrap();
        fs::write(&path, &whole).unwrap();
        // Twice, since its segment may have been deleted by the second time.
        for _ in 0..2 {
            store.engine().close().await.unwrap();
        }
        let spool = store.engine();
        let served: Vec<QueueId> = spool.claim(None, 100).await.unwrap().iter().map(|one| one.id).collect();
        for lost in samples.iter().filter(|sample| !served.contains(&sample.id())) {
            let record = store.folder.join(format!("damaged/{}.record", lost.id()));
            let (record, body) = (fs::read(record).unwrap(), lost.body());
            assert!(record.windows(body.len()).any(|part| part == body), "{lost:?}");
        }
        assert!(served.len() < 60);
        spool.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_file_of_a_body_that_comes_back_is_kept_with_its_message() {
    let mut store = FolderStore::new();
    let (large, other) = (Sample::large(1), Sample::small(2));
    bring_all(&mut store, &[large, other]).await;
    let path = store.folder.join("bodies").join(&names(&store.folder.join("bodies"))[0]);
    let away = store.folder.join("away");
    fs::rename(&path, &away).unwrap();
    assert_served(&mut store, &[other]).await;
    fs::rename(&away, &path).unwrap();
    assert_served(&mut store, &[other]).await;
    let kept = fs::read(store.folder.join(format!("damaged/{}.body", large.id()))).unwrap();
    assert_eq!(kept, large.body());
}

#[tokio::test]
async fn a_body_that_was_put_away_and_is_needed_is_taken_back() {
    let mut store = FolderStore::new();
    let large = Sample::large(1);
    bring_all(&mut store, &[large]).await;
    let name = names(&store.folder.join("bodies"))[0].clone();
    fs::rename(store.folder.join("bodies").join(&name), store.folder.join("unreferenced").join(&name))
        .unwrap();
    assert_served(&mut store, &[large]).await;
}

#[tokio::test]
async fn a_folder_of_bodies_that_is_not_there_is_an_error_that_destroys_nothing() {
    let mut store = FolderStore::new();
    let large = Sample::large(1);
    bring_all(&mut store, &[large]).await;
    let (bodies, away) = (store.folder.join("bodies"), store.folder.join("away"));
    fs::rename(&bodies, &away).unwrap();
    for with_identity in [true, false] {
        if !with_identity {
            fs::remove_file(store.folder.join("identity")).unwrap();
        }
        let refused = Embedded::open(&store.config());
        assert!(matches!(refused, Err(OpenError::BodiesMissing(path)) if path == bodies));
        assert!(!bodies.exists());
    }
    fs::rename(&away, &bodies).unwrap();
    assert_served(&mut store, &[large]).await;
}

#[tokio::test]
async fn files_of_bodies_have_names_that_nothing_had_before() {
    let mut store = FolderStore::new();
    let mut seen = Vec::new();
    for number in 1..=3 {
        let spool = store.engine();
        let large = Sample::large(number);
        large.commit(&*spool).await.unwrap();
        seen.extend(names(&store.folder.join("bodies")));
        spool.settle(large.all_done()).await.unwrap();
        spool.close().await.unwrap();
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[tokio::test]
async fn what_reads_well_the_second_time_is_not_set_aside() {
    let mut store = FolderStore::new();
    let (large, other) = (Sample::large(1), Sample::small(2));
    bring_all(&mut store, &[large, other]).await;
    let spool = Embedded::open_inline(&store.config(), &Faults::none()).unwrap();
    let stored = spool.load(large.id()).await.unwrap();
    let name = format!("bodies/{}", names(&store.folder.join("bodies"))[0]);
    store.corrupt(&name, &large.body()[500..540]);
    assert!(stored.body.read(0, 1_000).await.is_err());
    fs::write(store.folder.join(&name), large.body()).unwrap();
    spool.settle(other.all_done()).await.unwrap();
    large.assert_same(&spool.load(large.id()).await.unwrap()).await;
    assert_eq!(kept(&store), Vec::<String>::new());
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_repair_names_what_a_lost_segment_had() {
    let mut store = FolderStore::new();
    bring(&mut store, 1..=60).await;
    fs::remove_file(store.folder.join(FIRST)).unwrap();
    let done = repair(&store.config(), &mut |_, _| ()).await.unwrap();
    assert!(done.set_aside > 5 && done.served + done.set_aside == 60, "{done:?}");
}

#[tokio::test]
async fn what_is_no_spool_is_neither_looked_at_nor_repaired() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("letter.txt"), "mine").unwrap();
    for path in [folder.path().to_owned(), folder.path().join("none")] {
        let looked = inspect(&path, &mut |_, _| ());
        let repaired = repair(&EmbeddedConfig::new(&path), &mut |_, _| ()).await;
        for refused in [looked.map(drop), repaired.map(drop)] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
    let refused = inspect(folder.path(), &mut |_, _| ()).unwrap_err();
    assert!(refused.to_string().contains("no `segments/`"), "{refused}");
    assert_eq!(names(folder.path()), ["letter.txt"]);
}

#[tokio::test]
async fn another_spelling_of_a_segments_number_is_no_segment() {
    let mut store = FolderStore::new();
    let samples = bring(&mut store, 1..=3).await;
    for name in ["1.log", "+1.log", "01.log", "000000000000000001.log"] {
        fs::write(store.folder.join("segments").join(name), vec![0; 500]).unwrap();
    }
    assert_served(&mut store, &samples).await;
}

#[tokio::test]
async fn a_log_that_nothing_knows_is_not_taken_for_a_new_one() {
    for with_index in [true, false] {
        let mut store = FolderStore::new();
        let samples = bring(&mut store, 1..=3).await;
        fs::remove_file(store.folder.join("identity")).unwrap();
        for name in names(&store.folder.join("segments")) {
            let path = store.folder.join("segments").join(name);
            let mut octets = fs::read(&path).unwrap();
            octets[20] ^= 1;
            fs::write(path, octets).unwrap();
        }
        if with_index {
            assert_served(&mut store, &samples).await;
            continue;
        }
        let before = names(&store.folder.join("segments"));
        remove_index(&store);
        assert!(matches!(Embedded::open(&store.config()), Err(OpenError::ForeignPart { .. })));
        assert_eq!(names(&store.folder.join("segments")), before);
    }
}

#[tokio::test]
async fn a_disk_that_damages_one_index_after_the_other_is_not_filled_with_them() {
    let mut store = FolderStore::new();
    let samples = bring(&mut store, 1..=2).await;
    for _ in 0..6 {
        sql(&store, "UPDATE message SET position = position + 8");
        assert_served(&mut store, &samples).await;
    }
    let put_away = names(&store.folder.join("unreferenced"));
    assert_eq!(put_away.iter().filter(|name| !name.contains("-wal")).count(), 3, "{put_away:?}");
}

#[tokio::test]
async fn where_the_log_ends_is_not_taken_from_the_index_alone() {
    for flip in [
        "position = 64",
        "position = position + 800",
        "segment = 0",
        "segment = 9",
        "sequence = 2",
        "sequence = 99",
    ] {
        let mut store = FolderStore::new();
        let samples = bring(&mut store, 1..=5).await;
        sql(&store, &format!("UPDATE log SET {flip}"));
        for _ in 0..2 {
            assert_served(&mut store, &samples).await;
        }
        remove_index(&store);
        assert_served(&mut store, &samples).await;
        assert_eq!(kept(&store), Vec::<String>::new(), "{flip}");
    }
}
