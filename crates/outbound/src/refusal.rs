//! Recipients that plugins refused after the end of the data, when the client could no longer be told. Their first
//! attempt fails with the plugins' reply before any plugin or host is asked, and the sender gets the usual report.

use std::collections::HashSet;

use pintle_queue::{Attempt, AttemptReport};
use pintle_spool::{SpoolError, Stored};

use crate::finished::{Finished, interrupted};
use crate::parts::OutboundShared;
use crate::recipient_result::{self, RecipientResult, ReportPolicy, Resolution};
use crate::settle::{self, SettleCause};

/// Fails the refused recipients of an attempt. None if there are none. The others of the job are tried next, at once.
pub(crate) async fn fail_refused(
    shared: &OutboundShared,
    stored: &Stored,
    attempt: &Attempt,
) -> Option<Finished> {
    let results: Vec<RecipientResult> =
        attempt.recipients.iter().filter_map(|id| refused(stored, *id)).collect();
    if results.is_empty() {
        return None;
    }
    let report = match settle::durably(shared, stored, &SettleCause::Refusal, &results).await {
        Err(SpoolError::Unknown(_)) => AttemptReport::settled(),
        // It was quarantined since it was read: the next attempt finds the hold.
        Err(SpoolError::HoldChanged(_)) => interrupted(attempt.recipients.clone()),
        settled => {
            if let Err(error) = settled {
                tracing::error!(queue_id = %stored.id, %error, "the failure of refused recipients cannot be stored; it is reported after the next start");
            }
            let failed: HashSet<u32> = results.iter().map(|result| result.recipient).collect();
            let others = attempt.recipients.iter().copied().filter(|id| !failed.contains(id));
            interrupted(others.collect())
        }
    };
    Some(Finished::new(attempt.id, attempt.message, report))
}

/// The failure of a refused recipient; none for one that is settled, or was not refused.
pub(crate) fn refused(stored: &Stored, id: u32) -> Option<RecipientResult> {
    recipient_result::pending(stored, id)?;
    let reply = recipient_result::recipient(stored, id)?.refused.clone()?;
    let failed = Resolution::Failed(ReportPolicy::Due);
    Some(RecipientResult { reply: Some(reply), ..RecipientResult::without_reply(id, failed) })
}
