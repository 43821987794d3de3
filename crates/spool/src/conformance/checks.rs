//! The checks of [`super::run`], one promise each.

use std::collections::BTreeMap;

use pintle_mail::{Body, Bytes, NextHop, QueueId};

use super::Subject;
use super::messages::{LATER, NOW, Sample, deferred, delivered, in_quarantine, read_all};
use crate::embedded::BLOCK;
use crate::{
    Amount, DeliveryStatus, Disposition, Entry, Filter, Guard, HoldReason, Page, Quarantine, Settled,
    Settlement, Spool, SpoolError, Stored, Waiting,
};

pub(super) async fn bodies_come_back_as_they_went_in(subject: &dyn Subject) {
    let mut store = subject.store();
    let durable = store.faults().is_some();
    let sizes = [0, 1, 4_999, BLOCK - 1, BLOCK, BLOCK + 1, 500_000, 1024 * 1024, 1024 * 1024 + 1, 3_000_000];
    let samples: Vec<Sample> =
        (1..).zip(sizes).map(|(number, size)| Sample { size, ..Sample::small(number) }).collect();
    let spool = store.open();
    for sample in &samples {
        let receipt = sample.commit(&*spool).await.unwrap();
        assert_eq!(receipt.id(), sample.id());
        assert_eq!(receipt.to_string(), sample.id().to_string());
        sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
    }
    if durable {
        spool.close().await.unwrap();
        let spool = store.open();
        for sample in &samples {
            sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
        }
    }
}

pub(super) async fn contents_are_read_before_the_commit(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    for sample in [Sample::small(1), Sample::large(2)] {
        let content = sample.content(&*spool).await.unwrap();
        assert_eq!(content.size(), sample.size as u64);
        assert!(read_all(&content).await == sample.body());
        let at = sample.size - 10;
        assert_eq!(content.read(at as u64, 100).await.unwrap(), sample.body()[at..]);
        assert_eq!(content.read(sample.size as u64 + 1, 100).await.unwrap(), Bytes::new());
    }
}

pub(super) async fn an_id_is_committed_once(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let sample = Sample::small(1);
    sample.commit(&*spool).await.unwrap();
    let again = Sample { size: 5, ..sample };
    assert_eq!(again.commit(&*spool).await, Err(SpoolError::Duplicate(sample.id())));
    sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
}

pub(super) async fn several_children_are_committed_together_or_not_at_all(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let parent = Sample::small(9).to(2);
    parent.commit(&*spool).await.unwrap();
    let (one, two, three) = (Sample::small(1), Sample::large(2), Sample::small(3));
    let children = vec![one.message(&*spool).await.unwrap(), two.message(&*spool).await.unwrap()];
    let settlement = Settlement { children, ..parent.settlement(1, delivered()) };
    let receipts = spool.settle(settlement).await.unwrap().children;
    assert_eq!(receipts.iter().map(crate::Receipt::id).collect::<Vec<_>>(), [one.id(), two.id()]);
    let children = vec![three.message(&*spool).await.unwrap(), one.message(&*spool).await.unwrap()];
    let settlement = Settlement { children, ..parent.settlement(2, delivered()) };
    assert_eq!(spool.settle(settlement).await, Err(SpoolError::Duplicate(one.id())));
    assert_eq!(spool.load(three.id()).await.unwrap_err(), SpoolError::Unknown(three.id()));
    assert_eq!(statuses(&*spool, parent.id()).await, [delivered(), DeliveryStatus::fresh(NOW)]);
    // The operation after a refused one must not get the octets of the refused one.
    let four = Sample::small(4);
    four.commit(&*spool).await.unwrap();
    four.assert_same(&spool.load(four.id()).await.unwrap()).await;
}

pub(super) async fn settling_the_last_recipient_removes_the_message(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let sample = Sample::small(1).to(3);
    sample.commit(&*spool).await.unwrap();
    let kept = Settled { removed: false, children: Vec::new() };
    assert_eq!(spool.settle(sample.settlement(2, delivered())).await.unwrap(), kept);
    assert_eq!(spool.settle(sample.settlement(1, deferred(1))).await.unwrap(), kept);
    let statuses = statuses(&*spool, sample.id()).await;
    assert_eq!(statuses, [deferred(1), delivered(), DeliveryStatus::fresh(NOW)]);
    assert_eq!(spool.settle(sample.settlement(1, deferred(2))).await.unwrap(), kept);
    spool.settle(sample.settlement(3, DeliveryStatus::Done(Disposition::Failed))).await.unwrap();
    let settled = spool.settle(sample.settlement(1, DeliveryStatus::Done(Disposition::Expired))).await;
    assert!(settled.unwrap().removed);
    assert_eq!(spool.load(sample.id()).await.unwrap_err(), SpoolError::Unknown(sample.id()));
    assert!(spool.claim(None, 10).await.unwrap().is_empty());
}

