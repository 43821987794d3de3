//! Arbitrary header blocks and edits of them; what must hold is watched by the play that the tests use too.

#![no_main]

#[path = "../../tests/plays/mod.rs"]
mod plays;

libfuzzer_sys::fuzz_target!(|plan: &[u8]| plays::header::play(plan));
