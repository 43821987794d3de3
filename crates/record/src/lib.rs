//! The event log: what happened to mail, one [`Record`] per event.
//!
//! **The serialised form is a public contract.** A record is one JSON object. `event` names its kind, `time` is RFC
//! 3339 in UTC to the millisecond, ids are 26 characters (a message's is `queue-id` in all records), durations are
//! whole milliseconds in members that end in `-ms`, sizes are octets, and empty members are left out. Members and kinds
//! may be added in any release; none changes its meaning or is removed without a new major version. Readers ignore what
//! they do not know.
//!
//! Nothing here writes records: code that keeps them implements [`RecordSink`], and code that makes them is given one.

mod dmarc;
mod inbound;
mod outbound;
mod plugin;
mod stamp;

use std::sync::Arc;

use pintle_mail::{QueueId, UnixTime};
use serde::{Deserialize, Serialize};

pub use dmarc::{DkimCheck, DmarcEvaluation, DmarcPublished, SpfCheck};
pub use inbound::{ClientMembers, Discard, MAX_SHOWN, Reception, Rejection, Tls};
pub use outbound::{
    Bounce, Deferral, Delivery, DsnReport, Expiration, Hold, JobMembers, PeerMembers, Release, ReportKind,
    Unreported,
};
pub use plugin::{PluginFault, PluginStep, PluginVerdict};

/// One event in the life of mail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Record {
    /// A message was committed; its client has received or will receive a 250.
    Reception(Reception),
    /// A command of a client was refused.
    Rejection(Rejection),
    /// A message or a recipient was accepted and dropped, because a rule or an operator demanded it.
    Discard(Discard),
    /// A message from an untrusted client was checked against the policy of its author's domain.
    DmarcEvaluation(DmarcEvaluation),
    /// A plugin gave a verdict.
    PluginVerdict(PluginVerdict),
    /// A plugin failed; the configuration decides what the client saw.
    PluginFault(PluginFault),
    /// A next hop took the message for one recipient.
    Delivery(Delivery),
    /// An attempt for one recipient failed for now.
    Deferral(Deferral),
    /// Delivery to a recipient failed permanently.
    Bounce(Bounce),
    /// A recipient's time in the queue ran out.
    Expiration(Expiration),
    /// A message is held.
    Hold(Hold),
    /// A held message was released for delivery.
    Release(Release),
    /// A delivery status notification was committed.
    Report(DsnReport),
}

impl Record {
    /// When the event happened, by the wall clock.
    #[must_use]
    pub fn time(&self) -> UnixTime {
        match self {
            Self::Reception(record) => record.time,
            Self::Rejection(record) => record.time,
            Self::Discard(record) => record.time,
            Self::DmarcEvaluation(record) => record.time,
            Self::PluginVerdict(record) => record.time,
            Self::PluginFault(record) => record.time,
            Self::Delivery(record) => record.job.time,
            Self::Deferral(record) => record.job.time,
            Self::Bounce(record) => record.job.time,
            Self::Expiration(record) => record.job.time,
            Self::Hold(record) => record.time,
            Self::Release(record) => record.time,
            Self::Report(record) => record.time,
        }
    }

    /// The queue id of the message concerned, if there is one.
    #[must_use]
    pub fn id(&self) -> Option<QueueId> {
        match self {
            Self::Reception(record) => Some(record.id),
            Self::Rejection(record) => record.id,
            Self::Discard(record) => Some(record.id),
            Self::DmarcEvaluation(record) => Some(record.id),
            Self::PluginVerdict(record) => record.id,
            Self::PluginFault(record) => record.id,
            Self::Delivery(record) => Some(record.job.id),
            Self::Deferral(record) => Some(record.job.id),
            Self::Bounce(record) => Some(record.job.id),
            Self::Expiration(record) => Some(record.job.id),
            Self::Hold(record) => Some(record.id),
            Self::Release(record) => Some(record.id),
            Self::Report(record) => Some(record.id),
        }
    }

