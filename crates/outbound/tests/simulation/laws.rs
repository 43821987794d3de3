//! The laws that every run asserts: those of `docs/architecture.md` and `docs/message-states.md` that concern what is
//! spooled, queued and delivered.

use std::collections::BTreeSet;
use std::time::Duration;

use pintle_mail::QueueId;
use pintle_spool::{Change, DeliveryStatus, Disposition, Entry, HoldReason};

use crate::ledger::{DeliveredCopy, KnownMessage, Ledger, Op, SimMessage, StoredState};

/// How old messages must be before they expire, in true time.
#[derive(Debug, Clone, Copy)]
pub struct Ages {
    pub message: Duration,
    pub quarantine: Duration,
}

/// In a run, both.
pub const AGES: Ages =
    Ages { message: Duration::from_secs(40 * 60), quarantine: Duration::from_secs(60 * 60) };

/// Differences that the gateway takes for drift of the clock.
const SLACK: Duration = Duration::from_secs(11);

/// Checks the laws on an operation that was done, by the state before it.
pub fn before(ledger: &mut Ledger, op: &Op) {
    match op {
        Op::Settle(id, changes, children) => settled(ledger, *id, changes, children),
        Op::Commit(_) | Op::Hold(..) | Op::Release(..) | Op::Reroute(..) | Op::SetContext(..) => {}
    }
}

fn settled(ledger: &mut Ledger, id: QueueId, changes: &[Change], children: &[SimMessage]) {
    let pending = ledger.pending(id);
    for change in changes.iter().filter(|change| pending.contains(&change.recipient)) {
        if let DeliveryStatus::Done(disposition) = change.status {
            ended_for_a_reason(ledger, id, change.recipient, disposition);
        }
    }
    nothing_is_forgotten(ledger, id, changes);
    reports_are_due(ledger, id, changes, children);
}

/// A record of attempts and warnings is never replaced by an older one.
fn nothing_is_forgotten(ledger: &mut Ledger, id: QueueId, changes: &[Change]) {
    let states = ledger.disk.get(&id).into_iter().flat_map(|state| &state.recipients);
    let older = states.filter_map(|state| {
        let change = changes.iter().find(|change| change.recipient == state.id)?;
        let (before, now) = state.status.pending().zip(change.status.pending())?;
        (now.attempts < before.attempts || before.warned && !now.warned)
            .then(|| format!("{id}: {now:?} replaces {before:?}"))
    });
    let older: Vec<String> = older.collect();
    older.into_iter().for_each(|law| ledger.breach(law));
}

/// Delivered: a next hop took it. Failed: it was refused permanently, by a next hop or by plugins. Expired: it had its maximum age. Discarded: an operator
/// deleted it, or its route leads nowhere.
fn ended_for_a_reason(ledger: &mut Ledger, id: QueueId, recipient: u32, disposition: Disposition) {
    let Some(known) = ledger.known.get(&id) else {
        return ledger.breach(format!("{id} was settled and never committed"));
    };
    let mut recipients = known.letter.entry.envelope.recipients.iter();
    let Some(found) = recipients.find(|r| r.id == recipient) else {
        return ledger.breach(format!("{id} has no recipient {recipient}"));
    };
    let address = &found.address;
    let sender = known.letter.entry.envelope.sender.as_str();
    let refused = || {
        ledger.refused.contains(address.as_str())
            || ledger.refused.contains(sender)
            || ledger.no_mail.contains(address.domain())
    };
    let sound = match disposition {
        Disposition::Failed if found.refused.is_some() => true,
        Disposition::Delivered => known.copies.iter().any(|copy| copy.recipient == recipient),
        Disposition::Failed => known.may_bounce || refused(),
        Disposition::Expired => may_expire(ledger, id, known),
        Disposition::Discarded => {
            known.may_vanish || address.domain() == crate::world::NOWHERE && found.refused.is_none()
        }
    };
    if !sound {
        let (age, clock) = (ledger.now.saturating_sub(known.since.passed), ledger.clock);
        ledger.breach(format!(
            "{id} for {address} ended as {disposition} without a reason; its true age is {age:?}, {clock:?}"
        ));
    }
}

