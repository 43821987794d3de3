//! Contexts that deliveries have replaced: compaction keeps them, and comes to an end.

use super::*;

/// The context of a message after this many changes: more than a tenth of a segment.
fn context(sample: &Sample, change: u32) -> Bytes {
    format!("{} {change} ", sample.number).repeat(5_000).into()
}

async fn assert_contexts(spool: &dyn Spool, samples: &[Sample], change: u32) {
    for sample in samples {
        let stored = spool.load(sample.id()).await.unwrap();
        assert!(stored.entry.context == context(sample, change), "{}", sample.number);
        let entry = crate::Entry { context: sample.entry().context, ..stored.entry.clone() };
        sample.assert_same(&Stored { entry, ..stored }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_keeps_contexts_and_ends() {
    let store = FolderStore::new();
    let config = EmbeddedConfig { segment_size: 256 * 1024, warm: 0, ..store.config() };
    // Each operation carries out all compaction that is due, and returns when there is none left.
    let spool = Embedded::open_inline(&config, &Faults::none()).unwrap();
    let mut samples: Vec<Sample> = (1..=30).map(Sample::small).collect();
    samples[7] = Sample::large(8);
    for sample in &samples {
        sample.commit(&spool).await.unwrap();
    }
    for change in 0..12 {
        for sample in &samples {
            spool.set_context(sample.id(), context(sample, change)).await.unwrap();
        }
        assert_contexts(&spool, &samples, change).await;
    }
    let octets = |folder: &Path| -> u64 {
        let files = fs::read_dir(folder.join("segments")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let needed = 30 * (context(&samples[0], 0).len() as u64 + 11_000);
    let found = octets(&store.folder);
    assert!(found < 5 * needed + 4 * config.segment_size, "{found} octets, {needed} needed");
    spool.close().await.unwrap();
    drop(spool);
    fs::remove_file(store.folder.join("envelopes.db")).unwrap();
    let spool = Embedded::open_inline(&config, &Faults::none()).unwrap();
    assert_contexts(&spool, &samples, 11).await;
    for sample in &samples {
        assert!(spool.settle(sample.all_done()).await.unwrap().removed);
    }
    spool.close().await.unwrap();
    drop(spool);
    assert_eq!(store.litter(), Vec::<String>::new());
}

/// An index that an earlier version made has no such table.
#[tokio::test]
async fn an_index_without_the_table_gets_it() {
    let mut store = FolderStore::new();
    let sample = Sample::small(1);
    let spool = store.engine();
    sample.commit(&*spool).await.unwrap();
    spool.close().await.unwrap();
    drop(spool);
    let database = rusqlite::Connection::open(store.folder.join("envelopes.db")).unwrap();
    database.execute_batch("DROP TABLE context").unwrap();
    drop(database);
    let spool = store.engine();
    spool.set_context(sample.id(), context(&sample, 3)).await.unwrap();
    assert_contexts(&*spool, &[sample], 3).await;
    spool.close().await.unwrap();
}
