//! What travels over the admin socket, as JSON; shared by the gateway and the command line.
//!
//! Fields are only ever added. Times are milliseconds since 1970 in UTC, and their names say so.

use std::fmt;
use std::path::PathBuf;

use pintle_mail::{Address, Disposition, QueueId, ReversePath, UnixTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many entries a page has when nobody says.
pub const DEFAULT_LIMIT: usize = 100;
/// The most entries that a page can have.
pub const MAX_LIMIT: usize = 1_000;

/// Which messages are meant: those that meet every condition given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueFilter {
    /// Only these; a list parted by commas on the wire.
    #[serde(with = "ids", skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<QueueId>,
    /// The reverse-path contains this, in any case; the empty text means the null reverse-path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// A recipient's domain is this one, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// A pending recipient goes to this next hop, as lists show it: `mx:example.org`, `relay:NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
    /// Only held ones, or only those that are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
    /// Every message is meant. Commands want this in place of a condition, so that a forgotten one harms nobody.
    #[serde(skip_serializing_if = "is_false")]
    pub all: bool,
}

impl QueueFilter {
    /// One message.
    #[must_use]
    pub fn id(id: QueueId) -> Self {
        Self { ids: vec![id], ..Self::default() }
    }

    /// Whether it says anything about which messages are meant.
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

/// Where in a list, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PageQuery {
    /// Only entries after this one, which a page before gave as its `next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<QueueId>,
    /// At most so many; [`MAX_LIMIT`] at most.
    pub limit: usize,
}

impl Default for PageQuery {
    fn default() -> Self {
        Self { after: None, limit: DEFAULT_LIMIT }
    }
}

/// A filter and a page of what passes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Which messages.
    pub filter: QueueFilter,
    /// Which of them now.
    pub page: PageQuery,
}

/// What an operator can do to messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueAction {
    /// Deliver now, whatever the schedule says.
    Retry,
    /// Do not deliver until released; a held message still expires.
    Hold,
    /// Deliver again what was held or quarantined.
    Release,
    /// Give up: the sender gets a bounce for what is still pending.
    Bounce,
}

impl QueueAction {
    /// The word in paths and on the command line.
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

/// Which messages are to go another way, and which.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reroute {
    /// These.
    pub filter: QueueFilter,
    /// This one: `mx:DOMAIN`, `relay:NAME`, `lmtp:NAME`. The routes decide, where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
}

/// Some messages of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QueuePage {
    /// Oldest first.
    pub messages: Vec<QueueEntry>,
    /// The `after` of the page that follows; none at the end.
    pub next: Option<QueueId>,
}

/// A message in the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Its id, as in every log line.
    pub id: QueueId,
    /// When it was taken.
    pub received_ms: UnixTime,
    /// When it will be given up.
    pub expires_ms: Option<UnixTime>,
    /// Header block and body, in octets.
    pub size: u64,
    /// The reverse-path; empty for a bounce.
    pub sender: ReversePath,
    /// Why it is not delivered for now, if so.
    pub hold: Option<String>,
    /// The message whose fate this one reports.
    pub parent: Option<QueueId>,
    /// Every recipient, done or pending.
    pub recipients: Vec<QueueRecipient>,
}

/// A recipient of a message in the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecipient {
    /// The address.
    pub address: Address,
    /// Where the queue sends it: `mx:DOMAIN`, `relay:NAME`, `lmtp:NAME` or `discard`. None for one that is done.
    pub next_hop: Option<String>,
    /// Its final fate; none while pending.
    pub disposition: Option<Disposition>,
    /// Delivery attempts made.
    pub attempts: u32,
    /// When it is tried again; none while it is held, or being tried.
    pub next_attempt_ms: Option<UnixTime>,
    /// It is being tried now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub under_way: bool,
    /// The reply of the last attempt, as one text.
    pub last_reply: Option<String>,
}

/// The messages that a command changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Affected {
    /// Their ids.
    pub ids: Vec<QueueId>,
    /// Those that were meant as well and left as they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spared: Vec<Spared>,
}

/// A message that a command left as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spared {
    /// Its id.
    pub id: QueueId,
    /// Why.
    pub why: String,
}

/// Whether the gateway can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthReport {
    /// It takes mail: listeners are open, the spool accepts, no drain has begun.
    pub ready: bool,
    /// Some part does not work as it should. What can be done without it is done, so this alone keeps no traffic away.
    #[serde(default)]
    pub degraded: bool,
    /// Its parts, for whoever wants to know which one is ill.
    pub components: Vec<Component>,
}

/// A part of the gateway: the spool, a listener, a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Such as `spool`, `listener mx`.
    pub name: String,
    /// Whether it works.
    pub ok: bool,
    /// Why not, and what to do.
    pub detail: Option<String>,
}

/// A plugin, and the generation that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginState {
    /// Its name in the configuration.
    pub name: String,
    /// What it says of itself.
    pub version: Option<String>,
    /// The file, or `stock:NAME`.
    pub component: String,
    /// The SHA-256 of the component that serves, in lower-case hexadecimal; none while nothing serves.
    pub digest: Option<String>,
    /// Counts the versions loaded since the start; none while nothing serves.
    pub generation: Option<u64>,
    /// The hooks it exports.
    pub hooks: Vec<String>,
    /// Why the last load failed, when it did. The generation before it goes on serving.
    pub last_error: Option<String>,
    /// Calls, faults and instances.
    pub counts: PluginCounts,
}

/// How much a plugin is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PluginCounts {
    /// Calls since the start.
    pub calls: u64,
    /// Faults since the start.
    pub faults: u64,
    /// Instances alive.
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

/// What a reload of the configuration did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reloaded {
    /// What differs from before and is in force now: `certificates`, `rules`, `delivery`, `plugin NAME (added)` and the
    /// like. Empty where nothing has changed.
    pub applied: Vec<String>,
    /// What changed but needs a restart.
    pub needs_restart: Vec<String>,
    /// What `pintle check` would warn of.
    pub warnings: Vec<String>,
}

/// Which program answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it began.
    pub started_ms: UnixTime,
    /// The host's name as the configuration has it.
    pub hostname: String,
}

/// Some of what the sandbox has captured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CapturedPage {
    /// Oldest first.
    pub messages: Vec<CapturedMessage>,
    /// The `after` of the page that follows; none at the end.
    pub next: Option<QueueId>,
}

/// A message that the sandbox kept in place of delivering it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedMessage {
    /// Its id.
    pub id: QueueId,
    /// When it was taken.
    pub received_ms: UnixTime,
    /// The reverse-path.
    pub sender: ReversePath,
    /// Who would have got it.
    pub recipients: Vec<Address>,
    /// Its subject, decoded.
    pub subject: Option<String>,
    /// Header block and body, in octets.
    pub size: u64,
    /// The .eml file.
    pub file: PathBuf,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "refusal", content = "text", rename_all = "kebab-case")]
pub enum OperatorRefusal {
    /// There is no such message, plugin or path.
    NotFound(String),
    /// The request makes no sense.
    Invalid(String),
    /// Not in this state of the gateway or of the message.
    Conflict(String),
    /// Not now; later may help.
    Unavailable(String),
    /// It was tried and went wrong: the operator has to act.
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

/// Ids as one text, the same in a query string and in JSON, since a query string has no lists.
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
            let error = |error| serde::de::Error::custom(format!("{part:?} is no queue id: {error}"));
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
            }],
        }
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
