//! Fuzzes the MIME scanner with arbitrary messages; the play that the property tests use too checks the properties.

#![no_main]

#[path = "../../tests/mime_play/mod.rs"]
mod mime_play;

libfuzzer_sys::fuzz_target!(|plan: &[u8]| mime_play::play(plan));