pub(super) async fn a_done_recipient_stays_done(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let sample = Sample::small(1).to(2);
    sample.commit(&*spool).await.unwrap();
    for status in [delivered(), deferred(1), DeliveryStatus::Done(Disposition::Failed)] {
        let settled = spool.settle(sample.settlement(1, status)).await.unwrap();
        assert!(!settled.removed, "one of two is still open");
        assert_eq!(statuses(&*spool, sample.id()).await, [delivered(), DeliveryStatus::fresh(NOW)]);
    }
}

pub(super) async fn children_come_with_the_marks_or_not_at_all(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let (parent, child, stray) = (Sample::small(1).to(2), Sample::large(2), Sample::small(3));
    parent.commit(&*spool).await.unwrap();
    let failed = DeliveryStatus::Done(Disposition::Failed);
    let settlement = Settlement {
        children: vec![child.message(&*spool).await.unwrap()],
        ..parent.settlement(1, failed.clone())
    };
    let settled = spool.settle(settlement).await.unwrap();
    assert_eq!((settled.removed, settled.children[0].id()), (false, child.id()));
    child.assert_same(&spool.load(child.id()).await.unwrap()).await;

    // A recipient's fate is reported once, and as it was.
    let late = Settlement {
        children: vec![stray.message(&*spool).await.unwrap()],
        ..parent.settlement(1, failed.clone())
    };
    assert_eq!(spool.settle(late).await, Err(SpoolError::RecipientsChanged(parent.id())));
    assert_eq!(spool.load(stray.id()).await.unwrap_err(), SpoolError::Unknown(stray.id()));

    let refused =
        Settlement { children: vec![stray.message(&*spool).await.unwrap()], ..parent.settlement(9, failed) };
    let refusal = SpoolError::UnknownRecipient(parent.id(), 9);
    assert_eq!(spool.settle(refused).await, Err(refusal));
    assert_eq!(spool.load(stray.id()).await.unwrap_err(), SpoolError::Unknown(stray.id()));
}

pub(super) async fn strangers_are_refused(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let stranger = Sample::small(7);
    let unknown = SpoolError::Unknown(stranger.id());
    assert_eq!(spool.load(stranger.id()).await.unwrap_err(), unknown);
    assert_eq!(spool.settle(stranger.all_done()).await, Err(unknown.clone()));
    assert_eq!(spool.release(stranger.id(), LATER, Guard::Any).await, Err(unknown.clone()));
    let hold = HoldReason::Operator("why not".to_owned());
    assert_eq!(spool.hold(stranger.id(), hold).await, Err(unknown.clone()));
    assert_eq!(spool.reroute(stranger.id(), vec![], None).await, Err(unknown));
}

pub(super) async fn held_messages_are_released_and_announced(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let mut arrivals = spool.arrivals().unwrap();
    assert!(spool.arrivals().is_none(), "there is one queue");
    let sample = Sample::small(1);
    sample.commit(&*spool).await.unwrap();
    assert_eq!(arrivals.recv().await.unwrap().hold, None);
    let operator = HoldReason::Operator("asked to".to_owned());
    assert_eq!(spool.hold(sample.id(), operator.clone()).await.unwrap(), None);
    let stored = spool.load(sample.id()).await.unwrap();
    assert_eq!(stored.entry.hold.as_ref(), Some(&operator));
    sample.assert_same(&stored).await;

    assert_eq!(spool.release(sample.id(), LATER, Guard::Any).await.unwrap(), Some(operator));
    assert_eq!(spool.release(sample.id(), LATER, Guard::Any).await.unwrap(), None);
    let arrival = arrivals.recv().await.unwrap();
    assert_eq!((&arrival.hold, arrival.age_from()), (&None, NOW), "only a quarantine stops the clock");
    assert_eq!(arrival.recipients[0].domain, "example1.org");
    assert!(arrivals.try_recv().is_err(), "a second release announces nothing");
    assert_eq!(spool.load(sample.id()).await.unwrap().entry.hold, None);
}

