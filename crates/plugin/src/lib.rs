//! The plugin host: runs WASI components at the stages of mail processing and isolates the gateway from their faults.
//!
//! [`Plugins`] loads the configured plugins and provides a judge (`pintle_policy::Judge`) for each, in the order of the
//! configuration. Everything a guest can do is bounded: time, memory, and the size of its requests. A guest that loops,
//! traps, exhausts memory or returns an invalid verdict costs one call and one instance: that call gets the verdict of
//! the operator's failure policy, and no other call is affected. A changed component file is compiled, checked and
//! configured while the previous version serves, and replaces it only if all of that succeeds.
//!
//! No other crate depends on the WebAssembly engine, and none of its types is public here. Other crates define what a
//! verdict means for the session, which judges are called when, and the syntax of the configuration file.

mod artifact;
mod bindings;
mod budget;
mod call;
mod call_conditions;
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
mod lease_counts;
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
    ComponentSource, Config, FailurePolicies, FailurePolicy, Gateway, PluginConfig, PluginLimits, SecretKey,
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
