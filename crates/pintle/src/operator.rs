//! What the operator can ask of the running gateway, over the admin socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use pintle_admin::{
    Affected, CapturedPage, Component, Disposition, Exit, Filter, Health, Leave, Left, Operator, Page,
    PluginCounts, PluginState, QuarantinePage, Quarantined, Query, QueueAction, QueueEntry, QueuePage,
    QueueRecipient, Refusal, Reloaded, SiftPage, Spared, Version, Whole,
};
use pintle_mail::{Address, NextHop, QueueId, UnixTime};
use pintle_outbound::{Act, Acts, OperateError, Outcome, Select};
use pintle_plugin::ReloadError;
use pintle_spool::{Hold, SpoolError, Status, Summary};

use crate::app::Live;
use crate::{quarantine, reload, sandbox};

type Answer<'a, T> = pintle_admin::Answer<'a, T>;

/// How many messages are looked at at once.
const PAGE: usize = 500;
/// The octets at which a list ends, well below what the command line takes for an answer.
const MAX_LIST: usize = 8 << 20;

/// The part of the health report that tells of tasks and threads.
const TASKS: &str = "tasks";

/// The gateway as its operator sees it.
pub(crate) struct Gateway {
    live: Arc<Live>,
    started: UnixTime,
}

impl Gateway {
    pub(crate) fn new(live: Arc<Live>) -> Self {
        Self { live, started: SystemTime::now().into() }
    }

    /// The messages that pass the filter, at most `limit` of them, and where to go on. A list ends early where it would
    /// grow too large: recipients and next hops' words are strangers' choice.
    async fn matching(&self, filter: &Filter, page: &Page) -> Result<QueuePage, Refusal> {
        let limit = page.limit.clamp(1, pintle_admin::wire::MAX_LIMIT);
        let mut found = QueuePage { messages: Vec::new(), next: None };
        let (mut after, mut size) = (page.after, 0);
        loop {
            let spool = pintle_spool::Filter {
                sender: filter.sender.clone(),
                held: filter.held,
                ..Default::default()
            };
            let part = pintle_spool::Page { after, limit: PAGE };
            let listing = self.live.outbound.list(spool, part).await.map_err(refusal)?;
            for summary in &listing.messages {
                let entry = self.entry(summary);
                if filter.admits(&entry) {
                    size += octets(&entry);
                    found.messages.push(entry);
                }
                if found.messages.len() == limit || size > MAX_LIST {
                    found.next = Some(summary.id);
                    return Ok(found);
                }
            }
            match listing.next {
                Some(next) => after = Some(next),
                None => return Ok(found),
            }
        }
    }

    async fn all(&self, filter: &Filter) -> Result<Vec<QueueId>, Refusal> {
        if !filter.ids.is_empty() && *filter == (Filter { ids: filter.ids.clone(), ..Filter::default() }) {
            return Ok(filter.ids.clone());
        }
        let (mut ids, mut page) = (Vec::new(), Page { after: None, limit: pintle_admin::wire::MAX_LIMIT });
        loop {
            let found = self.matching(filter, &page).await?;
            ids.extend(found.messages.iter().map(|entry| entry.id));
            match found.next {
                Some(next) => page.after = Some(next),
                None => return Ok(ids),
            }
        }
    }

    fn entry(&self, summary: &Summary) -> QueueEntry {
        let settings = self.live.settings.load();
        let recipient = |(address, status): &(Address, Status)| {
            let next_hop = settings.outbound.routes.next_hop(&address.domain_ascii());
            recipient(address, status, &next_hop, &self.live.outbound)
        };
        QueueEntry {
            id: summary.id,
            received_ms: summary.received,
            expires_ms: Some(match &summary.hold {
                Some(Hold::Quarantine(quarantine)) => self.live.outbound.kept_until(quarantine),
                Some(Hold::Operator(_) | Hold::Other(_)) | None => {
                    self.live.outbound.expires(summary.age_from())
                }
            }),
            size: summary.size,
            sender: summary.sender.clone(),
            hold: summary.hold.as_ref().map(ToString::to_string),
            parent: None,
            recipients: summary.recipients.iter().map(recipient).collect(),
        }
    }

