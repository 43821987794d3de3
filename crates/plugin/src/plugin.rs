//! A configured plugin: the judge (`pintle_policy::Judge`) that the chains call, served by its current generation.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::future::BoxFuture;
use metrics::Histogram;
use parking_lot::Mutex;
use pintle_policy::{
    AuthRuling, Call, Credentials, DeliveryOutcome, FaultKind, Hook, Hooks, Judge, JudgeFault, LoginResult,
    Ruling, Verdict, View,
};
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::bindings::pintle::plugin::{auth_types, types};
use crate::generation::{ComponentLoader, Generation, LoadedComponent};
use crate::instance::GuestReply;
use crate::log_quota::LogQuota;
use crate::question::{
    AuthQuestion, DeliveryResultNotice, DisconnectNotice, GuestQuestion, LoginResultNotice, QueuedNotice,
    StageQuestion, TimerNotice,
};
use crate::state::GenerationState;
use crate::turns::Turns;
use crate::{ComponentSource, Gateway, GrantKind, LoadError, PluginConfig, PluginStatus, artifact, convert};

/// The assumed hooks of a plugin that is not loaded: those with a verdict from MAIL on, so that no mail passes without
/// it. Earlier stages are excluded because clients expect refusals from MAIL on. `on-data` is included because the
/// operator may have set another policy for it than for other stages. Hooks without a verdict decide nothing.
const UNKNOWN_HOOKS: Hooks = Hooks::NONE
    .with(Hook::AuthPassword)
    .with(Hook::Mail)
    .with(Hook::Rcpt)
    .with(Hook::Data)
    .with(Hook::Headers)
    .with(Hook::Message)
    .with(Hook::Deliver);

/// A configured plugin, independent of its generations: the judge that the chains call.
pub(crate) struct Plugin {
    /// Passed to each generation that is meant to serve.
    state: Arc<GenerationState>,
    /// The configuration in force; the serving generation may have been loaded with an earlier one.
    config: ArcSwap<PluginConfig>,
    current: ArcSwapOption<Generation>,
    generations: AtomicU64,
    calls: AtomicU64,
    faults: AtomicU64,
    /// Calls that got no instance in time; also counted as faults.
    crowded_out: AtomicU64,
    last_error: Mutex<Option<String>>,
    /// Held while the generation or the configuration is changed.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// Notified when another generation starts serving.
    pub(crate) changed: Notify,
    /// Rate limit for log lines about faults: a plugin that fails at every call must not fill the log.
    told: LogQuota,
    /// Whether the current generation's use of `accept` without the grant was already logged.
    told_of_accept: AtomicBool,
    /// Call duration by hook, for hooks that any generation has exported.
    durations: Vec<OnceLock<Histogram>>,
}

impl Plugin {
    /// Creates a plugin that is not loaded yet.
    pub(crate) fn new(state: Arc<GenerationState>, config: Arc<PluginConfig>) -> Self {
        Self {
            durations: Hook::ALL.iter().map(|_| OnceLock::new()).collect(),
            state,
            config: ArcSwap::new(config),
            current: ArcSwapOption::empty(),
            generations: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            crowded_out: AtomicU64::new(0),
            last_error: Mutex::default(),
            changing: Arc::default(),
            changed: Notify::new(),
            told: LogQuota::new(Instant::now()),
            told_of_accept: AtomicBool::new(false),
        }
    }

    pub(crate) fn config(&self) -> Arc<PluginConfig> {
        self.config.load_full()
    }

