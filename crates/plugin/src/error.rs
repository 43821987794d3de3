//! Errors of loading and reloading plugins. Every text names the place, the cause and the remedy, since the operator
//! sees nothing else.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use pintle_policy::{Hook, JudgeFault};

use crate::schema::SchemaFault;
use crate::{ConfigMistake, GrantKind};

/// Why a component cannot be loaded: a mistake of the operator or of the plugin's author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadError {
    /// The file cannot be read: its path and the reason.
    Unreadable(PathBuf, String),
    /// The file is not a WebAssembly component, or the engine refuses it.
    NotAComponent(String),
    /// The component lacks the `plugin` export that every plugin must have.
    NoPluginExport,
    /// The component exports no `on-*` interface, so it would never be called.
    NoHook,
    /// The component imports an interface that is not part of the contract.
    UnknownImport(String),
    /// The component was built against a version of the contract that this release does not offer.
    Version {
        /// The interface as the component names it.
        interface: String,
        /// The contract version of this release.
        offered: &'static str,
    },
    /// The component uses an interface, a function or a hook that this release does not serve.
    NotServed {
        /// The kind and the name of what is missing.
        what: String,
        /// The version of the contract that has it.
        since: String,
        /// The contract version of this release.
        offered: &'static str,
    },
    /// The component imports an interface of a preview, which no release has to serve.
    Preview(String),
    /// The component imports an interface without the grant that it requires.
    MissingGrant {
        /// The interface as the component names it.
        interface: String,
        /// The grant that the interface requires.
        grant: GrantKind,
    },
    /// The component exports a hook without the grant that it requires.
    UngrantedHook {
        /// The hook that the component exports.
        hook: Hook,
        /// The grant that the hook requires.
        grant: GrantKind,
    },
    /// The component exceeds a size limit that applies to all plugins.
    TooBig {
        /// The resource that exceeds its limit.
        what: &'static str,
        /// The amount that the component needs.
        needs: u64,
        /// The limit per plugin.
        limit: u64,
    },
    /// An instance failed at start, in `describe` or in `configure`.
    Start(JudgeFault),
    /// The plugin's JSON Schema for its settings cannot be used.
    Schema(SchemaFault),
    /// The settings were refused, by the schema or by the plugin.
    Config(Vec<ConfigMistake>),
    /// The engine could not be started.
    Engine(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, why) => write!(f, "cannot read {}: {why}", path.display()),
            Self::NotAComponent(why) => {
                write!(f, "not a WASI 0.2 component that can be run here: {why}")
            }
            Self::NoPluginExport => f.write_str(
                "the component does not export `pintle:plugin/plugin`, which every plugin has: build it against a \
                 world that includes `pintle:plugin/base`",
            ),
            Self::NoHook => f.write_str(
                "the component exports no hook (such as `pintle:plugin/on-connect`): it would never be called",
            ),
            Self::UnknownImport(_)
            | Self::Version { .. }
            | Self::NotServed { .. }
            | Self::Preview(_)
            | Self::MissingGrant { .. }
            | Self::UngrantedHook { .. } => self.fmt_contract(f),
            Self::TooBig { what, needs, limit } => {
                write!(f, "the component needs {needs} {what}, and a plugin gets at most {limit}")
            }
            Self::Start(fault) => write!(f, "the plugin cannot be started: {} ({})", fault.text, fault.kind.name()),
            Self::Schema(fault) => write!(
                f,
                "the plugin's own schema for its configuration cannot be used, which its author must correct: {fault}"
            ),
            Self::Config(mistakes) => {
                f.write_str("the plugin refuses its configuration: ")?;
                write_list(f, mistakes)
            }
            Self::Engine(why) => write!(f, "the plugin engine cannot be started: {why}"),
        }
    }
}

