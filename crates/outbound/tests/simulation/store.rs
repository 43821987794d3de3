//! The real spool in a real folder, with a disk that delays and fails as the run wants it to.
//!
//! Each operation is done whole while nothing else of the run moves, so that a run can be repeated: the threads of the
//! engine are waited for on the spot. What is asked for waits in line before that, as long as the disk takes.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use pintle_mail::{Body, BodyFuture, NextHop, QueueId, UnixTime};
use pintle_spool::fault::Faults;
use pintle_spool::{
    Change, DeliveryStatus, Disposition, Draft, Embedded, Filter, Guard, Health, HoldReason, Listing,
    NewMessage, Page, Receipt, Settled, Settlement, Spool, SpoolError, SpoolFuture, Stored, Totals, Waiting,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::ledger::{Disk, Op, OpResult, SimMessage, StoredState};
use crate::world::{Sabotage, World};

/// The spool as the gateway sees it.
pub struct Store {
    line: UnboundedSender<Job>,
    engine: Arc<Engine>,
}

type Job = Box<dyn FnOnce(&Engine) + Send>;

/// What a job works on.
struct Engine {
    spool: Embedded,
    faults: Faults,
    world: Arc<World>,
    /// A caller in a gateway that is dead gets no answer.
    unanswered: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl Store {
    /// Begins to serve; must be called in a runtime.
    pub fn start(spool: Embedded, faults: Faults, world: Arc<World>) -> Arc<Self> {
        let (line, jobs) = unbounded_channel();
        let engine = Arc::new(Engine { spool, faults, world, unanswered: Mutex::default() });
        tokio::spawn(work(Arc::clone(&engine), jobs));
        Arc::new(Self { line, engine })
    }

    /// All that lies on disk, read message by message; the octets must be those that were committed.
    pub fn found(&self) -> Disk {
        let (mut disk, mut page) = (Disk::new(), Page { after: None, limit: 7 });
        loop {
            let listing = match block(self.engine.spool.list(Filter::default(), page)) {
                Ok(listing) => listing,
                Err(error) => {
                    self.engine.world.ledger(|ledger| ledger.breach(format!("cannot list: {error}")));
                    return disk;
                }
            };
            for summary in &listing.messages {
                disk.extend(self.found_one(summary.id).map(|state| (summary.id, state)));
            }
            match listing.next {
                Some(next) => page.after = Some(next),
                None => return disk,
            }
        }
    }

    /// Drops a message behind the ledger's back.
    pub fn lose_one(&self) {
        let first = block(self.engine.spool.claim(None, 1)).unwrap_or_default();
        for waiting in first {
            let changes = waiting.recipients.iter().map(|recipient| Change {
                recipient: recipient.id,
                status: DeliveryStatus::Done(Disposition::Discarded),
            });
            let settlement = Settlement {
                id: waiting.id,
                changes: changes.collect(),
                children: Vec::new(),
                guard: Guard::Any,
            };
            // What is not lost is not noticed either.
            let _ = block(self.engine.spool.settle(settlement));
        }
    }

    fn found_one(&self, id: QueueId) -> Option<StoredState> {
        let world = &self.engine.world;
        match block(self.engine.spool.load(id)) {
            Ok(stored) => {
                let text = whole(&stored.head, &*stored.body);
                world.ledger(|ledger| {
                    if ledger.by_text(&text) != Some(id) {
                        ledger.breach(format!("{id} is not on disk as it was committed"));
                    }
                });
                let Stored { entry, recipients, .. } = stored;
                let (hold, released, context) = (entry.hold, entry.released, entry.context);
                Some(StoredState { hold, released, context, recipients })
            }
            Err(error) => {
                world.ledger(|ledger| ledger.breach(format!("{id} cannot be read: {error}")));
                None
            }
        }
    }

    /// Queues an operation. It goes on even when its caller has gone away.
    fn write<T: Send + 'static>(
        &self,
        op: Op,
        act: impl for<'e> FnOnce(&'e Embedded) -> SpoolFuture<'e, T> + Send + 'static,
    ) -> SpoolFuture<'static, T> {
        let (answer, waiting) = oneshot::channel();
        let job: Job = Box::new(move |engine| {
            let broken = matches!(engine.spool.health(), Health::Broken(_));
            let result = block(act(&engine.spool));
            let said = match &result {
                Ok(_) => OpResult::Done,
                Err(_) if engine.faults.crashed() => OpResult::Unsure,
                Err(SpoolError::Broken(_)) if !broken => OpResult::Unsure,
                Err(_) => OpResult::Refused,
            };
            engine.world.tell(|| format!("disk: {}: {said:?} {:?}", brief(&op), result.as_ref().err()));
            engine.world.ledger(|ledger| ledger.said(op, said));
            if engine.faults.crashed() {
                engine.unanswered.lock().push(Box::new(answer));
            } else {
                // The caller may have gone away.
                let _ = answer.send(result);
            }
        });
        // A spool that is closed has no operation waiting.
        let _ = self.line.send(job);
        Box::pin(async move { waiting.await.unwrap_or(Err(SpoolError::Closed)) })
    }

    fn read<'a, T: Send + 'a>(
        &'a self,
        act: impl FnOnce(&'a Embedded) -> SpoolFuture<'a, T> + Send + 'a,
    ) -> SpoolFuture<'a, T> {
        let wait = self
            .engine
            .world
            .draw(|random| if random.chance(300) { random.millis(1, 60) } else { Duration::ZERO });
        Box::pin(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            block(act(&self.engine.spool))
        })
    }

    fn letters(&self, messages: &[NewMessage]) -> Vec<SimMessage> {
        let at = self.engine.world.time.moment();
        let letter = |message: &NewMessage| SimMessage {
            id: message.id,
            text: whole(&message.head, &message.content),
            entry: message.entry.clone(),
            at,
        };
        messages.iter().map(letter).collect()
    }

    fn sabotaged(&self, sabotage: Sabotage) -> bool {
        self.engine.world.sabotage == Some(sabotage)
    }
}

