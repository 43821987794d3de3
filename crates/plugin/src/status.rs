//! What operators are shown about plugins: state and counts while they run, and the result of a check.

use std::collections::BTreeMap;

use pintle_policy::Hook;

use crate::{GrantKind, LoadError};

/// What a plugin says about itself in `describe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `vendor.name`.
    pub id: String,
    /// The plugin's own semantic version.
    pub version: String,
    /// One line about what it does.
    pub summary: String,
    /// JSON Schema of its settings, as it gave it.
    pub config_schema: Option<String>,
    /// The grants that it asks for, by name.
    pub wants: Vec<String>,
}

/// State and counts of one plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Where the component comes from.
    pub component: String,
    /// What it says about itself; none while no version of it is loaded.
    pub manifest: Option<Manifest>,
    /// The SHA-256 of the component that serves, in lower-case hexadecimal; none while nothing serves.
    pub digest: Option<String>,
    /// How many versions have gone live since the start; 0 while none has.
    pub generation: u64,
    /// The hooks at which it is called.
    pub hooks: Vec<Hook>,
    /// Instances that are ready and waiting.
    pub idle: usize,
    /// Instances that serve a call right now.
    pub busy: usize,
    /// The most instances that may serve calls at once.
    pub max_instances: usize,
    /// Calls that wait for an instance right now.
    pub waiting: usize,
    /// Calls that got no instance in time: faults of the kind `busy`.
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
    /// What it says about itself, if it could be asked.
    pub manifest: Option<Manifest>,
    /// The hooks at which it would be called.
    pub hooks: Vec<Hook>,
    /// Grants that its manifest asks for and that it does not have.
    pub ungranted: Vec<String>,
    /// Functions that it imports and would be denied, by the grant that is missing for them.
    pub denied: BTreeMap<GrantKind, Vec<String>>,
    /// Why it cannot be loaded; empty when it can.
    pub errors: Vec<LoadError>,
}
