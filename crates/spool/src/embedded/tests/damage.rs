//! Lost or damaged parts beside intact ones: the index, or parts of the log.

use super::*;
use crate::{Change, DeliveryStatus, Disposition, Guard, Pending, Settlement};

/// Messages in those states for which more than their record is needed.
struct SampleMix {
    fresh: Sample,
    deferred: Sample,
    partly: Sample,
    held: Sample,
    quarantined: Sample,
    released: Sample,
    large: Sample,
    gone: Sample,
}

impl SampleMix {
    /// A closed spool that has them.
    async fn filled() -> (FolderStore, Self) {
        let mut store = FolderStore::new();
        let spool = store.engine();
        let mixed = Self::bring(&spool).await;
        spool.close().await.unwrap();
        (store, mixed)
    }

    async fn bring(spool: &Embedded) -> Self {
        let mixed = Self {
            fresh: Sample::small(1),
            deferred: Sample::small(2),
            partly: Sample::small(3).to(3),
            held: Sample::small(4),
            quarantined: Sample::small(5),
            released: Sample::small(6),
            large: Sample::large(7),
            gone: Sample::small(8),
        };
        for sample in [mixed.fresh, mixed.deferred, mixed.partly, mixed.held, mixed.large, mixed.gone] {
            sample.commit(spool).await.unwrap();
        }
        for sample in [mixed.quarantined, mixed.released] {
            let mut message = sample.message(spool).await.unwrap();
            message.entry.hold = Some(in_quarantine("spam"));
            spool.commit(message).await.unwrap();
        }
        spool.settle(mixed.deferred.settlement(1, deferred(3))).await.unwrap();
        spool.settle(mixed.partly.settlement(2, delivered())).await.unwrap();
        spool.reroute(mixed.partly.id(), vec![3], Some(NextHop::Relay("inside".into()))).await.unwrap();
        spool.hold(mixed.held.id(), HoldReason::Operator("look".to_owned())).await.unwrap();
        spool.release(mixed.released.id(), LATER, Guard::Any).await.unwrap();
        spool.settle(mixed.gone.all_done()).await.unwrap();
        mixed
    }

    async fn assert_all(&self, spool: &Embedded) {
        for sample in [self.fresh, self.deferred, self.partly, self.held, self.quarantined, self.large] {
            sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
        }
        let load = async |sample: Sample| spool.load(sample.id()).await.unwrap();
        assert_eq!(load(self.deferred).await.recipients[0].status, deferred(3));
        let partly = load(self.partly).await.recipients;
        assert_eq!(partly[1].status, delivered());
        assert_eq!(partly[2].route, Some(NextHop::Relay("inside".into())));
        assert_eq!(load(self.held).await.entry.hold, Some(HoldReason::Operator("look".to_owned())));
        assert_eq!(load(self.quarantined).await.entry.hold, Some(in_quarantine("spam")));
        let released = load(self.released).await.entry;
        assert_eq!((released.hold, released.released), (None, Some(LATER)));
        assert_eq!(spool.load(self.gone.id()).await.unwrap_err(), SpoolError::Unknown(self.gone.id()));
        assert_eq!(spool.claim(None, 100).await.unwrap().len(), 7);
        let totals = spool.totals().await.unwrap();
        assert_eq!((totals.messages, totals.held, totals.damaged), (7, 2, 0));
        assert_eq!(totals.quarantines["spam"].messages, 1);
    }
}

pub(super) fn remove_index(store: &FolderStore) {
    for name in ["envelopes.db", "envelopes.db-wal", "envelopes.db-shm"] {
        let _ = fs::remove_file(store.folder.join(name));
    }
}

