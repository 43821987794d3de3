//! The metadata of records, as JSON: readable for an operator who looks into the log, and for later versions that know
//! more.

use bytes::Bytes;
use pintle_mail::{NextHop, QueueId, UnixTime};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Change, DeliveryStatus, Entry, HoldReason, SpoolError};

/// The metadata of a message: all but its bytes. The row in the database has the same text.
#[derive(Serialize)]
pub(crate) struct MessageMetaRef<'a> {
    pub(crate) id: QueueId,
    pub(crate) entry: &'a Entry,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<&'a HoldReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) released: Option<UnixTime>,
    /// The file of a large body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<&'a str>,
    /// Recipients that have changed since the commit.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) states: &'a [ChangedRecipient],
}

/// The same, for reading.
#[derive(Deserialize)]
pub(crate) struct MessageMeta {
    pub(crate) entry: Entry,
    #[serde(default)]
    pub(crate) hold: Option<HoldReason>,
    #[serde(default)]
    pub(crate) released: Option<UnixTime>,
    #[serde(default)]
    pub(crate) file: Option<String>,
    #[serde(default, deserialize_with = "known")]
    pub(crate) states: Vec<ChangedRecipient>,
}

/// A recipient that has changed since the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangedRecipient {
    pub(crate) number: u32,
    /// None while it is as at the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<DeliveryStatus>,
    /// The operator's choice of next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<NextHop>,
}

/// The metadata of a settlement.
#[derive(Serialize, Deserialize)]
pub(crate) struct SettleMeta {
    pub(crate) changes: Vec<StatusChange>,
}

/// One recipient's new status.
#[derive(Serialize, Deserialize)]
pub(crate) struct StatusChange {
    pub(crate) number: u32,
    pub(crate) status: DeliveryStatus,
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

/// A change of a message, by an operator or, of its context, by a delivery.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Amendment {
    /// The message is held.
    Hold(HoldReason),
    /// The message is released, at this time.
    Release(UnixTime),
    /// These recipients, or all, go by another next hop. None removes such a choice.
    Reroute(Vec<u32>, Option<NextHop>),
    /// The message has another context.
    Context {
        /// The context. It is not in the JSON but among the octets of the record.
        #[serde(skip)]
        octets: Bytes,
    },
}

impl Amendment {
    /// The part that is not in the JSON; empty for all but a context.
    pub(crate) fn octets(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        if let Self::Context { octets } = self { octets } else { &NOTHING }
    }

    /// The amendment of a record whose JSON this is.
    pub(crate) fn with_octets(self, found: &Bytes) -> Self {
        match self {
            Self::Context { .. } => Self::Context { octets: found.clone() },
            amendment @ (Self::Hold(_) | Self::Release(_) | Self::Reroute(..)) => amendment,
        }
    }
}

/// All of a message that can change, in its current state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct MessageState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<HoldReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) released: Option<UnixTime>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "known")]
    pub(crate) states: Vec<ChangedRecipient>,
    /// The context that replaces the one in the message's record; none when that counts. It is written with a copy of
    /// the message only, as the context of the copy.
    #[serde(skip)]
    pub(crate) context: Option<Bytes>,
}

/// Reads the recipients that this version understands: one that it does not must not cost the message.
fn known<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ChangedRecipient>, D::Error> {
    let said = Vec::<serde_json::Value>::deserialize(from)?;
    Ok(said.into_iter().filter_map(|state| serde_json::from_value(state).ok()).collect())
}

/// Whether a record has more recipients than were understood.
pub(crate) fn says_more(meta: &[u8], states: &[ChangedRecipient]) -> bool {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        states: Vec<IgnoredAny>,
    }
    from_json::<Said>(meta).is_ok_and(|said| said.states.len() > states.len())
}

/// Tombstones: messages that ended, each with the segment that still has its bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tombstones {
    /// The segment whose own records of these ends are no longer needed.
    pub(crate) from: u64,
    pub(crate) ended: Vec<(QueueId, u64)>,
    /// These are the last tombstones of that segment.
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

/// The metadata of a record as text, for the database.
pub(crate) fn text(meta: &Bytes) -> Result<String, String> {
    String::from_utf8(meta.to_vec()).map_err(|error| error.to_string())
}