    /// Locks the generation and the configuration against changes until the guard is dropped.
    pub(crate) async fn hold(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.changing).lock_owned().await
    }

    /// Puts a configuration in force, even if no generation was loaded with it. Also called for an equal configuration:
    /// its settings may have moved to other lines of the file, and error messages give lines.
    pub(crate) fn take_config(&self, config: Arc<PluginConfig>) {
        self.config.store(config);
    }

    pub(crate) fn current(&self) -> Option<Arc<Generation>> {
        self.current.load_full()
    }

    pub(crate) fn state(&self) -> &Arc<GenerationState> {
        &self.state
    }

    /// Loads the component of this configuration while the current generation serves, and checks the names in its
    /// settings against this gateway.
    pub(crate) async fn load(
        &self,
        loader: &ComponentLoader,
        config: &Arc<PluginConfig>,
        gateway: &Gateway,
    ) -> LoadedComponent {
        loader.load(&self.state, config, self.turns(config), gateway).await
    }

    /// Whether the component differs from the serving one, or cannot be read.
    pub(crate) async fn is_outdated(&self) -> bool {
        let config = self.config();
        let Some(serving) = self.current().map(|generation| generation.digest) else { return true };
        if matches!(config.component, ComponentSource::Bytes { .. }) {
            return false;
        }
        let read = tokio::task::spawn_blocking(move || artifact::read(&config.component)).await;
        !matches!(read, Ok(Ok(bytes)) if artifact::digest(&bytes) == serving)
    }

    /// Reloads the component and lets it serve; returns the new generation's number.
    pub(crate) async fn reload(&self, loader: &ComponentLoader) -> Result<u64, Vec<LoadError>> {
        let _changing = self.hold().await;
        let gateway = loader.services.gateway.load_full();
        let loaded = self.load(loader, &self.config(), &gateway).await.result;
        loaded
            .map(|generation| self.go_live(Arc::new(generation)))
            .inspect_err(|errors| self.not_live(errors))
    }

    /// Reloads the component if its file differs from the serving one.
    pub(crate) async fn reload_if_changed(&self, loader: &ComponentLoader) {
        let config = self.config();
        if matches!(config.component, ComponentSource::Bytes { .. }) {
            return;
        }
        let read = tokio::task::spawn_blocking(move || artifact::read(&config.component)).await;
        // A file that cannot be read at the moment, for example because a rename is pending, is ignored.
        let Ok(Ok(bytes)) = read else { return };
        let serving = self.current().map(|generation| generation.digest);
        if serving != Some(artifact::digest(&bytes)) {
            let _ = self.reload(loader).await;
        }
    }

    /// Makes a generation serve all calls that start from now on; returns its number. The caller holds the lock
    /// ([`Plugin::hold`]).
    pub(crate) fn go_live(&self, generation: Arc<Generation>) -> u64 {
        let number = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
        let version = generation.manifest.as_ref().map(|manifest| manifest.version.clone());
        // Registers the metrics of its hooks with zero calls.
        for hook in generation.hooks.iter() {
            self.duration(hook);
        }
        if let Some(before) = self.current.swap(Some(generation)) {
            before.retire();
        }
        self.changed.notify_one();
        self.told_of_accept.store(false, Ordering::Relaxed);
        *self.last_error.lock() = None;
        tracing::info!(target: "pintle::plugin", plugin = %self.state.plugin, generation = number, version, "live");
        number
    }

    /// Logs why a version was not loaded, and stores it as the last error.
    pub(crate) fn not_live(&self, errors: &[LoadError]) {
        let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let text = text.join("; ");
        let serving = if self.current.load().is_some() { "the previous version" } else { "none" };
        tracing::error!(target: "pintle::plugin", plugin = %self.state.plugin, serving, "not loaded: {text}");
        *self.last_error.lock() = Some(text);
    }

    /// Retires the serving generation without a successor.
    pub(crate) fn unload(&self) {
        if let Some(before) = self.current.swap(None) {
            before.retire();
        }
    }

    /// The plugin's state and counters.
    pub(crate) fn status(&self) -> PluginStatus {
        let current = self.current();
        let serving = current.as_deref();
        PluginStatus {
            name: self.state.plugin.to_string(),
            component: self.config.load().component.to_string(),
            manifest: serving.and_then(|generation| generation.manifest.clone()),
            digest: serving.map(|generation| artifact::hexadecimal(&generation.digest)),
            generation: self.generations.load(Ordering::Relaxed),
            hooks: serving.map_or_else(Vec::new, |generation| generation.hooks.iter().collect()),
            idle: serving.map_or(0, Generation::idle),
            busy: serving.map_or(0, Generation::busy),
            max_instances: self.config.load().limits.max_instances,
            waiting: serving.map_or(0, |generation| generation.turns.waiting()),
            crowded_out: self.crowded_out.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
            last_error: self.last_error.lock().clone(),
        }
    }

    /// Calls `on-timer`, if it is exported.
    pub(crate) async fn on_timer(&self) {
        if self.current().is_some_and(|generation| generation.hooks.has(Hook::Timer)) {
            let _ = self.ask(TimerNotice, None).await;
        }
    }

    /// The concurrency limit, shared by all generations; created again when the configured number changes.
    fn turns(&self, config: &PluginConfig) -> Arc<Turns> {
        let most = config.limits.max_instances;
        match self.current() {
            Some(current) if current.turns.all() == most => Arc::clone(&current.turns),
            _ => Arc::new(Turns::new(most)),
        }
    }

    /// Calls a hook of the serving generation; returns `None` if the generation does not export it. Faults are counted
    /// and logged here only.
    async fn ask<Q: GuestQuestion>(
        &self,
        question: Q,
        view: Option<View>,
    ) -> Result<Option<GuestReply<Q::Answer>>, JudgeFault> {
        let hook = question.hook();
        let Some(generation) = self.current() else {
            return Err(self.faulted(hook, not_loaded()));
        };
        if !generation.hooks.has(hook) {
            return Ok(None);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let reply = generation.call(&question, view).await;
        self.duration(hook).record(began.elapsed());
        reply.map(Some).map_err(|fault| self.faulted(hook, fault))
    }

    fn duration(&self, hook: Hook) -> &Histogram {
        let name = &self.state.plugin;
        self.durations[hook as usize].get_or_init(|| {
            let labels = [("plugin", name.to_string()), ("hook", hook.name().to_owned())];
            metrics::histogram!("pintle_plugin_call_seconds", &labels)
        })
    }

    fn faulted(&self, hook: Hook, fault: JudgeFault) -> JudgeFault {
        self.faults.fetch_add(1, Ordering::Relaxed);
        if fault.kind == FaultKind::Busy {
            self.crowded_out.fetch_add(1, Ordering::Relaxed);
        }
        let kind = fault.kind.name();
        metrics::counter!(
            "pintle_plugin_faults_total",
            "plugin" => self.state.plugin.to_string(), "hook" => hook.name(), "kind" => kind
        )
        .increment(1);
        self.log_fault(hook, &fault);
        if fault.kind != FaultKind::NotLoaded {
            *self.last_error.lock() = Some(format!("on-{hook}: {} ({kind})", fault.text));
        }
        fault
    }

    /// Logs a fault as a warning if the hook's faults do not appear in an event record.
    fn log_fault(&self, hook: Hook, fault: &JudgeFault) {
        let (plugin, kind) = (&*self.state.plugin, fault.kind.name());
        let unrecorded = matches!(
            hook,
            Hook::AuthPassword | Hook::AuthResult | Hook::Queued | Hook::Disconnect | Hook::Timer
        );
        let hook = hook.name();
        if !unrecorded {
            tracing::debug!(target: "pintle::plugin", plugin, hook, kind, "{}", fault.text);
        } else if let Some(suppressed) = self.told.take(Instant::now()) {
            let suppressed = (suppressed > 0).then_some(suppressed);
            tracing::warn!(target: "pintle::plugin", plugin, hook, kind, suppressed, "{}", fault.text);
        }
    }

    fn bad_answer(&self, hook: Hook, text: String) -> JudgeFault {
        let kind = FaultKind::BadAnswer;
        self.faulted(hook, JudgeFault { kind, text })
    }

    async fn rule(&self, call: Call, view: View) -> Ruling {
        let hook = call.hook();
        let ruled = match self.ask(StageQuestion(call), Some(view)).await {
            Ok(Some(reply)) => self.ruling(hook, reply),
            Ok(None) => Ok(Verdict::Next.into()),
            Err(fault) => Err(fault),
        };
        ruled.unwrap_or_else(|fault| self.after_fault(hook, fault))
    }

    fn ruling(&self, hook: Hook, reply: GuestReply<types::Verdict>) -> Result<Ruling, JudgeFault> {
        let verdict = convert::verdict(reply.answer);
        let grants = &self.config.load().grants;
        let allowed = convert::check_drop(&verdict, hook, grants)
            .and_then(|()| convert::check_removals(&reply.edits, grants));
        allowed.map_err(|text| self.bad_answer(hook, text))?;
        Ok(Ruling { verdict: self.with_leave(hook, verdict), edits: reply.edits, fault: None })
    }

    async fn hear_login_result(&self, result: Arc<LoginResult>, view: View) -> Ruling {
        match self.ask(LoginResultNotice(result), Some(view)).await {
            Ok(Some(reply)) => Ruling { edits: reply.edits, ..Verdict::Next.into() },
            Ok(None) => Verdict::Next.into(),
            Err(fault) => Ruling { fault: Some(fault), ..Verdict::Next.into() },
        }
    }

    async fn hear_delivery_result(&self, outcomes: Arc<[DeliveryOutcome]>, view: View) -> Ruling {
        match self.ask(DeliveryResultNotice(outcomes), Some(view)).await {
            Ok(Some(reply)) => Ruling { edits: reply.edits, ..Verdict::Next.into() },
            Ok(None) => Verdict::Next.into(),
            Err(fault) => self.after_fault(Hook::DeliveryResult, fault),
        }
    }

    fn after_fault(&self, hook: Hook, fault: JudgeFault) -> Ruling {
        let verdict = convert::after_fault(self.config.load().failure.at(hook), hook, fault.kind);
        Ruling { verdict, edits: Vec::new(), fault: Some(fault) }
    }

    /// Converts `accept` into `next` if the grant `accept` is missing. That is not a fault: the plugin intended to let
    /// the mail pass, and so it does.
    fn with_leave(&self, hook: Hook, verdict: Verdict) -> Verdict {
        if verdict != Verdict::Accept || self.config.load().grants.contains(GrantKind::Accept) {
            return verdict;
        }
        if !self.told_of_accept.swap(true, Ordering::Relaxed) {
            let plugin = &*self.state.plugin;
            let text = "it answers `accept` without the grant `accept`, which counts as `next`: add \"accept\" to the \
                        plugin's `grants` if it may exempt mail from the plugins after it";
            tracing::warn!(target: "pintle::plugin", plugin, hook = hook.name(), "{text}");
            *self.last_error.lock() = Some(format!("on-{hook}: {text}"));
        }
        Verdict::Next
    }

    async fn rule_on_credentials(&self, credentials: Arc<Credentials>, view: View) -> AuthRuling {
        let ruled = match self.ask(AuthQuestion(credentials), Some(view)).await {
            Ok(Some(reply)) => self.auth_ruling(reply),
            Ok(None) => Ok(pintle_policy::AuthVerdict::Next.into()),
            Err(fault) => Err(fault),
        };
        ruled.unwrap_or_else(|fault| AuthRuling {
            verdict: convert::auth_after_fault(self.config.load().failure.at(Hook::AuthPassword)),
            edits: Vec::new(),
            fault: Some(fault),
        })
    }

    fn auth_ruling(&self, reply: GuestReply<auth_types::AuthVerdict>) -> Result<AuthRuling, JudgeFault> {
        let verdict =
            convert::auth_verdict(reply.answer).map_err(|text| self.bad_answer(Hook::AuthPassword, text))?;
        Ok(AuthRuling { verdict, edits: reply.edits, fault: None })
    }
}

