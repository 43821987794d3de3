//! One instance of a plugin: a store, the guest in it, and the way to call it within its limits.
//!
//! An instance serves one call at a time. After a trap, a timeout or a dropped call the engine regards the store as dead;
//! so do we: such an instance is never used again.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use pintle_policy::{Call, Credentials, DeliveryOutcome, Edit, FaultKind, Hook, Hooks, JudgeFault, View};
use wasmtime::component::{Instance as Linked, InstancePre};
use wasmtime::{Store, StoreContextMut, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;

use crate::bindings::exports::pintle::plugin::on_auth::{
    AuthVerdict, Credentials as GuestCredentials, Password,
};
use crate::bindings::exports::pintle::plugin::{
    on_auth, on_connect, on_deliver, on_delivery_result, on_disconnect, on_headers, on_hello, on_mail,
    on_message, on_rcpt, on_timer, plugin,
};
use crate::bindings::pintle::plugin::types::Verdict;
use crate::budget::Overspent;
use crate::engine::Host;
use crate::guest_log::clean;
use crate::habits::{Ahead, Needs};
use crate::meter::{Expired, Meter, Metered};
use crate::store_data::{PluginShared, StoreData};
use crate::{ConfigMistake, Grants, Limits, Manifest, convert};

/// What a guest may hand to the host in one call of a host function, in octets; and what its answer may hold.
const HOSTCALL_FUEL: usize = 2 << 20;

/// What is asked of a guest.
pub(crate) enum Question {
    /// A verdict at a stage.
    Stage(Call),
    /// A verdict about credentials.
    Auth(Arc<Credentials>),
    /// Nothing: it is told how an attempt went.
    DeliveryResult(Arc<[DeliveryOutcome]>),
    /// Nothing: it is told that the session has ended.
    Disconnect,
    /// Nothing: its time has come.
    Timer,
}

impl Question {
    pub(crate) fn hook(&self) -> Hook {
        match self {
            Self::Stage(call) => call.hook(),
            Self::Auth(_) => Hook::Auth,
            Self::DeliveryResult(_) => Hook::DeliveryResult,
            Self::Disconnect => Hook::Disconnect,
            Self::Timer => Hook::Timer,
        }
    }
}

/// What a guest answers.
pub(crate) enum GuestAnswer {
    Verdict(Verdict),
    Auth(AuthVerdict),
    Nothing,
}

/// An answer and the edits that stand or fall with it.
pub(crate) struct Reply {
    pub(crate) answer: GuestAnswer,
    pub(crate) edits: Vec<Edit>,
}

/// All that an instance is made from.
pub(crate) struct Template {
    pub(crate) host: Arc<Host>,
    pub(crate) common: Arc<PluginShared>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) limits: Limits,
    pub(crate) settings: String,
    pub(crate) linked: InstancePre<StoreData>,
    pub(crate) exports: Indices,
}

macro_rules! exports {
    ($($field:ident: $hook:ident),+ $(,)?) => {
        /// Where a component's exports are found: looked up once for a component.
        pub(crate) struct Indices {
            plugin: plugin::GuestIndices,
            $($field: Option<$field::GuestIndices>),+
        }

        impl Indices {
            pub(crate) fn find(linked: &InstancePre<StoreData>, hooks: Hooks) -> wasmtime::Result<Self> {
                Ok(Self {
                    plugin: plugin::GuestIndices::new(linked)?,
                    $($field: match hooks.has(Hook::$hook) {
                        true => Some($field::GuestIndices::new(linked)?),
                        false => None,
                    }),+
                })
            }

            fn load(&self, store: &mut Store<StoreData>, linked: &Linked) -> wasmtime::Result<Exports> {
                Ok(Exports {
                    plugin: self.plugin.load(&mut *store, linked)?,
                    $($field: match &self.$field {
                        Some(indices) => Some(indices.load(&mut *store, linked)?),
                        None => None,
                    }),+
                })
            }
        }

        /// The functions of one instance.
        struct Exports {
            plugin: plugin::Guest,
            $($field: Option<$field::Guest>),+
        }
    };
}

exports! {
    on_connect: Connect,
    on_hello: Hello,
    on_auth: Auth,
    on_mail: Mail,
    on_rcpt: Rcpt,
    on_headers: Headers,
    on_message: Message,
    on_deliver: Deliver,
    on_delivery_result: DeliveryResult,
    on_disconnect: Disconnect,
    on_timer: Timer,
}

/// A guest that can be called.
pub(crate) struct Instance {
    store: Store<StoreData>,
    exports: Exports,
    /// The last call has ended as it should.
    sound: bool,
    calls: u64,
    pub(crate) idle_since: Instant,
}