#[tokio::test]
async fn a_missing_empty_or_foreign_database_is_rebuilt_from_the_log() {
    let mut other = FolderStore::new();
    other.engine().close().await.unwrap();
    let foreign = fs::read(other.folder.join("envelopes.db")).unwrap();
    for what in ["missing", "empty", "foreign", "no database"] {
        let (mut store, mixed) = SampleMix::filled().await;
        remove_index(&store);
        let path = store.folder.join("envelopes.db");
        match what {
            "empty" => fs::write(path, "").unwrap(),
            "foreign" => fs::write(path, &foreign).unwrap(),
            "no database" => fs::write(path, vec![7; 10_000]).unwrap(),
            _ => {}
        }
        // More than once: a second restart must not lose anything either.
        for _ in 0..3 {
            let spool = store.engine();
            mixed.assert_all(&spool).await;
            spool.close().await.unwrap();
        }
        assert_eq!(store.litter(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_restore_without_the_write_ahead_log_loses_nothing() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let mixed = SampleMix::bring(&spool).await;
    let restored = store.folder.with_extension("restored");
    copy(&store.folder, &restored, &HashMap::new());
    fs::remove_file(restored.join("envelopes.db-wal")).unwrap();
    spool.close().await.unwrap();
    drop(spool);
    store.folder = restored;
    let spool = store.engine();
    mixed.assert_all(&spool).await;
    spool.close().await.unwrap();
}

#[tokio::test]
async fn no_damaged_page_of_the_database_costs_anything() {
    let (mut store, mixed) = SampleMix::filled().await;
    let whole = fs::read(store.folder.join("envelopes.db")).unwrap();
    let (mut overwritten, mut shortened) = (0, 0);
    for page in 0..whole.len() / 4096 {
        let place = page * 4096;
        let mut harmed = vec![whole.clone()];
        harmed[0][place + 8..place + 208].fill(0x55);
        overwritten += 1;
        // A page of the index with a row count that is too low by one hides a row, and is otherwise intact.
        if whole[place] == 0x0a && whole[place + 4] > 0 {
            harmed.push(whole.clone());
            harmed[1][place + 4] -= 1;
            shortened += 1;
        }
        for octets in harmed {
            fs::write(store.folder.join("envelopes.db"), octets).unwrap();
            let spool = store.engine();
            mixed.assert_all(&spool).await;
            spool.close().await.unwrap();
        }
    }
    assert!(overwritten > 5 && shortened >= 3, "{overwritten} and {shortened}");
}

#[tokio::test]
async fn a_flipped_octet_in_a_row_sends_mail_nowhere_else() {
    let (mut store, mixed) = SampleMix::filled().await;
    let flips = [
        "UPDATE message SET sheet = replace(sheet, 'example1.org', 'example9.org')",
        "UPDATE message SET hold = NULL WHERE hold IS NOT NULL",
        "UPDATE message SET position = position + 8",
        "UPDATE message SET received = received - 1000000000",
        "UPDATE recipient SET route = '{\"relay\":\"outside\"}' WHERE route IS NOT NULL",
        "UPDATE recipient SET status = '{\"done\":\"delivered\"}'",
    ];
    for flip in flips {
        let database = rusqlite::Connection::open(store.folder.join("envelopes.db")).unwrap();
        assert!(database.execute(flip, []).unwrap() > 0, "{flip}");
        drop(database);
        let spool = store.engine();
        mixed.assert_all(&spool).await;
        spool.close().await.unwrap();
    }
    // The same at run time: the caller that meets it gets the error, and the next one is served.
    let spool = store.engine();
    let database = rusqlite::Connection::open(store.folder.join("envelopes.db")).unwrap();
    database.execute(flips[0], []).unwrap();
    assert!(matches!(spool.load(mixed.deferred.id()).await, Err(SpoolError::Unavailable(_))));
    // An operation of the committer comes after the rebuild.
    assert!(spool.release(mixed.gone.id(), LATER, Guard::Any).await.is_err());
    mixed.assert_all(&spool).await;
    spool.close().await.unwrap();
}

#[tokio::test]
async fn the_database_is_deleted_under_load_and_all_is_delivered() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let samples: Vec<Sample> = (1..=120).map(Sample::small).collect();
    for (count, sample) in samples.iter().enumerate() {
        sample.commit(&*spool).await.unwrap();
        if count == 40 {
            remove_index(&store);
        }
        if count % 3 == 0 {
            spool.settle(sample.all_done()).await.unwrap();
        }
    }
    spool.close().await.unwrap();
    drop(spool);
    let spool = store.engine();
    let waiting: Vec<QueueId> = spool.claim(None, 200).await.unwrap().iter().map(|one| one.id).collect();
    let expected: Vec<QueueId> = samples
        .iter()
        .enumerate()
        .filter(|(count, _)| count % 3 != 0)
        .map(|(_, sample)| sample.id())
        .collect();
    assert_eq!(waiting, expected);
    for sample in samples.iter().enumerate().filter(|(count, _)| count % 3 != 0).map(|(_, sample)| sample) {
        sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
    }
    spool.close().await.unwrap();
}

#[tokio::test]
async fn an_old_copy_of_the_database_brings_nothing_back_that_is_done() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let early: Vec<Sample> = (1..=60).map(Sample::small).collect();
    for sample in &early {
        sample.commit(&*spool).await.unwrap();
    }
    spool.close().await.unwrap();
    drop(spool);
    let old = fs::read(store.folder.join("envelopes.db")).unwrap();
    let spool = store.engine();
    for sample in &early[..50] {
        spool.settle(sample.all_done()).await.unwrap();
    }
    let late: Vec<Sample> = (100..=200).map(Sample::small).collect();
    for sample in &late {
        sample.commit(&*spool).await.unwrap();
        spool.settle(sample.all_done()).await.unwrap();
    }
    spool.close().await.unwrap();
    drop(spool);
    remove_index(&store);
    fs::write(store.folder.join("envelopes.db"), old).unwrap();
    let spool = store.engine();
    let waiting: Vec<QueueId> = spool.claim(None, 300).await.unwrap().iter().map(|one| one.id).collect();
    let expected: Vec<QueueId> = early[50..].iter().map(Sample::id).collect();
    assert_eq!(waiting, expected);
    assert_eq!(spool.totals().await.unwrap().damaged, 0);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_log_that_is_not_there_is_an_error_that_destroys_nothing() {
    let (mut store, mixed) = SampleMix::filled().await;
    let (segments, away) = (store.folder.join("segments"), store.folder.join("away"));
    fs::rename(&segments, &away).unwrap();
    for with_database in [true, false] {
        let refused = Embedded::open(&store.config());
        let Err(OpenError::LogMissing { path, messages }) = refused else { panic!("it was opened") };
        assert_eq!((path, messages), (segments.clone(), with_database.then_some(7)));
        remove_index(&store);
    }
    assert_eq!(names(&store.folder.join("bodies")).len(), 1);
    fs::remove_dir(&segments).unwrap();
    fs::rename(&away, &segments).unwrap();
    let spool = store.engine();
    mixed.assert_all(&spool).await;
    spool.close().await.unwrap();
}

#[tokio::test]
async fn segments_of_two_spools_are_not_taken_for_one() {
    let (mut one, mut two) = (FolderStore::new(), FolderStore::new());
    let spool = one.engine();
    Sample::small(1).commit(&*spool).await.unwrap();
    spool.close().await.unwrap();
    two.engine().close().await.unwrap();
    let name = "segments/0000000000000001.log";
    let foreign = one.folder.join("segments/0000000000000009.log");
    fs::copy(two.folder.join(name), &foreign).unwrap();
    assert!(
        matches!(Embedded::open(&one.config()), Err(OpenError::ForeignPart { path, .. }) if path == foreign)
    );
    fs::remove_file(&foreign).unwrap();
    let renamed = one.folder.join("segments/0000000000000007.log");
    fs::copy(one.folder.join(name), &renamed).unwrap();
    assert!(
        matches!(Embedded::open(&one.config()), Err(OpenError::ForeignPart { path, .. }) if path == renamed)
    );
    fs::remove_file(&renamed).unwrap();
    let spool = one.engine();
    assert_eq!(spool.claim(None, 9).await.unwrap().len(), 1);
    spool.close().await.unwrap();
}

#[tokio::test]
async fn the_folder_is_locked_and_not_a_file_in_it() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    for name in names(&store.folder) {
        if name.contains("lock") {
            fs::remove_file(store.folder.join(name)).unwrap();
        }
    }
    assert!(matches!(Embedded::open(&store.config()), Err(OpenError::Locked(_))));
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_hold_that_a_later_version_wrote_is_a_hold_and_is_kept() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let sample = Sample::small(1);
    sample.commit(&*spool).await.unwrap();
    let later: HoldReason = serde_json::from_str(r#"{"embargo":{"until":7}}"#).unwrap();
    spool.hold(sample.id(), later.clone()).await.unwrap();
    spool.close().await.unwrap();
    drop(spool);
    for _ in 0..2 {
        let spool = store.engine();
        let stored = spool.load(sample.id()).await.unwrap();
        assert_eq!(stored.entry.hold, Some(later.clone()));
        assert_eq!(spool.claim(None, 9).await.unwrap()[0].hold, Some(later.clone()));
        // An operator's hold does not replace one that is not understood.
        spool.hold(sample.id(), HoldReason::Operator("mine".to_owned())).await.unwrap();
        spool.close().await.unwrap();
        drop(spool);
        remove_index(&store);
    }
}

#[tokio::test]
async fn damage_in_the_log_costs_what_it_hits_and_is_kept() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let samples: Vec<Sample> = (1..=10).map(Sample::small).collect();
    for sample in &samples {
        sample.commit(&*spool).await.unwrap();
    }
    spool.settle(samples[9].all_done()).await.unwrap();
    spool.close().await.unwrap();
    drop(spool);
    // The headers of the third and the fourth record are overwritten, and the index is gone as well.
    let path = store.folder.join("segments/0000000000000001.log");
    let mut octets = fs::read(&path).unwrap();
    let marks: Vec<usize> =
        octets.windows(4).enumerate().filter(|(_, four)| four == b"PNT3").map(|(at, _)| at).collect();
    octets[marks[3]..marks[3] + 4].fill(0);
    octets[marks[4] + 30] ^= 1;
    fs::write(&path, octets).unwrap();
    remove_index(&store);
    for _ in 0..2 {
        let spool = store.engine();
        let served: Vec<QueueId> = spool.claim(None, 100).await.unwrap().iter().map(|one| one.id).collect();
        let expected = [1, 2, 5, 6, 7, 8, 9].map(|number| Sample::small(number).id());
        assert_eq!(served, expected);
        spool.close().await.unwrap();
        let kept = kept(&store);
        assert_eq!(kept.len(), 1, "{kept:?}");
        let octets = fs::read(store.folder.join("damaged").join(&kept[0])).unwrap();
        let body = Sample::small(4).body();
        assert!(octets.windows(body.len()).any(|part| part == body));
    }
}

#[tokio::test]
async fn a_truncated_segment_costs_its_end_and_nothing_else() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let samples: Vec<Sample> = (1..=60).map(Sample::small).collect();
    for sample in &samples {
        sample.commit(&*spool).await.unwrap();
    }
    spool.close().await.unwrap();
    drop(spool);
    let path = store.folder.join("segments/0000000000000001.log");
    let length = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(length / 2).unwrap();
    let spool = store.engine();
    let served = spool.claim(None, 100).await.unwrap().len();
    let totals = spool.totals().await.unwrap();
    // Lost messages are named, with their envelopes. The others are served.
    assert_eq!(served as u64 + totals.damaged, 60);
    assert!(totals.damaged > 5 && served > 40, "{totals:?}");
    let texts = kept(&store).into_iter().filter(|name| name.ends_with(".txt")).count();
    assert_eq!(texts as u64, totals.damaged);
    for waiting in spool.claim(None, 100).await.unwrap() {
        spool.load(waiting.id).await.unwrap();
    }
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_log_that_lost_its_end_costs_what_was_there_and_names_it() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let samples: Vec<Sample> = (1..=20).map(Sample::small).chain([Sample::large(21)]).collect();
    for sample in &samples {
        sample.commit(&*spool).await.unwrap();
    }
    spool.close().await.unwrap();
    drop(spool);
    let path = store.folder.join("segments/0000000000000001.log");
    File::options().write(true).open(&path).unwrap().set_len(100_000).unwrap();
    for _ in 0..2 {
        let spool = store.engine();
        let served = spool.claim(None, 100).await.unwrap().len() as u64;
        let damaged = spool.totals().await.unwrap().damaged;
        assert!(served + damaged == 21 && served > 5 && damaged > 5, "{served} and {damaged}");
        spool.close().await.unwrap();
    }
    let id = samples[20].id();
    assert!(kept(&store).contains(&format!("{id}.body")) && kept(&store).contains(&format!("{id}.txt")));
}

