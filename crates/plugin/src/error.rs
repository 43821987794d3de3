//! Why a plugin is not loaded. Every text names the place, the cause and the remedy, since the operator sees nothing
//! else.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use pintle_policy::{Hook, JudgeFault};

use crate::schema::SchemaFault;
use crate::{ConfigMistake, GrantKind};

/// Why one component cannot be loaded: a mistake of the operator or of the plugin's author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadError {
    /// The file cannot be read.
    Unreadable(PathBuf, String),
    /// It is not a WebAssembly component, or the engine refuses it.
    NotAComponent(String),
    /// It lacks the export that every plugin has.
    NoPluginExport,
    /// It exports no `on-*` interface: it would never be called.
    NoHook,
    /// It exports an interface of the contract's package that this release does not know.
    Export(String),
    /// It imports something that is not part of the contract.
    UnknownImport(String),
    /// It was built against a version of the contract that this release does not offer.
    Version {
        /// The interface as the component names it.
        interface: String,
        /// The version of the contract here.
        offered: &'static str,
    },
    /// It imports an interface that this release does not serve yet.
    NotServed(String),
    /// It imports an interface without the grant.
    MissingGrant {
        /// The interface as the component names it.
        interface: String,
        /// The grant that is missing.
        grant: GrantKind,
    },
    /// It exports a hook without the grant.
    UngrantedHook {
        /// The hook.
        hook: Hook,
        /// The grant that is missing.
        grant: GrantKind,
    },
    /// It needs more of something than any plugin gets.
    TooBig {
        /// What it needs too much of.
        what: &'static str,
        /// How much it needs.
        needs: u64,
        /// The most that a plugin gets.
        limit: u64,
    },
    /// It went wrong while it was started, described or configured.
    Start(JudgeFault),
    /// Its JSON Schema for its configuration cannot be used.
    Schema(SchemaFault),
    /// Its schema or the plugin itself refuses its configuration.
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
            Self::Export(what) => f.write_str(what),
            Self::UnknownImport(name) => write!(
                f,
                "the component imports `{name}`, which is neither part of the plugin contract nor of WASI 0.2"
            ),
            Self::Version { interface, offered } => write!(
                f,
                "the component uses `{interface}`, but this release offers version {offered} of the contract: build \
                 it against wit/ of this release"
            ),
            Self::NotServed(interface) => write!(
                f,
                "the component imports `{interface}`, which this release does not serve yet: build it without"
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

impl std::error::Error for LoadError {}

/// What is wrong with one plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginProblem {
    /// Its name in the configuration.
    pub plugin: Arc<str>,
    /// What is wrong.
    pub error: LoadError,
}

impl fmt::Display for PluginProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {:?}: {}", self.plugin, self.error)
    }
}

/// Why the host does not start, or does not take another configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PluginsError {
    /// The engine could not be started.
    Engine(String),
    /// The folder for compiled code cannot be used.
    Cache(PathBuf, String),
    /// The folder for what plugins store cannot be used.
    State {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        why: String,
    },
    /// Two plugins have this name.
    TwiceNamed(String),
    /// The facts of one plugin would stand under the name of another.
    NamedWithin {
        /// The shorter name.
        outer: String,
        /// The longer name, which begins with the shorter one and a dot.
        inner: String,
    },
    /// The engine was started for fewer or smaller plugins than these.
    NoRoom {
        /// What they need too much of.
        what: &'static str,
        /// How much they need.
        needs: u64,
        /// How much there is until a restart.
        limit: u64,
    },
    /// The host is shutting down.
    Closing,
    /// Required plugins cannot be loaded: all of them are listed.
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

/// Why a plugin was not reloaded. What served before serves on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadError {
    /// No plugin has this name.
    NoSuchPlugin(String),
    /// The new version does not load, for all of these reasons.
    Load(Vec<LoadError>),
    /// The host is shutting down.
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
