//! The JSON types of the admin socket, shared by the gateway and the command line.
//!
//! Fields are only ever added. Times are milliseconds since 1970-01-01 UTC, and their names end in `_ms`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use pintle_mail::{Address, Disposition, QueueId, ReversePath, UnixTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The number of entries of a page if none is requested.
pub const DEFAULT_LIMIT: usize = 100;
/// The largest number of entries of a page.
pub const MAX_LIMIT: usize = 1_000;

/// A filter for messages: those that meet every condition given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueFilter {
    /// The message has one of these ids; in JSON and query strings, one text with commas.
    #[serde(with = "ids", skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<QueueId>,
    /// The reverse-path contains this text, in any case; the empty text means the null reverse-path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// A recipient has this domain, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// A pending recipient has this next hop, in the form of the lists: `mx:example.org`, `relay:NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
    /// The message is held, or is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
    /// All messages match. Commands require it if there is no other condition, so that a forgotten condition does no
    /// harm.
    #[serde(skip_serializing_if = "is_false")]
    pub all: bool,
}

impl QueueFilter {
    /// Returns a filter for a single message.
    #[must_use]
    pub fn id(id: QueueId) -> Self {
        Self { ids: vec![id], ..Self::default() }
    }

    /// Whether it has a condition or `all`.
    #[must_use]
    pub fn is_specific(&self) -> bool {
        self.all || *self != Self::default()
    }

    /// Whether a message meets every condition.
    #[must_use]
    pub fn admits(&self, entry: &QueueEntry) -> bool {
        let any = |test: &dyn Fn(&QueueRecipient) -> bool| entry.recipients.iter().any(test);
        let sender = |part: &String| match part.as_str() {
            "" => entry.sender.is_null(),
            part => contains(entry.sender.as_str(), part),
        };
        (self.ids.is_empty() || self.ids.contains(&entry.id))
            && self.sender.as_ref().is_none_or(sender)
            && self.domain.as_ref().is_none_or(|domain| any(&|r| same_domain(&r.address, domain)))
            && self.next_hop.as_ref().is_none_or(|hop| any(&|r| r.next_hop.as_ref() == Some(hop)))
            && self.held.is_none_or(|held| held == entry.hold.is_some())
    }
}

fn contains(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

fn same_domain(address: &Address, domain: &str) -> bool {
    address.domain_ascii() == pintle_mail::address::domain_to_ascii(domain)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A position in a list, and how much to return from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PageQuery {
    /// Only entries after this one, which is the `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<QueueId>,
    /// The most entries to return, at most [`MAX_LIMIT`].
    pub limit: usize,
}

impl Default for PageQuery {
    fn default() -> Self {
        Self { after: None, limit: DEFAULT_LIMIT }
    }
}

/// A filter, and the page of its matches to return.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// The filter.
    pub filter: QueueFilter,
    /// The page.
    pub page: PageQuery,
}

/// What an operator can do to messages in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueAction {
    /// Deliver now, whatever the schedule.
    Retry,
    /// Do not deliver until released; a held message still expires.
    Hold,
    /// Deliver messages that were held or quarantined.
    Release,
    /// Give up: the sender gets a bounce for the recipients that are still pending.
    Bounce,
}

impl QueueAction {
    /// Returns the word used in paths and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Bounce => "bounce",
        }
    }
}

/// An order to change the next hop of messages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reroute {
    /// The messages to change.
    pub filter: QueueFilter,
    /// The new next hop: `mx:DOMAIN`, `relay:NAME`, `lmtp:NAME`. If `None`, the routes decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
}

/// A page of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueuePage {
    /// The messages, oldest first.
    pub messages: Vec<QueueEntry>,
    /// The `after` of the next page; `None` at the end.
    pub next: Option<QueueId>,
}

/// A message in the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// The queue id.
    pub id: QueueId,
    /// When it was received.
    pub received_ms: UnixTime,
    /// When delivery will be given up.
    pub expires_ms: Option<UnixTime>,
    /// The size in octets, header and body.
    pub size: u64,
    /// The reverse-path; empty for a bounce.
    pub sender: ReversePath,
    /// Why it is held, if it is.
    pub hold: Option<String>,
    /// For a bounce or report, the message that it is about.
    pub parent: Option<QueueId>,
    /// All recipients, pending or not.
    pub recipients: Vec<QueueRecipient>,
}

