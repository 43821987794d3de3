//! Crashes: each row of `docs/message-states.md` is cut at its point, once by a kill and once by a power cut, and the
//! store is opened again on what was left.
//!
//! A crash before the records are written leaves the message as it was, and one after their sync leaves it changed. In
//! between, a kill leaves it changed and a power cut as it was. There is no third state, whether or not the caller got
//! the answer. Other messages are not affected, no garbage is left, and the spool works on.

use bytes::Bytes;

use super::messages::{LATER, NOW, Sample, deferred, delivered, in_quarantine};
use super::{Store, Subject};
use crate::fault::{CrashPoint, Faults, InjectedFault};
use crate::{DeliveryStatus, Disposition, Guard, Health, HoldReason, Settlement, Spool, SpoolError};

/// What is going on when the crash comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    /// A large body comes in.
    Receive,
    /// A small message is committed.
    Commit,
    /// A small message is committed, and the index fails to store it.
    CatchUp,
    /// A small message is committed, and the index can neither store it nor be brought up.
    Rebuild,
    /// A large message is committed.
    CommitLarge,
    /// Small messages are committed, until the log needs a new segment.
    Fill,
    /// A recipient is deferred.
    Defer,
    /// A message is held.
    Hold,
    /// A message gets another context.
    Context,
    /// A message is released from its quarantine.
    Release,
    /// A message in quarantine is dropped.
    Drop,
    /// One of two recipients is done.
    SettlePart,
    /// The last recipient is done.
    Finish,
    /// The last recipient of a message with a large body is done.
    FinishLarge,
    /// The last recipient fails, and a bounce is committed.
    Bounce,
    /// Most messages of a segment are removed, a few stay.
    Thin,
}

/// The state that recovery must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// As if the operation had not begun.
    Unchanged,
    /// As if the operation had completed.
    Completed,
    /// Completed after a kill, which keeps what was written. Unchanged after a power cut, which keeps what was synced.
    IfWritten,
}

use CrashPoint::{
    Append, Appended, Begin, BodyFileSync, BodyFileSynced, Committed, DraftSpilled, Inserted, Moved, Reclaim,
    Reopen, SegmentMade, Settled, Sync, Synced, Unlink,
};
use Expected::{Completed, IfWritten, Unchanged};
use Scenario::{
    Bounce, CatchUp, Commit, CommitLarge, Defer, Fill, Finish, FinishLarge, Rebuild, Receive, Release,
    SettlePart, Thin,
};

