//! The set of all plugins: loading at start, reload in two steps (prepare and apply), checks, shutdown.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use pintle_dns::Resolver;
use pintle_policy::Judge;

use crate::artifact::Cache;
use crate::engine::GuestEngine;
use crate::generation::ComponentLoader;
use crate::kv::saved::Clocks;
use crate::maintenance::Maintenance;
use crate::prepare::{self, AppliedPlugins, PreparedPlugin, PreparedPlugins};
use crate::state::{GenerationState, HostServices};
use crate::turns::Turns;
use crate::{
    Config, Grants, Manifest, Plugin, PluginCheck, PluginConfig, PluginStatus, PluginsError, ReloadError, kv,
};

/// The plugins of a running gateway. The owner must call [`Plugins::shutdown`].
pub struct Plugins {
    shared: HostShared,
    plugins: ArcSwap<Vec<Arc<Plugin>>>,
    maintenance: Maintenance,
    /// Serialises reloads: one configuration at a time is prepared and applied.
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// Shared data with which every plugin is created.
struct HostShared {
    loader: Arc<ComponentLoader>,
    state: Option<PathBuf>,
    state_is_anothers: bool,
    /// The lock on the state folder; held until stored values are saved for the last time.
    claim: Mutex<Option<kv::folder::FolderClaim>>,
    kv_octets: usize,
}

impl Plugins {
    /// Loads all plugins and starts watching their files. Plugins with the grant `dns` use the resolver `dns`.
    ///
    /// Must be called within a tokio runtime, whose blocking threads compile components. If a metrics recorder is used,
    /// install it first.
    ///
    /// # Errors
    ///
    /// Returns why the host cannot start; all required plugins that cannot be loaded are reported together.
    pub async fn open(config: Config, dns: Arc<dyn Resolver>) -> Result<Self, PluginsError> {
        check_names(&config.plugins)?;
        let cache = config.cache.as_deref().map(Cache::open).transpose()?;
        let shared = HostShared::start(&config, dns, cache)?;
        let maintenance = Maintenance::start(&shared.loader, config.watch.then_some(config.settle));
        let (plugins, changing) = (ArcSwap::default(), Arc::default());
        let opened = Self { shared, plugins, maintenance, changing };
        let prepared = opened.load(config).await?;
        opened.apply(prepared);
        Ok(opened)
    }

    /// The judges, in the order of the configuration.
    #[must_use]
    pub fn judges(&self) -> Vec<Arc<dyn Judge>> {
        let plugins = self.plugins.load();
        plugins.iter().map(|plugin| Arc::clone(plugin) as Arc<dyn Judge>).collect()
    }

    /// State and counters of every plugin, in the order of the configuration.
    #[must_use]
    pub fn status(&self) -> Vec<PluginStatus> {
        self.plugins.load().iter().map(|plugin| plugin.status()).collect()
    }

    /// Reloads a plugin's component, from its file or from the embedded bytes; returns the number of the new
    /// generation. Running calls finish on the previous generation.
    ///
    /// # Errors
    ///
    /// Returns why the reload failed; the previous generation continues to serve.
    pub async fn reload(&self, name: &str) -> Result<u64, ReloadError> {
        let plugin = self.find(name);
        let plugin = plugin.ok_or_else(|| ReloadError::NoSuchPlugin(name.to_owned()))?;
        if self.maintenance.is_closing() {
            return Err(ReloadError::Closing);
        }
        plugin.reload(&self.shared.loader).await.map_err(ReloadError::Load)
    }

    /// Loads another configuration while the current one serves: plugins that are new, or whose configuration or
    /// component file has changed. Serving plugins are not affected. Host-wide options keep their values from the
    /// start, except for the information about the gateway.
    ///
    /// Waits until an earlier prepared configuration is applied or dropped, and until running reloads have finished.
    ///
    /// # Errors
    ///
    /// Returns the problems of all plugins that cannot be loaded and are required or already serve.
    pub async fn prepare(&self, config: Config) -> Result<PreparedPlugins, PluginsError> {
        check_names(&config.plugins)?;
        self.shared.loader.host.has_room_for(&config.plugins)?;
        self.load(config).await
    }

    async fn load(&self, config: Config) -> Result<PreparedPlugins, PluginsError> {
        let changing = Arc::clone(&self.changing).lock_owned().await;
        if self.maintenance.is_closing() {
            return Err(PluginsError::Closing);
        }
        let (loader, gateway) = (&self.shared.loader, config.gateway);
        let plugins = config.plugins.into_iter().map(async |config| match self.find(&config.name) {
            Some(plugin) => PreparedPlugin::known(plugin, Arc::new(config), loader, &gateway).await,
            None => PreparedPlugin::new(self.shared.plugin(config), loader, &gateway).await,
        });
        let plugins = join_all(plugins).await;
        prepare::check_required(&plugins)?;
        Ok(PreparedPlugins { plugins, gateway, _changing: changing })
    }

    /// Makes a prepared configuration serve all calls that start from now on. Fetch the judges again afterwards.
    pub fn apply(&self, prepared: PreparedPlugins) -> AppliedPlugins {
        let mut applied = AppliedPlugins::default();
        let prepared_plugins = prepared.plugins.into_iter();
        let plugins: Vec<_> = prepared_plugins.map(|plugin| plugin.apply(&mut applied)).collect();
        self.shared.loader.services.set_gateway(prepared.gateway);
        self.maintenance.take_over(&plugins);
        let before = self.plugins.swap(Arc::new(plugins));
        let names = before.iter().map(|plugin| Arc::clone(plugin.name()));
        applied.removed = names.filter(|name| self.find(name).is_none()).collect();
        applied
    }