    /// The `event` member: `delivery`, `plugin-fault`, …
    #[must_use]
    pub fn event(&self) -> &'static str {
        match self {
            Self::Reception(_) => "reception",
            Self::Rejection(_) => "rejection",
            Self::Discard(_) => "discard",
            Self::DmarcEvaluation(_) => "dmarc-evaluation",
            Self::PluginVerdict(_) => "plugin-verdict",
            Self::PluginFault(_) => "plugin-fault",
            Self::Delivery(_) => "delivery",
            Self::Deferral(_) => "deferral",
            Self::Bounce(_) => "bounce",
            Self::Expiration(_) => "expiration",
            Self::Hold(_) => "hold",
            Self::Release(_) => "release",
            Self::Report(_) => "report",
        }
    }
}

/// A reader of records: the log, a counter, a store, a live view. Called on the mail path, so it must not wait: it queues
/// what it cannot write at once.
pub trait RecordSink: Send + Sync + 'static {
    /// Takes one record.
    fn record(&self, record: &Record);

    /// Whether this reader wants records; where no reader does, they are not made.
    fn wanted(&self) -> bool {
        true
    }

    /// Whether this reader wants what each plugin said at each stage, some twenty records a message; where no reader does,
    /// they are not made. A reader may get them all the same, because another wants them.
    fn wants_verdicts(&self) -> bool {
        self.wanted()
    }
}

/// Hands each record to several readers, in their order.
pub struct RecordReaders(Vec<Arc<dyn RecordSink>>);

impl RecordReaders {
    /// Of these readers.
    #[must_use]
    pub fn new(readers: Vec<Arc<dyn RecordSink>>) -> Self {
        Self(readers)
    }
}

impl RecordSink for RecordReaders {
    fn record(&self, record: &Record) {
        self.0.iter().for_each(|reader| reader.record(record));
    }

    fn wanted(&self) -> bool {
        self.0.iter().any(|reader| reader.wanted())
    }

    fn wants_verdicts(&self) -> bool {
        self.0.iter().any(|reader| reader.wants_verdicts())
    }
}

/// A sink that drops all records.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRecords;

impl RecordSink for NoRecords {
    fn record(&self, _: &Record) {}

    fn wanted(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Keeps the kinds of what it is given.
    struct Reader {
        verdicts: bool,
        events: Mutex<Vec<&'static str>>,
    }

    impl Reader {
        fn new(verdicts: bool) -> Arc<Self> {
            Arc::new(Self { verdicts, events: Mutex::default() })
        }
    }

    impl RecordSink for Reader {
        fn record(&self, record: &Record) {
            self.events.lock().unwrap().push(record.event());
        }

        fn wants_verdicts(&self) -> bool {
            self.verdicts
        }
    }

    #[test]
    fn every_reader_gets_what_some_reader_wants() {
        let step = |fault| PluginStep {
            plugin: "p",
            hook: "on-mail",
            verdict: "next",
            overruled: false,
            fault,
            session: None,
            id: None,
        };
        let (some, all) = (Reader::new(false), Reader::new(true));
        let both = RecordReaders::new(vec![some.clone(), Arc::new(NoRecords), all.clone()]);
        assert!(both.wanted() && both.wants_verdicts());
        step(None).record(&both, UnixTime::from_millis(0));
        step(Some(("trap", "x"))).record(&both, UnixTime::from_millis(0));
        assert_eq!(*some.events.lock().unwrap(), ["plugin-verdict", "plugin-fault"]);
        assert_eq!(*all.events.lock().unwrap(), ["plugin-verdict", "plugin-fault"]);
        let few = RecordReaders::new(vec![some.clone(), Arc::new(NoRecords)]);
        assert!(few.wanted() && !few.wants_verdicts() && !RecordReaders::new(Vec::new()).wanted());
        step(None).record(&few, UnixTime::from_millis(0));
        assert_eq!(some.events.lock().unwrap().len(), 2, "nobody wants it, so it is not made");
    }
}