/// The rows of `docs/message-states.md` that have something on disk, by their numbers there.
const ROWS: [(&str, Scenario, CrashPoint, Expected); 54] = [
    ("2 spilled draft", Receive, DraftSpilled, Unchanged),
    ("3 body file written", CommitLarge, BodyFileSync, Unchanged),
    ("3 body file durable", CommitLarge, BodyFileSynced, Unchanged),
    ("4 transaction about to begin", Commit, Begin, Unchanged),
    ("4 row in an open transaction", Commit, Inserted, Unchanged),
    ("4 row of a large body", CommitLarge, Inserted, Unchanged),
    ("4 segment made", Fill, SegmentMade, Unchanged),
    ("4 record about to be written", Commit, Append, Unchanged),
    ("5 record written", Commit, Appended, IfWritten),
    ("5 record of a large body written", CommitLarge, Appended, IfWritten),
    ("5 record about to be synced", Commit, Sync, IfWritten),
    ("6 record durable", Commit, Synced, Completed),
    ("6 record of a large body durable", CommitLarge, Synced, Completed),
    ("6 index about to be committed", Commit, CrashPoint::Commit, Completed),
    ("6 the same, large body", CommitLarge, CrashPoint::Commit, Completed),
    ("6 index about to be brought up", CatchUp, CrashPoint::CatchUp, Completed),
    ("6 index about to be rebuilt", Rebuild, CrashPoint::Rebuild, Completed),
    ("6 index rebuilt, about to be opened", Rebuild, Reopen, Completed),
    ("7 in the index, not answered", Commit, Committed, Completed),
    ("7 the same, large body", CommitLarge, Committed, Completed),
    ("8 deferral in an open transaction", Defer, Settled, Unchanged),
    ("8 deferral written", Defer, Appended, IfWritten),
    ("9 deferral durable", Defer, Synced, Completed),
    ("9 deferred", Defer, Committed, Completed),
    ("10 hold written", Scenario::Hold, Appended, IfWritten),
    ("10 hold durable", Scenario::Hold, Synced, Completed),
    ("10 held", Scenario::Hold, Committed, Completed),
    ("10 context about to be written", Scenario::Context, Append, Unchanged),
    ("10 context written", Scenario::Context, Appended, IfWritten),
    ("10 context durable", Scenario::Context, Synced, Completed),
    ("10 context in the index", Scenario::Context, Committed, Completed),
    ("11 release about to be written", Release, Append, Unchanged),
    ("11 release durable", Release, Synced, Completed),
    ("11 released", Release, Committed, Completed),
    ("11 drop in an open transaction", Scenario::Drop, Settled, Unchanged),
    ("11 drop written", Scenario::Drop, Appended, IfWritten),
    ("11 dropped", Scenario::Drop, Committed, Completed),
    ("12 mark in an open transaction", SettlePart, Settled, Unchanged),
    ("12 mark durable", SettlePart, Synced, Completed),
    ("12 partly settled", SettlePart, Committed, Completed),
    ("13 row of a bounce", Bounce, Inserted, Unchanged),
    ("13 bounce and mark in an open transaction", Bounce, Settled, Unchanged),
    ("13 bounce and mark written", Bounce, Appended, IfWritten),
    ("13 bounce and mark durable", Bounce, Synced, Completed),
    ("13 bounce committed", Bounce, Committed, Completed),
    ("14 removal in an open transaction", Finish, Settled, Unchanged),
    ("14 removal written", Finish, Appended, IfWritten),
    ("15 removed", Finish, Committed, Completed),
    ("15 removed, large body", FinishLarge, Committed, Completed),
    ("15 large body about to be unlinked", FinishLarge, Unlink, Completed),
    ("16 copy placed", Thin, Moved, Completed),
    ("16 copy written", Thin, Appended, Completed),
    ("16 copy about to be synced", Thin, Sync, Completed),
    ("17 empty segment about to be unlinked", Thin, Reclaim, Completed),
];

/// The message that the scenario is about.
const SUBJECT: Sample = Sample { number: 50, size: 10_000, recipients: 1 };
/// The bounce of [`SUBJECT`].
const CHILD: Sample = Sample { number: 60, size: 3_000, recipients: 1 };

/// The context that [`Scenario::Context`] stores.
const NEW_CONTEXT: Bytes = Bytes::from_static(b"{\"session\":50,\"notes\":\"new\"}");

/// Cuts every row in this way. Panics where a promise is broken.
pub async fn run(subject: &dyn Subject, fault: InjectedFault) {
    for point in CrashPoint::ALL {
        assert!(ROWS.iter().any(|(_, _, cut, _)| *cut == point), "no row cuts {point:?}");
    }
    for (row, scenario, point, after) in ROWS {
        tracing::info!(row, ?fault, "cut");
        cut(subject, scenario, (point, fault), after).await;
    }
}

/// A disk that fails, but no crash: what is refused, and whether new mail is still taken.
pub async fn failing_disks(subject: &dyn Subject) {
    for point in [Appended, Sync, BodyFileSync] {
        a_failed_sync_stops_the_spool_for_good(subject, point).await;
    }
    for fault in [InjectedFault::Io, InjectedFault::NoSpace] {
        an_index_that_fails_is_brought_up_from_the_log(subject, fault).await;
        a_segment_that_cannot_be_made_is_tried_again(subject, fault).await;
    }
    for point in [Append, Inserted, DraftSpilled] {
        a_full_disk_passes(subject, point).await;
    }
    for point in [Append, Appended, Inserted] {
        what_was_refused_is_not_there_after_a_restart(subject, point).await;
    }
}