#[tokio::test]
async fn a_torn_tail_is_no_damage() {
    for tail in [vec![0; 500], vec![0xaa; 500], b"PNT3".repeat(40)] {
        let mut store = FolderStore::new();
        let spool = store.engine();
        let (one, two) = (Sample::small(1), Sample::small(2));
        one.commit(&*spool).await.unwrap();
        spool.close().await.unwrap();
        drop(spool);
        let path = store.folder.join("segments/0000000000000001.log");
        let mut octets = fs::read(&path).unwrap();
        let end = (octets.iter().rposition(|octet| *octet != 0).unwrap() + 1).next_multiple_of(8);
        octets.splice(end..(end + tail.len()).min(octets.len()), tail.iter().copied());
        fs::write(&path, octets).unwrap();
        for _ in 0..2 {
            let spool = store.engine();
            one.assert_same(&spool.load(one.id()).await.unwrap()).await;
            let _ = two.commit(&*spool).await;
            two.assert_same(&spool.load(two.id()).await.unwrap()).await;
            spool.close().await.unwrap();
            drop(spool);
            remove_index(&store);
            assert!(kept(&store).is_empty());
        }
    }
}

#[tokio::test]
async fn a_missing_segment_costs_its_own_and_names_them() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let samples: Vec<Sample> = (1..=60).map(Sample::small).collect();
    for sample in &samples {
        sample.commit(&*spool).await.unwrap();
    }
    spool.close().await.unwrap();
    drop(spool);
    fs::remove_file(store.folder.join("segments/0000000000000001.log")).unwrap();
    let spool = store.engine();
    let served = spool.claim(None, 100).await.unwrap().len() as u64;
    let damaged = spool.totals().await.unwrap().damaged;
    assert!(served + damaged == 60 && damaged > 5 && served > 5);
    spool.settle(samples[59].all_done()).await.unwrap();
    spool.close().await.unwrap();
}

