//! The configuration of the plugin host: plain values, which another crate reads from the operator's file.
//!
//! All defaults of the plugin host stand in this file, in the `Default` implementations, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use pintle_mail::Domains;
use pintle_policy::Hook;

use crate::{Grants, Places};

/// The configuration of the whole plugin host.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The plugins, in the order in which they are asked.
    pub plugins: Vec<PluginConfig>,
    /// Where compiled code is kept between runs. The folder is made with mode 0700, and refused when it is open to
    /// others, since the code in it is run. `None` compiles at every start.
    pub cache: Option<PathBuf>,
    /// Where plugins' stored values (`kv`) outlive the process. None keeps them in memory alone.
    pub state: Option<PathBuf>,
    /// The folder `state` belongs to a running gateway: it is read and never written. For a dry run beside that gateway.
    pub state_is_anothers: bool,
    /// The most address space that guests' memories may reserve, in octets; none takes what this process may have.
    pub address_space: Option<u64>,
    /// The default of `max_instances` in this configuration: the pool keeps room for some such plugins that are added later.
    pub usual_instances: usize,
    /// Component files are watched, and a changed one is loaded automatically.
    pub watch: bool,
    /// How long a file must have been unchanged before it is read again.
    pub settle: Duration,
    /// The most octets that all of one plugin's stored values (`kv`) may take.
    pub kv_octets: usize,
    /// The largest body that a plugin may write, in octets: the limit for messages.
    pub max_message: u64,
    /// What plugins may know of the gateway.
    pub gateway: Gateway,
}

/// What plugins may know of the gateway. Nothing of it is secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gateway {
    /// The gateway's hostname.
    pub hostname: String,
    /// The domains whose mail is accepted from anybody.
    pub domains: Domains,
    /// The keys that can be signed with, by their domain (A-labels, lower case).
    pub keys: BTreeMap<String, Vec<SigningKeyName>>,
    /// The relays that the configuration lists, by name.
    pub relays: BTreeSet<String>,
}

/// What a plugin may know of a signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyName {
    /// The operator's name for it.
    pub name: String,
    /// The selector under which it is published.
    pub selector: String,
}

impl Gateway {
    /// Whether there is a key of this name.
    pub(crate) fn has_key(&self, name: &str) -> bool {
        self.keys.values().flatten().any(|key| key.name == name)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            plugins: Vec::new(),
            cache: None,
            state: None,
            state_is_anothers: false,
            address_space: None,
            usual_instances: PluginLimits::default().max_instances,
            watch: true,
            settle: Duration::from_millis(250),
            kv_octets: 64 << 20,
            max_message: 50 << 20,
            gateway: Gateway::default(),
        }
    }
}

/// One plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// The operator's name for it: unique, and the key of its notes, scores, stored values and metrics. Two plugins may
    /// be the same component under two names, and share nothing.
    pub name: String,
    /// Where the component comes from.
    pub component: ComponentSource,
    /// What `configure` gets, as JSON.
    pub settings: serde_json::Value,
    /// Where the settings are in the operator's file.
    pub places: Places,
    /// What it may do. Empty by default.
    pub grants: Grants,
    /// It is asked even after another judge has accepted.
    pub mandatory: bool,
    /// When it cannot be loaded, the start is refused. Otherwise it answers by its failure policy until a reload
    /// succeeds.
    pub required: bool,
    /// What its faults mean for the mail.
    pub failure: FailurePolicies,
    /// Its limits on time, memory and instances.
    pub limits: PluginLimits,
    /// How often `on-timer` is called, when it has one.
    pub timer: Duration,
}

impl PluginConfig {
    /// A plugin with the defaults: no settings, no grants, start refused without it, faults defer.
    #[must_use]
    pub fn new(name: impl Into<String>, component: ComponentSource) -> Self {
        Self {
            name: name.into(),
            component,
            settings: serde_json::Value::Object(serde_json::Map::new()),
            places: Places::default(),
            grants: Grants::default(),
            mandatory: false,
            required: true,
            failure: FailurePolicies::default(),
            limits: PluginLimits::default(),
            timer: Duration::from_secs(60),
        }
    }
}

/// Where a component comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum ComponentSource {
    /// A file, read now and again whenever it changes.
    File(PathBuf),
    /// A component that is part of the program; the name (`stock:footer`) is for messages.
    Bytes {
        /// Its name in messages.
        name: String,
        /// The bytes of the component.
        bytes: Bytes,
    },
}

impl fmt::Display for ComponentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Bytes { name, .. } => f.write_str(name),
        }
    }
}

impl fmt::Debug for ComponentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Limits of one plugin on time, memory and instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginLimits {
    /// The longest that one call may take, waiting for DNS and other services included.
    pub wall: Duration,
    /// The longest that one call may compute.
    pub cpu: Duration,
    /// The longest that making an instance may take, `configure` included.
    pub start: Duration,
    /// The most octets of linear memory of one instance.
    pub memory: usize,
    /// The most calls at once.
    pub max_instances: usize,
    /// How many idle instances are kept even when nothing calls.
    pub min_idle: usize,
    /// The longest that a call waits for an instance.
    pub wait: Duration,
    /// An instance is replaced after this many calls, against leaks in guests; `None` never replaces it.
    pub recycle_after: Option<u64>,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(10),
            cpu: Duration::from_secs(1),
            start: Duration::from_secs(30),
            memory: 64 << 20,
            max_instances: 16,
            min_idle: 1,
            wait: Duration::from_secs(2),
            recycle_after: Some(100_000),
        }
    }
}

impl PluginLimits {
    /// The default of `max_instances` for this many sessions: one for each hundred, since most sessions wait for their clients
    /// at any moment. From 16 to 128.
    #[must_use]
    pub fn instances_for(sessions: usize) -> usize {
        (sessions / 100).clamp(Self::default().max_instances, 128)
    }
}

/// What a plugin's fault means for the mail at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailurePolicy {
    /// Refuse temporarily (4xx): no mail passes without the plugin's verdict, and none is lost.
    #[default]
    Defer,
    /// Accept at this stage. It never authenticates anybody and never lets mail be relayed.
    Accept,
    /// Refuse permanently (5xx).
    Reject,
    /// As if the plugin had no opinion.
    Skip,
}

/// The failure policies of one plugin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FailurePolicies {
    /// The policy of hooks that have none of their own.
    pub default: FailurePolicy,
    /// Policies of single hooks.
    pub hooks: BTreeMap<Hook, FailurePolicy>,
}

impl FailurePolicies {
    /// The policy for a fault in this hook.
    #[must_use]
    pub fn at(&self, hook: Hook) -> FailurePolicy {
        self.hooks.get(&hook).copied().unwrap_or(self.default)
    }
}

impl From<FailurePolicy> for FailurePolicies {
    fn from(default: FailurePolicy) -> Self {
        Self { default, hooks: BTreeMap::new() }
    }
}
