//! Replays the seeds of the fuzz targets, so that faults found by fuzzing do not return.

#![allow(clippy::unwrap_used, reason = "a broken promise is a failed test")]

mod client_play;
mod server_play;

use std::path::Path;

fn replay(target: &str, play: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(seeds.len() >= 8, "{} seeds of {target}", seeds.len());
    seeds.iter().for_each(|seed| play(&std::fs::read(seed).unwrap()));
}

#[test]
fn the_seeds_of_the_server_hold() {
    replay("server", server_play::play);
}

#[test]
fn the_seeds_of_the_client_hold() {
    replay("client", client_play::play);
}
