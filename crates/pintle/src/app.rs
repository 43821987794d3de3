//! The wiring: every part made once, in the order in which each needs the others, and ended in the reverse order.
//!
//! Read [`App::start`] from top to bottom to see what hangs on what, and [`App::drain`] to see that nothing is left.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics_exporter_prometheus::PrometheusHandle;
use pintle_config::Settings;
use pintle_dns::{Resolver, Watched};
use pintle_inbound::{Inbound, Sockets};
use pintle_outbound::{Capture, Clock, Outbound};
use pintle_plugin::Plugins;
use pintle_policy::Chain;
use pintle_record::Sink;
use pintle_spool::{Embedded, Spool};
use pintle_tls::{ClientTls, ServerTls};
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::open_files;
use crate::operator::AdminOperator;
use crate::quarantine_space::QuarantineSpace;
use crate::reload::LastReload;
use crate::supervisor::{Fallen, Supervisor};

/// How often what was measured is put in order: until then each value of a histogram lies in memory, whether or not
/// anybody ever asks for metrics.
const UPKEEP: Duration = Duration::from_secs(5);
/// What the tasks are called where they die.
const ADMIN_NAME: &str = "admin socket";
const UPKEEP_NAME: &str = "upkeep of metrics";
const DNS_NAME: &str = "watch over name servers";
/// How long sessions and attempts may take to finish once the end has begun.
const GRACE: Duration = Duration::from_secs(30);

/// What is different in a sandbox and in tests.
pub(crate) struct Extras {
    /// The file that the settings came from, to be read again on a reload.
    pub(crate) config: PathBuf,
    /// Who keeps the event log.
    pub(crate) records: Arc<dyn Sink>,
    /// The listeners' sockets, where they had to be bound before.
    pub(crate) sockets: Option<Sockets>,
    /// Who gets messages in place of next hops.
    pub(crate) capture: Option<Arc<dyn Capture>>,
    /// Who has the clocks that messages grow old by.
    pub(crate) clock: Arc<dyn Clock>,
}

/// The running gateway.
pub(crate) struct App {
    pub(crate) inbound: Inbound,
    pub(crate) parts: Arc<GatewayParts>,
    outbound: Outbound,
    spool: Arc<Embedded>,
    /// Dropped to tell the admin socket to end.
    stop_admin: oneshot::Sender<()>,
    supervisor: Supervisor,
}

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
    pub(crate) rules: pintle_inbound::Reload,
    pub(crate) outbound: pintle_outbound::Handle,
    pub(crate) spool: Arc<dyn Spool>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) resolver: Arc<Watched>,
    pub(crate) fallen: Fallen,
}

/// A part that could not be started; it says itself which, why, and what to do.
pub(crate) type StartError = Box<dyn std::error::Error>;

impl App {
    /// Starts everything. Mail flows when this returns.
    ///
    /// # Errors
    /// The first part that could not be started; those before it have ended.
    pub(crate) async fn start(settings: Settings, extras: Extras) -> Result<Self, StartError> {
        let mut supervisor = Supervisor::start();
        let mut inbound = settings.inbound.clone();
        open_files::allow(&mut inbound.listeners, &settings.spool.drafts);
        let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder()?;
        let resolver = Arc::new(Watched::new(&settings.dns)?);
        let asked = Arc::clone(&resolver) as Arc<dyn Resolver>;
        let plugins = Plugins::open(settings.plugins.clone(), Arc::clone(&asked)).await?;
        let chain = Arc::new(ArcSwap::from_pointee(Chain::new(plugins.judges())));
        let server_tls = settings.server_tls.as_ref().map(ServerTls::load).transpose()?.map(Arc::new);
        let spool = Arc::new(Embedded::open(&settings.spool)?);
        let outbound = Outbound::start(
            settings.outbound.clone(),
            pintle_outbound::OutboundParts {
                chain: Arc::clone(&chain),
                records: Arc::clone(&extras.records),
                capture: extras.capture,
                clock: extras.clock,
                ..pintle_outbound::OutboundParts::new(
                    Arc::clone(&spool) as Arc<dyn Spool>,
                    asked,
                    ClientTls::load(&settings.client_tls)?,
                )
            },
        );
        let inbound = Inbound::start(
            inbound,
            pintle_inbound::Parts {
                sockets: extras.sockets,
                spool: outbound.spool(),
                chain: Arc::clone(&chain),
                records: extras.records,
                quarantines: Arc::new(QuarantineSpace(outbound.handle())),
                tls: server_tls.clone(),
            },
        )?;
        let live = Arc::new(GatewayParts {
            plugins,
            chain,
            server_tls,
            rules: inbound.reload(),
            outbound: outbound.handle(),
            spool: Arc::clone(&spool) as Arc<dyn Spool>,
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
        let stop_admin = serve_admin(&live, &mut supervisor).await?;
        supervisor.spawn(UPKEEP_NAME, upkeep(live.metrics.clone()));
        supervisor.spawn(DNS_NAME, resolver.watch());
        Ok(Self { inbound, parts: live, outbound, spool, stop_admin, supervisor })
    }

    /// Ends when a part has died without which the gateway must not go on.
    pub(crate) async fn fallen(&mut self) {
        self.supervisor.watch(&mut self.inbound, &mut self.outbound).await;
    }

    /// Ends everything in the order in which mail flows, so that nothing is taken that could not be kept.
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
            tracing::error!(%error, "the spool did not close well");
        }
        tracing::info!("stopped");
    }
}

async fn serve_admin(
    live: &Arc<GatewayParts>,
    supervisor: &mut Supervisor,
) -> Result<oneshot::Sender<()>, StartError> {
    let operator = Arc::new(AdminOperator::new(Arc::clone(live)));
    let server = pintle_admin::Server::bind(&live.settings.load().admin, operator).await?;
    if let Some(address) = server.http_address() {
        tracing::info!(%address, "health and metrics");
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let until_told = async {
        // The sender is dropped when the gateway ends, and that is the sign.
        let _ = stopped.await;
    };
    supervisor.spawn(ADMIN_NAME, server.serve(until_told));
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
