//! What the pipeline of every session works with: the rules, the plugins, the spool and the event log.

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

/// Shared by all sessions.
pub struct Services {
    pub(crate) hostname: String,
    pub(crate) rules: ArcSwap<Rules>,
    pub(crate) spool: Arc<dyn Spool>,
    pub(crate) chain: Arc<ArcSwap<Chain>>,
    pub(crate) records: Arc<dyn RecordSink>,
    pub(crate) quarantines: Arc<dyn Quarantines>,
    pub(crate) guesses: Guesses,
    pub(crate) hashing: Hashing,
    /// Whether the operator has been told that the spool takes no mail now.
    closed: AtomicBool,
}

impl Services {
    /// Services under this hostname and these rules: mail goes into `spool`, `chain` is asked (a reload puts another one
    /// there), `records` gets the event log, and `quarantines` say whether they take more.
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

    /// Whether the spool takes mail. The operator hears when that changes, not with each client that is turned away.
    ///
    /// # Errors
    /// Why it takes none.
    pub(crate) fn spool_accepts(&self) -> Result<(), SpoolError> {
        let accepts = self.spool.health().accepting();
        // Looking comes first, since writing would make every core fetch it anew with each message.
        if self.closed.load(Ordering::Relaxed) != accepts.is_err()
            && self.closed.swap(accepts.is_err(), Ordering::Relaxed) != accepts.is_err()
        {
            match &accepts {
                Ok(()) => tracing::info!("mail is taken again"),
                Err(trouble) => tracing::error!(%trouble, "no mail is taken"),
            }
        }
        accepts
    }
}