/// A recipient of a message in the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecipient {
    /// The address.
    pub address: Address,
    /// The next hop: `mx:DOMAIN`, `relay:NAME`, `lmtp:NAME` or `discard`. `None` if the recipient is no longer pending.
    pub next_hop: Option<String>,
    /// The final disposition; `None` while pending.
    pub disposition: Option<Disposition>,
    /// The number of delivery attempts so far.
    pub attempts: u32,
    /// When the next attempt is due; `None` while the message is held or an attempt is in progress.
    pub next_attempt_ms: Option<UnixTime>,
    /// Whether an attempt is in progress.
    #[serde(default, skip_serializing_if = "is_false")]
    pub under_way: bool,
    /// The reply to the last attempt, as one text.
    pub last_reply: Option<String>,
    /// The groups that plugins have put it into, by the name of the plugin. Only the details of one message have them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, String>,
}

/// The result of a command on messages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Affected {
    /// The messages that were changed.
    pub ids: Vec<QueueId>,
    /// The messages that match but were not changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spared: Vec<Spared>,
}

/// A message that a command did not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spared {
    /// The queue id.
    pub id: QueueId,
    /// Why it was not changed.
    pub why: String,
}

/// The health of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthReport {
    /// Whether it accepts mail: listeners are open, the spool accepts, no drain has begun.
    pub ready: bool,
    /// Whether a component has a problem. The gateway still works as far as it can, so this alone does not make it
    /// unready.
    #[serde(default)]
    pub degraded: bool,
    /// The components with their health.
    pub components: Vec<Component>,
}

/// A component of the gateway: the spool, a listener, a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its name, such as `spool` or `listener mx`.
    pub name: String,
    /// Whether it works normally.
    pub ok: bool,
    /// What is wrong, and what to do.
    pub detail: Option<String>,
}

/// A plugin, and the generation in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginState {
    /// Its name in the configuration.
    pub name: String,
    /// The version that the plugin reports.
    pub version: Option<String>,
    /// The component file, or `stock:NAME`.
    pub component: String,
    /// The SHA-256 of the component in use, in lower-case hexadecimal; `None` if none is.
    pub digest: Option<String>,
    /// The number of the generation in use, counted from the start of the gateway; `None` if none is.
    pub generation: Option<u64>,
    /// The hooks it exports.
    pub hooks: Vec<String>,
    /// Why the last load failed, if it did. The generation before it stays in use.
    pub last_error: Option<String>,
    /// Usage counters.
    pub counts: PluginCounts,
}

/// How much a plugin is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PluginCounts {
    /// Calls since the start.
    pub calls: u64,
    /// Faults since the start.
    pub faults: u64,
    /// Instances that exist now.
    pub instances: u64,
    /// The most instances allowed.
    pub max_instances: u64,
    /// Calls that wait for an instance now.
    #[serde(default)]
    pub waiting: u64,
    /// Calls since the start that got no instance in time; they count among the faults.
    #[serde(default)]
    pub crowded_out: u64,
}

/// The result of a reload of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reloaded {
    /// What has changed and is in effect now: `certificates`, `rules`, `delivery`, `plugin NAME (added)` and the like.
    /// Empty if nothing has changed.
    pub applied: Vec<String>,
    /// What has changed but takes effect only after a restart.
    pub needs_restart: Vec<String>,
    /// The warnings that `pintle check` would print.
    pub warnings: Vec<String>,
}

/// Which gateway responds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The version of Pintle.
    pub version: String,
    /// The process id.
    pub pid: u32,
    /// When the process started.
    pub started_ms: UnixTime,
    /// The configured host name.
    pub hostname: String,
}

/// A page of the messages that the sandbox has captured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CapturedPage {
    /// The messages, oldest first.
    pub messages: Vec<SandboxMessage>,
    /// The `after` of the next page; `None` at the end.
    pub next: Option<QueueId>,
}

/// A message that the sandbox has stored instead of delivering it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxMessage {
    /// The queue id.
    pub id: QueueId,
    /// When it was received.
    pub received_ms: UnixTime,
    /// The reverse-path.
    pub sender: ReversePath,
    /// The recipients that it was not delivered to.
    pub recipients: Vec<Address>,
    /// The Subject field, decoded.
    pub subject: Option<String>,
    /// The size in octets, header and body.
    pub size: u64,
    /// The path of the .eml file.
    pub file: PathBuf,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "refusal", content = "text", rename_all = "kebab-case")]