impl Instance {
    /// A new instance, not yet configured.
    pub(crate) async fn start(template: &Template) -> Result<Self, JudgeFault> {
        let limits = &template.limits;
        let meter = Arc::new(Meter::new(Instant::now()));
        let guest = StoreData::new(
            Arc::clone(&template.common),
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

    /// What the plugin says of itself.
    pub(crate) async fn describe(&mut self, limits: &Limits) -> Result<Manifest, JudgeFault> {
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
        })
    }

    /// Gives the plugin its settings; the mistakes that it finds are an answer and no fault.
    pub(crate) async fn configure(
        &mut self,
        settings: &str,
        limits: &Limits,
    ) -> Result<Result<(), Vec<ConfigMistake>>, JudgeFault> {
        let meter = self.begin(None, None, limits.start, limits.start);
        let called = self.exports.plugin.call_configure(&mut self.store, settings);
        let called = bounded(&meter, limits.start, called).await;
        let answer = self.ended(called)?;
        Ok(answer.map_err(|mistakes| {
            let mistake =
                |mistake: plugin::ConfigError| ConfigMistake::new(clean(&mistake.at), clean(&mistake.text));
            mistakes.into_iter().map(mistake).collect()
        }))
    }

    /// Calls a hook.
    pub(crate) async fn ask(
        &mut self,
        question: &Question,
        view: Option<View>,
        ahead: Ahead,
        limits: &Limits,
    ) -> Result<Reply, JudgeFault> {
        let recipient = recipient_of(question, view.as_ref());
        // What has been found out beforehand leaves a fifth of the time at least.
        let wall = limits.wall.saturating_sub(ahead.spent).max(limits.wall / 5);
        let meter = self.begin(Some(question.hook()), view, wall, limits.cpu);
        self.store.data_mut().ahead = ahead;
        let called = self.exports.call(&mut self.store, question, recipient);
        let called = bounded(&meter, limits.wall, called).await;
        let answer = self.ended(called)?;
        self.calls += 1;
        if limits.recycle_after.is_some_and(|most| self.calls >= most) {
            self.sound = false;
        }
        match self.store.data_mut().live.end() {
            Ok(edits) => Ok(Reply { answer, edits }),
            Err(text) => Err(JudgeFault { kind: FaultKind::BadAnswer, text }),
        }
    }

    /// What the last call has asked the host for.
    pub(crate) fn asked(&self) -> Needs {
        self.store.data().ahead.asked
    }

    /// Whether it may serve another call.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound
    }

    fn begin(&mut self, hook: Option<Hook>, view: Option<View>, wall: Duration, cpu: Duration) -> Arc<Meter> {
        self.sound = false;
        self.store.set_epoch_deadline(1);
        let guest = self.store.data_mut();
        guest.memory.refused = false;
        guest.scribe.begin(hook, view.as_ref());
        guest.live.begin(hook, view);
        guest.meter.begin(Instant::now(), wall, cpu);
        Arc::clone(&guest.meter)
    }

    fn ended<T>(&mut self, called: Result<T, Failure>) -> Result<T, JudgeFault> {
        let in_budget = self.store.data().live.budget.check();
        match called.and_then(|value| in_budget.map(|()| value).map_err(Failure::Overspent)) {
            Ok(value) => {
                self.sound = true;
                Ok(value)
            }
            Err(failure) => Err(fault(failure, self.store.data())),
        }
    }
}

impl Exports {
    async fn call(
        &self,
        store: &mut Store<StoreData>,
        question: &Question,
        recipient: Option<crate::bindings::pintle::plugin::types::Recipient>,
    ) -> wasmtime::Result<GuestAnswer> {
        match question {
            Question::Stage(call) => self.judge(store, call, recipient).await.map(GuestAnswer::Verdict),
            Question::Auth(given) => {
                let hook = exported(self.on_auth.as_ref())?;
                let credentials = guest_credentials(given);
                let verdict = hook.call_handle(store, &given.mechanism, &credentials).await?;
                Ok(GuestAnswer::Auth(verdict))
            }
            Question::DeliveryResult(outcomes) => {
                let outcomes: Vec<_> = outcomes.iter().map(convert::outcome).collect();
                let hook = exported(self.on_delivery_result.as_ref())?;
                hook.call_handle(store, &outcomes).await?;
                Ok(GuestAnswer::Nothing)
            }
            Question::Disconnect => {
                exported(self.on_disconnect.as_ref())?.call_handle(store).await?;
                Ok(GuestAnswer::Nothing)
            }
            Question::Timer => {
                exported(self.on_timer.as_ref())?.call_handle(store).await?;
                Ok(GuestAnswer::Nothing)
            }
        }
    }

