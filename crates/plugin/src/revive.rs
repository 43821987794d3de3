//! Restart of background tasks after a panic.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;

/// Back-off between a panic and the restart.
const REST: Duration = Duration::from_secs(1);

/// Runs a task until it returns, and restarts it after a panic. The task keeps no state of its own. Without the
/// restart, instances would no longer be replaced, stored values not be saved, or files not be watched.
pub(crate) async fn revived<F: Future<Output = ()>>(task: &'static str, begin: impl Fn() -> F) {
    while AssertUnwindSafe(begin()).catch_unwind().await.is_err() {
        metrics::counter!("pintle_task_restarts_total", "task" => task).increment(1);
        tracing::error!(target: "pintle::plugin", task, "a task of the plugin host panicked; restarting it");
        tokio::time::sleep(REST).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_begun_anew() {
        let begun = AtomicU32::new(0);
        revived("test", || async {
            assert!(begun.fetch_add(1, Ordering::Relaxed) == 2, "as the test wants it");
        })
        .await;
        assert_eq!(begun.load(Ordering::Relaxed), 3);
    }
}
