//! A reload in two steps: a configuration is loaded beside the one that serves, and takes its place later or never.
//!
//! All that can fail belongs to the first step ([`Plugins::prepare`](crate::Plugins::prepare)), which changes nothing that
//! serves. The second ([`Plugins::apply`](crate::Plugins::apply)) cannot fail, so that a caller can prepare its other parts
//! too before it applies any of them.

use std::sync::Arc;

use pintle_policy::Judge;
use tokio::sync::OwnedMutexGuard;

use crate::generation::{self, ComponentLoader, Generation};
use crate::{Gateway, LoadError, Plugin, PluginConfig, PluginProblem, PluginsError};

/// A configuration that is loaded and waits to be applied. Dropped, it leaves everything as it was.
///
/// As long as it lives, no other configuration is prepared, and no plugin is reloaded: both wait.
#[must_use = "a prepared configuration changes nothing before it is applied"]
pub struct PreparedPlugins {
    pub(crate) plugins: Vec<PreparedPlugin>,
    pub(crate) gateway: Gateway,
    pub(crate) _changing: OwnedMutexGuard<()>,
}

/// What an applied configuration has changed, by the plugins' names in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppliedPlugins {
    /// What is wrong with plugins that may be missing (`required = false`) and are. They answer by their failure policy.
    pub missing: Vec<PluginProblem>,
    /// Plugins that were not configured before.
    pub added: Vec<Arc<str>>,
    /// Plugins that the configuration no longer names. Each ends once no chain holds it.
    pub removed: Vec<Arc<str>>,
    /// Plugins with the same configuration and another component.
    pub reloaded: Vec<Arc<str>>,
    /// Plugins whose configuration has changed.
    pub reconfigured: Vec<Arc<str>>,
}

/// One plugin of a prepared configuration.
pub(crate) struct PreparedPlugin {
    plugin: Arc<Plugin>,
    config: Arc<PluginConfig>,
    step: PreparedStep,
    loaded: PreparedLoad,
    _changing: OwnedMutexGuard<()>,
}

/// How a plugin's configuration differs from the one before.
#[derive(Clone, Copy)]
enum PreparedStep {
    Add,
    Reconfigure,
    /// The same configuration.
    Keep,
}

/// What applying a plugin does.
enum PreparedLoad {
    /// What serves is what the configuration names.
    Unchanged,
    /// A generation that is ready to serve.
    Ready(Arc<Generation>),
    /// It cannot be loaded, for all of these reasons.
    Failed(Vec<LoadError>),
}

impl PreparedPlugin {
    /// A plugin that was not configured before.
    pub(crate) async fn new(plugin: Plugin, loader: &ComponentLoader, gateway: &Gateway) -> Self {
        let plugin = Arc::new(plugin);
        let changing = plugin.hold().await;
        let config = plugin.config();
        let loaded = load(&plugin, &config, loader, gateway).await;
        Self { plugin, config, step: PreparedStep::Add, loaded, _changing: changing }
    }

    /// A plugin that is configured already, and perhaps otherwise. It is loaded where its configuration or its component
    /// has changed, and where nothing serves.
    pub(crate) async fn known(
        plugin: Arc<Plugin>,
        config: Arc<PluginConfig>,
        loader: &ComponentLoader,
        gateway: &Gateway,
    ) -> Self {
        let changing = plugin.hold().await;
        let same = plugin.config() == config;
        let step = if same { PreparedStep::Keep } else { PreparedStep::Reconfigure };
        let loaded = if !same || plugin.is_outdated().await {
            load(&plugin, &config, loader, gateway).await
        } else if let Err(error) = still_named(&plugin, &config, gateway) {
            PreparedLoad::Failed(vec![error])
        } else {
            PreparedLoad::Unchanged
        };
        Self { plugin, config, step, loaded, _changing: changing }
    }

    /// What keeps the whole configuration from being applied: a plugin that is required fails, or one that serves already
    /// in another version. The operator would not learn otherwise that a change broke it.
    fn fatal(&self) -> Vec<PluginProblem> {
        let must_load = self.config.required || self.plugin.current().is_some();
        match &self.loaded {
            PreparedLoad::Failed(errors) if must_load => self.problems(errors),
            _ => Vec::new(),
        }
    }

    fn problems(&self, errors: &[LoadError]) -> Vec<PluginProblem> {
        let problem = |error: &LoadError| PluginProblem {
            plugin: Arc::clone(self.plugin.name()),
            error: error.clone(),
        };
        errors.iter().map(problem).collect()
    }

    /// Makes the change and writes it down.
    pub(crate) fn apply(self, applied: &mut AppliedPlugins) -> Arc<Plugin> {
        let name = Arc::clone(self.plugin.name());
        match (self.step, &self.loaded) {
            (PreparedStep::Add, _) => {
                self.plugin.state().kv.put_damaged_aside();
                applied.added.push(name);
            }
            (PreparedStep::Reconfigure, _) => applied.reconfigured.push(name),
            (PreparedStep::Keep, PreparedLoad::Ready(_)) => applied.reloaded.push(name),
            (PreparedStep::Keep, _) => {}
        }
        if let PreparedLoad::Failed(errors) = &self.loaded {
            applied.missing.extend(self.problems(errors));
        }
        self.plugin.take_config(self.config);
        match self.loaded {
            PreparedLoad::Unchanged => {}
            PreparedLoad::Ready(generation) => {
                self.plugin.go_live(generation);
            }
            PreparedLoad::Failed(errors) => self.plugin.not_live(&errors),
        }
        self.plugin
    }
}

/// Refuses a configuration in which a plugin fails that must not.
pub(crate) fn check_required(plugins: &[PreparedPlugin]) -> Result<(), PluginsError> {
    let fatal: Vec<_> = plugins.iter().flat_map(PreparedPlugin::fatal).collect();
    if fatal.is_empty() { Ok(()) } else { Err(PluginsError::Plugins(fatal)) }
}

async fn load(
    plugin: &Plugin,
    config: &Arc<PluginConfig>,
    loader: &ComponentLoader,
    gateway: &Gateway,
) -> PreparedLoad {
    match plugin.load(loader, config, gateway).await.result {
        Ok(generation) => PreparedLoad::Ready(Arc::new(generation)),
        Err(errors) => PreparedLoad::Failed(errors),
    }
}

/// What a plugin's settings name may be gone from the gateway's configuration, though neither they nor the plugin have
/// changed.
fn still_named(plugin: &Plugin, config: &PluginConfig, gateway: &Gateway) -> Result<(), LoadError> {
    let serving = plugin.current().and_then(|generation| generation.manifest.clone());
    serving.map_or(Ok(()), |manifest| generation::check_names(&manifest, config, gateway))
}
