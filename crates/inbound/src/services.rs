//! What the pipelines of all sessions share: the rules, the policy chain, the spool and the event log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use pintle_policy::Chain;
use pintle_record::RecordSink;
use pintle_spool::{Spool, SpoolError};

use crate::config::Rules;
use crate::guesses::Guesses;
use crate::hashing::Hashing;
use crate::quarantines::Quarantines;

/// The services that all sessions share.
pub struct Services {
    pub(crate) hostname: String,
    pub(crate) rules: ArcSwap<Rules>,
    pub(crate) spool: Arc<dyn Spool>,
    pub(crate) chain: Arc<ArcSwap<Chain>>,
    pub(crate) records: Arc<dyn RecordSink>,
    pub(crate) quarantines: Arc<dyn Quarantines>,
    pub(crate) guesses: Guesses,
    pub(crate) hashing: Hashing,
    /// Whether it has been logged that the spool accepts no mail.
    closed: AtomicBool,
}

impl Services {
    /// Returns services for this hostname and these rules. Mail goes to `spool`, `chain` decides (a reload replaces
    /// it), `records` is the event log, and `quarantines` reserve space.
    #[must_use]
    pub fn new(
        hostname: String,
        rules: Rules,
        spool: Arc<dyn Spool>,
        chain: Arc<ArcSwap<Chain>>,
        records: Arc<dyn RecordSink>,
        quarantines: Arc<dyn Quarantines>,
    ) -> Self {
        Self {
            hostname,
            rules: ArcSwap::from_pointee(rules),
            spool,
            chain,
            records,
            quarantines,
            guesses: Guesses::default(),
            hashing: Hashing::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether the spool accepts mail. A change is logged once, not for each client that is refused.
    ///
    /// # Errors
    /// Returns why it accepts none.
    pub(crate) fn spool_accepts(&self) -> Result<(), SpoolError> {
        let accepts = self.spool.health().accepting();
        // Read first: an unconditional write would move the cache line between cores with every message.
        if self.closed.load(Ordering::Relaxed) != accepts.is_err()
            && self.closed.swap(accepts.is_err(), Ordering::Relaxed) != accepts.is_err()
        {
            match &accepts {
                Ok(()) => tracing::info!("accepting mail again"),
                Err(trouble) => tracing::error!(%trouble, "refusing all mail: the spool accepts none"),
            }
        }
        accepts
    }
}
