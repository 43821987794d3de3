//! Queue commands of the admin socket: lists and shows messages, and retries, holds, releases, reroutes or bounces
//! them.

use std::collections::{BTreeMap, HashSet};

use pintle_admin::{
    Affected, OperatorRefusal, PageQuery, Query, QueueAction, QueueEntry, QueueFilter, QueuePage,
    QueueRecipient, Reroute, Spared,
};
use pintle_mail::{Address, NextHop, QueueId};
use pintle_outbound::{CommandOutcome, CommandResult, CommandResults, JobStatus, NextAttempt, Select};
use pintle_spool::{DeliveryStatus, HoldReason, Summary};

use crate::parts::GatewayParts;
use crate::refusal::refusal;

/// The number of messages read from the spool at a time.
const PAGE: usize = 500;
/// The size in octets at which a page of a list ends, well below the largest answer that the command line accepts.
const MAX_LIST: usize = 8 << 20;
/// The maximum number of next hops that an error names.
const NAMED: usize = 20;

/// Returns a page of the messages that pass the filter.
///
/// # Errors
/// The filter's next hop is not in the queue, or the spool fails.
pub(crate) async fn list(parts: &GatewayParts, query: &Query) -> Result<QueuePage, OperatorRefusal> {
    let found = matching(parts, &query.filter, &query.page).await?;
    if found.messages.is_empty() && query.page.after.is_none() {
        refuse_an_unknown_hop(parts, &query.filter).await?;
    }
    Ok(found)
}

/// Returns the details of one message.
pub(crate) async fn show(parts: &GatewayParts, id: QueueId) -> Result<QueueEntry, OperatorRefusal> {
    let stored = parts.outbound.show(id).await.map_err(refusal)?;
    let size = stored.head.len() as u64 + stored.body.size();
    let mut legs = parts.outbound.jobs(vec![id]).await.unwrap_or_default();
    let summary = Summary::new(id, &stored.entry, size, &stored.recipients);
    let mut entry = entry(parts, &summary, legs.remove(&id).unwrap_or_default().as_slice());
    entry.parent = stored.entry.parent;
    for (shown, recipient) in entry.recipients.iter_mut().zip(&stored.entry.envelope.recipients) {
        shown.groups.clone_from(&recipient.groups);
    }
    Ok(entry)
}

/// Applies an action to all messages that pass the filter.
pub(crate) async fn act(
    parts: &GatewayParts,
    action: QueueAction,
    filter: &QueueFilter,
) -> Result<Affected, OperatorRefusal> {
    let (ids, unmet) = select(parts, filter).await?;
    let (which, outbound) = (Select::Ids(ids), &parts.outbound);
    let acts = match action {
        QueueAction::Retry => outbound.retry(which).await,
        QueueAction::Hold => outbound.hold(which, "by the operator").await,
        // A filter without ids releases held messages only; quarantined ones must be named by id.
        QueueAction::Release if filter.ids.is_empty() => outbound.release_held(which, None).await,
        QueueAction::Release => outbound.release(which, None).await,
        QueueAction::Bounce => outbound.bounce(which, "The operator has cancelled the delivery").await,
    };
    Ok(affected(acts.map_err(refusal)?, unmet))
}

/// Sends all messages that pass the filter to another next hop, or back to their route if the order names none.
pub(crate) async fn reroute(parts: &GatewayParts, order: &Reroute) -> Result<Affected, OperatorRefusal> {
    let via = order.via.as_deref().map(|via| parse_next_hop(parts, via)).transpose()?;
    let (ids, unmet) = select(parts, &order.filter).await?;
    let acts = parts.outbound.reroute(Select::Ids(ids), via.as_ref()).await.map_err(refusal)?;
    Ok(affected(acts, unmet))
}

