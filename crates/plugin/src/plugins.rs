//! All plugins of the gateway: opened together, asked in order, changed one by one, closed together.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use pintle_dns::Resolver;
use pintle_policy::Judge;

use crate::artifact::Cache;
use crate::engine::Host;
use crate::generation::{self, Generation, Loader};
use crate::guest_log::LogQuota;
use crate::habits::Habits;
use crate::kv::saved::Clocks;
use crate::maintenance::Maintenance;
use crate::plugin_metrics::PluginMetrics;
use crate::store_data::PluginShared;
use crate::turns::Turns;
use crate::{
    Config, Gateway, Grants, LoadError, Manifest, OpenError, Plugin, PluginCheck, PluginConfig, Problem,
    ReloadError, Status, kv,
};

/// The plugins of a running gateway. Whoever opens them closes them.
pub struct Plugins {
    shared: HostShared,
    plugins: ArcSwap<Vec<Arc<Plugin>>>,
    upkeep: Maintenance,
}

/// What every plugin is made with.
struct HostShared {
    loader: Arc<Loader>,
    dns: Arc<dyn Resolver>,
    gateway: Arc<ArcSwap<Gateway>>,
    state: Option<PathBuf>,
    state_is_anothers: bool,
    /// Until what plugins have stored is saved for the last time.
    claim: Mutex<Option<kv::folder::Claim>>,
    kv_octets: usize,
    max_message: u64,
}

impl Plugins {
    /// Loads all plugins and begins to watch their files. `dns` is what plugins with the grant of this name ask.
    ///
    /// Must be called within a tokio runtime, whose blocking threads compile, and after a recorder of metrics is
    /// installed, if there is to be one.
    ///
    /// # Errors
    /// What keeps the host from starting; all plugins that are required and do not load are named together.
    pub async fn open(config: Config, dns: Arc<dyn Resolver>) -> Result<Self, OpenError> {
        check_names(&config.plugins)?;
        let cache = config.cache.as_deref().map(Cache::open).transpose()?;
        let shared = HostShared::start(&config, dns, cache)?;
        let configs: Vec<_> = config.plugins.into_iter().map(Arc::new).collect();
        let plugins: Vec<_> = configs.iter().map(|config| Arc::new(shared.plugin(config))).collect();
        let pairs = plugins.iter().zip(&configs);
        let loads = pairs.map(|(plugin, of)| plugin.load(&shared.loader, of, &config.gateway));
        let mut changes = Vec::new();
        for (plugin, loaded) in plugins.iter().zip(join_all(loads).await) {
            changes.push((Arc::clone(plugin), loaded.result));
        }
        go_live(changes)?;
        let upkeep = Maintenance::start(&shared.loader, &plugins, config.watch.then_some(config.settle));
        Ok(Self { shared, plugins: ArcSwap::from_pointee(plugins), upkeep })
    }

    /// The judges, in the order of the configuration.
    #[must_use]
    pub fn judges(&self) -> Vec<Arc<dyn Judge>> {
        let plugins = self.plugins.load();
        plugins.iter().map(|plugin| Arc::clone(plugin) as Arc<dyn Judge>).collect()
    }