async fn cut(
    subject: &dyn Subject,
    scenario: Scenario,
    (point, fault): (CrashPoint, InjectedFault),
    after: Expected,
) {
    let after = match (after, fault) {
        (IfWritten, InjectedFault::PowerLoss) => Unchanged,
        (IfWritten, _) => Completed,
        (after, _) => after,
    };
    let mut store = subject.store();
    let spool = store.open();
    let faults = store.faults().expect("an engine that outlives the process has the seam");
    let unaffected = unaffected(&*spool).await;
    prepare(&*spool, scenario).await;
    // Row 1: a draft in memory vanishes, whatever is cut.
    let draft = Sample::small(70).content(&*spool).await.unwrap();
    faults.arm(point, fault);
    let acknowledged = perform(&*spool, scenario, &faults).await;
    assert!(faults.crashed(), "{scenario:?} never came to {point:?}");
    // The answers to what was cut off are lost. This only ends the threads.
    let _ = spool.close().await;
    drop((spool, draft));

    let spool = store.open();
    assert!(spool.load(Sample::small(70).id()).await.is_err());
    unaffected.assert_untouched(&*spool).await;
    for sample in &acknowledged {
        sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
    }
    assert_outcome(&*spool, scenario, after).await;
    spool.close().await.unwrap();
    drop(spool);
    // Checked while the engine is closed: a running one may be compacting.
    assert_eq!(store.litter(), Vec::<String>::new(), "{scenario:?} cut at {point:?}");
    let spool = store.open();
    life_goes_on(&*spool).await;
    spool.close().await.unwrap();
}

/// Messages that must not be affected.
struct UnaffectedMessages {
    deferred: Sample,
    large: Sample,
}

async fn unaffected(spool: &dyn Spool) -> UnaffectedMessages {
    let unaffected = UnaffectedMessages { deferred: Sample::small(1).to(3), large: Sample::large(2) };
    unaffected.deferred.commit(spool).await.unwrap();
    unaffected.large.commit(spool).await.unwrap();
    spool.settle(unaffected.deferred.settlement(2, deferred(1))).await.unwrap();
    spool.settle(unaffected.deferred.settlement(3, delivered())).await.unwrap();
    unaffected
}

impl UnaffectedMessages {
    async fn assert_untouched(&self, spool: &dyn Spool) {
        let stored = spool.load(self.deferred.id()).await.unwrap();
        self.deferred.assert_same(&stored).await;
        let statuses: Vec<DeliveryStatus> = stored.recipients.into_iter().map(|state| state.status).collect();
        assert_eq!(statuses, [DeliveryStatus::fresh(NOW), deferred(1), delivered()]);
        self.large.assert_same(&spool.load(self.large.id()).await.unwrap()).await;
    }
}

/// Prepares the state in which the scenario begins.
async fn prepare(spool: &dyn Spool, scenario: Scenario) {
    match scenario {
        Receive | Commit | CatchUp | Rebuild | CommitLarge | Fill => {}
        Thin => {
            let mut messages = Vec::new();
            for number in 100..THINNED {
                messages.push(Sample::small(number).message(spool).await.unwrap());
            }
            // All are submitted before the first is awaited, so that they share their syncs.
            let commits: Vec<_> = messages.into_iter().map(|message| spool.commit(message)).collect();
            for commit in commits {
                commit.await.unwrap();
            }
        }
        Release | Scenario::Drop => {
            let mut message = target(scenario).message(spool).await.unwrap();
            message.entry.hold = Some(in_quarantine("spam"));
            spool.commit(message).await.unwrap();
        }
        _ => drop(target(scenario).commit(spool).await.unwrap()),
    }
}

fn target(scenario: Scenario) -> Sample {
    match scenario {
        Receive | CommitLarge | FinishLarge => Sample { size: 1_500_000, ..SUBJECT },
        SettlePart => SUBJECT.to(2),
        _ => SUBJECT,
    }
}

