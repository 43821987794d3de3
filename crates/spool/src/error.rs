//! The errors of a spool, whichever engine it has, and what an SMTP client is told for them.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use pintle_mail::{EnhancedCode, QueueId, Reply};

/// The future of one operation of a [`Spool`](crate::Spool).
pub type SpoolFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SpoolError>> + Send + 'a>>;

/// Why a spool did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpoolError {
    /// The store is full, or would have to use its reserve. The operator must make room.
    Full,
    /// The store may have lost what it was told to keep. Nothing is accepted until a restart has read it again.
    Broken(Arc<str>),
    /// There is no such message, or no longer.
    Unknown(QueueId),
    /// The message has no recipient of this number.
    UnknownRecipient(QueueId, u32),
    /// The spool has a message with this id already. This is a fault of the caller.
    Duplicate(QueueId),
    /// The message cannot be read as it was written. It has been set aside for the operator.
    Damaged(QueueId, Arc<str>),
    /// The message was put into a quarantine, or released from one, so that the guard of the operation is not met.
    HoldChanged(QueueId),
    /// A recipient was done before a settlement that brings reports: they would contradict what became of it. Nothing was
    /// done; load the message again.
    RecipientsChanged(QueueId),
    /// One operation failed, and nothing of it was done.
    Store(Arc<str>),
    /// The store cannot be used at the moment, and the engine is mending it. Ask again.
    Unavailable(Arc<str>),
    /// The spool has been closed.
    Closed,
}

impl SpoolError {
    /// The error for a failed write or read. A full disk has a variant of its own, since it passes.
    pub(crate) fn from_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Store(error.to_string().into()),
        }
    }

    /// The reply to an SMTP client whose message cannot be stored.
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
            Self::Full => f.write_str("the spool is full: make room on its disk, or lower `[spool] reserve`"),
            Self::Broken(why) => {
                write!(f, "the spool accepts no mail: {why}; check its disk, then restart the gateway")
            }
            Self::Unknown(id) => write!(f, "no message {id} in the spool"),
            Self::UnknownRecipient(id, recipient) => write!(f, "message {id} has no recipient {recipient}"),
            Self::Duplicate(id) => write!(f, "the spool has a message {id} already"),
            Self::Damaged(id, what) => write!(f, "message {id} is damaged and was set aside: {what}"),
            Self::HoldChanged(id) => write!(f, "message {id} was quarantined or released in the meantime"),
            Self::RecipientsChanged(id) => {
                write!(f, "recipients of message {id} were delivered or given up in the meantime")
            }
            Self::Store(what) => write!(f, "the spool could not store or read it: {what}"),
            Self::Unavailable(what) => write!(f, "the spool is unavailable for now: {what}"),
            Self::Closed => f.write_str("the spool is closed"),
        }
    }
}

impl std::error::Error for SpoolError {}