    async fn judge(
        &self,
        store: &mut Store<StoreData>,
        call: &Call,
        recipient: Option<crate::bindings::pintle::plugin::types::Recipient>,
    ) -> wasmtime::Result<Verdict> {
        match call {
            Call::Connect => exported(self.on_connect.as_ref())?.call_handle(store).await,
            Call::Hello(name) => exported(self.on_hello.as_ref())?.call_handle(store, name).await,
            Call::Mail => exported(self.on_mail.as_ref())?.call_handle(store).await,
            Call::Rcpt(id) => {
                let no_such = || wasmtime::Error::msg(format!("the view has no recipient {id}"));
                let recipient = recipient.ok_or_else(no_such)?;
                exported(self.on_rcpt.as_ref())?.call_handle(store, &recipient).await
            }
            Call::Headers => exported(self.on_headers.as_ref())?.call_handle(store).await,
            Call::Message => exported(self.on_message.as_ref())?.call_handle(store).await,
            Call::Deliver => exported(self.on_deliver.as_ref())?.call_handle(store).await,
        }
    }
}

/// Hooks that are not exported are never asked; this is for the compiler.
fn exported<T>(hook: Option<&T>) -> wasmtime::Result<&T> {
    hook.ok_or_else(|| wasmtime::Error::msg("the hook is not exported"))
}

fn recipient_of(
    question: &Question,
    view: Option<&View>,
) -> Option<crate::bindings::pintle::plugin::types::Recipient> {
    let Question::Stage(Call::Rcpt(id)) = question else {
        return None;
    };
    let transaction = view?.transaction.as_ref()?;
    transaction.recipient(*id).map(convert::recipient)
}

fn guest_credentials(given: &Credentials) -> GuestCredentials {
    GuestCredentials::Password(Password {
        authorization_id: given.authorization_id.clone(),
        username: given.username.clone(),
        password: given.password.clone(),
    })
}

fn store(host: &Host, guest: StoreData) -> Store<StoreData> {
    let mut store = Store::new(&host.engine, guest);
    store.limiter(|guest| &mut guest.memory);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.set_max_component_handles(crate::engine::HANDLES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(tick);
    store
}

/// A computing guest is interrupted at every tick: past its limits it ends, and before them it lets others run.
#[allow(clippy::needless_pass_by_value, reason = "the engine wants it so")]
fn tick(guest: StoreContextMut<'_, StoreData>) -> wasmtime::Result<UpdateDeadline> {
    guest.data().meter.check(Instant::now())?;
    guest.data().live.budget.check()?;
    Ok(UpdateDeadline::Yield(1))
}

/// Why a call did not end well.
enum Failure {
    Engine(wasmtime::Error),
    Waited(Expired),
    Overspent(Overspent),
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        Self::Engine(error)
    }
}

/// Runs a call that may also wait. The tick cannot end a guest that sleeps; the timer here can.
async fn bounded<T>(
    meter: &Arc<Meter>,
    wall: Duration,
    call: impl Future<Output = wasmtime::Result<T>>,
) -> Result<T, Failure> {
    let call = pin!(call);
    let mut call = Metered::new(Arc::clone(meter), call);
    let mut timer = pin!(None);
    poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut call).poll(cx) {
            return Poll::Ready(ended.map_err(Failure::Engine));
        }
        // Most calls never wait, and need no timer.
        if timer.is_none() {
            timer.set(Some(tokio::time::sleep(meter.left(Instant::now()))));
        }
        let waited = timer.as_mut().as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(cx));
        waited.map(|()| Err(Failure::Waited(Expired::Wall(wall))))
    })
    .await
}

fn fault(failure: Failure, guest: &StoreData) -> JudgeFault {
    let error = match failure {
        Failure::Waited(expired) => return timeout(expired),
        Failure::Overspent(over) => return overspent(over),
        Failure::Engine(error) => error,
    };
    // A guest that was refused its budget is free to give up as it likes.
    if let Err(over) = guest.live.budget.check() {
        return overspent(over);
    }
    if let Some(expired) = error.downcast_ref::<Expired>() {
        return timeout(*expired);
    }
    if guest.memory.refused {
        return JudgeFault {
            kind: FaultKind::Memory,
            text: format!("it wanted more than its {} octets of memory", guest.memory.limit()),
        };
    }
    let what = if let Some(trap) = error.downcast_ref::<Trap>() {
        trap.to_string()
    } else if let Some(exit) = error.downcast_ref::<I32Exit>() {
        format!("it called exit({})", exit.0)
    } else {
        clean(&format!("{error:#}"))
    };
    let text = match guest.scribe.last_words() {
        Some(words) => format!("{what}; it printed: {words}"),
        None => what,
    };
    JudgeFault { kind: FaultKind::Trap, text }
}

fn timeout(expired: Expired) -> JudgeFault {
    JudgeFault { kind: FaultKind::Timeout, text: expired.to_string() }
}

fn overspent(over: Overspent) -> JudgeFault {
    JudgeFault { kind: FaultKind::Limit, text: over.to_string() }
}