pub(super) async fn a_quarantine_is_left_by_release_alone(subject: &dyn Subject) {
    let mut store = subject.store();
    let durable = store.faults().is_some();
    let mut spool = store.open();
    let mut arrivals = spool.arrivals().unwrap();
    let sample = Sample::small(1);
    quarantined(&*spool, &sample, "viruses").await;
    let arrival = arrivals.recv().await.unwrap();
    assert_eq!((arrival.id, &arrival.hold), (sample.id(), &Some(in_quarantine("viruses"))));
    assert_eq!(claimed(&*spool).await, [arrival]);
    // A quarantine takes precedence over an operator's hold.
    let operator = HoldReason::Operator("look".to_owned());
    assert_eq!(spool.hold(sample.id(), operator).await.unwrap(), Some(in_quarantine("viruses")));
    assert_eq!(spool.load(sample.id()).await.unwrap().entry.hold, Some(in_quarantine("viruses")));

    assert_eq!(spool.release(sample.id(), LATER, Guard::Any).await.unwrap(), Some(in_quarantine("viruses")));
    let arrival = arrivals.recv().await.unwrap();
    assert_eq!((arrival.hold, arrival.received, arrival.released), (None, NOW, Some(LATER)));
    spool.hold(sample.id(), in_quarantine("spam")).await.unwrap();
    if durable {
        drop(arrivals);
        spool.close().await.unwrap();
        drop(spool);
        spool = store.open();
    }
    let entry = spool.load(sample.id()).await.unwrap().entry;
    assert_eq!((entry.age_from(), entry.hold), (LATER, Some(in_quarantine("spam"))));
}

pub(super) async fn a_release_spares_what_it_does_not_mean(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let (bad, held) = (Sample::small(1), Sample::small(2));
    quarantined(&*spool, &bad, "spam").await;
    held.commit(&*spool).await.unwrap();
    let operator = HoldReason::Operator("look".to_owned());
    spool.hold(held.id(), operator.clone()).await.unwrap();
    let changed = |sample: Sample| Err(SpoolError::HoldChanged(sample.id()));
    assert_eq!(spool.release(bad.id(), LATER, Guard::Free).await, changed(bad));
    assert_eq!(spool.release(held.id(), LATER, Guard::Quarantined).await, changed(held));
    assert_eq!(spool.load(bad.id()).await.unwrap().entry.hold, Some(in_quarantine("spam")));
    assert_eq!(spool.load(held.id()).await.unwrap().entry.hold.as_ref(), Some(&operator));
    assert_eq!(spool.release(bad.id(), LATER, Guard::Quarantined).await, Ok(Some(in_quarantine("spam"))));
    assert_eq!(spool.release(held.id(), LATER, Guard::Free).await, Ok(Some(operator)));
    assert_eq!(spool.release(held.id(), LATER, Guard::Quarantined).await, changed(held), "nothing holds it");
    assert_eq!(spool.release(held.id(), LATER, Guard::Free).await, Ok(None));
}

pub(super) async fn a_settlement_meant_for_quarantine_spares_what_was_released(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let (kept, let_go, child) = (Sample::small(1), Sample::small(2), Sample::small(3));
    quarantined(&*spool, &kept, "spam").await;
    quarantined(&*spool, &let_go, "spam").await;
    spool.release(let_go.id(), LATER, Guard::Any).await.unwrap();
    let dropped = |sample: Sample, guard| Settlement {
        guard,
        ..sample.settlement(1, DeliveryStatus::Done(Disposition::Discarded))
    };
    let refused = spool.settle(dropped(let_go, Guard::Quarantined)).await;
    assert_eq!(refused, Err(SpoolError::HoldChanged(let_go.id())));
    // No report is made about a message in quarantine either.
    let report =
        Settlement { children: vec![child.message(&*spool).await.unwrap()], ..dropped(kept, Guard::Free) };
    assert_eq!(spool.settle(report).await, Err(SpoolError::HoldChanged(kept.id())));
    assert_eq!(spool.load(child.id()).await.unwrap_err(), SpoolError::Unknown(child.id()));
    for sample in [kept, let_go] {
        assert_eq!(statuses(&*spool, sample.id()).await, [DeliveryStatus::fresh(NOW)]);
    }
    assert!(spool.settle(dropped(kept, Guard::Quarantined)).await.unwrap().removed);
    assert!(spool.settle(dropped(let_go, Guard::Free)).await.unwrap().removed);
}

