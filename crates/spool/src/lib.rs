//! Durable messages: the only crate that knows a store and `fsync`.
//!
//! A message comes in as a [`Draft`], is committed with its envelope, and from that moment survives any crash until each
//! of its recipients has a [`Disposition`]. Engines stand behind one trait, [`Spool`]: [`Embedded`] keeps everything in an
//! append-only log with an index of it in SQLite, both written by one committer thread; [`Memory`] keeps nothing and serves
//! tests. Both pass the same conformance suite, which cuts them off at every [`CrashPoint`](fault::CrashPoint).
//!
//! It leaves to others when to deliver (queue), to whom and how (outbound), and what a message means (mail). States on
//! disk, what moves them and what recovery does stand in `docs/message-states.md`.

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

pub use content::Content;
pub use draft::{Draft, DraftLimits};
#[cfg(any(test, feature = "crash-points"))]
pub use embedded::play_segments;
pub use embedded::{Embedded, EmbeddedConfig, Inspection, Problem, Repair, inspect, repair};
pub use entry::{Disposition, Entry, NewMessage, Pending, RecipientState, Status, Stored};
pub use error::{OpenError, SpoolError};
pub use hold::{Hold, Quarantine};
pub use listing::{Amount, Filter, Listing, Page, Summary, Totals, Waiting, WaitingRecipient};
pub use memory::Memory;
pub use spool::{Change, Guard, Health, Receipt, Settled, Settlement, Spool, SpoolFuture};
