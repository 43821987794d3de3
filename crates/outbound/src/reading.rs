//! What the runner reads from the spool beside its work, page by page, while deliveries go on: what is pending, at the
//! start and when routes have changed; what lies in quarantines, when their time is reckoned anew.

use std::sync::Arc;
use std::time::Duration;

use pintle_mail::QueueId;
use pintle_spool::{Filter, Page, SpoolError, Stored, Summary, Waiting};
use tokio::sync::mpsc;

use crate::runner::Finished;
use crate::shared::OutboundShared;

/// Messages asked for at once.
const PAGE: usize = 1_000;
/// How long to wait before a spool that could not be read is asked again.
const RECOVER_AGAIN: Duration = Duration::from_secs(10);
/// The same where it is putting its index in order; the question itself waits until that is done.
const RECOVER_SOON: Duration = Duration::from_millis(100);

/// Reads what is pending, page by page, while deliveries have begun already. A spool that cannot be read is asked again:
/// what lies in it was promised.
pub(crate) async fn recover(
    shared: Arc<OutboundShared>,
    pages: mpsc::Sender<Vec<Waiting>>,
) -> Option<Finished> {
    let (mut after, mut soon) = (None, RECOVER_SOON);
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
                tracing::warn!(%what, "the spool is unavailable for now; pending messages are read again");
                shared.clock.sleep(soon).await;
                // It may not be in order the next time either.
                soon = (soon * 2).min(RECOVER_AGAIN);
            }
            Err(error) => {
                tracing::error!(%error, "cannot read what is pending in the spool; trying again");
                shared.clock.sleep(RECOVER_AGAIN).await;
            }
        }
    }
}

/// Reads what lies in quarantines, so that each message's time is reckoned anew. What cannot be read now is looked at
/// when its old time has come.
pub(crate) async fn quarantined(
    shared: Arc<OutboundShared>,
    pages: mpsc::Sender<Vec<Waiting>>,
) -> Option<Finished> {
    let filter = Filter { quarantined: Some(true), ..Filter::default() };
    let mut page = Page { after: None, limit: PAGE };
    loop {
        let listing = match shared.spool.list(filter.clone(), page).await {
            Ok(listing) => listing,
            Err(error) => {
                tracing::warn!(%error, "cannot read what lies in quarantines");
                return None;
            }
        };
        // Their jobs are known, so nobody asks for recipients.
        pages.send(listing.messages.iter().map(Summary::waiting).collect()).await.ok()?;
        page.after = Some(listing.next?);
    }
}

/// Reads one message, so that what remains of it goes by the routes of now. One that is gone by then needs none.
pub(crate) async fn look_again(
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

/// What the queue wants to know of a message.
pub(crate) fn waiting_of(stored: &Stored) -> Waiting {
    let size = stored.head.len() as u64 + stored.body.size();
    Waiting::new(stored.id, &stored.entry, size, &stored.recipients)
}
