//! The composition root: constructs every part once, in the order of their dependencies, and shuts them down in order.
//!
//! Read [`App::start`] from top to bottom for the dependencies, and [`App::drain`] for the shutdown.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics_exporter_prometheus::PrometheusHandle;
use pintle_config::Settings;
use pintle_dns::{Resolver, WatchedResolver};
use pintle_inbound::{Inbound, Sockets};
use pintle_outbound::{Capture, Clock, Outbound};
use pintle_plugin::Plugins;
use pintle_policy::Chain;
use pintle_record::RecordSink;
use pintle_spool::Spool;
use pintle_tls::{ClientTls, ServerTls};
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::last_reload::LastReload;
use crate::operator::AdminOperator;
use crate::parts::GatewayParts;
use crate::quarantine_space::QuarantineSpace;
use crate::supervisor::Supervisor;
use crate::{open_files, records};

/// The interval of the metrics upkeep, which merges the values of histograms. Until then each value takes memory, even
/// if the metrics are never read.
const UPKEEP: Duration = Duration::from_secs(5);
/// The names of supervised tasks, for the log and the health report.
const ADMIN_NAME: &str = "admin socket";
const UPKEEP_NAME: &str = "metrics upkeep";
const DNS_NAME: &str = "name server monitor";
/// How long sessions and delivery attempts may take to finish after shutdown has begun.
const GRACE: Duration = Duration::from_secs(30);

/// What differs between `pintle run`, the sandbox and tests.
pub(crate) struct Extras {
    /// The path of the configuration file, read again on a reload.
    pub(crate) config: PathBuf,
    /// The reader of the event log.
    pub(crate) records: Arc<dyn RecordSink>,
    /// The listeners' sockets, if they were bound earlier, as root. None: they are bound at startup.
    pub(crate) sockets: Option<Sockets>,
    /// Receives messages instead of next hops. None: messages are delivered.
    pub(crate) capture: Option<Arc<dyn Capture>>,
    /// The clock for retries and expiry.
    pub(crate) clock: Arc<dyn Clock>,
}

/// The running gateway.
pub(crate) struct App {
    pub(crate) inbound: Inbound,
    pub(crate) parts: Arc<GatewayParts>,
    outbound: Outbound,
    spool: Arc<dyn Spool>,
    /// Dropped to stop the admin socket.
    stop_admin: oneshot::Sender<()>,
    supervisor: Supervisor,
}

/// Why a part could not be started. The text names the part, the cause and the remedy.
pub(crate) type StartError = Box<dyn std::error::Error>;

impl App {
    /// Starts all parts. The gateway accepts and delivers mail when this returns.
    ///
    /// # Errors
    /// The first part that could not be started. Parts that were started before it have been stopped.
    pub(crate) async fn start(settings: Settings, extras: Extras) -> Result<Self, StartError> {
        let mut supervisor = Supervisor::start();
        let records = records::readers(extras.records);
        let mut inbound = settings.inbound.clone();
        open_files::allow(&mut inbound.listeners, &settings.spool.drafts);
        let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder()?;
        let resolver = Arc::new(WatchedResolver::new(&settings.dns)?);
        let asked = Arc::clone(&resolver) as Arc<dyn Resolver>;
        let plugins = Plugins::open(settings.plugins.clone(), Arc::clone(&asked)).await?;
        let chain = Arc::new(ArcSwap::from_pointee(Chain::new(plugins.judges())));
        let server_tls = settings.server_tls.as_ref().map(ServerTls::load).transpose()?.map(Arc::new);
        let spool = pintle_spool::open(&settings.spool)?;
        let outbound = Outbound::start(
            settings.outbound.clone(),
            pintle_outbound::OutboundParts {
                chain: Arc::clone(&chain),
                records: Arc::clone(&records),
                capture: extras.capture,
                clock: extras.clock,
                ..pintle_outbound::OutboundParts::new(
                    Arc::clone(&spool),
                    asked,
                    ClientTls::load(&settings.client_tls)?,
                )
            },
        );
        let inbound = Inbound::start(
            inbound,
            pintle_inbound::InboundParts {
                sockets: extras.sockets,
                spool: outbound.spool(),
                chain: Arc::clone(&chain),
                records,
                quarantines: Arc::new(QuarantineSpace(outbound.handle())),
                tls: server_tls.clone(),
            },
        )?;
        let parts = Arc::new(GatewayParts {
            plugins,
            chain,
            server_tls,
            rules: inbound.reload(),
            outbound: outbound.handle(),
            spool: Arc::clone(&spool),
            metrics,
            resolver: Arc::clone(&resolver),
            fallen: supervisor.fallen(),
            config: extras.config,
            at_start: settings.clone(),
            reloaded: LastReload::default(),
            reloading: tokio::sync::Mutex::default(),
            stopping: watch::Sender::new(false),
            settings: ArcSwap::from_pointee(settings),
        });
        let stop_admin = serve_admin(&parts, &mut supervisor).await?;
        supervisor.spawn(UPKEEP_NAME, upkeep(parts.metrics.clone()));
        supervisor.spawn(DNS_NAME, resolver.watch());
        Ok(Self { inbound, parts, outbound, spool, stop_admin, supervisor })
    }

    /// Waits until a part has died that the gateway cannot run without.
    pub(crate) async fn fallen(&mut self) {
        self.supervisor.watch(&mut self.inbound, &mut self.outbound).await;
    }

    /// Stops all parts in the order in which mail flows, so that no message is accepted that could not be stored.
    pub(crate) async fn drain(mut self) {
        tracing::info!("draining");
        self.parts.stopping.send_replace(true);
        self.inbound.drain(GRACE).await;
        self.outbound.drain(GRACE).await;
        self.parts.plugins.shutdown().await;
        drop(self.stop_admin);
        self.supervisor.wait_for(ADMIN_NAME).await;
        self.supervisor.stop().await;
        if let Err(error) = self.spool.close().await {
            tracing::error!(%error, "cannot close the spool");
        }
        tracing::info!("stopped");
    }
}

async fn serve_admin(
    parts: &Arc<GatewayParts>,
    supervisor: &mut Supervisor,
) -> Result<oneshot::Sender<()>, StartError> {
    let operator = Arc::new(AdminOperator::new(Arc::clone(parts)));
    let server = pintle_admin::Server::bind(&parts.settings.load().admin, operator).await?;
    if let Some(address) = server.http_address() {
        tracing::info!(%address, "health and metrics");
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        // The sender is dropped at shutdown; that is the signal.
        let _ = stopped.await;
    };
    supervisor.spawn(ADMIN_NAME, server.serve(shutdown));
    Ok(stop)
}

async fn upkeep(metrics: PrometheusHandle) {
    let mut tick = tokio::time::interval(UPKEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        metrics.run_upkeep();
    }
}