/// Parses a next hop that mail can be rerouted to: an MX domain or a configured relay.
fn parse_next_hop(parts: &GatewayParts, text: &str) -> Result<NextHop, OperatorRefusal> {
    let settings = parts.settings.load();
    let via = text.parse::<NextHop>().map_err(|error| OperatorRefusal::Invalid(error.to_string()))?;
    let (name, lmtp) = match &via {
        NextHop::Mx(_) => return Ok(via),
        NextHop::Relay(name) => (name, false),
        NextHop::Lmtp(name) => (name, true),
        NextHop::Discard => {
            let text = "cannot reroute to `discard`: use `pintle queue bounce`, which notifies the sender";
            return Err(OperatorRefusal::Invalid(text.to_owned()));
        }
    };
    let relays = &settings.outbound.relays;
    match relays.get(name).map(|relay| relay.protocol == pintle_outbound::Protocol::Lmtp) {
        Some(found) if found == lmtp => Ok(via),
        Some(_) => Err(OperatorRefusal::Invalid(format!(
            "the relay {name} speaks {}: write {}:{name}",
            if lmtp { "SMTP" } else { "LMTP" },
            if lmtp { "relay" } else { "lmtp" }
        ))),
        None => {
            let known: Vec<&str> = relays.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(OperatorRefusal::Invalid(format!(
                "the configuration has no relay named {name}; its relays: {known}"
            )))
        }
    }
}

/// The ids of the messages that pass the filter, and those ids in the filter whose messages do not.
async fn select(
    parts: &GatewayParts,
    filter: &QueueFilter,
) -> Result<(Vec<QueueId>, Vec<Spared>), OperatorRefusal> {
    if !filter.ids.is_empty()
        && *filter == (QueueFilter { ids: filter.ids.clone(), ..QueueFilter::default() })
    {
        return Ok((filter.ids.clone(), Vec::new()));
    }
    let (mut ids, mut page) = (Vec::new(), PageQuery { after: None, limit: pintle_admin::wire::MAX_LIMIT });
    loop {
        let found = matching(parts, filter, &page).await?;
        ids.extend(found.messages.iter().map(|entry| entry.id));
        page.after = found.next;
        if page.after.is_none() {
            break;
        }
    }
    if ids.is_empty() {
        refuse_an_unknown_hop(parts, filter).await?;
    }
    let met: HashSet<QueueId> = ids.iter().copied().collect();
    let unmet = filter.ids.iter().filter(|id| !met.contains(id));
    let why = "there is no such message, or it does not meet the other conditions";
    Ok((ids, unmet.map(|id| Spared { id: *id, why: why.to_owned() }).collect()))
}

/// Refuses a filter with a next hop that no message in the queue has, so that a mistyped next hop is not mistaken for
/// an empty result.
async fn refuse_an_unknown_hop(parts: &GatewayParts, filter: &QueueFilter) -> Result<(), OperatorRefusal> {
    let Some(hop) = &filter.next_hop else { return Ok(()) };
    let hop = hop.parse::<NextHop>().map_err(|error| OperatorRefusal::Invalid(error.to_string()))?;
    let hops = parts.outbound.queue_snapshot().await.map_err(refusal)?.hops;
    if hops.iter().any(|view| view.next_hop == hop) {
        return Ok(());
    }
    let named = hops.iter().take(NAMED).map(|view| format!("{} ({})", view.next_hop, view.jobs));
    let named = named.collect::<Vec<_>>().join(", ");
    let there = match (hops.is_empty(), hops.len() > NAMED) {
        (true, _) => "the queue is empty".to_owned(),
        (false, true) => format!("mail waits for {named} and others"),
        (false, false) => format!("mail waits for {named}"),
    };
    Err(OperatorRefusal::NotFound(format!("nothing in the queue goes to {hop}: {there}")))
}