    /// Stops timers, file watching and idle instances, and waits for them. Running calls are awaited by the chains;
    /// later calls are handled as those of a plugin that is not loaded.
    pub async fn shutdown(&self) {
        self.maintenance.close().await;
        // A prepared configuration is applied before this point, or never.
        let _changing = self.changing.lock().await;
        for plugin in self.plugins.load().iter() {
            plugin.unload();
        }
        self.shared.claim.lock().take();
    }

    fn find(&self, name: &str) -> Option<Arc<Plugin>> {
        let plugins = self.plugins.load();
        plugins.iter().find(|plugin| &**plugin.name() == name).cloned()
    }
}

/// Loads all plugins as [`Plugins::open`] does, but without a resolver, file watching or calls of hooks, and reports on
/// each; implements `pintle check`. Creates no folder.
///
/// # Errors
///
/// The engine could not be started, or two plugins share a name.
pub async fn check(config: Config) -> Result<Vec<PluginCheck>, PluginsError> {
    check_names(&config.plugins)?;
    // Stored values belong to the running gateway.
    let config = Config { state: None, ..config };
    let cache = config.cache.as_deref().and_then(Cache::as_it_is);
    let shared = HostShared::start(&config, Arc::new(no_dns::NoDns), cache)?;
    let mut reports = Vec::new();
    let gateway = config.gateway;
    for config in config.plugins.into_iter().map(Arc::new) {
        let turns = Arc::new(Turns::new(1));
        let loaded = shared.loader.load(&shared.state_of(&config.name), &config, turns, &gateway).await;
        reports.push(PluginCheck {
            name: config.name.clone(),
            ungranted: ungranted(loaded.manifest.as_ref(), &config.grants),
            denied: loaded.missing,
            manifest: loaded.manifest,
            hooks: loaded.hooks.iter().collect(),
            errors: loaded.result.err().unwrap_or_default(),
        });
    }
    Ok(reports)
}

fn ungranted(manifest: Option<&Manifest>, grants: &Grants) -> Vec<String> {
    let has = |name: &String| name.parse().is_ok_and(|kind| grants.contains(kind));
    manifest
        .map_or_else(Vec::new, |manifest| manifest.wants.iter().filter(|name| !has(name)).cloned().collect())
}

impl HostShared {
    fn start(config: &Config, dns: Arc<dyn Resolver>, cache: Option<Cache>) -> Result<Self, PluginsError> {
        let cache = cache.map(Arc::new);
        // A host that only reads does not lock the folder.
        let claimed = config.state.as_ref().filter(|_| !config.state_is_anothers);
        let claim = claimed.map(|folder| {
            kv::folder::claim(folder).map_err(|why| PluginsError::State { folder: folder.clone(), why })
        });
        let claim = Mutex::new(claim.transpose()?);
        let host = Arc::new(GuestEngine::start(config).map_err(PluginsError::Engine)?);
        let services = Arc::new(HostServices {
            dns,
            gateway: ArcSwap::from_pointee(config.gateway.clone()),
            gateway_generation: AtomicU32::default(),
            max_message: config.max_message,
        });
        Ok(Self {
            loader: Arc::new(ComponentLoader { host, services, cache }),
            state: config.state.clone(),
            state_is_anothers: config.state_is_anothers,
            claim,
            kv_octets: config.kv_octets,
        })
    }

    fn plugin(&self, config: PluginConfig) -> Plugin {
        Plugin::new(self.state_of(&config.name), Arc::new(config))
    }

    fn state_of(&self, plugin: &str) -> Arc<GenerationState> {
        let file = self.state.as_deref().map(|folder| kv::saved::path(folder, plugin));
        let kv = if self.state_is_anothers {
            kv::KvStore::copy(self.kv_octets, file.as_deref(), Clocks::read())
        } else {
            kv::KvStore::open(self.kv_octets, file, Clocks::read())
        };
        Arc::new(GenerationState::new(plugin, kv))
    }
}

fn check_names(plugins: &[PluginConfig]) -> Result<(), PluginsError> {
    let mut seen = HashSet::new();
    if let Some(twice) = plugins.iter().find(|plugin| !seen.insert(plugin.name.as_str())) {
        return Err(PluginsError::TwiceNamed(twice.name.clone()));
    }
    // No plugin may write facts under the name of another.
    let above =
        |name: &str| name.match_indices('.').map(|(dot, _)| dot).find(|dot| seen.contains(&name[..*dot]));
    match plugins.iter().find_map(|plugin| above(&plugin.name).map(|dot| (&plugin.name, dot))) {
        Some((inner, dot)) => {
            Err(PluginsError::NamedWithin { outer: inner[..dot].to_owned(), inner: inner.clone() })
        }
        None => Ok(()),
    }
}

mod no_dns {
    //! The resolver for checks, in which no plugin may make queries: it refuses all of them.

    use futures_util::future::BoxFuture;
    use pintle_dns::{DnsAnswer, DnsError, DnsRecordKind, Resolver};

    pub(super) struct NoDns;

    impl Resolver for NoDns {
        fn lookup(&self, _: &str, _: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
            Box::pin(std::future::ready(Err(DnsError::Unreachable)))
        }
    }
}