/// How many small messages make several segments of the size that tests use; every `KEEP`th of them stays.
const THINNED: u32 = 180;
const KEEP: u32 = 30;

/// Runs the scenario until the crash. Gives further messages that must have survived it.
async fn perform(spool: &dyn Spool, scenario: Scenario, faults: &Faults) -> Vec<Sample> {
    let target = target(scenario);
    if matches!(scenario, CatchUp | Rebuild) {
        faults.arm_times(CrashPoint::Commit, InjectedFault::Io, 1);
    }
    if scenario == Rebuild {
        faults.arm_times(CrashPoint::CatchUp, InjectedFault::Io, 1);
    }
    let result = match scenario {
        Receive => target.content(spool).await.map(drop),
        Commit | CatchUp | Rebuild | CommitLarge => target.commit(spool).await.map(drop),
        Fill => return fill(spool, faults).await,
        Thin => return thin(spool, faults).await,
        Defer => spool.settle(target.settlement(1, deferred(1))).await.map(drop),
        Scenario::Hold => spool.hold(target.id(), HoldReason::Operator("look".to_owned())).await.map(drop),
        Scenario::Context => spool.set_context(target.id(), NEW_CONTEXT).await,
        Release => spool.release(target.id(), LATER, Guard::Any).await.map(drop),
        Scenario::Drop => spool.settle(dropped(&target)).await.map(drop),
        SettlePart | Finish | FinishLarge => spool.settle(target.settlement(1, delivered())).await.map(drop),
        Bounce => bounce(spool, &target).await,
    };
    // Only what comes after the commit may be cut off with the answer given.
    assert!(result.is_err() || scenario == FinishLarge, "{scenario:?} was acknowledged");
    Vec::new()
}

fn dropped(sample: &Sample) -> Settlement {
    let discarded = DeliveryStatus::Done(Disposition::Discarded);
    Settlement { guard: Guard::Quarantined, ..sample.settlement(1, discarded) }
}

async fn bounce(spool: &dyn Spool, parent: &Sample) -> Result<(), SpoolError> {
    let settlement = Settlement {
        children: vec![CHILD.message(spool).await.unwrap()],
        ..parent.settlement(1, DeliveryStatus::Done(Disposition::Failed))
    };
    spool.settle(settlement).await.map(drop)
}

/// Commits until the crash. What was acknowledged must be there afterwards.
async fn fill(spool: &dyn Spool, faults: &Faults) -> Vec<Sample> {
    let mut acknowledged = Vec::new();
    for number in 100..2_000 {
        let sample = Sample::small(number);
        match sample.commit(spool).await {
            Ok(_) => acknowledged.push(sample),
            Err(_) if faults.crashed() => break,
            Err(error) => panic!("{error}"),
        }
    }
    acknowledged
}

/// Delivers most of the messages, then keeps the committer busy until it reaches the crash point.
async fn thin(spool: &dyn Spool, faults: &Faults) -> Vec<Sample> {
    let (stay, go): (Vec<u32>, Vec<u32>) = (100..THINNED).partition(|number| number.is_multiple_of(KEEP));
    // All at once, so that they share their syncs.
    let settlements = go.into_iter().map(|number| spool.settle(Sample::small(number).all_done()));
    for settled in settlements.collect::<Vec<_>>() {
        assert!(settled.await.is_ok() || faults.crashed());
    }
    for _ in 0..10_000 {
        if faults.crashed() || spool.release(Sample::small(1).id(), LATER, Guard::Any).await.is_err() {
            break;
        }
    }
    stay.into_iter().map(Sample::small).collect()
}

