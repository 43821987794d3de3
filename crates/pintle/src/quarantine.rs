//! Quarantine commands of the admin socket: lists, shows, releases and deletes quarantined messages.

use std::time::Duration;

use futures_util::StreamExt;
use pintle_admin::{
    MessageOctets, OperatorRefusal, Points, QuarantineAction, QuarantineFilter, QuarantineOrder,
    QuarantineOutcome, QuarantinePage, QuarantineQuery, QuarantineResult, Quarantined,
};
use pintle_mail::{HeaderBlock, QueueId};
use pintle_outbound::{CommandOutcome, CommandResult, OperateError, Select};
use pintle_policy::{AuthResult, Frozen, Transaction};
use pintle_spool::{Filter, HoldReason, Page, Stored};

use crate::parts::GatewayParts;
use crate::refusal::refusal;

/// The maximum number of messages released or deleted by one request: few enough for the request's timeout of 30
/// seconds even on a slow disk.
const AT_ONCE: usize = 200;
/// The number of messages read concurrently for a list.
const READERS: usize = 16;
/// The size in octets at which a page of a list ends, well below the largest answer that the command line accepts.
const MAX_LIST: usize = 8 << 20;
/// The maximum length of a subject in a list, in characters.
const LONGEST_SUBJECT: usize = 500;

/// Returns a page of the list. The page ends early at [`MAX_LIST`] octets, since senders control the size of subjects
/// and recipient lists.
pub(crate) async fn list(
    parts: &GatewayParts,
    query: QuarantineQuery,
) -> Result<QuarantinePage, OperatorRefusal> {
    let page = Page { after: query.page.after, limit: query.page.limit };
    let listing = parts.outbound.list(filter(parts, &query.sift), page).await.map_err(refusal)?;
    let ids: Vec<QueueId> = listing.messages.iter().map(|summary| summary.id).collect();
    let look = |id| async move { (id, parts.outbound.show(id).await.map(|stored| view(parts, &stored))) };
    let mut found = futures_util::stream::iter(ids).map(look).buffered(READERS);
    let (mut messages, mut size) = (Vec::new(), 0);
    while let Some((id, shown)) = found.next().await {
        match shown {
            Ok(shown) => messages.extend(shown.map(brief)),
            // It was released or deleted in the meantime.
            Err(OperateError::Spool(pintle_spool::SpoolError::Unknown(_))) => {}
            Err(error) => return Err(refusal(error)),
        }
        size += messages.last().map_or(0, octets);
        if size > MAX_LIST {
            return Ok(QuarantinePage { messages, next: Some(id) });
        }
    }
    Ok(QuarantinePage { messages, next: listing.next })
}

/// Cuts the subject to [`LONGEST_SUBJECT`] characters for a list; [`show`] returns the whole subject.
fn brief(message: Quarantined) -> Quarantined {
    let cut = |subject: String| match subject.char_indices().nth(LONGEST_SUBJECT) {
        Some((end, _)) => format!("{}…", &subject[..end]),
        None => subject,
    };
    Quarantined { subject: message.subject.map(cut), ..message }
}

/// An estimate of the message's size in the answer, in octets.
fn octets(message: &Quarantined) -> usize {
    let addresses: usize = message.recipients.iter().map(|address| address.as_str().len() + 4).sum();
    let facts: usize = message.facts.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    let results: usize = message.results.iter().map(|result| result.len() + 4).sum();
    let rules: usize = message.rules.iter().map(|rule| rule.judge.len() + rule.rule.len() + 48).sum();
    addresses + facts + results + rules + message.subject.as_ref().map_or(0, String::len) + 512
}

/// Returns the details of one quarantined message.
pub(crate) async fn show(parts: &GatewayParts, id: QueueId) -> Result<Quarantined, OperatorRefusal> {
    let stored = parts.outbound.show(id).await.map_err(refusal)?;
    view(parts, &stored).ok_or_else(|| not_quarantined(id))
}

/// Returns the header block and body of one quarantined message.
pub(crate) async fn whole(parts: &GatewayParts, id: QueueId) -> Result<MessageOctets, OperatorRefusal> {
    let stored = parts.outbound.show(id).await.map_err(refusal)?;
    match stored.entry.hold {
        Some(HoldReason::Quarantine(_)) => Ok(MessageOctets { head: stored.head, body: stored.body }),
        Some(HoldReason::Operator(_) | HoldReason::Other(_)) | None => Err(not_quarantined(id)),
    }
}

