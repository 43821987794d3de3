//! Admission to a quarantine: room is reserved under its quota before a message is held there. A full quarantine
//! refuses the message, or drops its oldest ones.

use futures_util::StreamExt;
use pintle_mail::QueueId;
use pintle_spool::{Amount, Filter, Page, SpoolError};
use tokio::sync::oneshot;

use crate::commands::RunnerCommand;
use crate::parts::OutboundShared;
use crate::quarantine::{self, Deletion};
use crate::quota::{
    MAX_QUARANTINES, QuarantineFull, QuotaReservation, WhenFull, less, more, names, share_left, within,
};

/// A full quarantine is emptied by one part in this many at once, since its messages are counted one by one each time.
const PART: u64 = 16;
/// Messages looked up at once.
const PAGE: usize = 500;
/// Messages dropped at once; they share their syncs.
const MAX_DROPPING: usize = 32;

/// Reserves room for one message of this size.
///
/// # Errors
/// The message must be refused or deferred.
pub(crate) async fn admit(
    shared: &OutboundShared,
    name: &str,
    bytes: u64,
) -> Result<QuotaReservation, QuarantineFull> {
    let reservations = &shared.reservations;
    let _one_at_a_time = reservations.admitting.lock().await;
    match make_room(shared, name, bytes).await {
        Ok(()) => Ok(reservations.reserve(name, bytes)),
        Err(full) => {
            quarantine::count("refused");
            reservations.log_refusal(name, &full);
            Err(full)
        }
    }
}

async fn make_room(shared: &OutboundShared, name: &str, bytes: u64) -> Result<(), QuarantineFull> {
    let config = shared.config.load_full();
    // Reservations are read first: a message that is stored between the two reads counts twice rather than not at all.
    let reserved = shared.reservations.reserved();
    let totals = shared.spool.totals().await.map_err(QuarantineFull::Spool)?;
    let known = totals.quarantines.contains_key(name) || reserved.contains_key(name);
    if !known && names(&totals, &reserved) >= MAX_QUARANTINES {
        return Err(QuarantineFull::Names(name.to_owned()));
    }
    let coming: u64 = reserved.values().map(|amount| amount.bytes).sum();
    let then = totals.held_bytes.saturating_add(coming).saturating_add(bytes);
    if !share_left(then, totals.held_bytes, shared.spool.free(), config.quota.disk_percent) {
        return Err(QuarantineFull::Disk);
    }
    let limit = config.quota.of(name);
    let new = Amount { messages: 1, bytes };
    let coming = more(reserved.get(name).copied().unwrap_or_default(), new);
    let lying = totals.quarantines.get(name).copied().unwrap_or_default();
    if within(more(lying, coming), limit) {
        return Ok(());
    }
    // A message that would not fit into the empty quarantine drops no others.
    if config.quota.when_full == WhenFull::Refuse || !within(coming, limit) {
        return Err(QuarantineFull::Quota(name.to_owned(), limit));
    }
    drop_oldest(shared, name, coming, limit).await
}

/// Drops the oldest messages of a full quarantine until the new one fits. It first counts the messages one by one,
/// since a deletion, which cannot be undone, must not depend on a running total.
async fn drop_oldest(
    shared: &OutboundShared,
    name: &str,
    coming: Amount,
    limit: Amount,
) -> Result<(), QuarantineFull> {
    let lying = listed(shared, name).await.map_err(QuarantineFull::Spool)?;
    let mut left =
        lying.iter().fold(coming, |sum, (_, bytes)| more(sum, Amount { messages: 1, bytes: *bytes }));
    if within(left, limit) {
        tracing::error!(
            quarantine = name,
            messages = left.messages,
            octets = left.bytes,
            "the running total of a quarantine says that it is full, and it is not; nothing is dropped"
        );
        return Ok(());
    }
    let aim =
        Amount { messages: limit.messages - limit.messages / PART, bytes: limit.bytes - limit.bytes / PART };
    let mut oldest = Vec::new();
    for (id, bytes) in lying {
        if within(left, aim) {
            break;
        }
        left = less(left, Amount { messages: 1, bytes });
        oldest.push((id, bytes));
    }
    let dropped = delete(shared, name, oldest).await;
    tracing::warn!(
        quarantine = name,
        dropped,
        "a quarantine was full: its oldest messages have been dropped"
    );
    // A message that was released meanwhile has left the quarantine too, so it stays full only if the spool refuses.
    let lying = listed(shared, name).await.map_err(QuarantineFull::Spool)?;
    let left = lying.iter().fold(coming, |sum, (_, bytes)| more(sum, Amount { messages: 1, bytes: *bytes }));
    if within(left, limit) { Ok(()) } else { Err(QuarantineFull::Quota(name.to_owned(), limit)) }
}

/// The messages in a quarantine, oldest first, with their sizes in octets.
async fn listed(shared: &OutboundShared, name: &str) -> Result<Vec<(QueueId, u64)>, SpoolError> {
    let filter = Filter { quarantine: Some(name.to_owned()), ..Filter::default() };
    let mut page = Page { after: None, limit: PAGE };
    let mut found = Vec::new();
    loop {
        let listing = shared.spool.list(filter.clone(), page).await?;
        found.extend(listing.messages.iter().map(|message| (message.id, message.size)));
        match listing.next {
            Some(next) => page.after = Some(next),
            None => return Ok(found),
        }
    }
}

/// Deletes these messages. Returns how many were deleted: one that has been released, or that the spool keeps, stays.
async fn delete(shared: &OutboundShared, name: &str, oldest: Vec<(QueueId, u64)>) -> usize {
    let deletion = Deletion::ByQuota { quarantine: name };
    let drop = async |id| quarantine::delete(shared, id, &deletion).await.map(|()| id);
    let dropping = futures_util::stream::iter(oldest).map(|(id, _)| drop(id)).buffered(MAX_DROPPING);
    let dropped: Vec<QueueId> =
        dropping.filter_map(|dropped| std::future::ready(dropped.ok())).collect().await;
    let count = dropped.len();
    // If the runner has ended, there are no jobs to drop.
    if let Some(commands) = shared.commands.upgrade() {
        let _ = commands.send(RunnerCommand::Forget(dropped, oneshot::channel().0));
    }
    count
}
