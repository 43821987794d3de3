//! Arbitrary and damaged segments of the spool's log; what must hold is checked by `embedded/fuzz.rs`, which a unit test runs on the seeds too.

#![no_main]

use std::sync::LazyLock;

use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder for the segments"));

libfuzzer_sys::fuzz_target!(|plan: &[u8]| pintle_spool::fuzz_segments(FOLDER.path(), plan));
