//! The wiring: every part made once, in the order in which each needs the others, and ended in the reverse order.
//!
//! Read [`App::start`] from top to bottom to see what hangs on what, and [`App::drain`] to see that nothing is left.

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
    /// The reader of the event log.
    pub(crate) records: Arc<dyn RecordSink>,
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
    spool: Arc<dyn Spool>,
    /// Dropped to tell the admin socket to end.
    stop_admin: oneshot::Sender<()>,
    supervisor: Supervisor,
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
    parts: &Arc<GatewayParts>,
    supervisor: &mut Supervisor,
) -> Result<oneshot::Sender<()>, StartError> {
    let operator = Arc::new(AdminOperator::new(Arc::clone(parts)));
    let server = pintle_admin::Server::bind(&parts.settings.load().admin, operator).await?;
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