/// Releases or deletes quarantined messages: those with the given ids, or the next [`AT_ONCE`] that pass the filter.
pub(crate) async fn leave(
    parts: &GatewayParts,
    exit: QuarantineAction,
    which: QuarantineOrder,
) -> Result<QuarantineResult, OperatorRefusal> {
    let (ids, next) = if which.ids.is_empty() {
        let page = Page { after: which.after, limit: AT_ONCE };
        let listing = parts.outbound.list(filter(parts, &which.sift), page).await.map_err(refusal)?;
        (listing.messages.iter().map(|summary| summary.id).collect(), listing.next)
    } else {
        (which.ids, None)
    };
    let (ids, user) = (Select::Ids(ids), which.user.as_deref());
    let acts = match exit {
        QuarantineAction::Release => parts.outbound.release_quarantined(ids, user).await,
        QuarantineAction::Delete => parts.outbound.delete_quarantined(ids, user).await,
    };
    Ok(QuarantineResult { messages: acts.map_err(refusal)?.0.iter().map(outcome).collect(), next })
}

fn outcome(act: &CommandResult) -> QuarantineOutcome {
    let done = act.outcome == CommandOutcome::Done;
    QuarantineOutcome { id: act.id, done, why: (!done).then(|| act.outcome.to_string()) }
}

fn not_quarantined(id: QueueId) -> OperatorRefusal {
    OperatorRefusal::NotFound(format!("message {id} is not in quarantine: see `pintle queue show {id}`"))
}

fn filter(parts: &GatewayParts, sift: &QuarantineFilter) -> Filter {
    let before = |age: u64| parts.outbound.stored_before(Duration::from_millis(age));
    Filter {
        sender: sift.sender.clone(),
        recipient: sift.recipient.clone(),
        quarantined: Some(true),
        quarantine: sift.name.clone(),
        quarantined_before: sift.older_than_ms.map(before),
        ..Filter::default()
    }
}

fn view(parts: &GatewayParts, stored: &Stored) -> Option<Quarantined> {
    let entry = &stored.entry;
    let quarantine = entry.hold.as_ref().and_then(HoldReason::quarantine)?;
    // Messages that the gateway wrote itself, such as bounces, have no session and no rulings.
    let known =
        Frozen::from_bytes(&entry.context).ok().map(|known| known.thaw(stored.id, entry.envelope.clone()));
    let transaction = known.as_ref().and_then(|known| known.transaction.as_deref());
    let session = known.as_ref().map(|known| &known.session);
    let mut facts = session.map(|session| session.facts.clone()).unwrap_or_default();
    facts.extend(transaction.map(|transaction| transaction.facts.clone()).unwrap_or_default());
    let header = HeaderBlock::parse(stored.head.clone());
    Some(Quarantined {
        id: stored.id,
        quarantine: quarantine.name.clone(),
        since_ms: quarantine.since,
        expires_ms: parts.outbound.kept_until(quarantine),
        received_ms: entry.received,
        by: quarantine.by.clone(),
        stage: quarantine.stage.clone(),
        reason: quarantine.reason.clone(),
        score: transaction.map_or(0.0, Transaction::score),
        rules: transaction.map(rules).unwrap_or_default(),
        facts,
        results: transaction.map(results).unwrap_or_default(),
        client: session.map(|session| session.client),
        hello: session.and_then(|session| session.hello.clone()),
        sender: entry.envelope.sender.clone(),
        recipients: entry.envelope.recipients.iter().map(|recipient| recipient.address.clone()).collect(),
        subject: header.named("Subject").next().map(|field| field.value()),
        size: stored.head.len() as u64 + stored.body.size(),
    })
}

fn rules(transaction: &Transaction) -> Vec<Points> {
    let scores = transaction.scores.iter();
    let points = scores.map(|score| Points {
        judge: score.judge.clone(),
        rule: score.rule.clone(),
        points: score.points,
    });
    points.collect()
}

fn results(transaction: &Transaction) -> Vec<String> {
    let text = |result: &AuthResult| {
        let reason = result.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("{}={}{reason}", result.method, result.outcome)
    };
    transaction.auth_results.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_shows_the_beginning_of_a_subject() {
        let text = serde_json::json!({
            "id": "00000000000000000000000001", "quarantine": "q", "since_ms": 0, "expires_ms": 0, "received_ms": 0,
            "score": 0.0, "rules": [], "facts": {}, "results": [], "sender": "", "recipients": [], "size": 1,
            "subject": "ü".repeat(100_000),
        });
        let message = brief(serde_json::from_value(text).unwrap());
        assert_eq!(message.subject.as_ref().unwrap().chars().count(), LONGEST_SUBJECT + 1);
        assert!(octets(&message) < 2_000);
    }
}