async fn assert_outcome(spool: &dyn Spool, scenario: Scenario, after: Expected) {
    let target = target(scenario);
    let loaded = spool.load(target.id()).await;
    let gone = SpoolError::Unknown(target.id());
    match (scenario, after) {
        (Thin | Fill, _) => {}
        (Receive | Commit | CommitLarge, Unchanged)
        | (Finish | FinishLarge | Bounce | Scenario::Drop, Completed) => {
            assert_eq!(loaded.unwrap_err(), gone, "{scenario:?}");
        }
        _ => {
            let mut stored = loaded.unwrap();
            if (scenario, after) == (Scenario::Context, Completed) {
                let found = std::mem::replace(&mut stored.entry.context, target.entry().context);
                assert_eq!(found, NEW_CONTEXT);
            }
            target.assert_same(&stored).await;
            let expected = match (scenario, after) {
                (Scenario::Hold, Completed) => Some(HoldReason::Operator("look".to_owned())),
                (Release | Scenario::Drop, Unchanged) => Some(in_quarantine("spam")),
                _ => None,
            };
            assert_eq!(stored.entry.hold, expected);
            let released = ((scenario, after) == (Release, Completed)).then_some(LATER);
            assert_eq!(stored.entry.released, released);
            let expected = match (scenario, after) {
                (Defer, Completed) => deferred(1),
                (SettlePart, Completed) => delivered(),
                _ => DeliveryStatus::fresh(NOW),
            };
            assert_eq!(stored.recipients[0].status, expected, "{scenario:?}");
        }
    }
    // The parent is settled if and only if its bounce exists.
    let child = spool.load(CHILD.id()).await;
    assert_eq!(child.is_ok(), (scenario, after) == (Bounce, Completed));
    if let Ok(child) = child {
        CHILD.assert_same(&child).await;
    }
}

/// New mail is accepted, the pages show all messages, and settled ones are removed.
async fn life_goes_on(spool: &dyn Spool) {
    let later = Sample::small(9_000);
    later.commit(spool).await.unwrap();
    let waiting = spool.claim(None, 10_000).await.unwrap();
    assert_eq!(waiting.len() as u64, spool.totals().await.unwrap().messages);
    for message in waiting {
        let changes = message
            .recipients
            .iter()
            .map(|recipient| crate::Change { recipient: recipient.id, status: delivered() });
        let settlement = Settlement {
            id: message.id,
            changes: changes.collect(),
            children: Vec::new(),
            guard: Guard::Any,
        };
        assert!(spool.settle(settlement).await.unwrap().removed);
    }
    assert_eq!(spool.totals().await.unwrap(), crate::Totals::default());
}

async fn a_failed_sync_stops_the_spool_for_good(subject: &dyn Subject, point: CrashPoint) {
    let mut store = subject.store();
    let spool = store.open();
    let kept = Sample::small(1);
    kept.commit(&*spool).await.unwrap();
    let (struck, later) = (Sample::large(2), Sample::small(3));
    let prepared = later.message(&*spool).await.unwrap();
    arm(&*store, point, InjectedFault::Io);
    assert!(matches!(struck.commit(&*spool).await, Err(SpoolError::Broken(_))), "{point:?}");
    // The next sync would succeed, and must not be believed.
    assert!(matches!(spool.commit(prepared).await, Err(SpoolError::Broken(_))));
    assert!(matches!(spool.begin(), Err(SpoolError::Broken(_))));
    assert!(matches!(spool.health(), Health::Broken(_)));
    kept.assert_same(&spool.load(kept.id()).await.unwrap()).await;
    spool.close().await.unwrap();
    drop(spool);

    let spool = store.open();
    assert_eq!(spool.health(), Health::Accepting);
    kept.assert_same(&spool.load(kept.id()).await.unwrap()).await;
    assert_eq!(spool.load(later.id()).await.unwrap_err(), SpoolError::Unknown(later.id()));
    assert_eq!(store.litter(), Vec::<String>::new());
    spool.close().await.unwrap();
}

