//! The gateway's side of the admin socket: implements each command and the health report.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use pintle_admin::{
    Affected, CapturedPage, Component, HealthReport, MessageOctets, Operator, OperatorRefusal, PageQuery,
    PluginCounts, PluginState, QuarantineAction, QuarantineOrder, QuarantinePage, QuarantineQuery,
    QuarantineResult, Quarantined, Query, QueueAction, QueueEntry, QueueFilter, QueuePage, Reloaded, Reroute,
    Version,
};
use pintle_mail::{QueueId, UnixTime};
use pintle_plugin::ReloadError;

use crate::parts::GatewayParts;
use crate::{capture, quarantine, queue, reload};

type Answer<'a, T> = pintle_admin::OperatorFuture<'a, T>;

/// The name of the health report's component for supervised tasks and threads.
const TASKS: &str = "tasks";

/// Implements the admin commands on the parts of the running gateway.
pub(crate) struct AdminOperator {
    parts: Arc<GatewayParts>,
    started: UnixTime,
}

impl AdminOperator {
    pub(crate) fn new(parts: Arc<GatewayParts>) -> Self {
        Self { parts, started: SystemTime::now().into() }
    }
}

/// Runs a command that changes something in a task of its own, so that it completes even if the client disconnects or
/// the request times out. Otherwise the spool could have a change that the queue does not know of, or a reload could
/// end without its outcome being logged.
fn spawn_command<T: Send + 'static>(
    act: impl Future<Output = Result<T, OperatorRefusal>> + Send + 'static,
) -> Answer<'static, T> {
    let act = tokio::spawn(act);
    Box::pin(async {
        act.await.unwrap_or_else(|error| Err(OperatorRefusal::Failed(format!("internal error: {error}"))))
    })
}

fn plugin_states(parts: &GatewayParts) -> Vec<PluginState> {
    parts.plugins.status().into_iter().map(plugin_state).collect()
}

