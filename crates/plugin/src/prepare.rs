//! Reload in two steps: load a configuration while the current one serves, then apply it or drop it.
//!
//! Everything that can fail happens in the first step ([`Plugins::prepare`](crate::Plugins::prepare)), which changes
//! nothing that serves. The second step ([`Plugins::apply`](crate::Plugins::apply)) cannot fail. So a caller can
//! prepare all of its parts before it applies any of them.

use std::sync::Arc;

use pintle_policy::Judge;
use tokio::sync::OwnedMutexGuard;

use crate::generation::{self, ComponentLoader, Generation};
use crate::{Gateway, LoadError, Plugin, PluginConfig, PluginProblem, PluginsError};

/// A loaded configuration that is ready to be applied. Dropping it changes nothing.
///
/// While it exists, preparing another configuration and reloading a plugin wait.
#[must_use = "a prepared configuration changes nothing before it is applied"]
pub struct PreparedPlugins {
    pub(crate) plugins: Vec<PreparedPlugin>,
    pub(crate) gateway: Gateway,
    pub(crate) _changing: OwnedMutexGuard<()>,
}

/// The changes that applying a configuration made, by plugin name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppliedPlugins {
    /// Optional plugins (`required = false`) that cannot be loaded, with the reason. Their failure policy applies.
    pub missing: Vec<PluginProblem>,
    /// Plugins that were not configured before.
    pub added: Vec<Arc<str>>,
    /// Plugins removed from the configuration. Each ends when the last chain that holds it is dropped.
    pub removed: Vec<Arc<str>>,
    /// Plugins with an unchanged configuration and a changed component.
    pub reloaded: Vec<Arc<str>>,
    /// Plugins with a changed configuration.
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

/// How a plugin's configuration compares with the one in force.
#[derive(Clone, Copy)]
enum PreparedStep {
    Add,
    Reconfigure,
    /// The configuration is unchanged.
    Keep,
}

/// The result of loading, as applied to a plugin.
enum PreparedLoad {
    /// The serving generation already matches the configuration.
    Unchanged,
    /// A new generation that is ready to serve.
    Ready(Arc<Generation>),
    /// The plugin cannot be loaded: all reasons.
    Failed(Vec<LoadError>),
}

impl PreparedPlugin {
    /// Prepares a plugin that was not configured before.
    pub(crate) async fn new(plugin: Plugin, loader: &ComponentLoader, gateway: &Gateway) -> Self {
        let plugin = Arc::new(plugin);
        let changing = plugin.hold().await;
        let config = plugin.config();
        let loaded = load(&plugin, &config, loader, gateway).await;
        Self { plugin, config, step: PreparedStep::Add, loaded, _changing: changing }
    }

    /// Prepares a plugin that is already configured. It is loaded if its configuration or component has changed, or if
    /// no generation serves.
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

    /// Problems that prevent the whole configuration from being applied: of required plugins, and of plugins of which
    /// an earlier version serves. Otherwise the operator would not learn that the change broke the plugin.
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

    /// Applies the change and records it in `applied`.
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

/// Refuses a configuration with a plugin whose failure is fatal.
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

/// Checks the names in a plugin's settings again: the gateway's configuration may have lost them, even if the settings
/// and the plugin are unchanged.
fn still_named(plugin: &Plugin, config: &PluginConfig, gateway: &Gateway) -> Result<(), LoadError> {
    let serving = plugin.current().and_then(|generation| generation.manifest.clone());
    serving.map_or(Ok(()), |manifest| generation::check_names(&manifest, config, gateway))
}
