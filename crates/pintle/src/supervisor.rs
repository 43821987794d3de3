//! The supervisor: watches tasks and threads that must not end, and stops the process when one does. A gateway that has
//! lost one of its parts could accept mail and deliver none.
//!
//! If a task or thread ends before shutdown, the process ends with a line in the log and an exit code that makes the
//! service manager restart it. All mail is in the spool, and startup is the one recovery path that is tested. Until the
//! process ends, the health report names the dead part, and readiness fails so that no more mail is sent here. Tasks
//! without state, those of the plugin host, are restarted within the process instead.

use std::collections::HashMap;
use std::future::Future;
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};
use std::thread;

use pintle_inbound::Inbound;
use pintle_outbound::Outbound;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{Id, JoinError, JoinSet};

/// The name of the runtime's worker threads. A panic on one of them belongs to a task, and reaches the task's owner
/// through its handle.
pub(crate) const RUNTIME: &str = "pintle";

/// The first part that has died, in words for the operator; unset while all are alive.
pub(crate) type Fallen = Arc<OnceLock<String>>;

/// Watches the tasks and threads that must not end.
pub(crate) struct Supervisor {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    threads: UnboundedReceiver<String>,
    fallen: Fallen,
}

impl Supervisor {
    /// Installs a panic hook that logs panics and detects dead threads. Tasks are watched once they are spawned.
    pub(crate) fn start() -> Self {
        let (dead, threads) = unbounded_channel();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            report(panic, &dead);
        }));
        Self { tasks: JoinSet::new(), names: HashMap::new(), threads, fallen: Fallen::default() }
    }

    /// Spawns a task that must not end before [`stop`](Self::stop), or before its own shutdown signal.
    pub(crate) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// The part that has died, for the health report.
    pub(crate) fn fallen(&self) -> Fallen {
        Arc::clone(&self.fallen)
    }

    /// Waits until a part has died, logs that, and stores it for the health report.
    pub(crate) async fn watch(&mut self, inbound: &mut Inbound, outbound: &mut Outbound) {
        let what = tokio::select! {
            why = outbound.ended() => format!("the delivery runner {why}"),
            why = inbound.ended() => format!("a listener {why}"),
            Some(ended) = self.tasks.join_next_with_id() => self.describe(&ended),
            Some(thread) = self.threads.recv() => thread,
        };
        tracing::error!(
            what,
            "A PART OF THE GATEWAY HAS DIED: the process stops, so that it can be restarted"
        );
        // Only the first is kept: later ones may be consequences of it.
        let _ = self.fallen.set(what);
    }

    /// Waits until the task of this name has ended, after its shutdown signal.
    pub(crate) async fn wait_for(&mut self, name: &str) {
        while self.names.values().any(|running| *running == name) {
            let Some(ended) = self.tasks.join_next_with_id().await else {
                return;
            };
            let what = self.describe(&ended);
            if ended.is_err() {
                tracing::error!(what, "a task failed during shutdown");
            }
        }
    }

    /// Aborts all remaining tasks and waits for them.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    fn describe(&mut self, ended: &Result<(Id, ()), JoinError>) -> String {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let name = self.names.remove(&id).unwrap_or("a task");
        match ended {
            Ok(_) => format!("the {name} ended by itself"),
            Err(error) => format!("the {name} failed: {error}"),
        }
    }
}

/// Logs a panic, and reports the thread as dead if it is a worker.
fn report(panic: &PanicHookInfo<'_>, dead: &UnboundedSender<String>) {
    let current = thread::current();
    // Threads of a pool, such as the compiler's, have no name; their panics are returned to the caller of the pool.
    let name = current.name().unwrap_or_default();
    let place = panic.location().map(ToString::to_string);
    let message = panic.payload_as_str().unwrap_or_default();
    tracing::error!(thread = name, place, message, "a panic");
    if is_worker(name) {
        // The receiver is gone after shutdown; then the report is not needed.
        let _ = dead.send(format!("the thread {name} panicked: {message}"));
    }
}

/// Whether the thread is a dedicated worker that lives as long as the process. A panic ends such a thread.
fn is_worker(name: &str) -> bool {
    !name.is_empty() && name != "main" && !name.starts_with(RUNTIME) && !name.starts_with("tokio")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn first_death(mut supervisor: Supervisor) -> String {
        let thread = supervisor.threads.recv();
        tokio::time::timeout(std::time::Duration::from_secs(60), thread).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_thread_that_panics_is_reported() {
        let supervisor = Supervisor::start();
        let thread = thread::Builder::new().name("spool-committer".into());
        let ended = thread.spawn(|| panic!("as the test wants it")).unwrap().join();
        assert!(ended.is_err());
        let what = first_death(supervisor).await;
        assert!(what.contains("spool-committer") && what.contains("as the test wants it"), "{what}");
    }

    #[test]
    fn a_panic_of_a_task_is_not_a_dead_thread() {
        assert!(!is_worker("") && !is_worker("main") && !is_worker(RUNTIME) && !is_worker("tokio-rt-worker"));
        assert!(is_worker("plugin-tick"));
    }

    #[tokio::test]
    async fn a_task_that_ends_is_named() {
        for (fails, expected) in [(false, "the upkeep ended by itself"), (true, "the upkeep failed")] {
            let mut supervisor = Supervisor::start();
            supervisor.spawn("upkeep", async move { assert!(!fails, "as the test wants it") });
            let ended = supervisor.tasks.join_next_with_id().await.unwrap();
            let what = supervisor.describe(&ended);
            assert!(what.starts_with(expected), "{what}");
        }
    }
}
