//! `inspect` and `repair`.

use super::*;
use crate::{Inspection, Repair, inspect, repair};

fn look(store: &FolderStore) -> Inspection {
    let mut last = (0, 0);
    let found = inspect(&store.folder, &mut |done, of| last = (done, of)).unwrap();
    assert_eq!(last.0, last.1);
    found
}

async fn filled() -> (FolderStore, Vec<Sample>) {
    let mut store = FolderStore::new();
    let spool = store.engine();
    let samples = vec![Sample::small(1), Sample::small(2), Sample::large(3), Sample::small(4)];
    for sample in &samples {
        sample.commit(&*spool).await.unwrap();
    }
    spool.settle(samples[3].all_done()).await.unwrap();
    spool.close().await.unwrap();
    (store, samples)
}

#[tokio::test]
async fn a_whole_spool_has_no_problems_also_while_it_is_used() {
    let (mut store, _) = filled().await;
    let found = look(&store);
    assert_eq!(found.problems, []);
    assert_eq!((found.messages, found.set_aside), (3, 0));
    let spool = store.engine();
    assert_eq!(look(&store).problems, []);
    let refused = repair(&store.config(), &mut |_, _| ()).await;
    assert!(matches!(refused, Err(OpenError::Locked(_))));
    spool.close().await.unwrap();
}

#[tokio::test]
async fn what_the_next_start_mends_costs_no_mail() {
    let (store, _) = filled().await;
    fs::write(store.folder.join("envelopes.db"), vec![9; 20_000]).unwrap();
    fs::write(store.folder.join("identity"), "").unwrap();
    let found = look(&store);
    assert_eq!(found.problems.len(), 2, "{:?}", found.problems);
    assert!(found.problems.iter().all(|problem| !problem.costs_mail));
    assert_eq!(found.messages, 3);
}

#[tokio::test]
async fn what_is_damaged_is_named_and_a_repair_sets_it_aside() {
    let (mut store, samples) = filled().await;
    store.corrupt("segments/0000000000000001.log", &samples[0].body()[300..340]);
    let body = format!("bodies/{}", names(&store.folder.join("bodies"))[0]);
    store.corrupt(&body, &samples[2].body()[1_400_000..1_400_040]);
    let found = look(&store);
    let places: Vec<String> = found.problems.iter().map(|problem| problem.place.clone()).collect();
    assert_eq!(places, [samples[0].id().to_string(), samples[2].id().to_string()]);
    assert!(found.problems.iter().all(|problem| problem.costs_mail));
    // An inspection changes nothing.
    assert_eq!(look(&store), found);

    let done = repair(&store.config(), &mut |_, _| ()).await.unwrap();
    assert_eq!(done, Repair { served: 1, set_aside: 2 });
    assert_eq!(look(&store).problems, []);
    let spool = store.engine();
    samples[1].assert_same(&spool.load(samples[1].id()).await.unwrap()).await;
    spool.close().await.unwrap();
}
