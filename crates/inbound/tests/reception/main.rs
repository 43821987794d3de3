//! The receiving side as a client meets it: real sockets, real TLS, a spool in memory, judges that say what a test wants.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gate;
mod limits;
mod quarantine;
mod relaying;
mod trace;
mod verdicts;
