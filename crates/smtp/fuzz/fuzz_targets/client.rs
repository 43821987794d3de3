//! Arbitrary bytes and calls against the client session, checked by `client_play`, which a test uses too.

#![no_main]

#[path = "../../tests/client_play/mod.rs"]
mod client_play;

libfuzzer_sys::fuzz_target!(|input: &[u8]| client_play::play(input));
