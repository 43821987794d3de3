//! The receiving side as a client sees it: real sockets, real TLS, a spool in memory, judges that decide as a test
//! requires.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gate;
mod limits;
mod per_recipient;
mod quarantine;
mod relaying;
mod stages;
mod trace;
mod verdicts;
