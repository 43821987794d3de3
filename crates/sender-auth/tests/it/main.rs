//! The checks as callers use them, with DNS that the tests provide.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod dmarc;
mod hostile;
mod interop;
mod odd;
mod seal;
mod sign;
mod signatures;
mod spf;
mod suite;
mod support;
