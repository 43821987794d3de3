//! Plugin information for operators: state and counters at run time, and the results of a check.

use std::collections::BTreeMap;

use pintle_policy::Hook;

use crate::{GrantKind, LoadError};

/// What a plugin returned from `describe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Identifier in the form `vendor.name`.
    pub id: String,
    /// Semantic version of the plugin.
    pub version: String,
    /// One-line description of its function.
    pub summary: String,
    /// JSON Schema of its settings; `None` if the plugin supplies none.
    pub config_schema: Option<String>,
    /// Names of the grants that the plugin requests.
    pub wants: Vec<String>,
    /// Further information for people and tools, such as `homepage` and `license`.
    pub more: Vec<(String, String)>,
}

/// State and counters of one plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginStatus {
    /// The plugin's name in the configuration.
    pub name: String,
    /// Source of the component: a path, or the name of an embedded component.
    pub component: String,
    /// The serving version's manifest; `None` while no version is loaded.
    pub manifest: Option<Manifest>,
    /// SHA-256 of the serving component in lower-case hexadecimal; `None` while none serves.
    pub digest: Option<String>,
    /// Number of versions that have served since the start; 0 if none.
    pub generation: u64,
    /// The hooks at which the plugin is called.
    pub hooks: Vec<Hook>,
    /// Number of idle instances.
    pub idle: usize,
    /// Number of instances that are serving a call.
    pub busy: usize,
    /// Maximum number of concurrent calls.
    pub max_instances: usize,
    /// Number of calls that wait for an instance.
    pub waiting: usize,
    /// Number of calls that got no instance in time: faults of the kind `busy`.
    pub crowded_out: u64,
    /// Number of calls since the start.
    pub calls: u64,
    /// Number of calls that ended in a fault.
    pub faults: u64,
    /// The last fault of a call, or why the last change could not be applied; `None` if neither occurred.
    pub last_error: Option<String>,
}

/// Result of checking a plugin without processing mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginCheck {
    /// The plugin's name in the configuration.
    pub name: String,
    /// The plugin's manifest; `None` if it could not be read.
    pub manifest: Option<Manifest>,
    /// The hooks at which the plugin would be called.
    pub hooks: Vec<Hook>,
    /// Grants that the manifest requests and the configuration does not give.
    pub ungranted: Vec<String>,
    /// Imported functions that would be denied, by missing grant.
    pub denied: BTreeMap<GrantKind, Vec<String>>,
    /// Why the plugin cannot be loaded; empty if it can.
    pub errors: Vec<LoadError>,
}
