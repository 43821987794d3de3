//! Which messages an operator's command is for, and its outcome for each of them.

use std::fmt;

use pintle_mail::QueueId;
use pintle_spool::{Filter, SpoolError};

/// The messages that a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// Those of these queue ids.
    Ids(Vec<QueueId>),
    /// Those that the filter matches; the empty filter matches all.
    Matching(Filter),
}

/// The outcome of a command for one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult {
    /// The message.
    pub id: QueueId,
    /// Whether the command was carried out, or why not.
    pub outcome: CommandOutcome,
}

/// Whether a command was carried out for a message. What is reported as done is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandOutcome {
    /// It was carried out.
    Done,
    /// There is no such message, or no longer.
    Unknown,
    /// It is not held, so there is nothing to release.
    NotHeld,
    /// It lies in the quarantine of this name, where the command does not apply.
    Quarantined(String),
    /// It lies in no quarantine, where the command applies only there.
    NotQuarantined,
    /// It is held, for this reason.
    Held(String),
    /// The queue does not have it at this moment: its state is just changing, or it is not read yet after the start.
    NotNow,
    /// The spool's error.
    Failed(SpoolError),
}

/// The outcomes of a command, one for each message, in the order of the messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResults(pub Vec<CommandResult>);

impl CommandResults {
    /// For how many messages it was carried out.
    #[must_use]
    pub fn done(&self) -> usize {
        self.0.iter().filter(|act| act.outcome == CommandOutcome::Done).count()
    }

    /// The messages for which it was carried out.
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
            Self::NotHeld => f.write_str("it is not held"),
            Self::Quarantined(name) => {
                write!(f, "left in quarantine {name}: see `pintle quarantine release` and `delete`")
            }
            Self::NotQuarantined => f.write_str("it is in no quarantine: see `pintle queue show`"),
            Self::Held(why) => write!(f, "{why}: `pintle queue release` releases it"),
            Self::NotNow => {
                f.write_str("its state is just changing, or it is not read yet after the start: try again")
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}
