//! Fuzzes results that we write and fields in our name; the play that the tests use too checks the properties.

#![no_main]

#[path = "../../tests/plays/mod.rs"]
mod plays;

libfuzzer_sys::fuzz_target!(|plan: &[u8]| plays::auth_results::play(plan));