/// A page of the messages that pass the filter, at most `limit` of them. The page ends early at [`MAX_LIST`] octets,
/// since senders and next hops control the size of recipient lists and replies.
async fn matching(
    parts: &GatewayParts,
    filter: &QueueFilter,
    page: &PageQuery,
) -> Result<QueuePage, OperatorRefusal> {
    let limit = page.limit.clamp(1, pintle_admin::wire::MAX_LIMIT);
    let mut found = QueuePage { messages: Vec::new(), next: None };
    let (mut after, mut size) = (page.after, 0);
    loop {
        let spool =
            pintle_spool::Filter { sender: filter.sender.clone(), held: filter.held, ..Default::default() };
        let part = pintle_spool::Page { after, limit: PAGE };
        let listing = parts.outbound.list(spool, part).await.map_err(refusal)?;
        let ids = listing.messages.iter().map(|summary| summary.id).collect();
        // If the queue has stopped, there are no jobs, and `entry` falls back to the next hops of the routes.
        let mut legs = parts.outbound.jobs(ids).await.unwrap_or_default();
        for summary in &listing.messages {
            let entry = entry(parts, summary, legs.remove(&summary.id).unwrap_or_default().as_slice());
            if filter.admits(&entry) {
                size += octets(&entry);
                found.messages.push(entry);
            }
            if found.messages.len() == limit || size > MAX_LIST {
                found.next = Some(summary.id);
                return Ok(found);
            }
        }
        match listing.next {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}

fn entry(parts: &GatewayParts, summary: &Summary, legs: &[JobStatus]) -> QueueEntry {
    let outbound = &parts.outbound;
    let recipients = summary.recipients.iter().zip(&summary.ids);
    QueueEntry {
        id: summary.id,
        received_ms: summary.received,
        expires_ms: Some(match &summary.hold {
            Some(HoldReason::Quarantine(quarantine)) => outbound.kept_until(quarantine),
            Some(HoldReason::Operator(_) | HoldReason::Other(_)) | None => {
                outbound.expires(summary.age_from())
            }
        }),
        size: summary.size,
        sender: summary.sender.clone(),
        hold: summary.hold.as_ref().map(ToString::to_string),
        parent: None,
        recipients: recipients
            .map(|((address, status), id)| {
                let leg = legs.iter().find(|leg| leg.recipients.contains(id));
                recipient(outbound, address, status, leg)
            })
            .collect(),
    }
}

fn recipient(
    outbound: &pintle_outbound::Handle,
    address: &Address,
    status: &DeliveryStatus,
    leg: Option<&JobStatus>,
) -> QueueRecipient {
    let pending = status.pending();
    let by_route = || outbound.next_hop(&address.domain_ascii()).to_string();
    QueueRecipient {
        address: address.clone(),
        next_hop: pending.map(|_| leg.map_or_else(by_route, |leg| leg.next_hop.to_string())),
        disposition: match status {
            DeliveryStatus::Pending(_) => None,
            DeliveryStatus::Done(disposition) => Some(*disposition),
        },
        attempts: pending.map_or(0, |pending| pending.attempts),
        next_attempt_ms: pending.and_then(|pending| match leg.map(|leg| leg.next_attempt) {
            Some(NextAttempt::At(at)) => Some(at),
            Some(NextAttempt::Now | NextAttempt::Held | NextAttempt::Never) => None,
            None => Some(outbound.next_attempt(pending.next_attempt)),
        }),
        under_way: pending.is_some() && leg.is_some_and(|leg| leg.next_attempt == NextAttempt::Now),
        last_reply: pending.and_then(|pending| pending.last.as_ref()).map(ToString::to_string),
        groups: BTreeMap::new(),
    }
}

/// An estimate of the entry's size in the answer, in octets.
fn octets(entry: &QueueEntry) -> usize {
    let words = |recipient: &QueueRecipient| recipient.last_reply.as_ref().map_or(0, String::len);
    let recipients = entry.recipients.iter();
    300 + recipients.map(|each| each.address.as_str().len() + words(each) + 200).sum::<usize>()
}

fn affected(acts: CommandResults, unmet: Vec<Spared>) -> Affected {
    let (done, spared): (Vec<CommandResult>, Vec<CommandResult>) =
        acts.0.into_iter().partition(|act| act.outcome == CommandOutcome::Done);
    let spare = |act: CommandResult| Spared { id: act.id, why: act.outcome.to_string() };
    Affected {
        ids: done.into_iter().map(|act| act.id).collect(),
        spared: spared.into_iter().map(spare).chain(unmet).collect(),
    }
}
