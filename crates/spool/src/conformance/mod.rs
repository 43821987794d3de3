//! The conformance suite that every engine passes: the promises of [`Spool`] as checks that use the trait alone.
//!
//! [`run`] is for all engines, [`crash::run`] for those that outlive the process. An engine's own tests call them with
//! a [`Subject`].

#![allow(clippy::unwrap_used, reason = "a check fails by a panic; the crate's own tests may do the same")]

mod checks;
pub mod crash;
pub mod messages;

use std::sync::Arc;

use crate::Spool;
use crate::fault::Faults;

/// An engine under test.
pub trait Subject {
    /// Makes a new, empty store.
    fn store(&self) -> Box<dyn Store>;
}

/// A store of an engine that can be opened more than once.
pub trait Store {
    /// Opens it. After a crash it opens what the crash left.
    fn open(&mut self) -> Arc<dyn Spool>;

    /// The fault injection of its engine. None for an engine that keeps nothing.
    fn faults(&self) -> Option<Faults>;

    /// What is left in the store that no message needs, such as names of files.
    fn litter(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Checks everything that holds without a crash. Panics where a promise is broken.
pub async fn run(subject: &dyn Subject) {
    checks::bodies_come_back_as_they_went_in(subject).await;
    checks::contents_are_read_before_the_commit(subject).await;
    checks::an_id_is_committed_once(subject).await;
    checks::several_children_are_committed_together_or_not_at_all(subject).await;
    checks::settling_the_last_recipient_removes_the_message(subject).await;
    checks::a_done_recipient_stays_done(subject).await;
    checks::children_come_with_the_marks_or_not_at_all(subject).await;
    checks::strangers_are_refused(subject).await;
    checks::held_messages_are_released_and_announced(subject).await;
    checks::a_quarantine_is_left_by_release_alone(subject).await;
    checks::a_release_spares_what_it_does_not_mean(subject).await;
    checks::a_settlement_meant_for_quarantine_spares_what_was_released(subject).await;
    checks::routes_of_the_operator_are_kept(subject).await;
    checks::a_context_is_replaced_and_kept(subject).await;
    checks::pages_cover_everything_once(subject).await;
    checks::filters_choose(subject).await;
    checks::totals_count(subject).await;
    checks::many_at_once_are_all_kept(subject).await;
    checks::a_closed_spool_says_so(subject).await;
}