pub enum OperatorRefusal {
    /// There is no such message, plugin or path.
    NotFound(String),
    /// The request is malformed or meaningless.
    Invalid(String),
    /// The state of the gateway or of the message does not allow it.
    Conflict(String),
    /// It is not possible now, but may be later.
    Unavailable(String),
    /// It was tried and failed; the operator must act.
    Failed(String),
}

impl fmt::Display for OperatorRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(text)
            | Self::Invalid(text)
            | Self::Conflict(text)
            | Self::Unavailable(text)
            | Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for OperatorRefusal {}

/// Serializes ids as one text, in query strings and in JSON alike, because a query string has no lists.
mod ids {
    use super::{Deserialize, Deserializer, QueueId, Serializer};

    pub(super) fn serialize<S: Serializer>(ids: &[QueueId], serializer: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
        serializer.serialize_str(&texts.join(","))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<QueueId>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let parse = |part: &str| {
            let error = |error| serde::de::Error::custom(format!("{part:?} is not a queue id: {error}"));
            part.parse().map_err(error)
        };
        parts.map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> QueueEntry {
        QueueEntry {
            id: QueueId::new(UnixTime::from_millis(5), 1),
            received_ms: UnixTime::from_millis(5),
            expires_ms: None,
            size: 10,
            sender: serde_json::from_str(r#""Anna@Example.org""#).unwrap(),
            hold: None,
            parent: None,
            recipients: vec![QueueRecipient {
                address: serde_json::from_str(r#""ben@Bücher.example""#).unwrap(),
                next_hop: Some("mx:xn--bcher-kva.example".into()),
                disposition: None,
                attempts: 1,
                next_attempt_ms: None,
                under_way: false,
                last_reply: None,
                groups: BTreeMap::new(),
            }],
        }
    }

    /// Gateway and command line may be of different versions.
    #[test]
    fn groups_are_shown_where_there_are_some() {
        let (plain, mut grouped) = (entry(), entry());
        let json = serde_json::to_string(&plain).unwrap();
        assert!(!json.contains("groups") && serde_json::from_str::<QueueEntry>(&json).unwrap() == plain);
        grouped.recipients[0].groups.insert("tenants".into(), "a".into());
        let json = serde_json::to_string(&grouped).unwrap();
        assert!(json.contains(r#""groups":{"tenants":"a"}"#), "{json}");
        assert_eq!(serde_json::from_str::<QueueEntry>(&json).unwrap(), grouped);
    }

    fn filter(json: &str) -> QueueFilter {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn every_condition_counts() {
        for admitted in [
            "{}",
            r#"{"sender": "anna@"}"#,
            r#"{"domain": "BÜCHER.example"}"#,
            r#"{"domain": "xn--bcher-kva.example", "held": false}"#,
            r#"{"next_hop": "mx:xn--bcher-kva.example"}"#,
        ] {
            assert!(filter(admitted).admits(&entry()), "{admitted}");
        }
        for refused in [
            r#"{"sender": "carl"}"#,
            r#"{"sender": ""}"#,
            r#"{"domain": "example"}"#,
            r#"{"sender": "anna", "held": true}"#,
            r#"{"next_hop": "relay:inside"}"#,
            r#"{"ids": "00000000000000000000000000"}"#,
        ] {
            assert!(!filter(refused).admits(&entry()), "{refused}");
        }
        assert!(QueueFilter::id(entry().id).admits(&entry()));
        let report = QueueEntry { sender: ReversePath::Null, ..entry() };
        assert!(filter(r#"{"sender": ""}"#).admits(&report), "the null sender");
    }

    #[test]
    fn only_a_filter_that_says_something_is_specific() {
        assert!(!QueueFilter::default().is_specific());
        assert!(filter(r#"{"all": true}"#).is_specific());
        assert!(filter(r#"{"held": false}"#).is_specific());
    }

    #[test]
    fn filters_survive_json_and_query_strings() {
        let original = QueueFilter {
            ids: vec![entry().id, QueueId::new(UnixTime::from_millis(9), 2)],
            sender: Some("a&b=c".into()),
            held: Some(true),
            ..QueueFilter::default()
        };
        let json = serde_json::to_string(&original).unwrap();
        assert_eq!(filter(&json), original);
        let query = serde_urlencoded::to_string(&original).unwrap();
        assert_eq!(serde_urlencoded::from_str::<QueueFilter>(&query), Ok(original));
    }
}
