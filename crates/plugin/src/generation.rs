//! One loaded version of a plugin: a component with its pool of warm instances.
//!
//! A generation starts serving only after one instance has been created, described and configured. When another
//! generation replaces it, its running calls finish, and each instance is dropped with its call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join;
use parking_lot::Mutex;
use pintle_policy::{FaultKind, Hooks, JudgeFault, View};
use tokio::sync::Notify;
use wasmtime::component::Component;

use crate::artifact::{self, Cache};
use crate::call_conditions::CallConditions;
use crate::call_dns::{MAX_REVERSE_NAMES, TimeLimitedResolver};
use crate::engine::GuestEngine;
use crate::examine::{MissingGrants, examine, missing};
use crate::habits::{CallKind, Lookup, Lookups, Prefetched};
use crate::instance::{GuestReply, Instance, InstanceTemplate};
use crate::question::{ExportIndices, GuestQuestion};
use crate::schema::{self, SchemaFault};
use crate::sender_auth_checks::{self, SenderAuthChecks};
use crate::state::{GenerationState, HostServices};
use crate::turns::{CallParty, Crowded, Turn, Turns};
use crate::{Gateway, LoadError, Manifest, PluginConfig, names};

/// How long an instance beyond `min_idle` may stay idle before it is dropped.
const SPARE_LIFE: Duration = Duration::from_secs(60);

/// The engine, cache and state that components are loaded with.
pub(crate) struct ComponentLoader {
    pub(crate) host: Arc<GuestEngine>,
    pub(crate) services: Arc<HostServices>,
    pub(crate) cache: Option<Arc<Cache>>,
}

/// The result of loading a component, with the information gathered even if loading failed.
pub(crate) struct LoadedComponent {
    pub(crate) manifest: Option<Manifest>,
    pub(crate) hooks: Hooks,
    pub(crate) missing: MissingGrants,
    pub(crate) result: Result<Generation, Vec<LoadError>>,
}

impl ComponentLoader {
    /// Reads, compiles, examines, starts and configures a component, and checks the names in its settings against a
    /// gateway's configuration. The serving generation is not affected.
    pub(crate) async fn load(
        &self,
        state: &Arc<GenerationState>,
        config: &Arc<PluginConfig>,
        turns: Arc<Turns>,
        gateway: &Gateway,
    ) -> LoadedComponent {
        let (hooks, missing) = (Hooks::NONE, MissingGrants::new());
        let mut loaded = LoadedComponent { manifest: None, hooks, missing, result: Err(Vec::new()) };
        loaded.result = self.load_generation(state, config, turns, &mut loaded).await;
        if let (Ok(_), Some(manifest)) = (&loaded.result, &loaded.manifest)
            && let Err(error) = check_names(manifest, config, gateway)
        {
            loaded.result = Err(vec![error]);
        }
        loaded
    }

    async fn load_generation(
        &self,
        state: &Arc<GenerationState>,
        config: &Arc<PluginConfig>,
        turns: Arc<Turns>,
        found: &mut LoadedComponent,
    ) -> Result<Generation, Vec<LoadError>> {
        let (digest, component) = self.compile(config).await.map_err(|error| vec![error])?;
        let kind = component.component_type();
        let (hooks, errors) = examine(&kind, &self.host.engine, &config.grants);
        found.hooks = hooks;
        found.missing = missing(&kind, &self.host.engine, &config.grants);
        refuse(errors)?;
        refuse(self.host.fits(&component, config.limits.memory))?;
        let template = self
            .template(state, config, &component, hooks)
            .map_err(|error| vec![LoadError::NotAComponent(format!("{error:#}"))])?;
        let mut instance = Instance::start(&template).await.map_err(start_fault)?;
        let manifest = instance.describe(&config.limits).await.map_err(start_fault)?;
        found.manifest = Some(manifest.clone());
        check_settings(manifest.config_schema, config).await?;
        let conditions =
            configure(&mut instance, &template).await.map_err(|error| vec![placed(error, config)])?;
        Ok(Generation {
            config: Arc::clone(config),
            hooks,
            conditions,
            digest,
            template,
            manifest: found.manifest.clone(),
            turns,
            spare: Mutex::new(SpareInstances { instances: vec![instance], retired: false }),
            wanting: Notify::new(),
        })
    }

    /// Reading and compiling block, compiling for seconds, so they run outside the threads that process mail.
    async fn compile(&self, config: &Arc<PluginConfig>) -> Result<([u8; 32], Component), LoadError> {
        let (host, cache, config) = (Arc::clone(&self.host), self.cache.clone(), Arc::clone(config));
        let work = tokio::task::spawn_blocking(move || {
            let bytes = artifact::read(&config.component)?;
            let component = artifact::compile(&host.engine, cache.as_deref(), &bytes)?;
            Ok((artifact::digest(&bytes), component))
        });
        work.await
            .unwrap_or_else(|error| Err(LoadError::NotAComponent(format!("the compiler failed: {error}"))))
    }