fn not_loaded() -> JudgeFault {
    JudgeFault { kind: FaultKind::NotLoaded, text: "no version of it is loaded".into() }
}

impl Judge for Plugin {
    fn name(&self) -> &Arc<str> {
        &self.state.plugin
    }

    fn hooks(&self) -> Hooks {
        self.current.load().as_ref().map_or(UNKNOWN_HOOKS, |generation| generation.hooks)
    }

    fn mandatory(&self) -> bool {
        self.config.load().mandatory
    }

    fn is_concerned(&self, hook: Hook, recipient: Option<u32>, view: &View) -> bool {
        let serving = self.current.load();
        serving.as_ref().is_none_or(|generation| generation.conditions.hold(hook, recipient, view))
    }

    fn after_conflict(&self, hook: Hook) -> Verdict {
        convert::after_fault(self.config.load().failure.at(hook), hook, FaultKind::BadAnswer)
    }

    fn judge(&self, call: Call, view: View) -> BoxFuture<'_, Ruling> {
        Box::pin(self.rule(call, view))
    }

    fn authenticate(&self, credentials: Arc<Credentials>, view: View) -> BoxFuture<'_, AuthRuling> {
        Box::pin(self.rule_on_credentials(credentials, view))
    }

    fn auth_result(&self, result: Arc<LoginResult>, view: View) -> BoxFuture<'_, Ruling> {
        Box::pin(self.hear_login_result(result, view))
    }

    fn queued(&self, view: View) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _ = self.ask(QueuedNotice, Some(view)).await;
        })
    }

    fn delivery_result(&self, outcomes: Arc<[DeliveryOutcome]>, view: View) -> BoxFuture<'_, Ruling> {
        Box::pin(self.hear_delivery_result(outcomes, view))
    }

    fn disconnect(&self, view: View) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _ = self.ask(DisconnectNotice, Some(view)).await;
        })
    }
}
