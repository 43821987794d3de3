//! Arbitrary and damaged segments of the spool's log; what must hold is watched by the play that a test uses too.

#![no_main]

use std::sync::LazyLock;

use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder for the segments"));

libfuzzer_sys::fuzz_target!(|plan: &[u8]| pintle_spool::play_segments(FOLDER.path(), plan));
