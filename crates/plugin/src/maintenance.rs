//! Background tasks: replace lost instances, drop idle ones, call timers, save stored values, watch component files.
//!
//! All tasks are owned here; [`Maintenance::close`] stops and awaits them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pintle_policy::Judge;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::Plugin;
use crate::generation::ComponentLoader;
use crate::kv::saved::Clocks;
use crate::revive::revived;
use crate::watch::FileWatch;

/// Interval at which idle instances and expired values are dropped.
const SWEEP: Duration = Duration::from_secs(30);
/// Interval at which plugins' stored values are saved.
const SAVE: Duration = Duration::from_secs(60);
/// Back-off after an instance could not be created.
const REST: Duration = Duration::from_secs(1);

/// The background tasks of the plugin host.
pub(crate) struct Maintenance {
    closing: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
    /// The stop signal of each plugin's tasks.
    plugins: Mutex<HashMap<Arc<str>, watch::Sender<bool>>>,
    watch: Option<FileWatch>,
}

impl Maintenance {
    /// Starts maintenance, without plugins yet. `settle` is the time that a file must be unchanged; `None` disables
    /// watching.
    pub(crate) fn start(loader: &Arc<ComponentLoader>, settle: Option<Duration>) -> Self {
        let mut tasks = JoinSet::new();
        let (closing, closed) = watch::channel(false);
        let watch =
            settle.and_then(|settle| FileWatch::start(&mut tasks, Arc::clone(loader), settle, closed));
        Self { closing, tasks: Mutex::new(tasks), plugins: Mutex::default(), watch }
    }

    /// Starts tasks for new plugins and stops those of removed ones; does nothing after `close`.
    pub(crate) fn take_over(&self, plugins: &[Arc<Plugin>]) {
        if self.is_closing() {
            return;
        }
        let mut known = self.plugins.lock();
        known.retain(|name, _| plugins.iter().any(|plugin| plugin.name() == name));
        let mut tasks = self.tasks.lock();
        for plugin in plugins {
            if let Entry::Vacant(entry) = known.entry(Arc::clone(plugin.name())) {
                let (stop, stopped) = watch::channel(false);
                let (keeper, timed, told) = (Arc::clone(plugin), Arc::clone(plugin), stopped.clone());
                tasks.spawn(revived("keep", move || maintain_pool(Arc::clone(&keeper), told.clone())));
                tasks.spawn(revived("timer", move || call_timer(Arc::clone(&timed), stopped.clone())));
                entry.insert(stop);
            }
        }
        if let Some(watch) = &self.watch {
            watch.follow(plugins);
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Stops all tasks and waits for them.
    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        self.plugins.lock().clear();
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while tasks.join_next().await.is_some() {}
    }
}

/// Keeps the pool of a plugin at its minimum and drops surplus instances. Ends when the stop signal's sender is
/// dropped.
async fn maintain_pool(plugin: Arc<Plugin>, mut stopped: watch::Receiver<bool>) {
    let (mut sweep, mut save) = (interval(SWEEP), interval(SAVE));
    loop {
        let current = plugin.current();
        let wanting = async {
            match &current {
                Some(generation) => generation.wanting.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stopped.changed() => break,
            () = wanting => {}
            () = plugin.changed.notified() => {}
            _ = sweep.tick() => tidy(&plugin),
            _ = save.tick() => save_state(&plugin).await,
        }
        tokio::select! {
            _ = stopped.changed() => break,
            () = refill(&plugin) => {}
        }
    }
    save_state(&plugin).await;
}

/// Saves a plugin's stored values. A failed save is retried at the next interval.
async fn save_state(plugin: &Arc<Plugin>) {
    let saving = Arc::clone(plugin);
    let saved = tokio::task::spawn_blocking(move || saving.state().kv.save(Clocks::read())).await;
    if let Ok(Err(error)) = saved {
        tracing::error!(
            target: "pintle::plugin",
            plugin = %plugin.name(), %error, "stored values of the plugin cannot be saved"
        );
    }
}

fn tidy(plugin: &Plugin) {
    plugin.state().kv.sweep(Instant::now());
    if let Some(generation) = plugin.current() {
        generation.shrink(Instant::now());
    }
}

async fn refill(plugin: &Plugin) {
    let Some(generation) = plugin.current() else {
        return;
    };
    if let Err(fault) = generation.refill().await {
        tracing::warn!(
            target: "pintle::plugin",
            plugin = %plugin.name(), kind = fault.kind.name(), "cannot create an instance: {}", fault.text
        );
        tokio::time::sleep(REST).await;
    }
}

/// Calls `on-timer` once at the start, for plugins that prepare data before mail arrives, and then at its interval;
/// calls never overlap.
async fn call_timer(plugin: Arc<Plugin>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stopped.changed() => return,
            () = plugin.on_timer() => {}
        }
        // A changed interval takes effect after the next call.
        let rest = plugin.config().timer.max(Duration::from_millis(1));
        tokio::select! {
            _ = stopped.changed() => return,
            () = tokio::time::sleep(rest) => {}
        }
    }
}