impl Operator for AdminOperator {
    fn version(&self) -> Version {
        Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_ms: self.started,
            hostname: self.parts.settings.load().hostname.clone(),
        }
    }

    fn health(&self) -> BoxFuture<'_, HealthReport> {
        Box::pin(async {
            let spool = self.parts.spool.health().accepting().err().map(|error| error.to_string());
            let spool = Component { name: "spool".to_owned(), ok: spool.is_none(), detail: spool };
            let mut components = vec![spool];
            components.extend(self.parts.plugins.status().into_iter().map(|plugin| Component {
                name: format!("plugin {}", plugin.name),
                ok: plugin.generation > 0,
                detail: plugin.last_error,
            }));
            let (ok, detail) = self.parts.reloaded.health();
            components.push(Component { name: "configuration".to_owned(), ok, detail });
            components.push(tasks(self.parts.fallen.get()));
            components.push(clock(self.parts.outbound.clock_step().as_ref()));
            components.push(dns(self.parts.resolver.ailment()));
            let vital = |component: &Component| component.name == "spool" || component.name == TASKS;
            let ready = components.iter().all(|component| component.ok || !vital(component));
            HealthReport { ready, degraded: components.iter().any(|component| !component.ok), components }
        })
    }

    fn metrics(&self) -> String {
        self.parts.metrics.render()
    }

    fn queue(&self, query: Query) -> Answer<'_, QueuePage> {
        Box::pin(async move { queue::list(&self.parts, &query).await })
    }

    fn message(&self, id: QueueId) -> Answer<'_, QueueEntry> {
        Box::pin(queue::show(&self.parts, id))
    }

    fn act(&self, action: QueueAction, filter: QueueFilter) -> Answer<'_, Affected> {
        let parts = Arc::clone(&self.parts);
        spawn_command(async move { queue::act(&parts, action, &filter).await })
    }

    fn reroute(&self, order: Reroute) -> Answer<'_, Affected> {
        let parts = Arc::clone(&self.parts);
        spawn_command(async move { queue::reroute(&parts, &order).await })
    }

    fn quarantine(&self, query: QuarantineQuery) -> Answer<'_, QuarantinePage> {
        Box::pin(quarantine::list(&self.parts, query))
    }

    fn quarantined(&self, id: QueueId) -> Answer<'_, Quarantined> {
        Box::pin(quarantine::show(&self.parts, id))
    }

    fn quarantined_message(&self, id: QueueId) -> Answer<'_, MessageOctets> {
        Box::pin(quarantine::whole(&self.parts, id))
    }

    fn leave(&self, exit: QuarantineAction, which: QuarantineOrder) -> Answer<'_, QuarantineResult> {
        let parts = Arc::clone(&self.parts);
        spawn_command(async move { quarantine::leave(&parts, exit, which).await })
    }

    fn plugins(&self) -> Answer<'_, Vec<PluginState>> {
        Box::pin(async { Ok(plugin_states(&self.parts)) })
    }

    fn reload_plugins(&self, name: Option<String>) -> Answer<'_, Vec<PluginState>> {
        let parts = Arc::clone(&self.parts);
        spawn_command(async move {
            let all = || parts.plugins.status().into_iter().map(|status| status.name).collect();
            let mut failed = Vec::new();
            for name in name.map_or_else(all, |name| vec![name]) {
                match parts.plugins.reload(&name).await {
                    Ok(_) => {}
                    Err(error @ ReloadError::NoSuchPlugin(_)) => {
                        return Err(OperatorRefusal::NotFound(error.to_string()));
                    }
                    // A plugin that fails does not stop the others from being reloaded.
                    Err(error) => failed.push(format!("plugin {name}: {error}")),
                }
            }
            if failed.is_empty() {
                Ok(plugin_states(&parts))
            } else {
                Err(OperatorRefusal::Failed(failed.join("\n")))
            }
        })
    }

    fn reload(&self) -> Answer<'_, Reloaded> {
        let parts = Arc::clone(&self.parts);
        spawn_command(async move {
            reload::reload(&parts).await.map_err(|error| OperatorRefusal::Failed(error.to_string()))
        })
    }

    fn captured(&self, page: PageQuery) -> Answer<'_, CapturedPage> {
        Box::pin(async move {
            let folder: PathBuf = capture::messages_beside(&self.parts.settings.load().spool.folder);
            let all = capture::list(&folder).map_err(|error| OperatorRefusal::Failed(error.to_string()))?;
            let later = all.into_iter().filter(|entry| page.after.is_none_or(|after| entry.id > after));
            let mut messages: Vec<_> = later.take(page.limit + 1).collect();
            let more = messages.len() > page.limit;
            messages.truncate(page.limit);
            let next = if more { messages.last().map(|entry| entry.id) } else { None };
            Ok(CapturedPage { messages, next })
        })
    }
}

/// The health of the supervised tasks and threads. If one has died, the gateway is not ready.
fn tasks(fallen: Option<&String>) -> Component {
    Component { name: TASKS.to_owned(), ok: fallen.is_none(), detail: fallen.cloned() }
}

/// The health of the clock. A clock step does no harm to mail, so the gateway stays ready, but the operator should
/// check the time service.
fn clock(step: Option<&pintle_outbound::ClockStep>) -> Component {
    let detail = |step: &pintle_outbound::ClockStep| {
        let direction = if step.is_ahead() { "ahead" } else { "back" };
        let by = Duration::from_secs(step.size().as_secs());
        format!("the clock was set {direction} by {by:?}: nothing expires for now; check the time service")
    };
    Component { name: "clock".to_owned(), ok: step.is_none(), detail: step.map(detail) }
}

/// The health of the name servers. Without DNS, mail is still accepted and relayed, and checks that need DNS report it:
/// the gateway stays ready, but is degraded.
fn dns(ailment: Option<String>) -> Component {
    Component { name: "dns".to_owned(), ok: ailment.is_none(), detail: ailment }
}

fn plugin_state(status: pintle_plugin::PluginStatus) -> PluginState {
    PluginState {
        name: status.name,
        version: status.manifest.map(|manifest| manifest.version),
        component: status.component,
        digest: status.digest,
        generation: (status.generation > 0).then_some(status.generation),
        hooks: status.hooks.iter().map(|hook| hook.name().to_owned()).collect(),
        last_error: status.last_error,
        counts: PluginCounts {
            calls: status.calls,
            faults: status.faults,
            instances: (status.idle + status.busy) as u64,
            max_instances: status.max_instances as u64,
            waiting: status.waiting as u64,
            crowded_out: status.crowded_out,
        },
    }
}
