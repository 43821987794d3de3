//! The parts of a running gateway that a reload changes and that the operator asks.

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

/// The parts that a reload touches and the operator asks.
pub(crate) struct GatewayParts {
    pub(crate) config: PathBuf,
    /// What the parts that cannot reload were made from.
    pub(crate) at_start: Settings,
    /// What is in force.
    pub(crate) settings: ArcSwap<Settings>,
    /// What came of the last reload.
    pub(crate) reloaded: LastReload,
    pub(crate) reloading: tokio::sync::Mutex<()>,
    /// True once the end has begun, and no reload is to come to anything.
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