    fn plugin_states(&self) -> Vec<PluginState> {
        self.live.plugins.status().into_iter().map(plugin_state).collect()
    }
}

impl Operator for Gateway {
    fn version(&self) -> Version {
        Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_ms: self.started,
            hostname: self.live.settings.load().hostname.clone(),
        }
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(async {
            let spool = match self.live.spool.health() {
                pintle_spool::Health::Accepting => None,
                pintle_spool::Health::Full => Some(SpoolError::Full.to_string()),
                pintle_spool::Health::Broken(why) => Some(SpoolError::Broken(why).to_string()),
            };
            let mut components =
                vec![Component { name: "spool".to_owned(), ok: spool.is_none(), detail: spool }];
            components.extend(self.live.plugins.status().into_iter().map(|plugin| Component {
                name: format!("plugin {}", plugin.name),
                ok: plugin.generation > 0,
                detail: plugin.last_error,
            }));
            components.push(tasks(self.live.fallen.get()));
            components.push(clock(self.live.outbound.clock_step().as_ref()));
            components.push(dns(self.live.resolver.ailment()));
            let vital = |component: &Component| component.name == "spool" || component.name == TASKS;
            let ready = components.iter().all(|component| component.ok || !vital(component));
            let degraded = components.iter().any(|component| !component.ok);
            Health { ready, degraded, components }
        })
    }

    fn metrics(&self) -> String {
        self.live.metrics.render()
    }

    fn queue(&self, query: Query) -> Answer<'_, QueuePage> {
        Box::pin(async move { self.matching(&query.filter, &query.page).await })
    }

    fn message(&self, id: QueueId) -> Answer<'_, QueueEntry> {
        Box::pin(async move {
            let stored = self.live.outbound.show(id).await.map_err(refusal)?;
            let size = stored.head.len() as u64 + stored.body.size();
            let mut entry = self.entry(&Summary::new(id, &stored.entry, size, &stored.recipients));
            entry.parent = stored.entry.parent;
            Ok(entry)
        })
    }

    fn act(&self, action: QueueAction, filter: Filter) -> Answer<'_, Affected> {
        Box::pin(async move {
            let ids = self.all(&filter).await?;
            let (which, outbound) = (Select::Ids(ids.clone()), &self.live.outbound);
            let acts = match action {
                QueueAction::Retry => {
                    outbound.retry(which).await.map_err(refusal)?;
                    return Ok(Affected { ids, spared: Vec::new() });
                }
                QueueAction::Hold => outbound.hold(which, "by the operator").await,
                QueueAction::Release => outbound.release(which, None).await,
                QueueAction::Bounce => outbound.bounce(which, "The operator has given this message up").await,
            };
            Ok(affected(acts.map_err(refusal)?))
        })
    }

    fn quarantine(&self, query: SiftPage) -> Answer<'_, QuarantinePage> {
        Box::pin(quarantine::list(&self.live, query))
    }

    fn quarantined(&self, id: QueueId) -> Answer<'_, Quarantined> {
        Box::pin(quarantine::show(&self.live, id))
    }

    fn quarantined_message(&self, id: QueueId) -> Answer<'_, Whole> {
        Box::pin(quarantine::whole(&self.live, id))
    }

    fn leave(&self, exit: Exit, which: Leave) -> Answer<'_, Left> {
        Box::pin(quarantine::leave(&self.live, exit, which))
    }

    fn plugins(&self) -> Answer<'_, Vec<PluginState>> {
        Box::pin(async { Ok(self.plugin_states()) })
    }

    fn reload_plugins(&self, name: Option<String>) -> Answer<'_, Vec<PluginState>> {
        Box::pin(async move {
            let all = || self.live.plugins.status().into_iter().map(|status| status.name).collect();
            for name in name.map_or_else(all, |name| vec![name]) {
                match self.live.plugins.reload(&name).await {
                    Ok(_) => {}
                    Err(error @ ReloadError::NoSuchPlugin(_)) => {
                        return Err(Refusal::NotFound(error.to_string()));
                    }
                    Err(error) => return Err(Refusal::Failed(format!("plugin {name}: {error}"))),
                }
            }
            Ok(self.plugin_states())
        })
    }

    fn reload(&self) -> Answer<'_, Reloaded> {
        Box::pin(async {
            reload::reload(&self.live).await.map_err(|error| Refusal::Failed(error.to_string()))
        })
    }

    fn captured(&self, page: Page) -> Answer<'_, CapturedPage> {
        Box::pin(async move {
            let folder: PathBuf = sandbox::messages_beside(&self.live.settings.load().spool.folder);
            let all = sandbox::capture::list(&folder).map_err(|error| Refusal::Failed(error.to_string()))?;
            let later = all.into_iter().filter(|entry| page.after.is_none_or(|after| entry.id > after));
            let mut messages: Vec<_> = later.take(page.limit + 1).collect();
            let more = messages.len() > page.limit;
            messages.truncate(page.limit);
            let next = if more { messages.last().map(|entry| entry.id) } else { None };
            Ok(CapturedPage { messages, next })
        })
    }
}

