//! The outcome of the last reload, for the health report and `pintle status`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use pintle_admin::Reloaded;

/// Why a reload failed. The old configuration stays in force.
pub(crate) type ReloadError = Box<dyn std::error::Error + Send + Sync>;

/// The outcome of the last reload. Before the first reload it is a success.
#[derive(Debug, Default)]
pub(crate) struct LastReload(ArcSwap<ReloadOutcome>);

#[derive(Debug, Default)]
struct ReloadOutcome {
    /// Why the last reload failed; none if it succeeded.
    failed: Option<String>,
    /// Changed keys that take effect only after a restart.
    needs_restart: Vec<String>,
}

impl LastReload {
    /// The health of the configuration: false if the last reload failed, and a text for the operator. The text is none
    /// if the file is in force as a whole.
    pub(crate) fn health(&self) -> (bool, Option<String>) {
        let last = self.0.load();
        match (&last.failed, last.needs_restart.as_slice()) {
            (Some(why), _) => {
                (false, Some(format!("the last reload failed, and the file is not in force: {why}")))
            }
            (None, []) => (true, None),
            (None, keys) => (true, Some(format!("changed, but needs a restart: {}", keys.join(", ")))),
        }
    }

    /// Stores the outcome of a reload.
    pub(crate) fn note(&self, outcome: &Result<Reloaded, ReloadError>) {
        let outcome = match outcome {
            Ok(done) => ReloadOutcome { failed: None, needs_restart: done.needs_restart.clone() },
            // A failed reload changes nothing, so earlier keys still need the restart.
            Err(error) => ReloadOutcome {
                failed: Some(in_short(&error.to_string())),
                needs_restart: self.0.load().needs_restart.clone(),
            },
        };
        self.0.store(Arc::new(outcome));
    }
}

/// The first line of an error; the log has all lines.
fn in_short(error: &str) -> String {
    let first = error.lines().next().unwrap_or_default();
    if first.len() == error.trim_end().len() {
        first.to_owned()
    } else {
        format!("{first} (`pintle check` prints all errors)")
    }
}
