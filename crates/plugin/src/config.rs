//! Configuration of the plugin host: plain values that another crate reads from the operator's file.
//!
//! All defaults of the plugin host are in this file, in the `Default` implementations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pintle_mail::Domains;
use pintle_policy::Hook;

use crate::{Grants, Places};

/// The configuration of the whole plugin host.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The plugins, in the order in which they are called.
    pub plugins: Vec<PluginConfig>,
    /// Cache folder for compiled code. It is created with mode 0700, and refused when other users can write to it,
    /// since the code in it is executed. `None` compiles every component at each start.
    pub cache: Option<PathBuf>,
    /// Folder in which plugins' stored values (`kv`) are saved across restarts. `None` keeps them in memory only.
    pub state: Option<PathBuf>,
    /// True when another process, a running gateway, owns the folder `state`: it is read and never written. For a dry
    /// run beside that gateway.
    pub state_is_anothers: bool,
    /// Upper limit on the address space reserved for guest memories, in octets. `None` uses what the process limit
    /// allows.
    pub address_space: Option<u64>,
    /// Default of `max_instances` in this configuration; the pool reserves room for some plugins of this size that are
    /// added later.
    pub usual_instances: usize,
    /// Watch component files and reload a changed one automatically.
    pub watch: bool,
    /// How long a file must remain unchanged before it is read again.
    pub settle: Duration,
    /// Limit on the total size of one plugin's stored values (`kv`), in octets.
    pub kv_octets: usize,
    /// Limit on the size of a body that a plugin writes, in octets: the gateway's message size limit.
    pub max_message: u64,
    /// Information about the gateway that plugins can read.
    pub gateway: Gateway,
}

/// Information about the gateway that plugins can read or, as its secrets, use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gateway {
    /// The gateway's hostname.
    pub hostname: String,
    /// The local domains: mail for them is accepted from any client.
    pub domains: Domains,
    /// The available signing keys, by domain (A-labels, lower case).
    pub keys: BTreeMap<String, Vec<SigningKeyName>>,
    /// Names of the relays defined in the configuration.
    pub relays: BTreeSet<String>,
    /// Keys that plugins with the grant `secrets` use by name.
    pub secrets: BTreeMap<String, SecretKey>,
}

/// A key that plugins use and never see.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(Arc<[u8]>);

impl SecretKey {
    /// The fewest octets of a key. RFC 2104 section 3 discourages keys shorter than the digest, which has 20 or 32; a key
    /// of 16 random letters is out of reach of guessing.
    pub const MIN_LENGTH: usize = 16;

    /// A key of these octets.
    #[must_use]
    pub fn new(octets: &[u8]) -> Self {
        Self(octets.into())
    }

    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The octets are left out: a secret that can be printed ends up in a log.
        f.write_str("SecretKey")
    }
}

/// The public properties of a signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyName {
    /// The key's name in the configuration.
    pub name: String,
    /// The DKIM selector under which the public key is published.
    pub selector: String,
}

impl Gateway {
    /// Whether a signing key of this name exists.
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

/// Configuration of one plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// The operator's name for the plugin: unique, and the key of its notes, scores, stored values and metrics. The
    /// same component can be configured under two names; the two share no data.
    pub name: String,
    /// Source of the component.
    pub component: ComponentSource,
    /// The settings passed to `configure`, as JSON.
    pub settings: serde_json::Value,
    /// Positions of the settings in the operator's file, for error messages.
    pub places: Places,
    /// The plugin's permissions. Empty by default.
    pub grants: Grants,
    /// Call the plugin even after an earlier judge has accepted.
    pub mandatory: bool,
    /// If the plugin cannot be loaded, the gateway refuses to start. When false, its failure policy applies until a
    /// reload succeeds.
    pub required: bool,
    /// Failure policies: how a fault of the plugin affects the mail.
    pub failure: FailurePolicies,
    /// Limits on time, memory and instances.
    pub limits: PluginLimits,
    /// Interval between calls of `on-timer`, if the plugin exports it.
    pub timer: Duration,
}

impl PluginConfig {
    /// A plugin with the defaults: no settings, no grants, required at start, and faults defer the mail.
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

/// Source of a component.
#[derive(Clone, PartialEq, Eq)]
pub enum ComponentSource {
    /// A file; read at load, and again when it changes.
    File(PathBuf),
    /// A component embedded in the program; its name (`stock:footer`) is used in messages.
    Bytes {
        /// Name of the component in messages.
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
    /// Wall-clock limit of one call, including waits for DNS and other services.
    pub wall: Duration,
    /// CPU time limit of one call.
    pub cpu: Duration,
    /// Time limit for starting an instance, including `configure`.
    pub start: Duration,
    /// Linear memory limit of one instance, in octets.
    pub memory: usize,
    /// Maximum number of concurrent calls.
    pub max_instances: usize,
    /// Minimum number of idle instances that are kept.
    pub min_idle: usize,
    /// Maximum time that a call waits for an instance.
    pub wait: Duration,
    /// Number of calls after which an instance is replaced, to limit the effect of leaks in guests; `None` never
    /// replaces it.
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
    /// Default of `max_instances` for this many sessions: one per hundred sessions, between 16 and 128. At any moment,
    /// most sessions wait for their clients.
    #[must_use]
    pub fn instances_for(sessions: usize) -> usize {
        (sessions / 100).clamp(Self::default().max_instances, 128)
    }
}

/// How a fault of a plugin affects the mail being processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailurePolicy {
    /// Refuse temporarily (4xx): no mail passes without the plugin's verdict, and none is lost.
    #[default]
    Defer,
    /// Accept at this stage. This never authenticates a client and never permits relaying.
    Accept,
    /// Refuse permanently (5xx).
    Reject,
    /// Continue as if the plugin had returned no verdict.
    Skip,
}

/// The failure policies of one plugin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FailurePolicies {
    /// Policy for hooks without an entry in `hooks`.
    pub default: FailurePolicy,
    /// Policies of individual hooks.
    pub hooks: BTreeMap<Hook, FailurePolicy>,
}

impl FailurePolicies {
    /// The policy that applies to a fault in this hook.
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