pub(super) async fn routes_of_the_operator_are_kept(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let sample = Sample::small(1).to(3);
    sample.commit(&*spool).await.unwrap();
    let relay = Some(NextHop::Relay("backup".to_owned()));
    spool.reroute(sample.id(), vec![2], relay.clone()).await.unwrap();
    assert_eq!(routes(&*spool, sample.id()).await, [None, relay.clone(), None]);
    // A settlement changes the status and not the route.
    spool.settle(sample.settlement(2, deferred(1))).await.unwrap();
    assert_eq!(routes(&*spool, sample.id()).await, [None, relay.clone(), None]);
    assert_eq!(claimed(&*spool).await[0].recipients[1].route, relay);
    spool.reroute(sample.id(), vec![], relay.clone()).await.unwrap();
    assert_eq!(routes(&*spool, sample.id()).await, [relay.clone(), relay.clone(), relay.clone()]);
    spool.reroute(sample.id(), vec![], None).await.unwrap();
    assert_eq!(routes(&*spool, sample.id()).await, [None, None, None]);
    let refusal = SpoolError::UnknownRecipient(sample.id(), 8);
    assert_eq!(spool.reroute(sample.id(), vec![1, 8], relay).await, Err(refusal));
    assert_eq!(routes(&*spool, sample.id()).await, [None, None, None]);
    assert_eq!(statuses(&*spool, sample.id()).await[1], deferred(1));
}

pub(super) async fn a_context_is_replaced_and_kept(subject: &dyn Subject) {
    let mut store = subject.store();
    let durable = store.faults().is_some();
    let mut spool = store.open();
    let (sample, other) = (Sample::small(1).to(2), Sample::large(2));
    sample.commit(&*spool).await.unwrap();
    other.commit(&*spool).await.unwrap();
    for (n, context) in [b"{}".to_vec(), Vec::new(), vec![0xff; 300_000]].into_iter().enumerate() {
        spool.set_context(sample.id(), context.clone().into()).await.unwrap();
        spool.settle(sample.settlement(1, deferred(1))).await.unwrap();
        let stored = spool.load(sample.id()).await.unwrap();
        assert!(stored.entry.context == context, "context {n}");
        let entry = Entry { context: sample.entry().context, ..stored.entry };
        sample.assert_same(&Stored { entry, ..stored }).await;
    }
    if durable {
        spool.close().await.unwrap();
        drop(spool);
        spool = store.open();
    }
    assert!(spool.load(sample.id()).await.unwrap().entry.context == vec![0xff; 300_000]);
    assert_eq!(statuses(&*spool, sample.id()).await, [deferred(1), DeliveryStatus::fresh(NOW)]);
    other.assert_same(&spool.load(other.id()).await.unwrap()).await;
    assert!(spool.settle(sample.all_done()).await.unwrap().removed);
    let gone = spool.set_context(sample.id(), Bytes::new()).await;
    assert_eq!(gone, Err(SpoolError::Unknown(sample.id())));
}

pub(super) async fn pages_cover_everything_once(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let samples: Vec<Sample> = (1..=25).map(Sample::small).collect();
    for sample in samples.iter().rev() {
        sample.commit(&*spool).await.unwrap();
    }
    let ids: Vec<QueueId> = samples.iter().map(Sample::id).collect();
    let (mut claimed, mut after) = (Vec::new(), None);
    loop {
        let page = spool.claim(after, 10).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        claimed.extend(page.iter().map(|waiting| waiting.id));
    }
    assert_eq!(claimed, ids);
    let (mut listed, mut page) = (Vec::new(), Page { after: None, limit: 10 });
    loop {
        let listing = spool.list(Filter::default(), page).await.unwrap();
        listed.extend(listing.messages.iter().map(|summary| summary.id));
        let Some(next) = listing.next else { break };
        page.after = Some(next);
    }
    assert_eq!(listed, ids);
}