/// The tasks and threads that must not end.
fn tasks(fallen: Option<&String>) -> Component {
    Component { name: TASKS.to_owned(), ok: fallen.is_none(), detail: fallen.cloned() }
}

/// A step does no harm to mail, so the gateway stays ready; but somebody should look.
fn clock(step: Option<&pintle_outbound::Step>) -> Component {
    let told = |step: &pintle_outbound::Step| {
        let direction = if step.is_ahead() { "ahead" } else { "back" };
        let by = Duration::from_secs(step.size().as_secs());
        format!("the clock was set {direction} by {by:?}: nothing expires for now; check the time service")
    };
    Component { name: "clock".to_owned(), ok: step.is_none(), detail: step.map(told) }
}

/// Mail is taken and relayed without DNS, and checks that need it say so: the gateway stays ready, and is not well.
fn dns(ailment: Option<String>) -> Component {
    Component { name: "dns".to_owned(), ok: ailment.is_none(), detail: ailment }
}

/// What an entry adds to an answer, without names and numbers.
fn octets(entry: &QueueEntry) -> usize {
    let words = |recipient: &QueueRecipient| recipient.last_reply.as_ref().map_or(0, String::len);
    let recipients = entry.recipients.iter();
    300 + recipients.map(|each| each.address.as_str().len() + words(each) + 200).sum::<usize>()
}

fn affected(acts: Acts) -> Affected {
    let (done, spared): (Vec<Act>, Vec<Act>) =
        acts.0.into_iter().partition(|act| act.outcome == Outcome::Done);
    let spare = |act: Act| Spared { id: act.id, why: act.outcome.to_string() };
    Affected {
        ids: done.into_iter().map(|act| act.id).collect(),
        spared: spared.into_iter().map(spare).collect(),
    }
}

fn recipient(
    address: &Address,
    status: &Status,
    next_hop: &NextHop,
    outbound: &pintle_outbound::Handle,
) -> QueueRecipient {
    let pending = status.pending();
    QueueRecipient {
        address: address.clone(),
        next_hop: Some(next_hop.to_string()),
        disposition: match status {
            Status::Pending(_) => None,
            Status::Done(pintle_spool::Disposition::Delivered) => Some(Disposition::Delivered),
            Status::Done(pintle_spool::Disposition::Failed) => Some(Disposition::Failed),
            Status::Done(pintle_spool::Disposition::Expired) => Some(Disposition::Expired),
            Status::Done(pintle_spool::Disposition::Discarded) => Some(Disposition::Discarded),
        },
        attempts: pending.map_or(0, |pending| pending.attempts),
        next_attempt_ms: pending.map(|pending| outbound.next_attempt(pending.next_attempt)),
        last_reply: pending.and_then(|pending| pending.last.as_ref()).map(ToString::to_string),
    }
}

fn plugin_state(status: pintle_plugin::Status) -> PluginState {
    PluginState {
        name: status.name,
        version: status.manifest.map(|manifest| manifest.version),
        component: status.component,
        digest: None,
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

pub(crate) fn refusal(error: OperateError) -> Refusal {
    match error {
        OperateError::Spool(error @ SpoolError::Unknown(_)) => Refusal::NotFound(error.to_string()),
        OperateError::Spool(error) => Refusal::Failed(error.to_string()),
        OperateError::Stopped => Refusal::Unavailable(error.to_string()),
    }
}