    fn template(
        &self,
        state: &Arc<GenerationState>,
        config: &PluginConfig,
        component: &Component,
        hooks: Hooks,
    ) -> wasmtime::Result<InstanceTemplate> {
        let linked = self.host.linker.instantiate_pre(component)?;
        Ok(InstanceTemplate {
            host: Arc::clone(&self.host),
            services: Arc::clone(&self.services),
            state: Arc::clone(state),
            grants: Arc::new(config.grants.clone()),
            limits: config.limits.clone(),
            settings: config.settings.to_string(),
            exports: ExportIndices::find(&linked, hooks)?,
            linked,
        })
    }
}

fn refuse(errors: Vec<LoadError>) -> Result<(), Vec<LoadError>> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn start_fault(fault: JudgeFault) -> Vec<LoadError> {
    vec![LoadError::Start(fault)]
}

/// Checks the settings against the schema before `configure`: the schema finds all mistakes at once, with remedies.
async fn check_settings(schema: Option<String>, config: &Arc<PluginConfig>) -> Result<(), Vec<LoadError>> {
    let Some(schema) = schema else { return Ok(()) };
    let checked = Arc::clone(config);
    let work = tokio::task::spawn_blocking(move || schema::check(&schema, &checked.settings));
    let checked = work.await.unwrap_or_else(|error| Err(SchemaFault::Invalid(error.to_string())));
    match checked {
        Ok(mistakes) if mistakes.is_empty() => Ok(()),
        Ok(mistakes) => Err(vec![placed(LoadError::Config(mistakes), config)]),
        Err(fault) => Err(vec![LoadError::Schema(fault)]),
    }
}

/// Checks that names in the settings are defined in the gateway's configuration.
pub(crate) fn check_names(
    manifest: &Manifest,
    config: &PluginConfig,
    gateway: &Gateway,
) -> Result<(), LoadError> {
    // Without a readable schema, no setting is known to be a name.
    let schema = manifest.config_schema.as_deref().and_then(|schema| schema::read(schema).ok());
    let mistakes = schema.map(|schema| names::check(&schema, &config.settings, gateway, &config.grants));
    let mistakes = mistakes.unwrap_or_default();
    if mistakes.is_empty() { Ok(()) } else { Err(placed(LoadError::Config(mistakes), config)) }
}

async fn configure(
    instance: &mut Instance,
    template: &InstanceTemplate,
) -> Result<CallConditions, LoadError> {
    let configured = instance.configure(&template.settings, &template.limits).await;
    configured.map_err(LoadError::Start)?.map_err(LoadError::Config)
}

/// Adds file and line to each mistake, and sorts the mistakes by line.
fn placed(error: LoadError, config: &PluginConfig) -> LoadError {
    let LoadError::Config(mut mistakes) = error else {
        return error;
    };
    for mistake in &mut mistakes {
        mistake.place = config.places.at(&mistake.at);
    }
    mistakes.sort_by_key(|mistake| mistake.place.as_ref().map(|place| place.line));
    LoadError::Config(mistakes)
}

/// One loaded version of a plugin.
pub(crate) struct Generation {
    pub(crate) config: Arc<PluginConfig>,
    pub(crate) hooks: Hooks,
    /// The conditions under which its hooks are called, as its first instance stated them.
    pub(crate) conditions: CallConditions,
    pub(crate) manifest: Option<Manifest>,
    /// SHA-256 of the component.
    pub(crate) digest: [u8; 32],
    template: InstanceTemplate,
    /// The concurrency limit; shared by generations with the same `max_instances`.
    pub(crate) turns: Arc<Turns>,
    spare: Mutex<SpareInstances>,
    /// Notified when an instance was lost and the pool needs a new one.
    pub(crate) wanting: Notify,
}

/// The idle instances; the last one used is reused first (LIFO).
struct SpareInstances {
    instances: Vec<Instance>,
    retired: bool,
}

impl Generation {
    /// Serves a call on an instance of this generation, even if another generation replaces it during the call.
    pub(crate) async fn call<Q: GuestQuestion>(
        &self,
        question: &Q,
        view: Option<View>,
    ) -> Result<GuestReply<Q::Answer>, JudgeFault> {
        let kind = view.as_ref().map(|view| CallKind::of(question.hook(), &view.session));
        let needs = kind.map_or(Lookups::default(), |kind| self.template.state.habits.of(kind));
        let mut ahead = Prefetched { kind, ..Prefetched::default() };
        if let Some(view) = view.as_ref().filter(|_| !needs.is_empty()) {
            // Boxed, so that the future of the many calls without prefetch stays small.
            Box::pin(self.find_out(needs, view, &mut ahead)).await;
        }
        let _turn = self.turn(view.as_ref()).await?;
        let instance = match self.pop_idle() {
            Some(instance) => instance,
            None => self.new_instance().await?,
        };
        let mut lease = InstanceLease { generation: self, instance: Some(instance) };
        let Some(instance) = lease.instance.as_mut() else {
            return Err(no_instance());
        };
        let reply = instance.ask(question, view, ahead, &self.config.limits).await;
        if let (Some(kind), false) = (kind, needs.is_empty()) {
            self.template.state.habits.ended(kind, instance.asked());
        }
        reply
    }

