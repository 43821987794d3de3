//! One instance of a plugin: a Wasmtime store with the guest in it, and functions that call it within its limits.
//!
//! An instance serves one call at a time. After a trap, a timeout or a cancelled call the engine cannot use the store
//! again, so the instance is discarded.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use pintle_policy::{Edit, FaultKind, Hook, JudgeFault, View};
use wasmtime::component::InstancePre;
use wasmtime::{Store, StoreContextMut, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;

use crate::bindings::exports::pintle::plugin::plugin;
use crate::budget::Overspent;
use crate::call_conditions::CallConditions;
use crate::engine::GuestEngine;
use crate::guest_log::clean;
use crate::habits::{Lookups, Prefetched};
use crate::meter::{CallMeter, CallTimeout, Metered};
use crate::question::{ExportIndices, GuestExports, GuestQuestion};
use crate::state::{GenerationState, HostServices};
use crate::store_data::StoreData;
use crate::{ConfigMistake, Grants, Manifest, PluginLimits};

/// Limit on the data that a guest passes to one host function, and on the size of its reply, in octets.
const HOSTCALL_FUEL: usize = 2 << 20;

/// A guest's reply, and the edits of the same call; the two are applied or discarded together.
pub(crate) struct GuestReply<A> {
    pub(crate) answer: A,
    pub(crate) edits: Vec<Edit>,
}

/// Everything needed to create an instance.
pub(crate) struct InstanceTemplate {
    pub(crate) host: Arc<GuestEngine>,
    pub(crate) services: Arc<HostServices>,
    pub(crate) state: Arc<GenerationState>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) limits: PluginLimits,
    pub(crate) settings: String,
    pub(crate) linked: InstancePre<StoreData>,
    pub(crate) exports: ExportIndices,
}

/// A running guest in its store.
pub(crate) struct Instance {
    store: Store<StoreData>,
    exports: GuestExports,
    /// False while a call runs and after a failed call.
    sound: bool,
    calls: u64,
    pub(crate) idle_since: Instant,
}

impl Instance {
    /// Creates an instance that is not yet configured.
    pub(crate) async fn start(template: &InstanceTemplate) -> Result<Self, JudgeFault> {
        let limits = &template.limits;
        let meter = Arc::new(CallMeter::new(Instant::now()));
        let guest = StoreData::new(
            Arc::clone(&template.services),
            Arc::clone(&template.state),
            Arc::clone(&template.grants),
            limits.memory,
            Arc::clone(&meter),
        );
        let mut store = store(&template.host, guest);
        meter.begin(Instant::now(), limits.start, limits.start);
        let linked = bounded(&meter, limits.start, template.linked.instantiate_async(&mut store)).await;
        let loaded = linked.and_then(|linked| Ok(template.exports.load(&mut store, &linked)?));
        match loaded {
            Ok(exports) => Ok(Self { store, exports, sound: true, calls: 0, idle_since: Instant::now() }),
            Err(failure) => Err(fault(failure, store.data())),
        }
    }

    /// Calls `describe` and returns the plugin's manifest.
    pub(crate) async fn describe(&mut self, limits: &PluginLimits) -> Result<Manifest, JudgeFault> {
        let meter = self.begin(None, None, limits.start, limits.start);
        let called = self.exports.plugin.call_describe(&mut self.store);
        let called = bounded(&meter, limits.start, called).await;
        let manifest = self.ended(called)?;
        Ok(Manifest {
            id: manifest.id,
            version: manifest.version,
            summary: manifest.summary,
            config_schema: manifest.config_schema,
            wants: manifest.wants,
            more: manifest.more,
        })
    }

    /// Passes the settings to the plugin. Returns the conditions of calling that it states, or the mistakes that it
    /// reports, which are a regular result and not a fault.
    pub(crate) async fn configure(
        &mut self,
        settings: &str,
        limits: &PluginLimits,
    ) -> Result<Result<CallConditions, Vec<ConfigMistake>>, JudgeFault> {
        let meter = self.begin(None, None, limits.start, limits.start);
        let called = self.exports.plugin.call_configure(&mut self.store, settings);
        let called = bounded(&meter, limits.start, called).await;
        let conditions = std::mem::take(&mut self.store.data_mut().call.conditions);
        let Err(mistakes) = self.ended(called)? else { return Ok(Ok(conditions)) };
        if mistakes.is_empty() {
            return Err(self.refused_without_a_word());
        }
        let mistake =
            |mistake: plugin::ConfigError| ConfigMistake::new(clean(&mistake.at), clean(&mistake.text));
        Ok(Err(mistakes.into_iter().map(mistake).collect()))
    }

    /// The fault of a plugin that refuses its settings without naming a mistake. Some language kits do so for an
    /// exception, whose text they print.
    fn refused_without_a_word(&self) -> JudgeFault {
        let said = self.store.data().log.last_words().map(|words| format!("; it printed: {words}"));
        let text =
            format!("`configure` refused the settings and named no mistake{}", said.unwrap_or_default());
        JudgeFault { kind: FaultKind::BadAnswer, text }
    }

