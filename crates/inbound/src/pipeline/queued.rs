//! on-queued: called for each copy of a message that has been committed, after the client has its reply.
//!
//! The calls are made by the session's own task before it reads the next command, so that they delay no reply and their
//! number is bounded by what one client can send at once.

use std::sync::Arc;
use std::time::Duration;

use pintle_policy::{Hook, Leases, Transaction, View};

use super::Pipeline;

/// The most copies that a session remembers. A client that pipelines gets more replies before it is read from again.
const MAX_NOTICES: usize = 256;
/// The most time that all calls together take before the next command.
const PATIENCE: Duration = Duration::from_secs(30);

/// Committed copies for which on-queued has not been called yet.
#[derive(Default)]
pub(super) struct QueuedNotices(Vec<View>);

impl Pipeline {
    /// Remembers the transactions of the copies that have just been committed, if a plugin wants on-queued.
    pub(super) fn note_queued(&mut self, copies: impl Iterator<Item = Transaction>) {
        if !self.services.chain.load().wants(Hook::Queued) {
            return;
        }
        for copy in copies {
            if self.queued.0.len() >= MAX_NOTICES {
                dropped(1);
                continue;
            }
            // What was counted of the transaction has ended with it.
            let transaction = Transaction { leases: Leases::default(), ..copy };
            let session = Arc::clone(&self.view.session);
            let transaction = Some(Arc::new(transaction));
            self.queued.0.push(View { session, transaction, message: None, delivery: None });
        }
    }

    /// Calls on-queued for the copies committed so far. To be called when the replies have been sent.
    pub(crate) async fn tell_queued(&mut self) {
        if self.queued.0.is_empty() {
            return;
        }
        let chain = self.services.chain.load_full();
        let mut views = std::mem::take(&mut self.queued.0).into_iter();
        let calls = async {
            for view in views.by_ref() {
                chain.queued(&view).await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, calls).await;
        dropped(views.len());
    }
}

/// Counts copies for which on-queued is not called.
fn dropped(copies: usize) {
    if copies > 0 {
        metrics::counter!("pintle_queued_notices_dropped_total").increment(copies as u64);
    }
}
