//! Arbitrary messages against the MIME scanner; what must hold is watched by the play that the property tests use too.

#![no_main]

#[path = "../../tests/mime_play/mod.rs"]
mod mime_play;

libfuzzer_sys::fuzz_target!(|plan: &[u8]| mime_play::play(plan));
