//! State that outlives a call: what the host gives all plugins alike, and what one generation writes.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use pintle_dns::Resolver;

use crate::habits::Habits;
use crate::log_quota::LogQuota;
use crate::plugin_metrics::PluginMetrics;
use crate::{Gateway, kv};

/// What the host gives all plugins alike. No plugin can change any of it.
pub(crate) struct HostServices {
    pub(crate) dns: Arc<dyn Resolver>,
    /// What plugins may know of the gateway.
    pub(crate) gateway: ArcSwap<Gateway>,
    /// The largest message that a plugin may make, in octets.
    pub(crate) max_message: u64,
}

/// All that a generation of a plugin, by what its guests do, can write and a later call can read.
///
/// A generation is loaded with one and reaches nothing else of its plugin. The generations that serve a plugin one after
/// the other are handed the same, so that stored values survive a reload. A generation that runs beside the serving one, and
/// must not be noticed, needs one of its own.
///
/// What belongs to the plugin, whichever generation serves, is in [`Plugin`](crate::Plugin), out of a generation's reach: the
/// configuration, the counts of calls and faults with their metrics, and the last error.
pub(crate) struct GenerationState {
    /// The plugin's name in the configuration: its notes, facts, log lines and metrics bear it.
    pub(crate) plugin: Arc<str>,
    pub(crate) kv: kv::KvStore,
    pub(crate) metrics: PluginMetrics,
    /// What its calls ask the host for.
    pub(crate) habits: Habits,
    /// How many log lines it may still write.
    pub(crate) log_quota: LogQuota,
}

impl GenerationState {
    /// New state with these stored values.
    pub(crate) fn new(plugin: &str, kv: kv::KvStore) -> Self {
        Self {
            plugin: plugin.into(),
            kv,
            metrics: PluginMetrics::new(plugin),
            habits: Habits::default(),
            log_quota: LogQuota::new(Instant::now()),
        }
    }
}
