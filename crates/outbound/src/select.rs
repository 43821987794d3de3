//! Which messages an operator's command is for, and its outcome for each of them.

use std::fmt;

use pintle_mail::QueueId;
use pintle_spool::{Filter, SpoolError};

/// The messages that a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// The messages with these queue ids.
    Ids(Vec<QueueId>),
    /// The messages that the filter matches; the empty filter matches all.
    Matching(Filter),
}

/// The outcome of a command for one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult {
    /// The queue id of the message.
    pub id: QueueId,
    /// Whether the command was carried out, or why not.
    pub outcome: CommandOutcome,
}

/// Whether a command was carried out for a message. A result of `Done` is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandOutcome {
    /// The command was carried out.
    Done,
    /// There is no such message, or it has been removed.
    Unknown,
    /// The message is not held, so there is nothing to release.
    NotHeld,
    /// It is in the quarantine of this name, and the command does not apply to quarantined messages.
    Quarantined(String),
    /// It is not in a quarantine, and the command applies to quarantined messages only.
    NotQuarantined,
    /// The message is held, for this reason.
    Held(String),
    /// The queue does not have it at this moment: its state is changing, or it has not been read yet since the start.
    NotNow,
    /// The spool failed with this error.
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
                f.write_str("its state is changing, or it has not been read yet since the start: try again")
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}