pub(super) async fn filters_choose(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    for number in 1..=12 {
        Sample::small(number).commit(&*spool).await.unwrap();
    }
    let held = Sample::small(5).id();
    spool.hold(held, HoldReason::Operator("look".to_owned())).await.unwrap();
    spool.hold(Sample::small(6).id(), in_quarantine("spam")).await.unwrap();
    let odd = HoldReason::Quarantine(Quarantine::new("odd", LATER));
    spool.hold(Sample::small(7).id(), odd).await.unwrap();
    let cases = [
        (Filter { sender: Some("SENDER1@".to_owned()), ..Filter::default() }, vec![1]),
        (Filter { recipient: Some("r1.n11@".to_owned()), ..Filter::default() }, vec![11]),
        (Filter { held: Some(true), ..Filter::default() }, vec![5, 6, 7]),
        (Filter { held: Some(true), quarantined: Some(false), ..Filter::default() }, vec![5]),
        (Filter { quarantined: Some(true), ..Filter::default() }, vec![6, 7]),
        (Filter { quarantine: Some("odd".to_owned()), ..Filter::default() }, vec![7]),
        (Filter { quarantined_before: Some(LATER), ..Filter::default() }, vec![6]),
        (Filter { held: Some(false), sender: Some("sender5".to_owned()), ..Filter::default() }, vec![]),
        (Filter { received_before: Some(NOW), ..Filter::default() }, vec![]),
    ];
    for (filter, expected) in cases {
        let listing = spool.list(filter.clone(), Page { after: None, limit: 100 }).await.unwrap();
        let found: Vec<QueueId> = listing.messages.iter().map(|summary| summary.id).collect();
        let expected: Vec<QueueId> = expected.into_iter().map(|number| Sample::small(number).id()).collect();
        assert_eq!((found, listing.next), (expected, None), "{filter:?}");
    }
}

pub(super) async fn totals_count(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let (one, two) = (Sample::small(1), Sample::large(2));
    one.commit(&*spool).await.unwrap();
    two.commit(&*spool).await.unwrap();
    spool.hold(one.id(), HoldReason::Operator("look".to_owned())).await.unwrap();
    let bytes = (one.size + one.head().len() + two.size + two.head().len()) as u64;
    let totals = spool.totals().await.unwrap();
    assert_eq!((totals.messages, totals.held, totals.bytes, totals.damaged), (2, 1, bytes, 0));
    quarantines_count(&*spool, &two).await;
    spool.settle(one.all_done()).await.unwrap();
    spool.settle(two.all_done()).await.unwrap();
    assert_eq!(spool.totals().await.unwrap(), crate::Totals::default());
}

async fn quarantines_count(spool: &dyn Spool, sample: &Sample) {
    for name in ["spam", "spam", "odd"] {
        spool.hold(sample.id(), in_quarantine(name)).await.unwrap();
        let totals = spool.totals().await.unwrap();
        let bytes = (sample.size + sample.head().len()) as u64;
        let expected = BTreeMap::from([(name.to_owned(), Amount { messages: 1, bytes })]);
        assert_eq!((totals.held, totals.quarantines), (2, expected));
    }
    spool.release(sample.id(), LATER, Guard::Any).await.unwrap();
    let totals = spool.totals().await.unwrap();
    assert_eq!((totals.held, totals.quarantines), (1, BTreeMap::new()));
}

pub(super) async fn many_at_once_are_all_kept(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let mut tasks = Vec::new();
    for number in 0..400 {
        let spool = spool.clone();
        tasks.push(tokio::spawn(async move {
            let sample = Sample::small(number).to(2);
            sample.commit(&*spool).await.unwrap();
            spool.settle(sample.settlement(1, delivered())).await.unwrap();
            sample
        }));
    }
    for task in tasks {
        let sample = task.await.unwrap();
        sample.assert_same(&spool.load(sample.id()).await.unwrap()).await;
        assert_eq!(statuses(&*spool, sample.id()).await, [delivered(), DeliveryStatus::fresh(NOW)]);
    }
}

pub(super) async fn a_closed_spool_says_so(subject: &dyn Subject) {
    let mut store = subject.store();
    let spool = store.open();
    let sample = Sample::small(1);
    let message = sample.message(&*spool).await.unwrap();
    spool.close().await.unwrap();
    spool.close().await.unwrap();
    assert_eq!(spool.commit(message).await, Err(SpoolError::Closed));
    assert!(matches!(spool.begin(), Err(SpoolError::Closed)));
    assert_eq!(spool.claim(None, 1).await, Err(SpoolError::Closed));
}

async fn quarantined(spool: &dyn Spool, sample: &Sample, name: &str) {
    let mut message = sample.message(spool).await.unwrap();
    message.entry.hold = Some(in_quarantine(name));
    spool.commit(message).await.unwrap();
}

async fn statuses(spool: &dyn Spool, id: QueueId) -> Vec<DeliveryStatus> {
    let stored = spool.load(id).await.unwrap();
    stored.recipients.into_iter().map(|state| state.status).collect()
}

async fn routes(spool: &dyn Spool, id: QueueId) -> Vec<Option<NextHop>> {
    let stored = spool.load(id).await.unwrap();
    stored.recipients.into_iter().map(|state| state.route).collect()
}

async fn claimed(spool: &dyn Spool) -> Vec<Waiting> {
    spool.claim(None, 100).await.unwrap()
}
