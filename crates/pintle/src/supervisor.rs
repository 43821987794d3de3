//! Who watches what must never end: a gateway without one of its parts looks alive, takes mail and delivers none.
//!
//! A task or thread that ends before it was told to ends the process, with a line in the log and an exit code that makes
//! the service manager start it again: what it held is in the spool, and a fresh start is the one state that is tested.
//! Until then health says what is missing and readiness that no mail should come here. Tasks that hold nothing, those of
//! the plugin host, are begun anew where they are instead.

use std::collections::HashMap;
use std::future::Future;
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};
use std::thread;

use pintle_inbound::Inbound;
use pintle_outbound::Outbound;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{Id, JoinError, JoinSet};

/// What the runtime's own threads are called: a panic on one of them is a task's, and the task's owner hears of it.
pub(crate) const RUNTIME: &str = "pintle";

/// What has died, once something has.
pub(crate) type Fallen = Arc<OnceLock<String>>;

/// Watches everything that must not end.
pub(crate) struct Supervisor {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    threads: UnboundedReceiver<String>,
    fallen: Fallen,
}

impl Supervisor {
    /// Watches threads from now on, and tasks as they are spawned. Panics are told to the log.
    pub(crate) fn start() -> Self {
        let (dead, threads) = unbounded_channel();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            tell(panic, &dead);
        }));
        Self { tasks: JoinSet::new(), names: HashMap::new(), threads, fallen: Fallen::default() }
    }

    /// Begins a task that must not end before [`stop`](Self::stop) or a sign of its own.
    pub(crate) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// For health: what has died.
    pub(crate) fn fallen(&self) -> Fallen {
        Arc::clone(&self.fallen)
    }

    /// Ends when something has died; it has then been told to the log and to health.
    pub(crate) async fn watch(&mut self, inbound: &mut Inbound, outbound: &mut Outbound) {
        let what = tokio::select! {
            why = outbound.ended() => format!("the deliveries' runner {why}"),
            why = inbound.ended() => format!("a listener {why}"),
            Some(ended) = self.tasks.join_next_with_id() => self.describe(&ended),
            Some(thread) = self.threads.recv() => thread,
        };
        tracing::error!(what, "A PART OF THE GATEWAY HAS DIED: it stops, to be started again");
        // Only the first matters: what dies after it may die of it.
        let _ = self.fallen.set(what);
    }

    /// Waits until the task of this name has ended, as it was told to.
    pub(crate) async fn wait_for(&mut self, name: &str) {
        while self.names.values().any(|running| *running == name) {
            let Some(ended) = self.tasks.join_next_with_id().await else {
                return;
            };
            let what = self.describe(&ended);
            if ended.is_err() {
                tracing::error!(what, "it ended badly");
            }
        }
    }

    /// Ends all tasks that are left.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    fn describe(&mut self, ended: &Result<(Id, ()), JoinError>) -> String {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let name = self.names.remove(&id).unwrap_or("a task");
        match ended {
            Ok(_) => format!("the {name} ended by itself"),
            Err(error) => format!("the {name} ended badly: {error}"),
        }
    }
}

fn tell(panic: &PanicHookInfo<'_>, dead: &UnboundedSender<String>) {
    let current = thread::current();
    // Threads of a pool have no name; a panic there comes back to whoever gave them the work, as the compiler's does.
    let name = current.name().unwrap_or_default();
    let place = panic.location().map(ToString::to_string);
    let message = panic.payload_as_str().unwrap_or_default();
    tracing::error!(thread = name, place, message, "a panic");
    if is_worker(name) {
        // Nobody watches before the start or after the end, and then nobody needs to.
        let _ = dead.send(format!("the thread {name} panicked: {message}"));
    }
}

/// Whether the thread does one thing for as long as the process lives; its panic is its end.
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
    async fn a_thread_that_panics_is_heard_of() {
        let supervisor = Supervisor::start();
        let thread = thread::Builder::new().name("spool-committer".into());
        let ended = thread.spawn(|| panic!("as the test wants it")).unwrap().join();
        assert!(ended.is_err());
        let what = first_death(supervisor).await;
        assert!(what.contains("spool-committer") && what.contains("as the test wants it"), "{what}");
    }

    #[test]
    fn a_panic_of_a_task_is_its_owners_affair() {
        assert!(!is_worker("") && !is_worker("main") && !is_worker(RUNTIME) && !is_worker("tokio-rt-worker"));
        assert!(is_worker("plugin-tick"));
    }

    #[tokio::test]
    async fn a_task_that_ends_is_named() {
        for (task, told) in [(false, "the upkeep ended by itself"), (true, "the upkeep ended badly")] {
            let mut supervisor = Supervisor::start();
            supervisor.spawn("upkeep", async move { assert!(!task, "as the test wants it") });
            let ended = supervisor.tasks.join_next_with_id().await.unwrap();
            let what = supervisor.describe(&ended);
            assert!(what.starts_with(told), "{what}");
        }
    }
}
