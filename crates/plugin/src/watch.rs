//! File watch: reloads components whose files change.
//!
//! Folders are watched instead of files: a file replaced by a rename is a different file, and one that does not exist
//! yet cannot be watched. The details of an event are ignored; after one, the files of that folder are read, and those
//! whose content differs from the serving component are reloaded. A file read while it is half written fails to load;
//! the previous version continues to serve, and the next write causes another event.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::RecursiveMode;
use notify::event::EventKind;
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::generation::ComponentLoader;
use crate::revive::revived;
use crate::{ComponentSource, Plugin};

/// The watch over all component files.
pub(crate) struct FileWatch {
    debouncer: Mutex<Debouncer<notify::RecommendedWatcher, RecommendedCache>>,
    folders: Mutex<HashSet<PathBuf>>,
    followed: Arc<WatchedPlugins>,
}

#[derive(Default)]
struct WatchedPlugins {
    plugins: Mutex<Vec<Arc<Plugin>>>,
    changed: Notify,
}

impl FileWatch {
    /// Starts the watch and a task that reloads changed files. If the system cannot watch files, a warning is logged
    /// and nothing is watched.
    pub(crate) fn start(
        tasks: &mut JoinSet<()>,
        loader: Arc<ComponentLoader>,
        settle: Duration,
        closed: watch::Receiver<bool>,
    ) -> Option<Self> {
        let followed = Arc::new(WatchedPlugins::default());
        let told = Arc::clone(&followed);
        let debouncer = new_debouncer(settle, None, move |events: DebounceEventResult| {
            if matters(&events) {
                told.changed.notify_one();
            }
        });
        let debouncer = match debouncer {
            Ok(debouncer) => debouncer,
            Err(error) => {
                tracing::error!(target: "pintle::plugin", %error, "component files cannot be watched: after a change, run `pintle plugins reload`");
                return None;
            }
        };
        let watched = Arc::clone(&followed);
        tasks.spawn(revived("watch", move || {
            load_changed(Arc::clone(&watched), Arc::clone(&loader), closed.clone())
        }));
        Some(Self { debouncer: Mutex::new(debouncer), folders: Mutex::default(), followed })
    }

    /// Watches exactly the folders of these plugins.
    pub(crate) fn follow(&self, plugins: &[Arc<Plugin>]) {
        let wanted: HashSet<_> = plugins.iter().filter_map(|plugin| folder_of(plugin)).collect();
        let mut folders = self.folders.lock();
        let mut debouncer = self.debouncer.lock();
        for gone in folders.difference(&wanted) {
            let _ = debouncer.unwatch(gone);
        }
        for new in wanted.difference(&folders) {
            if let Err(error) = debouncer.watch(new, RecursiveMode::NonRecursive) {
                tracing::error!(target: "pintle::plugin", folder = %new.display(), %error, "cannot watch the folder for changed components");
            }
        }
        *folders = wanted;
        *self.followed.plugins.lock() = plugins.to_vec();
    }
}

/// Ignores access events, which our own reads cause.
fn matters(events: &DebounceEventResult) -> bool {
    events
        .as_ref()
        .map_or(true, |events| events.iter().any(|event| !matches!(event.kind, EventKind::Access(_))))
}

fn folder_of(plugin: &Plugin) -> Option<PathBuf> {
    match &plugin.config().component {
        ComponentSource::Bytes { .. } => None,
        ComponentSource::File(path) => match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => Some(folder.to_owned()),
            _ => Some(Path::new(".").to_owned()),
        },
    }
}

async fn load_changed(
    followed: Arc<WatchedPlugins>,
    loader: Arc<ComponentLoader>,
    mut closed: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            _ = closed.changed() => return,
            () = followed.changed.notified() => {}
        }
        let plugins = followed.plugins.lock().clone();
        for plugin in plugins {
            tokio::select! {
                _ = closed.changed() => return,
                () = plugin.reload_if_changed(&loader) => {}
            }
        }
    }
}
