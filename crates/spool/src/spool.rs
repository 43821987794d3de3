//! The trait that every storage engine implements, and the receipt that only a durable commit can make.
//!
//! The verbs are those of a message's life: begin, commit, claim, load, settle; the rest is for operators. Each future
//! resolves when the change is as durable as the engine promises, and not before.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use pintle_mail::{NextHop, QueueId, UnixTime};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    DeliveryStatus, Draft, Filter, HoldReason, Listing, NewMessage, Page, SpoolError, SpoolFuture, Stored,
    Totals, Waiting,
};

/// A store of messages, as seen by the gateway that owns them: those that it has accepted.
///
/// An operation goes on even when its future is dropped half way. A caller that drops it does not know the outcome,
/// exactly as after a crash; delivery at least once covers both outcomes. Operations on one message take effect in the
/// order in which they were submitted, each after the answer to the one before.
pub trait Spool: Send + Sync + 'static {
    /// Opens a draft for one message's body.
    ///
    /// # Errors
    /// As for [`Health::accepting`], so that a client is refused before it sends its data; or [`SpoolError::Closed`].
    fn begin(&self) -> Result<Draft, SpoolError>;

    /// Makes a message durable: THE commit point.
    ///
    /// # Errors
    /// [`SpoolError::Duplicate`] for an id that is there already, [`SpoolError::Full`], or another fault of the store.
    fn commit(&self, message: NewMessage) -> SpoolFuture<'_, Receipt>;

    /// Stores new statuses of recipients and commits children, all or nothing. Removes the message once every recipient
    /// is done.
    ///
    /// # Errors
    /// [`SpoolError::Unknown`], [`SpoolError::UnknownRecipient`], [`SpoolError::HoldChanged`] as the guard says,
    /// [`SpoolError::RecipientsChanged`] for children that tell of a recipient that is done already, or a fault of the
    /// store.
    fn settle(&self, settlement: Settlement) -> SpoolFuture<'_, Settled>;

    /// Reads a message in its current state: entry, header block, body, and the status of each recipient.
    ///
    /// # Errors
    /// [`SpoolError::Unknown`], [`SpoolError::Damaged`], or a fault of the store.
    fn load(&self, id: QueueId) -> SpoolFuture<'_, Stored>;

    /// The next messages of this gateway that have recipients still pending, in order of id, held ones included. At
    /// start, call it with the last id of the page before until a page comes back empty.
    ///
    /// # Errors
    /// [`SpoolError::Unavailable`] passes: ask again. Else a fault of the store.
    fn claim(&self, after: Option<QueueId>, limit: usize) -> SpoolFuture<'_, Vec<Waiting>>;

    /// Each message that becomes pending from now on: committed, a child included, or released. The first caller gets
    /// the receiver, later ones nothing. This is how a queue learns of new mail without knowing who received it.
    ///
    /// Ask for it before the first [`claim`](Self::claim), so that no message is missed between the two. A message that
    /// is committed meanwhile then comes twice, and the second is to be ignored.
    fn arrivals(&self) -> Option<UnboundedReceiver<Waiting>>;

    /// Keeps a message from delivery until [`release`](Self::release). Gives the hold that it had before. An operator's
    /// hold leaves a message in its quarantine.
    fn hold(&self, id: QueueId, hold: HoldReason) -> SpoolFuture<'_, Option<HoldReason>>;

    /// Releases a held message, which is announced as an arrival. Out of a quarantine, `at` becomes its time of release.
    /// Gives the hold that it had. A message without a hold stays as it is, and so does one that the guard does not
    /// mean ([`SpoolError::HoldChanged`]).
    fn release(&self, id: QueueId, at: UnixTime, guard: Guard) -> SpoolFuture<'_, Option<HoldReason>>;

    /// Sends the recipients with these ids (all, when none are given) by another next hop, whatever routes say. `None`
    /// removes such a choice.
    fn reroute(&self, id: QueueId, recipients: Vec<u32>, next_hop: Option<NextHop>) -> SpoolFuture<'_, ()>;

    /// Replaces the context of a message ([`Entry::context`](crate::Entry::context)). To change a part of it, the caller
    /// loads it first, and makes sure that no other change comes in between.
    ///
    /// # Errors
    /// [`SpoolError::Unknown`], or a fault of the store.
    fn set_context(&self, id: QueueId, context: Bytes) -> SpoolFuture<'_, ()>;

    /// A page of the messages in the spool that pass a filter, for operators.
    fn list(&self, filter: Filter, page: Page) -> SpoolFuture<'_, Listing>;

    /// How much is in the spool, for health checks and metrics.
    fn totals(&self) -> SpoolFuture<'_, Totals>;

    /// Whether new mail can be taken now.
    fn health(&self) -> Health;

    /// Octets of free space in the store; none where it does not tell.
    fn free(&self) -> Option<u64> {
        None
    }

    /// Finishes the operations that were submitted, stops every thread and task of the engine, and waits for them. Later
    /// calls fail with [`SpoolError::Closed`].
    ///
    /// # Errors
    /// The engine ended in a panic.
    fn close(&self) -> SpoolFuture<'_, ()>;
}

