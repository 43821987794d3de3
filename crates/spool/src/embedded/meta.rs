//! What records say, as JSON: readable by whoever looks into the log, and by later versions that know more.

use bytes::Bytes;
use pintle_mail::{NextHop, QueueId, UnixTime};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Change, Entry, Hold, SpoolError, Status};

/// A message: what is known of it besides its bytes. The row in the database has the same text.
#[derive(Serialize)]
pub(crate) struct MessageMetaRef<'a> {
    pub(crate) id: QueueId,
    pub(crate) entry: &'a Entry,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<&'a Hold>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) released: Option<UnixTime>,
    /// The file of a large body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<&'a str>,
    /// Of recipients that are no longer as they were at the commit.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) states: &'a [ChangedRecipient],
}

/// The same, read.
#[derive(Deserialize)]
pub(crate) struct MessageMeta {
    pub(crate) entry: Entry,
    #[serde(default)]
    pub(crate) hold: Option<Hold>,
    #[serde(default)]
    pub(crate) released: Option<UnixTime>,
    #[serde(default)]
    pub(crate) file: Option<String>,
    #[serde(default, deserialize_with = "known")]
    pub(crate) states: Vec<ChangedRecipient>,
}

/// A recipient that is no longer as it was at the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangedRecipient {
    pub(crate) number: u32,
    /// None while it is as it was at the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Status>,
    /// The operator's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<NextHop>,
}

/// A settlement's marks.
#[derive(Serialize, Deserialize)]
pub(crate) struct SettleMeta {
    pub(crate) changes: Vec<StatusChange>,
}

/// One recipient's new status.
#[derive(Serialize, Deserialize)]
pub(crate) struct StatusChange {
    pub(crate) number: u32,
    pub(crate) status: Status,
}

impl SettleMeta {
    pub(crate) fn of(changes: &[Change]) -> Self {
        let mark = |change: &Change| StatusChange { number: change.recipient, status: change.status.clone() };
        Self { changes: changes.iter().map(mark).collect() }
    }

    pub(crate) fn changes(self) -> Vec<Change> {
        let change = |mark: StatusChange| Change { recipient: mark.number, status: mark.status };
        self.changes.into_iter().map(change).collect()
    }
}

/// What an operator changes about a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Amendment {
    /// It is not to be delivered for now.
    Hold(Hold),
    /// It is; let out at this time.
    Release(UnixTime),
    /// These recipients, or all, go by another next hop.
    Reroute(Vec<u32>, Option<NextHop>),
}

/// All that can change about a message, as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MessageState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<Hold>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) released: Option<UnixTime>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "known")]
    pub(crate) states: Vec<ChangedRecipient>,
}

/// Those that this version understands: one that it does not must not cost the message.
fn known<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ChangedRecipient>, D::Error> {
    let said = Vec::<serde_json::Value>::deserialize(from)?;
    Ok(said.into_iter().filter_map(|state| serde_json::from_value(state).ok()).collect())
}

/// Whether a record says more of recipients than was understood.
pub(crate) fn says_more(meta: &[u8], states: &[ChangedRecipient]) -> bool {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        states: Vec<IgnoredAny>,
    }
    from_json::<Said>(meta).is_ok_and(|said| said.states.len() > states.len())
}

/// Messages that ended, each with the segment in which its bytes still lie.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tombstones {
    /// The segment whose own records of these ends are needed no longer.
    pub(crate) from: u64,
    pub(crate) ended: Vec<(QueueId, u64)>,
    /// No more of that segment's will follow.
    pub(crate) complete: bool,
}

/// Why a message was set aside.
#[derive(Serialize, Deserialize)]
pub(crate) struct SetAsideReason {
    pub(crate) what: String,
}

pub(crate) fn to_json(value: &impl Serialize) -> Result<Vec<u8>, SpoolError> {
    serde_json::to_vec(value).map_err(|error| SpoolError::Store(error.to_string().into()))
}

pub(crate) fn from_json<'a, T: Deserialize<'a>>(octets: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(octets).map_err(|error| error.to_string())
}

/// The text of a record's meta, for the database.
pub(crate) fn text(meta: &Bytes) -> Result<String, String> {
    String::from_utf8(meta.to_vec()).map_err(|error| error.to_string())
}
