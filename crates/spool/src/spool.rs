//! The trait that every engine serves, and the receipt that only a durable commit can mint.
//!
//! The verbs are those of a message's life: begin, commit, claim, load, settle; the rest is what an operator asks for.
//! Each future resolves when the change is as durable as the engine promises, and not before.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use pintle_mail::{NextHop, QueueId, UnixTime};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{Draft, Filter, Hold, Listing, NewMessage, Page, SpoolError, Status, Stored, Totals, Waiting};

/// What the verbs of [`Spool`] give back.
pub type SpoolFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SpoolError>> + Send + 'a>>;

/// A store of messages.
///
/// An operation goes on even when its future is dropped half way; a caller that goes away before the answer knows neither
/// outcome, exactly as after a crash, and at-least-once covers both. Operations on one message take effect in the order
/// in which they were asked for, each after the answer to the one before.
pub trait Spool: Send + Sync + 'static {
    /// Opens a draft for one message's body.
    ///
    /// # Errors
    /// [`SpoolError::Full`] or [`SpoolError::Broken`], so that a client is turned away before it sends its data.
    fn begin(&self) -> Result<Draft, SpoolError>;

    /// Makes a message durable: THE commit point.
    fn commit(&self, message: NewMessage) -> SpoolFuture<'_, Receipt>;

    /// Makes several messages durable, all or none, with one wait; receipts come in the order of the messages.
    fn commit_many(&self, messages: Vec<NewMessage>) -> SpoolFuture<'_, Vec<Receipt>>;

    /// Marks recipients and commits children, all or nothing; removes the message once every recipient is done.
    fn settle(&self, settlement: Settlement) -> SpoolFuture<'_, Settled>;

    /// A message as it stands: entry, header block, body, and the status of each recipient.
    fn load(&self, id: QueueId) -> SpoolFuture<'_, Stored>;

    /// The next messages, in order of id, with recipients still pending, held ones included. At start, call it with the
    /// last id of the page before until a page comes back empty.
    ///
    /// A shared engine hands a message to one gateway only, for as long as that one renews its claim; an engine that
    /// belongs to one gateway claimed everything when it was opened.
    fn claim(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<Waiting>>;

    /// Keeps claimed messages ours for another term.
    fn renew(&self, ids: Vec<QueueId>) -> SpoolFuture<'_, ()> {
        drop(ids);
        Box::pin(std::future::ready(Ok(())))
    }

    /// Each message that becomes pending from now on: committed, a child included, or released. The first caller gets
    /// the receiver, later ones nothing. It is how a queue hears of mail without knowing who brought it.
    ///
    /// Ask for it before the first [`claim`](Self::claim), so that nothing falls between the two; a message that is
    /// committed meanwhile then comes twice, and the second is to be ignored.
    fn arrivals(&self) -> Option<UnboundedReceiver<Waiting>>;

    /// Keeps a message from delivery until [`release`](Self::release); gives what held it before. An operator's hold
    /// leaves a message in its quarantine.
    fn hold(&self, id: QueueId, hold: Hold) -> SpoolFuture<'_, Option<Hold>>;

    /// Lets a held message go; it is announced as an arrival. From a quarantine it is `released` at this time. Gives what
    /// held it; a message that was not held is left alone, and so is one that the guard does not mean
    /// ([`SpoolError::HoldChanged`]).
    fn release(&self, id: QueueId, at: UnixTime, guard: Guard) -> SpoolFuture<'_, Option<Hold>>;

    /// Sends the recipients with these ids (all, when none are given) by another next hop, whatever routes say; `None`
    /// takes that back.
    fn reroute(&self, id: QueueId, recipients: Vec<u32>, next_hop: Option<NextHop>) -> SpoolFuture<'_, ()>;

    /// What lies in the spool, for operators.
    fn list(&self, filter: Filter, page: Page) -> SpoolFuture<'_, Listing>;

    /// Numbers for health checks and metrics.
    fn totals(&self) -> SpoolFuture<'_, Totals>;

    /// Whether new mail can be taken now.
    fn health(&self) -> Health;

    /// Octets that are free on the disk, where there is one.
    fn free(&self) -> Option<u64> {
        None
    }

    /// Finishes what was submitted, stops every thread and task of the engine, and waits for them. Later calls fail with
    /// [`SpoolError::Closed`].
    fn close(&self) -> SpoolFuture<'_, ()>;
}

/// Proof that a message is durable. There is no way to make one but a commit: the server machine asks for it before it
/// says 250, so the compiler keeps the promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    id: QueueId,
}

impl Receipt {
    pub(crate) fn mint(id: QueueId) -> Self {
        Self { id }
    }

    /// The message that is durable.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.id, f)
    }
}

/// What becomes of a message, in one transaction.
#[derive(Debug)]
pub struct Settlement {
    /// The message.
    pub id: QueueId,
    /// New statuses of some of its recipients. A recipient that is done stays as it is.
    pub changes: Vec<Change>,
    /// Messages that this one begets, such as bounces; durable no later than the marks. With them, a recipient that is done
    /// refuses the whole with [`SpoolError::RecipientsChanged`]: they tell what became of each that is named.
    pub children: Vec<NewMessage>,
    /// For which messages it is meant; another one is left alone with [`SpoolError::HoldChanged`].
    pub guard: Guard,
}

/// What must still be so when a settlement or a release takes effect: somebody may have acted since it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// Nothing.
    #[default]
    Any,
    /// It lies in a quarantine: what is dropped there unseen must not have been released.
    Quarantined,
    /// It does not: what is reported to a sender, or let go with many others, must not be in quarantine.
    Free,
}

impl Guard {
    pub(crate) fn check(self, id: QueueId, hold: Option<&Hold>) -> Result<(), SpoolError> {
        let quarantined = hold.and_then(Hold::quarantine).is_some();
        match self {
            Self::Quarantined if !quarantined => Err(SpoolError::HoldChanged(id)),
            Self::Free if quarantined => Err(SpoolError::HoldChanged(id)),
            Self::Any | Self::Quarantined | Self::Free => Ok(()),
        }
    }
}

/// One recipient's new status; it replaces the old one whole, so that applying it twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// [`Recipient::id`](pintle_mail::Recipient::id).
    pub recipient: u32,
    /// The new status.
    pub status: Status,
}

/// What a settlement did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Every recipient was done, so the message is gone.
    pub removed: bool,
    /// One per child, in their order.
    pub children: Vec<Receipt>,
}

/// Whether new mail can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Yes.
    Accepting,
    /// Not until there is room on the disk again.
    Full,
    /// Not until the index follows what has been written: it is tried again, and nobody need act but to mend the disk.
    Behind(std::sync::Arc<str>),
    /// Not until the operator has acted and restarted us: the disk did not keep what it was told to.
    Broken(std::sync::Arc<str>),
}