impl LoadError {
    /// The text of an error about what the component imports and exports.
    fn fmt_contract(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownImport(name) => write!(
                f,
                "the component imports `{name}`, which is neither part of the plugin contract nor of WASI 0.2"
            ),
            Self::Version { interface, offered } => write!(
                f,
                "the component uses `{interface}`, but this release offers version {offered} of the contract: build \
                 it against wit/ of this release"
            ),
            Self::NotServed { what, since, offered } if since == offered => write!(
                f,
                "the component uses the {what}, which is no part of version {offered} of the contract: build it \
                 against wit/ of this release"
            ),
            Self::NotServed { what, since, offered } => write!(
                f,
                "the component uses the {what}, which this release does not serve (it serves version {offered} of the \
                 contract): use a release of Pintle that serves version {since}, or build it without"
            ),
            Self::Preview(interface) => write!(
                f,
                "the component imports `{interface}`, a preview that this release does not serve: build it without"
            ),
            Self::MissingGrant { interface, grant } => write!(
                f,
                "the component imports `{interface}`, which needs the grant `{grant}`: add \"{grant}\" to the \
                 plugin's `grants` if it may have it"
            ),
            Self::UngrantedHook { hook, grant } => write!(
                f,
                "the component exports `pintle:plugin/on-{hook}`, which needs the grant `{grant}`: add \"{grant}\" to \
                 the plugin's `grants` if it may have it"
            ),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for LoadError {}

/// A plugin that cannot be loaded, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginProblem {
    /// The plugin's name in the configuration.
    pub plugin: Arc<str>,
    /// Why it cannot be loaded.
    pub error: LoadError,
}

impl fmt::Display for PluginProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {:?}: {}", self.plugin, self.error)
    }
}

/// Why the plugin host cannot start, or cannot apply a new configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginsError {
    /// The engine could not be started.
    Engine(String),
    /// The cache folder for compiled code cannot be used.
    Cache(PathBuf, String),
    /// The folder for stored values (`kv`) cannot be used.
    State {
        /// Path of the folder.
        folder: PathBuf,
        /// Why the folder cannot be used, and the remedy.
        why: String,
    },
    /// Two plugins have the same name.
    TwiceNamed(String),
    /// A plugin's name is a dotted prefix of another's, so facts of one would appear under the name of the other.
    NamedWithin {
        /// The shorter name, which is the prefix.
        outer: String,
        /// The longer name: the shorter one followed by a dot and more.
        inner: String,
    },
    /// The running engine was started for fewer or smaller plugins; a restart is needed.
    NoRoom {
        /// The resource that is insufficient.
        what: &'static str,
        /// The amount needed.
        needs: u64,
        /// The amount available until a restart.
        limit: u64,
    },
    /// The plugin host is shutting down.
    Closing,
    /// Required plugins cannot be loaded; lists all of them.
    Plugins(Vec<PluginProblem>),
}

impl fmt::Display for PluginsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(why) => write!(f, "the plugin engine cannot be started: {why}"),
            Self::Cache(path, why) => {
                write!(f, "the folder {} for compiled plugins cannot be used: {why}", path.display())
            }
            Self::State { folder, why } => {
                write!(f, "the folder {} for what plugins store cannot be used: {why}", folder.display())
            }
            Self::TwiceNamed(name) => {
                write!(f, "two plugins are called {name:?}: give each a name of its own")
            }
            Self::NamedWithin { outer, inner } => write!(
                f,
                "one plugin is called {outer:?} and another {inner:?}, so that the first \
                 could write facts in the name of the second: choose a name without the dot"
            ),
            Self::NoRoom { what, needs, limit } => write!(
                f,
                "the plugins need {needs} {what}, and the gateway was started with room for {limit}: a restart makes room"
            ),
            Self::Closing => f.write_str("the gateway is shutting down"),
            Self::Plugins(problems) => write_list(f, problems),
        }
    }
}

impl std::error::Error for PluginsError {}

/// Why a plugin was not reloaded. The previous version continues to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadError {
    /// No plugin of this name is configured.
    NoSuchPlugin(String),
    /// The new version cannot be loaded: all reasons.
    Load(Vec<LoadError>),
    /// The plugin host is shutting down.
    Closing,
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchPlugin(name) => write!(f, "there is no plugin {name:?}"),
            Self::Load(errors) => write_list(f, errors),
            Self::Closing => f.write_str("the gateway is shutting down"),
        }
    }
}

impl std::error::Error for ReloadError {}

fn write_list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str("; ")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}
