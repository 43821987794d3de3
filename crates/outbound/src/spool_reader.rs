//! Reading the spool for the runner, page by page, while deliveries go on: all pending messages (recovery) at the start
//! and when routes have changed, and quarantined ones when their retention is computed again.

use std::sync::Arc;
use std::time::Duration;

use pintle_mail::QueueId;
use pintle_spool::{Filter, Page, SpoolError, Stored, Summary, Waiting};
use tokio::sync::mpsc;

use crate::finished::Finished;
use crate::parts::OutboundShared;

/// The number of messages in a page.
const PAGE: usize = 1_000;
/// How long to wait before a spool that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(10);
/// The first wait while the spool rebuilds its index; each further one is twice as long.
const READ_SOON: Duration = Duration::from_millis(100);

/// Reads all pending messages, page by page, while deliveries have begun already. A spool that cannot be read is read
/// again, since its mail was accepted.
pub(crate) async fn read_pending(
    shared: Arc<OutboundShared>,
    pages: mpsc::Sender<Vec<Waiting>>,
) -> Option<Finished> {
    let (mut after, mut soon) = (None, READ_SOON);
    loop {
        match shared.spool.claim(after, PAGE).await {
            Ok(page) if page.is_empty() => return None,
            Ok(page) => {
                after = page.last().map(|waiting| waiting.id);
                // An error means that the runner has ended.
                pages.send(page).await.ok()?;
            }
            Err(SpoolError::Closed) => return None,
            Err(SpoolError::Unavailable(what)) => {
                tracing::warn!(%what, "the spool is unavailable for now; pending mail will be read again");
                shared.clock.sleep(soon).await;
                // It may not be in order the next time either.
                soon = (soon * 2).min(READ_AGAIN);
            }
            Err(error) => {
                tracing::error!(%error, "cannot read the pending mail in the spool; trying again");
                shared.clock.sleep(READ_AGAIN).await;
            }
        }
    }
}

/// Reads quarantined messages, so that the retention of each is computed again. One that cannot be read now is checked
/// when its old retention is over.
pub(crate) async fn read_quarantined(
    shared: Arc<OutboundShared>,
    pages: mpsc::Sender<Vec<Waiting>>,
) -> Option<Finished> {
    let filter = Filter { quarantined: Some(true), ..Filter::default() };
    let mut page = Page { after: None, limit: PAGE };
    loop {
        let listing = match shared.spool.list(filter.clone(), page).await {
            Ok(listing) => listing,
            Err(error) => {
                tracing::warn!(%error, "cannot read the mail in quarantines");
                return None;
            }
        };
        // Their jobs are known, so their recipients are not needed.
        pages.send(listing.messages.iter().map(Summary::waiting).collect()).await.ok()?;
        page.after = Some(listing.next?);
    }
}

/// Reads one message again, so that its remaining recipients go by the present routes. One that is gone needs none.
pub(crate) async fn read_again(
    shared: Arc<OutboundShared>,
    pages: mpsc::Sender<Vec<Waiting>>,
    id: QueueId,
) -> Option<Finished> {
    match shared.spool.load(id).await {
        Ok(stored) => pages.send(vec![waiting_of(&stored)]).await.ok()?,
        Err(SpoolError::Unknown(_) | SpoolError::Closed) => {}
        Err(error) => {
            tracing::warn!(queue_id = %id, %error, "a message keeps its old next hop, since it cannot be read");
        }
    }
    None
}

/// The fields of a stored message that the queue needs.
pub(crate) fn waiting_of(stored: &Stored) -> Waiting {
    let size = stored.head.len() as u64 + stored.body.size();
    Waiting::new(stored.id, &stored.entry, size, &stored.recipients)
}