/// One operation after the other.
async fn work(engine: Arc<Engine>, mut jobs: UnboundedReceiver<Job>) {
    while let Some(job) = jobs.recv().await {
        let wait = engine.world.draw(|random| match random.weighted(&[600, 350, 49, 1]) {
            0 => Duration::ZERO,
            1 => random.millis(1, 20),
            2 => random.millis(20, 2_000),
            _ => random.millis(2_000, 60_000),
        });
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        job(&engine);
        if engine.faults.crashed() {
            engine.world.crash.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

impl Spool for Store {
    fn begin(&self) -> Result<Draft, SpoolError> {
        self.engine.spool.begin()
    }

    fn commit(&self, message: NewMessage) -> SpoolFuture<'_, Receipt> {
        let op = Op::Commit(self.letters(std::slice::from_ref(&message)));
        self.write(op, |spool| spool.commit(message))
    }

    fn settle(&self, mut settlement: Settlement) -> SpoolFuture<'_, Settled> {
        let letters = self.letters(&settlement.children);
        let mut op = Op::Settle(settlement.id, settlement.changes.clone(), letters);
        if self.sabotaged(Sabotage::LosesReports) {
            settlement.children.clear();
            op = Op::Settle(settlement.id, settlement.changes.clone(), Vec::new());
        }
        if self.sabotaged(Sabotage::ForgetsSettlements) && settlement.children.is_empty() {
            return self.write(op, |_| {
                Box::pin(std::future::ready(Ok(Settled { removed: false, children: Vec::new() })))
            });
        }
        self.write(op, |spool| spool.settle(settlement))
    }

    fn load(&self, id: QueueId) -> SpoolFuture<'_, Stored> {
        let loading = self.read(move |spool| spool.load(id));
        Box::pin(async move {
            let mut stored = loading.await?;
            self.engine.world.tell(|| format!("disk: read {id}, hold {:?}", stored.entry.hold));
            self.engine.world.ledger(|ledger| ledger.read(id, stored.entry.hold.as_ref()));
            if self.sabotaged(Sabotage::IgnoresHolds) {
                stored.entry.hold = None;
            }
            let flips = self.sabotaged(Sabotage::FlipsOctets);
            stored.body = Arc::new(OnTheSpot { body: stored.body, flips });
            Ok(stored)
        })
    }

    fn claim(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<Waiting>> {
        let claiming = self.read(move |spool| spool.claim(after, limit));
        Box::pin(async move {
            let mut claimed = claiming.await?;
            if self.sabotaged(Sabotage::IgnoresHolds) {
                claimed.iter_mut().for_each(|waiting| waiting.hold = None);
            }
            if self.sabotaged(Sabotage::AgesMessages) {
                let older = |time: UnixTime| UnixTime::from_millis(time.millis() - 30 * 24 * 3_600_000);
                claimed.iter_mut().for_each(|waiting| waiting.received = older(waiting.received));
            }
            if self.sabotaged(Sabotage::ForgetsGroups) {
                let recipients = claimed.iter_mut().flat_map(|waiting| &mut waiting.recipients);
                recipients.for_each(|recipient| recipient.groups.clear());
            }
            Ok(claimed)
        })
    }

    fn arrivals(&self) -> Option<UnboundedReceiver<Waiting>> {
        self.engine.spool.arrivals()
    }

    fn hold(&self, id: QueueId, hold: HoldReason) -> SpoolFuture<'_, Option<HoldReason>> {
        self.write(Op::Hold(id, hold.clone()), move |spool| spool.hold(id, hold))
    }

    fn release(&self, id: QueueId, at: UnixTime, guard: Guard) -> SpoolFuture<'_, Option<HoldReason>> {
        let op = Op::Release(id, at, self.engine.world.time.moment());
        self.write(op, move |spool| spool.release(id, at, guard))
    }

    fn reroute(&self, id: QueueId, recipients: Vec<u32>, next_hop: Option<NextHop>) -> SpoolFuture<'_, ()> {
        let op = Op::Reroute(id, recipients.clone(), next_hop.clone());
        self.write(op, move |spool| spool.reroute(id, recipients, next_hop))
    }

    fn set_context(&self, id: QueueId, context: Bytes) -> SpoolFuture<'_, ()> {
        self.write(Op::SetContext(id, context.clone()), move |spool| spool.set_context(id, context))
    }

    fn list(&self, filter: Filter, page: Page) -> SpoolFuture<'_, Listing> {
        self.read(move |spool| spool.list(filter, page))
    }

    fn totals(&self) -> SpoolFuture<'_, Totals> {
        self.engine.spool.totals()
    }

    fn health(&self) -> Health {
        self.engine.spool.health()
    }

    fn close(&self) -> SpoolFuture<'_, ()> {
        Box::pin(async move { block(self.engine.spool.close()) })
    }
}

