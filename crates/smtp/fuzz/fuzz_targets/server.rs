//! Arbitrary bytes and answers against the server session, checked by `server_play`, which the property tests use too.

#![no_main]

#[path = "../../tests/server_play/mod.rs"]
mod server_play;

libfuzzer_sys::fuzz_target!(|plan: &[u8]| server_play::play(plan));
