//! That the index lacks what the log has, and when it is retried: the back-off of its recovery (`index_recovery.rs`).

use std::time::{Duration, Instant};

/// The index lacks what the log has.
pub(crate) struct IndexLag {
    /// It is to be rebuilt, for this reason: the open one is not, or no longer, the one in the folder.
    pub(crate) rebuild: Option<String>,
    /// The time of the next retry. None until the spool is suspended.
    pub(crate) retry_at: Option<Instant>,
    /// The wait before the next retry. It doubles with each one.
    pub(crate) back_off: Duration,
}

impl IndexLag {
    /// The first back-off of retries while the spool is suspended.
    const BACK_OFF: Duration = Duration::from_millis(250);
    /// The longest back-off of retries while the spool is suspended.
    pub(crate) const LONGEST_BACK_OFF: Duration = Duration::from_secs(1);

    pub(crate) fn new(rebuild: Option<String>) -> Self {
        Self { rebuild, retry_at: None, back_off: Self::BACK_OFF }
    }
}