/// Nothing expires before its true age; what the clock was ahead in all of this life, and was not when the message was
/// stored, cannot be known. Nothing expires soon after a start or a step of the clock, and nothing that was never tried.
fn may_expire(ledger: &Ledger, id: QueueId, known: &KnownMessage) -> bool {
    let hold = ledger.disk.get(&id).and_then(|state| state.hold.as_ref());
    let wanted = if hold.and_then(HoldReason::quarantine).is_some() { AGES.quarantine } else { AGES.message };
    let error = ledger.clock.least(ledger.now).saturating_sub(known.since.ahead).max(0);
    let age = ledger.now.saturating_sub(known.since.passed) + Duration::from_millis(error.unsigned_abs());
    let steady = ledger.now.saturating_sub(ledger.clock.stepped) + Duration::from_secs(1) >= wanted / 20;
    age + SLACK >= wanted && steady && (hold.is_some() || was_tried(ledger, id, known))
}

/// In this life, it was, or mail for one of its domains: a next hop that fails as a whole has failed for all.
fn was_tried(ledger: &Ledger, id: QueueId, known: &KnownMessage) -> bool {
    let goes_there = |other: &QueueId| {
        let other = ledger.known.get(other).map(|other| &other.letter.entry.envelope.recipients);
        let mut theirs = other.into_iter().flatten().map(|recipient| recipient.address.domain_ascii());
        theirs.any(|domain| {
            let ours = &known.letter.entry.envelope.recipients;
            ours.iter().any(|recipient| recipient.address.domain_ascii() == domain)
        })
    };
    ledger.deferred.contains(&id) || ledger.deferred.iter().any(goes_there)
}

/// RFC 5321 section 4.5.5, RFC 3461: each failure is reported once, to a sender that asked for it, and nothing else is; no
/// report is sent about quarantined mail, nor to a null reverse-path.
fn reports_are_due(ledger: &mut Ledger, id: QueueId, changes: &[Change], children: &[SimMessage]) {
    let Some((known, state)) = ledger.known.get(&id).zip(ledger.disk.get(&id)) else {
        return;
    };
    let entry = &known.letter.entry;
    let mut wrong = Vec::new();
    if !children.is_empty() && (entry.envelope.sender.is_null() || ledger.quarantined(id)) {
        wrong.push(format!(
            "{id} caused a report; its sender is {:?}, and {:?} holds it",
            entry.envelope.sender, state.hold
        ));
    }
    for child in children {
        let to = child.entry.envelope.recipients.iter().map(|r| r.address.as_str());
        let sound = child.entry.envelope.sender.is_null()
            && child.entry.parent == Some(id)
            && to.eq([entry.envelope.sender.as_str()]);
        if !sound {
            wrong.push(format!("{} is no report of {id} to its sender", child.id));
        }
    }
    let silent = entry.envelope.sender.is_null() || ledger.quarantined(id);
    for (action, may, must) in [
        ("failed", due(entry, state, changes, Due::Failure), !silent),
        ("delayed", due(entry, state, changes, Due::Delay), false),
        ("delivered", due(entry, state, changes, Due::Success), false),
        ("relayed", due(entry, state, changes, Due::Success), false),
    ] {
        let told = told(children, action);
        let unique: BTreeSet<String> = told.iter().cloned().collect();
        if unique.len() != told.len() || !unique.is_subset(&may) || (must && unique != may) {
            wrong.push(format!("{id}: reported as {action} are {told:?}, where {may:?} was due"));
        }
    }
    wrong.into_iter().for_each(|law| ledger.breach(law));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    Failure,
    Delay,
    Success,
}

/// The addresses of those recipients of whom the sender is to hear, or may.
fn due(entry: &Entry, state: &StoredState, changes: &[Change], due: Due) -> BTreeSet<String> {
    let pairs = entry.envelope.recipients.iter().zip(&state.recipients);
    let is_due = |change: &Change, before: &pintle_spool::Pending, notify: pintle_mail::Notify| match due {
        Due::Failure => {
            let ended = [Disposition::Failed, Disposition::Expired].map(DeliveryStatus::Done);
            notify.failure && ended.contains(&change.status)
        }
        Due::Success => notify.success && change.status == DeliveryStatus::Done(Disposition::Delivered),
        Due::Delay => notify.delay && !before.warned && change.status.pending().is_some_and(|now| now.warned),
    };
    let chosen = pairs.filter(|(recipient, before)| {
        let change = changes.iter().find(|change| change.recipient == recipient.id);
        change
            .zip(before.status.pending())
            .is_some_and(|(change, before)| is_due(change, before, recipient.params.notify()))
    });
    chosen.map(|(recipient, _)| recipient.address.as_str().to_owned()).collect()
}

