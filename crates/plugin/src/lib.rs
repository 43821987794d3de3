//! The plugin host: runs WASI components at the stages of a message's life, and survives whatever they do.
//!
//! [`Plugins`] loads what the configuration names and hands out judges (`pintle_policy::Judge`), one a plugin, in the
//! order of the configuration. Everything a guest can do is bounded: time, memory, and the size of what it asks for. A
//! guest that loops, traps, exhausts memory or gives an invalid answer costs one call and one instance: the call gets the
//! verdict that the operator chose for such a fault, and no other call is affected. A changed component file is compiled,
//! checked and configured beside the serving one and takes over only when all of that succeeds.
//!
//! No other crate depends on the WebAssembly engine, and none of its types is public here. What a verdict means for the session,
//! which judges are asked when, and the syntax of the configuration file are decided by other crates.

mod artifact;
mod bindings;
mod budget;
mod call;
mod call_dns;
mod config;
mod config_mistake;
mod convert;
mod engine;
mod error;
mod examine;
mod generation;
mod grants;
mod guest_log;
mod guest_memory;
mod habits;
mod host;
mod instance;
mod interfaces;
mod kv;
mod layout;
mod log_quota;
mod maintenance;
mod meter;
mod mime;
mod names;
pub mod places;
mod plugin;
mod plugin_metrics;
mod plugins;
mod prepare;
mod question;
mod revive;
mod schema;
mod sender_auth_checks;
mod state;
mod status;
mod stdio;
mod store_data;
mod turns;
mod watch;

pub use config::{
    ComponentSource, Config, FailurePolicies, FailurePolicy, Gateway, PluginConfig, PluginLimits,
    SigningKeyName,
};
pub use config_mistake::ConfigMistake;
pub use error::{LoadError, PluginProblem, PluginsError, ReloadError};
pub use grants::{Grant, GrantKind, GrantMistake, Grants};
pub use places::{FileLine, Places};
pub(crate) use plugin::Plugin;
pub use plugins::{Plugins, check};
pub use prepare::{AppliedPlugins, PreparedPlugins};
pub use schema::SchemaFault;
pub use status::{Manifest, PluginCheck, PluginStatus};
