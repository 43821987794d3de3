//! A hostile guest against the plugin host; what must hold is watched by the play that a test uses too.

#![no_main]

#[path = "../../tests/guest_play/mod.rs"]
mod guest_play;

libfuzzer_sys::fuzz_target!(|plan: &[u8]| {
    guest_play::play(plan);
});