/// Whom the reports name with this action.
fn told(children: &[SimMessage], action: &str) -> Vec<String> {
    let mut told = Vec::new();
    for child in children {
        let text = String::from_utf8_lossy(&child.text);
        let mut recipient = None;
        for line in text.lines() {
            if let Some(address) = line.strip_prefix("Final-Recipient: rfc822; ") {
                recipient = Some(address.to_owned());
            } else if line.strip_prefix("Action: ") == Some(action) {
                told.extend(recipient.take());
            }
        }
    }
    told
}

/// A next hop takes a message for one recipient: it is octet for octet what was committed, nothing holds it, and it was
/// not delivered before, as far as the gateway could know. Gives the place of the copy in the ledger.
pub fn taken(ledger: &mut Ledger, from: &str, to: &str, text: &[u8]) -> Option<(QueueId, usize)> {
    ledger.step += 1;
    let Some(id) = ledger.by_text(text) else {
        let start = String::from_utf8_lossy(&text[..text.len().min(400)]).into_owned();
        ledger.breach(format!("{to} got {} octets that nobody committed: {start:?}", text.len()));
        return None;
    };
    let life = ledger.life;
    let known = ledger.known.get(&id)?;
    let envelope = &known.letter.entry.envelope;
    let Some(recipient) = envelope.recipients.iter().find(|r| r.address.as_str() == to).map(|r| r.id) else {
        ledger.breach(format!("{id} went to {to}, who is none of its recipients"));
        return None;
    };
    let mut wrong = Vec::new();
    if envelope.recipients.iter().any(|r| r.id == recipient && r.refused.is_some()) {
        wrong.push(format!("{id} went to {to}, whom plugins have refused"));
    }
    if envelope.sender.as_str() != from {
        wrong.push(format!("{id} came from {from:?} instead of {}", envelope.sender));
    }
    let heard =
        known.copies.iter().any(|copy| copy.recipient == recipient && copy.life == life && copy.heard);
    if heard {
        wrong.push(format!("{id} was delivered to {to} again, after a next hop had said yes in this life"));
    }
    // An attempt may have begun before an operator ended or held the message.
    let began_before = |step: u64| known.read.is_some_and(|read| read < step);
    match known.ends.get(&recipient) {
        Some((Disposition::Delivered, _)) => {
            wrong.push(format!("{id} was delivered to {to} again, after it was done"))
        }
        Some((end, step)) if !began_before(*step) => {
            wrong.push(format!("{id} was delivered to {to} after it was {end}"))
        }
        _ => {}
    }
    let hold = ledger.disk.get(&id).and_then(|state| state.hold.as_ref());
    if let Some(hold) = hold.filter(|_| !known.held.is_some_and(began_before)) {
        wrong.push(format!("{id} was delivered to {to}, while it was held: {hold}"));
    }
    wrong.into_iter().for_each(|law| ledger.breach(law));
    let known = ledger.known.get_mut(&id)?;
    ledger.counts.twice += u32::from(known.copies.iter().any(|copy| copy.recipient == recipient));
    known.copies.push(DeliveredCopy { recipient, life, heard: false });
    Some((id, known.copies.len() - 1))
}

/// The recipients of one transaction are in the same groups.
pub fn in_one_transaction(ledger: &mut Ledger, to: &[String], text: &[u8]) {
    let Some(known) = ledger.by_text(text).and_then(|id| ledger.known.get(&id)) else { return };
    let recipients = known.letter.entry.envelope.recipients.iter();
    let these = recipients.filter(|recipient| to.iter().any(|to| to == recipient.address.as_str()));
    let groups: BTreeSet<_> = these.map(|recipient| &recipient.groups).collect();
    if groups.len() > 1 {
        let law = format!("{to:?} got {} in one transaction, in the groups {groups:?}", known.letter.id);
        ledger.breach(law);
    }
}

/// The gateway has been answered that the message was taken.
pub fn answered(ledger: &mut Ledger, (id, at): (QueueId, usize)) {
    if let Some(copy) = ledger.known.get_mut(&id).and_then(|known| known.copies.get_mut(at)) {
        copy.heard = true;
    }
}

/// At the end nothing is left: whatever was promised has come to an end for each recipient.
pub fn all_done(ledger: &mut Ledger) {
    let mut wrong: Vec<String> =
        ledger.disk.keys().map(|id| format!("{id} is still there at the end")).collect();
    for (id, known) in ledger.known.iter().filter(|(_, known)| known.promised) {
        let lost = known.letter.entry.envelope.recipients.iter().filter(|r| !known.ends.contains_key(&r.id));
        wrong.extend(lost.map(|recipient| format!("{id} is lost for {}", recipient.address)));
    }
    wrong.into_iter().for_each(|law| ledger.breach(law));
}
