//! A few rows of the fault matrix in a short form: `cargo xtask faults` runs all of them in full.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use e2e::faults::{self, MatrixOptions};

/// Runs one row briefly, and fails if the row's allowance is exceeded.
async fn holds(name: &str, rounds: u32) {
    let row = faults::row(name).unwrap();
    let options = MatrixOptions { rounds: Some(rounds), seed: 1, unruly: None };
    let outcome = faults::play(row, &options).await;
    assert!(outcome.problems.is_empty(), "{outcome:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_call_lose_nothing() {
    holds("kill-at-call", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_nothing_that_was_promised() {
    holds("power-cut", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_that_leaves_torn_writes_takes_nothing_that_was_promised() {
    holds("power-cut-torn", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_no_promised_message_and_no_restart() {
    holds("log-write-full", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_costs_no_promised_message() {
    holds("log-sync-eio", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_written_costs_no_promised_message_and_no_restart() {
    holds("database-write-eio", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_that_cannot_be_written_costs_no_promised_message_and_no_restart() {
    holds("body-write-eio", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_next_hop_that_dies_at_any_octet_costs_no_message() {
    holds("hop-cut", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_days_ahead_for_a_while_expires_nothing() {
    holds("clock-days", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_a_clock_that_was_years_ahead_is_delivered_after_a_restart_with_the_right_time() {
    holds("clock-years", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_does_not_wait_for_a_clock_that_went_back() {
    holds("clock-back-hours", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_missing_at_the_start_costs_no_message() {
    holds("database-missing", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_deleted_under_load_costs_no_message() {
    holds("database-deleted", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwritten_page_of_the_database_costs_no_message() {
    holds("database-page", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_cannot_be_made_for_want_of_descriptors_costs_no_restart() {
    holds("log-create-emfile", 1).await;
}