async fn a_full_disk_passes(subject: &dyn Subject, point: CrashPoint) {
    let mut store = subject.store();
    let spool = store.open();
    let (kept, struck) = (Sample::small(1), Sample::large(2));
    kept.commit(&*spool).await.unwrap();
    arm(&*store, point, InjectedFault::NoSpace);
    assert_eq!(struck.commit(&*spool).await, Err(SpoolError::Full), "{point:?}");
    assert_eq!(spool.load(struck.id()).await.unwrap_err(), SpoolError::Unknown(struck.id()));
    assert_eq!(SpoolError::Full.reply().code, 452);
    struck.commit(&*spool).await.unwrap();
    struck.assert_same(&spool.load(struck.id()).await.unwrap()).await;
    spool.close().await.unwrap();
    drop(spool);

    let spool = store.open();
    for sample in [kept, struck] {
        sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
    }
    assert_eq!(store.litter(), Vec::<String>::new());
    spool.close().await.unwrap();
}

/// The client was told 452 and sends the message again: it must not be there already, although its record may have been
/// written completely.
async fn what_was_refused_is_not_there_after_a_restart(subject: &dyn Subject, point: CrashPoint) {
    let mut store = subject.store();
    let spool = store.open();
    let (kept, struck) = (Sample::small(1), Sample::small(2));
    kept.commit(&*spool).await.unwrap();
    arm(&*store, point, InjectedFault::NoSpace);
    assert_eq!(struck.commit(&*spool).await, Err(SpoolError::Full), "{point:?}");
    spool.close().await.unwrap();
    drop(spool);

    let spool = store.open();
    kept.assert_same(&spool.load(kept.id()).await.unwrap()).await;
    assert_eq!(spool.load(struck.id()).await.unwrap_err(), SpoolError::Unknown(struck.id()), "{point:?}");
    struck.commit(&*spool).await.unwrap();
    assert_eq!(store.litter(), Vec::<String>::new());
    spool.close().await.unwrap();
}

async fn an_index_that_fails_is_brought_up_from_the_log(subject: &dyn Subject, fault: InjectedFault) {
    let mut store = subject.store();
    let spool = store.open();
    let (kept, struck) = (Sample::small(1).to(2), Sample::large(2));
    kept.commit(&*spool).await.unwrap();
    arm(&*store, CrashPoint::Commit, fault);
    struck.commit(&*spool).await.unwrap();
    // Later operations see it, and it is there after a restart.
    spool.settle(kept.settlement(2, delivered())).await.unwrap();
    struck.assert_same(&spool.load(struck.id()).await.unwrap()).await;
    arm(&*store, CrashPoint::Commit, fault);
    assert!(spool.settle(struck.all_done()).await.unwrap().removed);
    assert_eq!(spool.health(), Health::Accepting);
    spool.close().await.unwrap();
    drop(spool);

    let spool = store.open();
    assert_eq!(spool.load(kept.id()).await.unwrap().recipients[1].status, delivered());
    assert_eq!(spool.load(struck.id()).await.unwrap_err(), SpoolError::Unknown(struck.id()));
    assert_eq!(store.litter(), Vec::<String>::new());
    spool.close().await.unwrap();
}

/// Nothing has been written when it fails, so nothing is broken: descriptors may be free again in a moment.
async fn a_segment_that_cannot_be_made_is_tried_again(subject: &dyn Subject, fault: InjectedFault) {
    let mut store = subject.store();
    let spool = store.open();
    arm(&*store, SegmentMade, fault);
    let mut refused = 0;
    let mut kept = Vec::new();
    for number in 1..100 {
        let sample = Sample::small(number);
        match sample.commit(&*spool).await {
            Ok(_) => kept.push(sample),
            Err(error) => {
                assert!(matches!(error, SpoolError::Full | SpoolError::Store(_)), "{error}");
                refused += 1;
            }
        }
        assert_eq!(spool.health(), Health::Accepting);
    }
    assert!(refused <= 1 && kept.len() >= 98);
    for sample in kept {
        sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
    }
    spool.close().await.unwrap();
}

fn arm(store: &dyn Store, point: CrashPoint, fault: InjectedFault) {
    let faults = store.faults().expect("an engine that outlives the process has the seam");
    faults.arm(point, fault);
}
