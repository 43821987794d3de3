//! Fuzzes SPF with untrusted records; the play that a test uses too checks the properties.

#![no_main]

#[path = "../../tests/spf_play/mod.rs"]
mod spf_play;

libfuzzer_sys::fuzz_target!(|plan: &[u8]| spf_play::play(plan));
