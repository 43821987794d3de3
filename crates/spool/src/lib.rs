//! Durable messages: the only crate that knows a store and `fsync`.
//!
//! A message comes in as a [`Draft`], is committed with its envelope, and from that moment survives any crash until each
//! of its recipients has a [`Disposition`]. Storage engines stand behind one trait, [`Spool`], and [`open`] chooses among
//! them: [`Embedded`] keeps everything in an append-only log with an index of it in SQLite, both written by one committer
//! thread (group commit); [`Memory`] keeps nothing and serves tests and dry runs. Both pass the same conformance suite,
//! which cuts the embedded one off at every [`CrashPoint`](fault::CrashPoint).
//!
//! When to deliver is decided by the queue, to whom and how by outbound, and what a message means is in mail. The states on
//! disk, what moves a message from one to the next, and what recovery does are in `docs/message-states.md`.

#[cfg(any(test, feature = "crash-points"))]
pub mod conformance;
mod content;
mod draft;
mod embedded;
mod entry;
mod error;
pub mod fault;
mod hold;
mod listing;
mod memory;
mod spool;

use std::sync::Arc;

pub use content::Content;
pub use draft::Draft;
#[cfg(any(test, feature = "crash-points"))]
pub use embedded::fuzz_segments;
pub use embedded::{
    DraftLimits, Embedded, EmbeddedConfig, Inspection, OpenError, Problem, Repair, inspect, repair,
};
pub use entry::{DeliveryStatus, Entry, NewMessage, Pending, RecipientState, Stored};
pub use error::{SpoolError, SpoolFuture};
pub use hold::{HoldReason, Quarantine};
pub use listing::{Amount, Filter, Listing, Page, Summary, Totals, Waiting, WaitingRecipient};
pub use memory::Memory;
pub use pintle_mail::Disposition;
pub use spool::{Change, Guard, Health, Receipt, Settled, Settlement, Spool};

/// Opens the spool of a gateway. This is the one place that chooses the engine: today there is one that is durable,
/// [`Embedded`].
///
/// # Errors
/// As for [`Embedded::open`].
pub fn open(config: &EmbeddedConfig) -> Result<Arc<dyn Spool>, OpenError> {
    Ok(Arc::new(Embedded::open(config)?))
}