    /// Calls a hook within the limits; returns its reply together with the edits of the call.
    pub(crate) async fn ask<Q: GuestQuestion>(
        &mut self,
        question: &Q,
        view: Option<View>,
        ahead: Prefetched,
        limits: &PluginLimits,
    ) -> Result<GuestReply<Q::Answer>, JudgeFault> {
        // Prefetching counts towards the limit, but leaves at least a fifth of it.
        let wall = limits.wall.saturating_sub(ahead.spent).max(limits.wall / 5);
        let meter = self.begin(Some(question.hook()), view, wall, limits.cpu);
        self.store.data_mut().ahead = ahead;
        let called = question.ask(&self.exports, &mut self.store);
        let called = bounded(&meter, limits.wall, called).await;
        let answer = self.ended(called)?;
        self.calls += 1;
        if limits.recycle_after.is_some_and(|most| self.calls >= most) {
            self.sound = false;
        }
        match self.store.data_mut().call.end() {
            Ok(edits) => Ok(GuestReply { answer, edits }),
            Err(text) => Err(JudgeFault { kind: FaultKind::BadAnswer, text }),
        }
    }

    /// The lookups that the last call requested.
    pub(crate) fn asked(&self) -> Lookups {
        self.store.data().ahead.asked
    }

    /// Whether the instance can serve another call.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound
    }

    fn begin(
        &mut self,
        hook: Option<Hook>,
        view: Option<View>,
        wall: Duration,
        cpu: Duration,
    ) -> Arc<CallMeter> {
        self.sound = false;
        self.store.set_epoch_deadline(1);
        let guest = self.store.data_mut();
        guest.memory.refused = false;
        guest.log.begin(hook, view.as_ref());
        guest.call.begin(hook, view);
        guest.meter.begin(Instant::now(), wall, cpu);
        Arc::clone(&guest.meter)
    }

    fn ended<T>(&mut self, called: Result<T, CallFailure>) -> Result<T, JudgeFault> {
        let in_budget = self.store.data().call.budget.check();
        match called.and_then(|value| in_budget.map(|()| value).map_err(CallFailure::Overspent)) {
            Ok(value) => {
                self.sound = true;
                Ok(value)
            }
            Err(failure) => Err(fault(failure, self.store.data())),
        }
    }
}

fn store(host: &GuestEngine, guest: StoreData) -> Store<StoreData> {
    let mut store = Store::new(&host.engine, guest);
    store.limiter(|guest| &mut guest.memory);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.set_max_component_handles(crate::layout::HANDLES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(tick);
    store
}

/// Epoch callback: ends a guest that exceeded its limits; otherwise yields, so that other tasks can run.
#[allow(clippy::needless_pass_by_value, reason = "the engine wants it so")]
fn tick(guest: StoreContextMut<'_, StoreData>) -> wasmtime::Result<UpdateDeadline> {
    guest.data().meter.check(Instant::now())?;
    guest.data().call.budget.check()?;
    Ok(UpdateDeadline::Yield(1))
}

/// Why a call failed.
enum CallFailure {
    Engine(wasmtime::Error),
    Waited(CallTimeout),
    Overspent(Overspent),
}

impl From<wasmtime::Error> for CallFailure {
    fn from(error: wasmtime::Error) -> Self {
        Self::Engine(error)
    }
}

/// Runs a call that may wait. The epoch tick cannot interrupt a guest that is waiting; the timer here can.
async fn bounded<T>(
    meter: &Arc<CallMeter>,
    wall: Duration,
    call: impl Future<Output = wasmtime::Result<T>>,
) -> Result<T, CallFailure> {
    let call = pin!(call);
    let mut call = Metered::new(Arc::clone(meter), call);
    let mut timer = pin!(None);
    poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut call).poll(cx) {
            return Poll::Ready(ended.map_err(CallFailure::Engine));
        }
        // Most calls never wait and need no timer.
        if timer.is_none() {
            timer.set(Some(tokio::time::sleep(meter.left(Instant::now()))));
        }
        let waited = timer.as_mut().as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(cx));
        waited.map(|()| Err(CallFailure::Waited(CallTimeout::Wall(wall))))
    })
    .await
}

fn fault(failure: CallFailure, guest: &StoreData) -> JudgeFault {
    let error = match failure {
        CallFailure::Waited(expired) => return timeout(expired),
        CallFailure::Overspent(over) => return overspent(over),
        CallFailure::Engine(error) => error,
    };
    // If the budget was exhausted, it is reported as the cause, whatever error the guest ended with.
    if let Err(over) = guest.call.budget.check() {
        return overspent(over);
    }
    if let Some(expired) = error.downcast_ref::<CallTimeout>() {
        return timeout(*expired);
    }
    if guest.memory.refused {
        return JudgeFault {
            kind: FaultKind::Memory,
            text: format!("it needed more than its limit of {} octets of memory", guest.memory.limit()),
        };
    }
    let what = if let Some(trap) = error.downcast_ref::<Trap>() {
        trap.to_string()
    } else if let Some(exit) = error.downcast_ref::<I32Exit>() {
        format!("it called exit({})", exit.0)
    } else {
        clean(&format!("{error:#}"))
    };
    let text = match guest.log.last_words() {
        Some(words) => format!("{what}; it printed: {words}"),
        None => what,
    };
    JudgeFault { kind: FaultKind::Trap, text }
}

fn timeout(expired: CallTimeout) -> JudgeFault {
    JudgeFault { kind: FaultKind::Timeout, text: expired.to_string() }
}

fn overspent(over: Overspent) -> JudgeFault {
    JudgeFault { kind: FaultKind::Limit, text: over.to_string() }
}