#[tokio::test]
async fn a_message_that_was_set_aside_does_not_come_back_with_a_new_index() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let (bad, good) = (Sample::large(1), Sample::small(2));
    bad.commit(&*spool).await.unwrap();
    good.commit(&*spool).await.unwrap();
    spool.close().await.unwrap();
    drop(spool);
    let body = names(&store.folder.join("bodies"))[0].clone();
    fs::remove_file(store.folder.join("bodies").join(body)).unwrap();
    for _ in 0..3 {
        let spool = store.engine();
        assert_eq!(spool.claim(None, 9).await.unwrap().len(), 1);
        assert_eq!(spool.totals().await.unwrap().damaged, 1);
        spool.close().await.unwrap();
        drop(spool);
        remove_index(&store);
    }
}

/// The octets of one status are written once: a settlement of one recipient does not rewrite the others.
#[tokio::test]
async fn marks_of_many_recipients_outlive_the_index() {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let sample = Sample::small(1).to(200);
    sample.commit(&*spool).await.unwrap();
    for recipient in (1..=200).filter(|number| number % 3 != 0) {
        spool.settle(sample.settlement(recipient, delivered())).await.unwrap();
    }
    let failed = DeliveryStatus::Done(Disposition::Failed);
    let change = |recipient| Change { recipient, status: failed.clone() };
    let id = sample.id();
    let settlement =
        Settlement { id, changes: vec![change(3), change(6)], children: vec![], guard: Guard::Any };
    spool.settle(settlement).await.unwrap();
    spool.close().await.unwrap();
    drop(spool);
    remove_index(&store);
    let spool = store.engine();
    let stored = spool.load(id).await.unwrap();
    for state in &stored.recipients {
        let expected = match state.id {
            3 | 6 => failed.clone(),
            number if number % 3 == 0 => DeliveryStatus::fresh(NOW),
            _ => delivered(),
        };
        assert_eq!(state.status, expected, "{}", state.id);
    }
    let pending =
        |status: &DeliveryStatus| matches!(status, DeliveryStatus::Pending(Pending { attempts: 0, .. }));
    assert_eq!(stored.recipients.iter().filter(|state| pending(&state.status)).count(), 64);
    spool.close().await.unwrap();
}