    /// How every plugin fares, in the order of the configuration.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        self.plugins.load().iter().map(|plugin| plugin.status()).collect()
    }

    /// Loads a plugin's component again, from its file or the same bytes; gives the number of the generation that now
    /// serves. Calls that have begun end on the old one.
    ///
    /// # Errors
    /// Why the old one serves on.
    pub async fn reload(&self, name: &str) -> Result<u64, ReloadError> {
        let plugin = self.find(name);
        let plugin = plugin.ok_or_else(|| ReloadError::NoSuchPlugin(name.to_owned()))?;
        if self.upkeep.is_closing() {
            return Err(ReloadError::Closing);
        }
        plugin.reload(&self.shared.loader).await.map_err(ReloadError::Load)
    }

    /// Takes another configuration: plugins that are new or changed, in the configuration or on disk, are loaded, and all go
    /// live together when all that are required, and all that serve already, have loaded; plugins that it no longer names
    /// end once no chain holds them. The judges must be fetched anew. What is not about single plugins stays as it was at
    /// the start. Gives what is wrong with plugins that may be missing, and are.
    ///
    /// # Errors
    /// What is wrong; everything is then as it was.
    pub async fn reconfigure(&self, config: Config) -> Result<Vec<Problem>, OpenError> {
        check_names(&config.plugins)?;
        let room = self.shared.loader.host.has_room_for(&config.plugins);
        room.map_err(|error| OpenError::Engine(error.to_string()))?;
        let configs: Vec<_> = config.plugins.into_iter().map(Arc::new).collect();
        let gateway = config.gateway;
        let mut plugins = Vec::new();
        let mut changes = Vec::new();
        let mut same = Vec::new();
        for config in &configs {
            let plugin = self.find(&config.name).unwrap_or_else(|| Arc::new(self.shared.plugin(config)));
            if plugin.config() != *config || plugin.is_outdated().await {
                let loaded = plugin.load(&self.shared.loader, config, &gateway).await;
                changes.push((Arc::clone(&plugin), loaded.result));
            } else if let Err(error) = still_named(&plugin, config, &gateway) {
                changes.push((Arc::clone(&plugin), Err(vec![error])));
            } else {
                same.push((Arc::clone(&plugin), Arc::clone(config)));
            }
            plugins.push(plugin);
        }
        let missing = go_live(changes)?;
        same.into_iter().for_each(|(plugin, config)| plugin.stands_at(config));
        self.shared.gateway.store(Arc::new(gateway));
        self.upkeep.take_over(&plugins);
        self.plugins.store(Arc::new(plugins));
        Ok(missing)
    }

    /// Ends timers, watching and spare instances, and waits for them. Calls that are under way are the chains' to
    /// await; calls that begin later get the answer of a plugin that is not loaded.
    pub async fn shutdown(&self) {
        self.upkeep.close().await;
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

/// Loads all plugins as [`Plugins::open`] would, without a resolver, a watch or a call to a hook, and reports on each:
/// what `pintle check` is made of. No folder is made.
///
/// # Errors
/// The engine could not be started, or two plugins share a name.
pub async fn check(config: Config) -> Result<Vec<PluginCheck>, OpenError> {
    check_names(&config.plugins)?;
    // What plugins have stored is the running gateway's affair.
    let config = Config { state: None, ..config };
    let cache = config.cache.as_deref().and_then(Cache::as_it_is);
    let shared = HostShared::start(&config, Arc::new(no_dns::NoDns), cache)?;
    let mut reports = Vec::new();
    let gateway = config.gateway;
    for config in config.plugins.into_iter().map(Arc::new) {
        let turns = Arc::new(Turns::new(1));
        let loaded = shared.loader.load(&shared.common(&config), &config, turns, &gateway).await;
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
    let has = |name: &String| grants.iter().any(|grant| grant.name() == name);
    manifest
        .map_or_else(Vec::new, |manifest| manifest.wants.iter().filter(|name| !has(name)).cloned().collect())
}

impl HostShared {
    fn start(config: &Config, dns: Arc<dyn Resolver>, cache: Option<Cache>) -> Result<Self, OpenError> {
        let cache = cache.map(Arc::new);
        // Who only reads keeps nobody else out.
        let claimed = config.state.as_ref().filter(|_| !config.state_is_anothers);
        let claim = claimed.map(|folder| {
            kv::folder::claim(folder).map_err(|why| OpenError::State { folder: folder.clone(), why })
        });
        let claim = Mutex::new(claim.transpose()?);
        let host = Arc::new(Host::start(config).map_err(OpenError::Engine)?);
        Ok(Self {
            loader: Arc::new(Loader { host, cache }),
            dns,
            gateway: Arc::new(ArcSwap::from_pointee(config.gateway.clone())),
            state: config.state.clone(),
            state_is_anothers: config.state_is_anothers,
            claim,
            kv_octets: config.kv_octets,
            max_message: config.max_message,
        })
    }

    fn plugin(&self, config: &Arc<PluginConfig>) -> Plugin {
        Plugin::new(self.common(config), Arc::clone(config))
    }

    fn common(&self, config: &PluginConfig) -> Arc<PluginShared> {
        let file = self.state.as_deref().map(|folder| kv::saved::path(folder, &config.name));
        Arc::new(PluginShared {
            name: config.name.as_str().into(),
            dns: Arc::clone(&self.dns),
            gateway: Arc::clone(&self.gateway),
            kv: if self.state_is_anothers {
                kv::Store::copy(self.kv_octets, file.as_deref(), Clocks::read())
            } else {
                kv::Store::open(self.kv_octets, file, Clocks::read())
            },
            gauges: PluginMetrics::new(&config.name),
            habits: Habits::default(),
            quota: Arc::new(LogQuota::new(Instant::now())),
            max_message: self.max_message,
        })
    }
}

fn check_names(plugins: &[PluginConfig]) -> Result<(), OpenError> {
    let mut seen = HashSet::new();
    if let Some(twice) = plugins.iter().find(|plugin| !seen.insert(plugin.name.as_str())) {
        return Err(OpenError::TwiceNamed(twice.name.clone()));
    }
    // What is written under one name must not be what another could have written.
    let above =
        |name: &str| name.match_indices('.').map(|(dot, _)| dot).find(|dot| seen.contains(&name[..*dot]));
    match plugins.iter().find_map(|plugin| above(&plugin.name).map(|dot| (&plugin.name, dot))) {
        Some((inner, dot)) => {
            Err(OpenError::NamedWithin { outer: inner[..dot].to_owned(), inner: inner.clone() })
        }
        None => Ok(()),
    }
}

type Change = (Arc<Plugin>, Result<Generation, Vec<LoadError>>);

/// Lets all generations serve, or none when one is missing that is required, or that serves already in another version:
/// whoever breaks it would not be told otherwise. Gives what is wrong with the others.
fn go_live(changes: Vec<Change>) -> Result<Vec<Problem>, OpenError> {
    let must_load = |plugin: &Plugin| plugin.config().required || plugin.current().is_some();
    let failed = |(plugin, result): &Change| match result {
        Err(errors) => problems(plugin, errors),
        Ok(_) => Vec::new(),
    };
    let fatal = changes.iter().filter(|(plugin, _)| must_load(plugin)).flat_map(failed);
    let fatal: Vec<_> = fatal.collect();
    if !fatal.is_empty() {
        return Err(OpenError::Plugins(fatal));
    }
    let missing = changes.iter().flat_map(failed).collect();
    for (plugin, result) in changes {
        match result {
            Ok(generation) => plugin.go_live(generation),
            Err(errors) => plugin.not_live(&errors),
        }
    }
    Ok(missing)
}

/// What a plugin's settings name may be gone, though neither they nor the plugin have changed.
fn still_named(plugin: &Plugin, config: &PluginConfig, gateway: &Gateway) -> Result<(), LoadError> {
    let serving = plugin.current().and_then(|generation| generation.manifest.clone());
    serving.map_or(Ok(()), |manifest| generation::check_names(&manifest, config, gateway))
}

fn problems(plugin: &Plugin, errors: &[LoadError]) -> Vec<Problem> {
    let problem = |error: &LoadError| Problem { plugin: Arc::clone(plugin.name()), error: error.clone() };
    errors.iter().map(problem).collect()
}

mod no_dns {
    //! A resolver for checks, where nothing may ask.

    use futures_util::future::BoxFuture;
    use pintle_dns::{DnsAnswer, DnsError, RecordKind, Resolver};

    pub(super) struct NoDns;

    impl Resolver for NoDns {
        fn lookup(&self, _: &str, _: RecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
            Box::pin(std::future::ready(Err(DnsError::Unreachable)))
        }
    }
}
