//! Arbitrary bytes and acts against the client machine; what must hold is watched by the play that a test uses too.

#![no_main]

#[path = "../../tests/client_play/mod.rs"]
mod client_play;

libfuzzer_sys::fuzz_target!(|input: &[u8]| client_play::play(input));
