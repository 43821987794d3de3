//! Runs the play of the fuzz target on its seeds, so that a fault found once stays fixed.

#![allow(clippy::unwrap_used, reason = "a violated property is a failed test")]

mod spf_play;

use std::path::Path;

#[test]
fn the_seeds_of_spf_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/spf");
    let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(seeds.len() >= 8, "{}", seeds.len());
    seeds.iter().for_each(|seed| spf_play::play(&std::fs::read(seed).unwrap()));
}
