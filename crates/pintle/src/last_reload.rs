//! What came of the last reload, for health and `pintle status`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pintle_admin::Reloaded;

/// Why a configuration could not be taken over; everything is as it was.
pub(crate) type ReloadError = Box<dyn std::error::Error + Send + Sync>;

/// What came of the last reload, for whoever asks later how the gateway is.
#[derive(Debug, Default)]
pub(crate) struct LastReload(ArcSwap<ReloadOutcome>);

#[derive(Debug, Default)]
struct ReloadOutcome {
    /// Why what stands in the file is not in force.
    failed: Option<String>,
    /// What of it waits for a restart.
    needs_restart: Vec<String>,
}

impl LastReload {
    /// Whether the file is in force as far as it can be, and what there is to be said of it.
    pub(crate) fn told(&self) -> (bool, Option<String>) {
        let last = self.0.load();
        match (&last.failed, last.needs_restart.as_slice()) {
            (Some(why), _) => {
                (false, Some(format!("the last reload failed, and the file is not in force: {why}")))
            }
            (None, []) => (true, None),
            (None, waits) => (true, Some(format!("changed, and waits for a restart: {}", waits.join(", ")))),
        }
    }

    pub(crate) fn note(&self, outcome: &Result<Reloaded, ReloadError>) {
        let outcome = match outcome {
            Ok(done) => ReloadOutcome { failed: None, needs_restart: done.needs_restart.clone() },
            // What waited before waits still.
            Err(error) => ReloadOutcome {
                failed: Some(in_short(&error.to_string())),
                needs_restart: self.0.load().needs_restart.clone(),
            },
        };
        self.0.store(Arc::new(outcome));
    }
}

/// The first of what is wrong, on one line; the log has all of it.
fn in_short(error: &str) -> String {
    let first = error.lines().next().unwrap_or_default();
    if first.len() == error.trim_end().len() {
        first.to_owned()
    } else {
        format!("{first} (`pintle check` tells all of it)")
    }
}
