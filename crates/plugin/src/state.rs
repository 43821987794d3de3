//! State that outlives a call: shared host services, and the data that the generations of one plugin write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use pintle_dns::Resolver;

use crate::habits::Habits;
use crate::lease_counts::LeaseCounts;
use crate::log_quota::LogQuota;
use crate::plugin_metrics::PluginMetrics;
use crate::{Gateway, kv};

/// Host services shared by all plugins. Plugins cannot change them.
pub(crate) struct HostServices {
    pub(crate) dns: Arc<dyn Resolver>,
    /// Information about the gateway that plugins can read.
    pub(crate) gateway: ArcSwap<Gateway>,
    /// Incremented whenever `gateway` is replaced.
    pub(crate) gateway_generation: AtomicU32,
    /// Limit on the size of a message that a plugin creates, in octets.
    pub(crate) max_message: u64,
}

impl HostServices {
    /// Replaces the information about the gateway.
    pub(crate) fn set_gateway(&self, gateway: Gateway) {
        self.gateway.store(Arc::new(gateway));
        self.gateway_generation.fetch_add(1, Ordering::Release);
    }
}

/// All data that a call of a plugin can write and a later call can read.
///
/// Each generation is loaded with one such state and accesses no other data of its plugin. Successive serving
/// generations share the same state, so that stored values survive a reload. A generation that runs beside the serving
/// one and must have no side effects needs a state of its own.
///
/// Data of the plugin that is independent of the generation is in [`Plugin`](crate::Plugin), which generations cannot
/// access: the configuration, the counters of calls and faults with their metrics, and the last error.
pub(crate) struct GenerationState {
    /// The plugin's name in the configuration, used for its notes, facts, log lines and metrics.
    pub(crate) plugin: Arc<str>,
    pub(crate) kv: kv::KvStore,
    /// What is counted now under its keys.
    pub(crate) leases: Arc<LeaseCounts>,
    pub(crate) metrics: PluginMetrics,
    /// The lookups that its calls usually request.
    pub(crate) habits: Habits,
    /// Rate limit for its log lines.
    pub(crate) log_quota: LogQuota,
}

impl GenerationState {
    /// Creates a new state with these stored values.
    pub(crate) fn new(plugin: &str, kv: kv::KvStore) -> Self {
        Self {
            plugin: plugin.into(),
            kv,
            leases: Arc::default(),
            metrics: PluginMetrics::new(plugin),
            habits: Habits::default(),
            log_quota: LogQuota::new(Instant::now()),
        }
    }
}
