//! What an operator means, and what came of it for each message.

use std::fmt;

use pintle_mail::QueueId;
use pintle_spool::{Filter, SpoolError};

/// Which messages an operator means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// These.
    Ids(Vec<QueueId>),
    /// Those that the filter lets through; the empty filter means all.
    Matching(Filter),
}

/// What came of an operation for one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Which.
    pub id: QueueId,
    /// What.
    pub outcome: CommandOutcome,
}

/// What came of it. Whatever is said to be done is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandOutcome {
    /// As asked.
    Done,
    /// There is no such message, or no longer.
    Unknown,
    /// Nothing held it.
    NotHeld,
    /// It lies in the quarantine of this name, where this is not done.
    Quarantined(String),
    /// It lies in no quarantine.
    NotQuarantined,
    /// Somebody holds it, for this reason.
    Held(String),
    /// It has just changed hands, or is not read yet after the start.
    NotNow,
    /// The spool could not.
    Failed(SpoolError),
}

/// One [`Act`] for each message that was meant, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acts(pub Vec<Act>);

impl Acts {
    /// How many were done as asked.
    #[must_use]
    pub fn done(&self) -> usize {
        self.0.iter().filter(|act| act.outcome == CommandOutcome::Done).count()
    }

    /// The messages with which that was so.
    pub(crate) fn ids_done(&self) -> Vec<QueueId> {
        let done = self.0.iter().filter(|act| act.outcome == CommandOutcome::Done);
        done.map(|act| act.id).collect()
    }
}

impl CommandOutcome {
    pub(crate) fn of(error: SpoolError) -> Self {
        match error {
            SpoolError::Unknown(_) => Self::Unknown,
            error => Self::Failed(error),
        }
    }
}

impl fmt::Display for CommandOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Unknown => f.write_str("no such message, or no longer"),
            Self::NotHeld => f.write_str("nothing holds it"),
            Self::Quarantined(name) => {
                write!(f, "left in quarantine {name}: see `pintle quarantine release` and `delete`")
            }
            Self::NotQuarantined => f.write_str("it is in no quarantine: see `pintle queue show`"),
            Self::Held(why) => write!(f, "{why}: `pintle queue release` lets it go"),
            Self::NotNow => {
                f.write_str("it is just changing hands, or not read yet after the start: ask again")
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}