/// Proof that a message is durable. Only a commit makes one, and the SMTP server needs one before it says 250, so the
/// compiler enforces the order of the two.
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

/// New statuses of a message's recipients and the reports about them, in one transaction.
#[derive(Debug)]
pub struct Settlement {
    /// The message that is settled.
    pub id: QueueId,
    /// New statuses of some of its recipients. A recipient that is done stays as it is.
    pub changes: Vec<Change>,
    /// Messages that report on this one, such as bounces; durable no later than the statuses. With them, a changed recipient
    /// that is done already makes the whole settlement fail with [`SpoolError::RecipientsChanged`], since the report says
    /// what became of each.
    pub children: Vec<NewMessage>,
    /// The condition on the message's hold; where it is not met, nothing is done ([`SpoolError::HoldChanged`]).
    pub guard: Guard,
}

/// A condition on the message's hold, checked when a settlement or a release takes effect: the hold may have changed since
/// the caller read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// No condition: the change applies whatever the hold is.
    #[default]
    Any,
    /// The message is in a quarantine: one that is dropped there unseen must not have been released.
    Quarantined,
    /// The message is not in a quarantine: nothing in quarantine may be reported to a sender, or released along with others.
    Free,
}

impl Guard {
    pub(crate) fn check(self, id: QueueId, hold: Option<&HoldReason>) -> Result<(), SpoolError> {
        let quarantined = hold.and_then(HoldReason::quarantine).is_some();
        match self {
            Self::Quarantined if !quarantined => Err(SpoolError::HoldChanged(id)),
            Self::Free if quarantined => Err(SpoolError::HoldChanged(id)),
            Self::Any | Self::Quarantined | Self::Free => Ok(()),
        }
    }
}

/// One recipient's new status. It replaces the old one completely, so applying it twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The recipient's id within the message: [`Recipient::id`](pintle_mail::Recipient::id).
    pub recipient: u32,
    /// Its status from now on.
    pub status: DeliveryStatus,
}

/// The result of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Every recipient was done, so the message was removed.
    pub removed: bool,
    /// One receipt per child, in their order.
    pub children: Vec<Receipt>,
}

/// Whether new mail can be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// New mail is accepted.
    Accepting,
    /// The store has no room; new mail is deferred until it has.
    Full,
    /// New mail is deferred for this reason. The engine retries by itself.
    Unavailable(Arc<str>),
    /// New mail is deferred until an operator has examined the store and restarted the gateway: the store may have lost
    /// committed data.
    Broken(Arc<str>),
}

impl Health {
    /// Whether new mail can be accepted, as a result.
    ///
    /// # Errors
    /// [`SpoolError::Full`], [`SpoolError::Unavailable`] or [`SpoolError::Broken`]: the reason why not.
    pub fn accepting(self) -> Result<(), SpoolError> {
        match self {
            Self::Accepting => Ok(()),
            Self::Full => Err(SpoolError::Full),
            Self::Unavailable(why) => Err(SpoolError::Unavailable(why)),
            Self::Broken(why) => Err(SpoolError::Broken(why)),
        }
    }
}
