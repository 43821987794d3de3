//! What can be told about plugins: to the operator while they run, and before.

use std::collections::BTreeMap;

use pintle_policy::Hook;
use serde::Serialize;

use crate::{GrantKind, LoadError};

/// What a plugin says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// `vendor.name`.
    pub id: String,
    /// The plugin's own semantic version.
    pub version: String,
    /// In a line.
    pub summary: String,
    /// JSON Schema of its settings, as it gave it.
    pub config_schema: Option<String>,
    /// Grants that it would like.
    pub wants: Vec<String>,
}

/// How one plugin fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Where the component comes from.
    pub component: String,
    /// What it says of itself; none while no version of it is loaded.
    pub manifest: Option<Manifest>,
    /// The SHA-256 of the component that serves, in lower-case hexadecimal; none while nothing serves.
    pub digest: Option<String>,
    /// How many versions have gone live since the start; 0 while none has.
    pub generation: u64,
    /// Where it is called.
    pub hooks: Vec<Hook>,
    /// Instances that are ready and waiting.
    pub idle: usize,
    /// Instances that serve a call right now.
    pub busy: usize,
    /// The most that there may be.
    pub max_instances: usize,
    /// Calls that wait for an instance right now.
    pub waiting: usize,
    /// Calls that got none in time: faults of the kind `busy`.
    pub crowded_out: u64,
    /// Calls since the start.
    pub calls: u64,
    /// Calls that ended in a fault.
    pub faults: u64,
    /// The last fault of a call, or why the last change did not go live.
    pub last_error: Option<String>,
}

/// What checking a plugin found, without running it on mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginCheck {
    /// Its name in the configuration.
    pub name: String,
    /// What it says of itself, when it came that far.
    pub manifest: Option<Manifest>,
    /// Where it would be called.
    pub hooks: Vec<Hook>,
    /// Grants that it would like and does not have.
    pub ungranted: Vec<String>,
    /// Functions that it imports and would be denied, by the grant that is missing for them.
    pub denied: BTreeMap<GrantKind, Vec<String>>,
    /// What is wrong; empty when it would go live.
    pub errors: Vec<LoadError>,
}
