//! What must hold of this crate for any input: one play for each fuzz target, shared with the tests that replay the
//! seeds and feed random octets. A play panics when a property does not hold. The MIME scanner has a module of its own.

#![allow(dead_code, reason = "each binary uses its own part of this module")]
#![allow(unreachable_pub, reason = "public to the binaries that include it, which the lint cannot see")]
#![allow(clippy::unwrap_used, reason = "a violated property is a failed test")]

pub mod address;
pub mod auth_results;
pub mod dsn;
pub mod header;
pub mod plan;
