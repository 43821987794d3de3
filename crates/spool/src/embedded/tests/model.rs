//! Random operations on the engine and on a model of it: whatever is done to the index in between, both agree.

use std::collections::BTreeMap;

use super::*;
use crate::{DeliveryStatus, Disposition, Entry, Memory, Pending, Stored};

/// A reproducible source of random choices.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// The damage to the index between two runs.
#[derive(Debug, Clone, Copy)]
enum IndexDamage {
    Nothing,
    IndexGone,
    OldIndex,
}

struct ModelRun {
    dice: Dice,
    store: FolderStore,
    spool: Option<Embedded>,
    model: Memory,
    known: Vec<Sample>,
    next: u32,
    old_index: Option<Vec<u8>>,
}

impl ModelRun {
    fn new(seed: u64) -> Self {
        let store = FolderStore::new();
        let mut run = Self {
            dice: Dice(seed),
            store,
            spool: None,
            model: Memory::new(),
            known: Vec::new(),
            next: 1,
            old_index: None,
        };
        run.open();
        run
    }

    fn open(&mut self) {
        let config = EmbeddedConfig { segment_size: 48 * 1024, ..self.store.config() };
        self.spool = Some(Embedded::open_inline(&config, &Faults::none()).unwrap());
    }

    fn spool(&self) -> &Embedded {
        self.spool.as_ref().unwrap()
    }

    async fn step(&mut self) {
        match self.dice.roll(11) {
            0..=2 => self.commit().await,
            3..=5 => self.settle().await,
            6 => self.hold().await,
            7 => self.release().await,
            8 => self.reroute().await,
            9 => self.set_context().await,
            _ => self.defer().await,
        }
    }

    async fn commit(&mut self) {
        let sample = Sample {
            number: self.next,
            size: 200 + usize::try_from(self.dice.roll(6_000)).unwrap(),
            recipients: u32::try_from(1 + self.dice.roll(3)).unwrap(),
        };
        self.next += 1;
        let hold = (self.dice.roll(4) == 0).then(|| in_quarantine("spam"));
        for spool in [self.spool() as &dyn Spool, &self.model] {
            let mut message = sample.message(spool).await.unwrap();
            message.entry.hold = hold.clone();
            spool.commit(message).await.unwrap();
        }
        self.known.push(sample);
    }

    fn choose(&mut self) -> Option<Sample> {
        let count = self.known.len() as u64;
        (count > 0).then(|| self.known[usize::try_from(self.dice.roll(count)).unwrap()])
    }

    async fn settle(&mut self) {
        let Some(sample) = self.choose() else { return };
        let settlement = match self.dice.roll(2) {
            0 => sample.all_done(),
            _ => sample.settlement(1, DeliveryStatus::Done(Disposition::Failed)),
        };
        let again = || Settlement {
            id: settlement.id,
            changes: settlement.changes.clone(),
            children: Vec::new(),
            guard: settlement.guard,
        };
        let (one, two) = (self.spool().settle(again()).await, self.model.settle(again()).await);
        assert_eq!(one, two);
        if one.is_ok_and(|settled| settled.removed) {
            self.known.retain(|known| known.number != sample.number);
        }
    }

    async fn defer(&mut self) {
        let Some(sample) = self.choose() else { return };
        let attempts = u32::try_from(1 + self.dice.roll(9)).unwrap();
        let next = self.dice.roll(1_000_000).cast_signed();
        let status = DeliveryStatus::Pending(Pending {
            attempts,
            next_attempt: UnixTime::from_millis(NOW.millis() + next),
            last: None,
            unheard: false,
            host: None,
            last_attempt: None,
            warned: false,
        });
        for spool in [self.spool() as &dyn Spool, &self.model] {
            spool.settle(sample.settlement(1, status.clone())).await.unwrap();
        }
    }

    async fn hold(&mut self) {
        let Some(sample) = self.choose() else { return };
        for spool in [self.spool() as &dyn Spool, &self.model] {
            spool.hold(sample.id(), HoldReason::Operator("look".to_owned())).await.unwrap();
        }
    }

    async fn release(&mut self) {
        let Some(sample) = self.choose() else { return };
        for spool in [self.spool() as &dyn Spool, &self.model] {
            spool.release(sample.id(), LATER, Guard::Any).await.unwrap();
        }
    }

    async fn set_context(&mut self) {
        let Some(sample) = self.choose() else { return };
        let context = format!("{{\"session\":{},\"noted\":{}}}", sample.number, self.dice.roll(1_000));
        for spool in [self.spool() as &dyn Spool, &self.model] {
            spool.set_context(sample.id(), context.clone().into()).await.unwrap();
        }
    }

    async fn reroute(&mut self) {
        let Some(sample) = self.choose() else { return };
        let hop = (self.dice.roll(3) > 0).then(|| NextHop::Relay("inside".into()));
        for spool in [self.spool() as &dyn Spool, &self.model] {
            spool.reroute(sample.id(), vec![1], hop.clone()).await.unwrap();
        }
    }

    /// Closes the engine, damages the index, and opens it again.
    async fn restart(&mut self, damage: IndexDamage) {
        let spool = self.spool.take().unwrap();
        spool.close().await.unwrap();
        drop(spool);
        let path = self.store.folder.join("envelopes.db");
        let now = fs::read(&path).unwrap();
        match (damage, &self.old_index) {
            (IndexDamage::IndexGone, _) => fs::remove_file(&path).unwrap(),
            (IndexDamage::OldIndex, Some(old)) => fs::write(&path, old).unwrap(),
            _ => {}
        }
        if self.dice.roll(3) == 0 {
            self.old_index = Some(now);
        }
        self.open();
    }

    async fn compare(&self) {
        let seen = self.seen(self.spool()).await;
        let expected = self.seen(&self.model).await;
        assert_eq!(seen, expected);
        let (one, two) = (self.spool().totals().await.unwrap(), self.model.totals().await.unwrap());
        assert_eq!(one, two);
    }

    async fn seen(&self, spool: &dyn Spool) -> BTreeMap<u32, (Entry, Vec<crate::RecipientState>)> {
        let mut seen = BTreeMap::new();
        for sample in &self.known {
            let stored = spool.load(sample.id()).await.unwrap();
            let context = sample.entry().context;
            let as_committed = Entry { context, ..stored.entry.clone() };
            sample.assert_same(&Stored { entry: as_committed, ..stored.clone() }).await;
            seen.insert(sample.number, (stored.entry, stored.recipients));
        }
        let claimed = spool.claim(None, 10_000).await.unwrap();
        assert_eq!(claimed.len(), self.known.len());
        seen
    }
}

async fn run(seed: u64) {
    let mut run = ModelRun::new(seed);
    for _ in 0..6 {
        for _ in 0..40 {
            run.step().await;
        }
        run.compare().await;
        let damage = match run.dice.roll(4) {
            0 => IndexDamage::Nothing,
            1 => IndexDamage::OldIndex,
            _ => IndexDamage::IndexGone,
        };
        run.restart(damage).await;
        run.compare().await;
    }
    // Once all is done, hardly anything is left on disk.
    for sample in std::mem::take(&mut run.known) {
        run.spool().settle(sample.all_done()).await.unwrap();
    }
    for _ in 0..3 {
        assert!(run.spool().release(Sample::small(1).id(), LATER, Guard::Any).await.is_err());
        run.restart(IndexDamage::Nothing).await;
    }
    let left = names(&run.store.folder.join("segments"));
    assert!(left.len() <= 4, "seed {seed}: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_the_index_it_says_what_a_model_says() {
    for seed in 1..=25 {
        tokio::spawn(run(seed)).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}
