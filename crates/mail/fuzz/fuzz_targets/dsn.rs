//! Fuzzes delivery status notifications about arbitrary messages; the play that the tests use too checks the
//! properties.

#![no_main]

#[path = "../../tests/plays/mod.rs"]
mod plays;

libfuzzer_sys::fuzz_target!(|plan: &[u8]| plays::dsn::play(plan));