/// Header block and body. A body that cannot be read makes a text that the ledger does not know.
pub fn whole(head: &Bytes, body: &dyn Body) -> Bytes {
    let mut text = BytesMut::from(&head[..]);
    let mut offset = 0;
    while offset < body.size() {
        match block(body.read(offset, 50_000)) {
            Ok(piece) if !piece.is_empty() => {
                offset += piece.len() as u64;
                text.extend_from_slice(&piece);
            }
            _ => return Bytes::from_static(b"unreadable"),
        }
    }
    text.freeze()
}

fn brief(op: &Op) -> String {
    match op {
        Op::Commit(letters) => format!("commit {:?}", letters.iter().map(|l| l.id).collect::<Vec<_>>()),
        Op::Settle(id, changes, children) => {
            format!("settle {id} {changes:?}, {:?}", children.iter().map(|l| l.id).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

/// A body that is read while nothing else moves.
struct OnTheSpot {
    body: Arc<dyn Body>,
    flips: bool,
}

impl Body for OnTheSpot {
    fn size(&self) -> u64 {
        self.body.size()
    }

    fn read(&self, offset: u64, len: usize) -> BodyFuture<'_> {
        let mut piece = block(self.body.read(offset, len));
        if let (true, Ok(bytes)) = (self.flips, &mut piece) {
            let mut octets = bytes.to_vec();
            if let Some(first) = octets.first_mut() {
                *first ^= 1;
            }
            *bytes = octets.into();
        }
        Box::pin(std::future::ready(piece))
    }
}

/// Waits for a future of the spool on the spot, with all threads that it needs.
pub fn block<F: Future>(future: F) -> F::Output {
    struct Bell(Thread);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Bell(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    // The runtime's budget for a task is not for what runs outside of it.
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

/// Copies a spool folder as a crash would leave it: from the given offsets on, files hold nothing.
pub fn copy(from: &Path, to: &Path, unsynced: &HashMap<PathBuf, u64>) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for file in std::fs::read_dir(from)? {
        let path = file?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        let is = |extension: &str| path.extension().is_some_and(|found| found == extension);
        match unsynced.get(&path) {
            _ if path.is_dir() => copy(&path, &target, unsynced)?,
            _ if is("db-shm") => {}
            // Not even the name of a file that was never synced is sure to be there.
            Some(_) if is("body") => {}
            start => {
                let mut octets = std::fs::read(&path)?;
                if let Some(start) = start.and_then(|start| usize::try_from(*start).ok()) {
                    octets[start..].fill(0);
                }
                std::fs::write(target, octets)?;
            }
        }
    }
    Ok(())
}