    /// Prefetches the expected lookups before the call takes a turn, so that other calls do not wait for a remote
    /// sender's name servers. The time counts towards the call's limit.
    async fn find_out(&self, needs: Lookups, view: &View, ahead: &mut Prefetched) {
        let services = &self.template.services;
        let began = Instant::now();
        let patience = sender_auth_checks::patience(self.config.limits.wall);
        let names = async {
            if needs.has(Lookup::Names) {
                let dns = TimeLimitedResolver::new(Arc::clone(&services.dns), patience / 2);
                let client = view.session.client.ip();
                ahead.names = Some(pintle_dns::reverse_names(&dns, client, MAX_REVERSE_NAMES).await);
            }
        };
        let results = async {
            if let Some(transaction) = &view.transaction {
                let hostname = services.gateway.load().hostname.clone();
                let (session, transaction) = (Arc::clone(&view.session), Arc::clone(transaction));
                let dns = Arc::clone(&services.dns);
                let received = SenderAuthChecks::new(session, transaction, dns, hostname, patience);
                received.find_out(needs, view.message.as_deref()).await;
            }
        };
        join(names, results).await;
        ahead.spent = began.elapsed();
    }

    /// Retires the generation: no new calls start; idle instances are dropped now, busy ones when their calls end.
    pub(crate) fn retire(&self) {
        let instances = {
            let mut spare = self.spare.lock();
            spare.retired = true;
            std::mem::take(&mut spare.instances)
        };
        drop(instances);
        self.wanting.notify_one();
    }

    /// Creates instances until `min_idle` are idle; stops at `max_instances` or at the first failure.
    pub(crate) async fn refill(&self) -> Result<(), JudgeFault> {
        while self.lacks_spare() {
            let instance = self.new_instance().await?;
            self.put_back(instance);
        }
        Ok(())
    }

    /// Drops instances that have been idle for too long.
    pub(crate) fn shrink(&self, now: Instant) {
        let mut spare = self.spare.lock();
        let beyond = spare.instances.len().saturating_sub(self.config.limits.min_idle);
        let old = |instance: &&Instance| now.saturating_duration_since(instance.idle_since) > SPARE_LIFE;
        let count = spare.instances.iter().take(beyond).take_while(old).count();
        let gone: Vec<_> = spare.instances.drain(..count).collect();
        drop(spare);
        drop(gone);
    }

    pub(crate) fn idle(&self) -> usize {
        self.spare.lock().instances.len()
    }

    pub(crate) fn busy(&self) -> usize {
        self.turns.taken()
    }

    async fn turn(&self, view: Option<&View>) -> Result<Turn<'_>, JudgeFault> {
        let party = CallParty::of(view);
        if let Some(turn) = self.turns.try_take(party) {
            return Ok(turn);
        }
        let name = self.template.state.plugin.to_string();
        metrics::counter!("pintle_plugin_waits_total", "plugin" => name).increment(1);
        let wait = self.config.limits.wait;
        self.turns.take(party, wait).await.map_err(|crowded| busy(wait, crowded))
    }

    fn pop_idle(&self) -> Option<Instance> {
        self.spare.lock().instances.pop()
    }

    async fn new_instance(&self) -> Result<Instance, JudgeFault> {
        let mut instance = Instance::start(&self.template).await?;
        let configured = instance.configure(&self.template.settings, &self.template.limits).await?;
        configured.map_err(|mistakes| JudgeFault {
            kind: FaultKind::BadAnswer,
            text: format!(
                "a new instance refuses the configuration that an earlier one accepted: {}",
                LoadError::Config(mistakes)
            ),
        })?;
        Ok(instance)
    }

    fn put_back(&self, mut instance: Instance) {
        if !instance.is_sound() {
            drop(instance);
            self.wanting.notify_one();
            return;
        }
        instance.idle_since = Instant::now();
        let mut spare = self.spare.lock();
        if !spare.retired {
            spare.instances.push(instance);
        }
    }

    fn lacks_spare(&self) -> bool {
        let limits = &self.config.limits;
        let spare = self.spare.lock();
        let all = spare.instances.len() + self.busy();
        !spare.retired && spare.instances.len() < limits.min_idle && all < limits.max_instances
    }
}

fn busy(wait: Duration, crowded: Crowded) -> JudgeFault {
    let full = match crowded.share {
        Some(share) => format!("the client's network uses the {share} that one network may have"),
        None => format!("all {} are in use", crowded.all),
    };
    let text = format!("no instance became free within {wait:?}: {full} (`max_instances`)");
    JudgeFault { kind: FaultKind::Busy, text }
}

/// Unreachable: a lease holds its instance until it is dropped. The compiler needs a value.
fn no_instance() -> JudgeFault {
    JudgeFault { kind: FaultKind::Busy, text: "the instance is gone".into() }
}

/// An instance reserved for one call. When the lease is dropped, even if the call was cancelled, the instance returns
/// to the pool or is replaced.
struct InstanceLease<'a> {
    generation: &'a Generation,
    instance: Option<Instance>,
}

impl Drop for InstanceLease<'_> {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.generation.put_back(instance);
        }
    }
}
