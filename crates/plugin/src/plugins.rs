//! All plugins of the gateway: opened together, asked in order, changed one by one, closed together.

use std::sync::Arc;

use pintle_dns::Resolver;
use pintle_policy::{Hooks, Judge, Ruling, View};

use crate::{Config, LoadError, OpenError, PluginConfig, Problem, ReloadError, Report, Status};

/// The plugins of a running gateway. Whoever opens them closes them.
pub struct Plugins {
    plugins: Vec<Arc<Plugin>>,
}

/// One plugin, whichever generation of it serves: the judge that the chains ask.
pub struct Plugin {
    name: Arc<str>,
}

impl Plugins {
    /// Loads all plugins and begins to watch their files. `dns` is what plugins with the grant of this name ask.
    ///
    /// Must be called within a tokio runtime; compiling happens on its blocking threads.
    ///
    /// # Errors
    /// What keeps the host from starting; all plugins that are required and do not load are named together.
    pub async fn open(config: Config, dns: Arc<dyn Resolver>) -> Result<Self, OpenError> {
        let _ = dns;
        let problem = |plugin: &PluginConfig| Problem {
            plugin: plugin.name.as_str().into(),
            error: LoadError::Engine("this build has no engine yet".into()),
        };
        let problems: Vec<_> = config.plugins.iter().map(problem).collect();
        if problems.is_empty() {
            Ok(Self { plugins: Vec::new() })
        } else {
            Err(OpenError::Plugins(problems))
        }
    }

    /// The judges, in the order of the configuration.
    #[must_use]
    pub fn judges(&self) -> Vec<Arc<dyn Judge>> {
        self.plugins
            .iter()
            .map(|plugin| Arc::clone(plugin) as Arc<dyn Judge>)
            .collect()
    }

    /// How every plugin fares, in the order of the configuration.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        Vec::new()
    }

    /// Loads a plugin's component again, from its file or the same bytes; gives the number of the generation that now
    /// serves. Calls that have begun end on the old one.
    ///
    /// # Errors
    /// Why the old one serves on.
    pub async fn reload(&self, name: &str) -> Result<u64, ReloadError> {
        Err(ReloadError::NoSuchPlugin(name.to_owned()))
    }

    /// Takes another configuration: plugins that are new or changed are loaded, and all go live together when all that
    /// are required have loaded; plugins that it no longer names end. The judges must be fetched anew. `cache` and `watch` stay as they were at the start.
    ///
    /// # Errors
    /// What is wrong; everything is then as it was.
    pub async fn reconfigure(&self, config: Config) -> Result<(), OpenError> {
        let _ = config;
        Ok(())
    }

    /// Ends timers, watching and spare instances, and waits for them. Calls that are under way are the chains' to
    /// await; calls that begin later get the answer of a plugin that is not loaded.
    pub async fn shutdown(&self) {}
}

/// Loads all plugins as [`Plugins::open`] would, without a resolver, a watch or a call to a hook, and reports on each:
/// what `pintle check` is made of.
///
/// # Errors
/// The engine could not be started, or two plugins share a name.
pub async fn check(config: Config) -> Result<Vec<Report>, OpenError> {
    let _ = config;
    Ok(Vec::new())
}

impl Judge for Plugin {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn hooks(&self) -> Hooks {
        Hooks::NONE
    }

    fn judge(&self, _: pintle_policy::Call, _: View) -> futures_util::future::BoxFuture<'_, Ruling> {
        Box::pin(std::future::ready(pintle_policy::Verdict::Next.into()))
    }
}
