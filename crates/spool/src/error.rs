//! What can go wrong, and who must act.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use pintle_mail::{EnhancedCode, QueueId, Reply};

/// A spool could not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpoolError {
    /// The disk is full, or so nearly that the reserve would be touched. The operator must make room.
    Full,
    /// A sync failed. What the disk holds is unknown, so nothing is accepted until a restart has read it again.
    Broken(Arc<str>),
    /// There is no such message, or no longer.
    Unknown(QueueId),
    /// The message has no recipient of this number.
    UnknownRecipient(QueueId, u32),
    /// There is a message with this id already. The caller is at fault.
    Duplicate(QueueId),
    /// What lies on disk is not what was written. The message has been set aside.
    Damaged(QueueId, Arc<str>),
    /// The message was put into a quarantine, or let out of one, before a settlement that was meant for the other case.
    HoldChanged(QueueId),
    /// A recipient of the message has come to its end before a settlement that brings reports: they would tell something
    /// else than what became of it. Nothing was done; look again.
    RecipientsChanged(QueueId),
    /// The store refused one operation; nothing of it was done.
    Store(Arc<str>),
    /// The index of the spool is not what was written, or can be neither read nor written. It is being made anew from the
    /// log; ask again.
    Index(Arc<str>),
    /// The spool has been closed.
    Closed,
}

impl SpoolError {
    /// The error for a failed write or read; a full disk is a matter of its own, for it passes.
    pub(crate) fn from_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Store(error.to_string().into()),
        }
    }

    /// The error for a failed write of the index; it is made anew where it stays so.
    pub(crate) fn from_index(error: &io::Error) -> Self {
        match Self::from_io(error) {
            Self::Store(what) => Self::Index(what),
            error => error,
        }
    }

    /// What a client is told who wanted to leave a message here.
    #[must_use]
    pub fn reply(&self) -> Reply {
        match self {
            // RFC 5321 section 4.2.2: 452, insufficient system storage. RFC 3463 section 3.4: X.3.1, system full.
            Self::Full => {
                Reply::new(452, EnhancedCode(4, 3, 1), "No room for more mail now; try again later")
            }
            _ => Reply::new(451, EnhancedCode(4, 3, 0), "The mail cannot be stored now; try again later"),
        }
    }
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the spool's disk is full: make room, or lower the reserve"),
            Self::Broken(why) => {
                write!(f, "the spool has stopped accepting: {why}; check the disk, then restart")
            }
            Self::Unknown(id) => write!(f, "no message {id} in the spool"),
            Self::UnknownRecipient(id, recipient) => write!(f, "message {id} has no recipient {recipient}"),
            Self::Duplicate(id) => write!(f, "there is a message {id} already"),
            Self::Damaged(id, what) => write!(f, "message {id} is damaged on disk and was set aside: {what}"),
            Self::HoldChanged(id) => write!(f, "message {id} was quarantined or released in the meantime"),
            Self::RecipientsChanged(id) => {
                write!(f, "recipients of message {id} have come to their end in the meantime")
            }
            Self::Store(what) => write!(f, "the spool's store refused: {what}"),
            Self::Index(what) => {
                write!(f, "the spool's database cannot be used and is being made anew from the log: {what}")
            }
            Self::Closed => f.write_str("the spool is closed"),
        }
    }
}

impl std::error::Error for SpoolError {}

/// A spool folder could not be opened. The operator must act.
#[derive(Debug)]
pub enum OpenError {
    /// Another process works in this folder.
    Locked(PathBuf),
    /// The folder was written by a newer version of us, with this schema number.
    Newer {
        /// The database, or a part of the log.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The highest schema that we read.
        known: i64,
    },
    /// The folder was in use, and its log is not there.
    LogMissing {
        /// Where the log should be.
        path: PathBuf,
        /// How many messages the database knows, if there is one.
        messages: Option<u64>,
    },
    /// The folder was in use, and its folder of large bodies is not there.
    BodiesMissing(PathBuf),
    /// The folder is no spool: it has none of its parts.
    NoSpool(PathBuf),
    /// A part belongs to another spool, or to another place in this one.
    Mixed {
        /// The part.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file or folder could not be opened, read or made.
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log could not be written to.
    Log {
        /// Its folder.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The database could not be opened or read.
    Database {
        /// Which.
        path: PathBuf,
        /// Why, in its own words.
        what: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(path) => write!(
                f,
                "the spool {} is in use by another process: stop it, or choose another folder",
                path.display()
            ),
            Self::Newer { path, found, known } => write!(
                f,
                "{} has schema {found}, and this version reads up to {known}: run the newer version",
                path.display()
            ),
            Self::LogMissing { path, messages } => {
                write!(f, "{} has no segments, though this spool has been in use", path.display())?;
                if let Some(messages) = messages {
                    write!(f, " and its database knows {messages} messages")?;
                }
                f.write_str(
                    ": mount or restore the folder; to begin with an empty spool, move the whole spool folder aside",
                )
            }
            Self::BodiesMissing(path) => write!(
                f,
                "{} is not there, though this spool has been in use: mount or restore the folder; to go on without the \
                 large bodies that it held, make an empty one",
                path.display()
            ),
            Self::NoSpool(path) => write!(
                f,
                "{} is no spool: it has no `segments/`, no `identity` and no `envelopes.db`; name the folder that the \
                 gateway keeps its mail in",
                path.display()
            ),
            Self::Mixed { path, what } => write!(
                f,
                "{} does not belong here: {what}; restore all parts of the spool from one copy, or move this one aside",
                path.display()
            ),
            Self::Io { path, source } => write!(f, "cannot use {}: {source}", path.display()),
            Self::Log { path, what } => write!(f, "cannot write to the log in {}: {what}", path.display()),
            Self::Database { path, what } => write!(
                f,
                "cannot use {}: {what}; move it aside, and it is made anew from the log",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
