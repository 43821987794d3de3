//! The parts of a running gateway that a reload replaces and that the admin socket reads.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use metrics_exporter_prometheus::PrometheusHandle;
use pintle_config::Settings;
use pintle_dns::WatchedResolver;
use pintle_plugin::Plugins;
use pintle_policy::Chain;
use pintle_spool::Spool;
use pintle_tls::ServerTls;
use tokio::sync::watch;

use crate::last_reload::LastReload;
use crate::supervisor::Fallen;

/// The parts that a reload replaces and that the admin socket reads.
pub(crate) struct GatewayParts {
    /// The path of the configuration file, read again at each reload.
    pub(crate) config: PathBuf,
    /// The settings at startup. Parts that cannot reload still use them.
    pub(crate) at_start: Settings,
    /// The settings in force.
    pub(crate) settings: ArcSwap<Settings>,
    /// The outcome of the last reload.
    pub(crate) reloaded: LastReload,
    /// Held during a reload, so that reloads run one at a time.
    pub(crate) reloading: tokio::sync::Mutex<()>,
    /// True once shutdown has begun; a reload in progress is then cancelled.
    pub(crate) stopping: watch::Sender<bool>,
    pub(crate) plugins: Plugins,
    pub(crate) chain: Arc<ArcSwap<Chain>>,
    pub(crate) server_tls: Option<Arc<ServerTls>>,
    pub(crate) rules: pintle_inbound::RulesHandle,
    pub(crate) outbound: pintle_outbound::Handle,
    pub(crate) spool: Arc<dyn Spool>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) resolver: Arc<WatchedResolver>,
    pub(crate) fallen: Fallen,
}
