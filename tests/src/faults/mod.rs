//! The fault matrix: the real binary under load while disk, clock, memory, name servers, next hops and plugins fail.
//!
//! `cargo xtask faults` runs [`ROWS`] and writes docs/reliability.md; a few rows are ordinary tests in
//! `tests/tests/faults.rs`. A [`ledger`] knows each message and each copy of it, so that acknowledged and arrived
//! messages are compared by identity and octet by octet.

mod damage;
mod hop;
pub mod ledger;
mod load;
mod powercut;
mod report;
mod row_run;
mod rows;
mod shim;
mod soak;
mod test_bed;

use std::path::PathBuf;
use std::time::Duration;

pub use report::{json, page, table};
pub use rows::{MatrixRow, ROWS, RowAllowance};
pub use soak::{SoakReport, soak};

use ledger::CopyAccount;
use test_bed::TestBed;

/// Options for running rows.
#[derive(Clone, Debug, Default)]
pub struct MatrixOptions {
    /// The most rounds, with larger steps.
    pub rounds: Option<u32>,
    /// The seed of the random numbers.
    pub seed: u64,
    /// The component of the misbehaving plugin.
    pub unruly: Option<PathBuf>,
}

/// The result of a row.
#[derive(Clone, Debug, Default)]
pub struct RowOutcome {
    /// The name of the row.
    pub name: &'static str,
    /// The fault, as text.
    pub about: &'static str,
    /// The number of rounds.
    pub rounds: u32,
    /// The account of all copies.
    pub account: CopyAccount,
    /// Messages that did not arrive, but that the operator can see.
    pub set_aside: u64,
    /// Messages that did not arrive and that the operator cannot see either.
    pub lost: u64,
    /// How often the gateway had to be restarted although the row did not stop it.
    pub restarts: u64,
    /// The duration of the row.
    pub took: Duration,
    /// Violations of the row's requirements; empty if there are none.
    pub problems: Vec<String>,
}

/// The row of this name.
#[must_use]
pub fn row(name: &str) -> Option<&'static MatrixRow> {
    ROWS.iter().find(|row| row.name == name)
}

/// Runs one row.
pub async fn play(row: &MatrixRow, options: &MatrixOptions) -> RowOutcome {
    match row_run::RowRun::new(row, options).play().await {
        Ok(outcome) => outcome,
        Err(why) => RowOutcome {
            name: row.name,
            about: row.about,
            problems: vec![format!("it could not be played: {why}")],
            ..RowOutcome::default()
        },
    }
}

impl RowOutcome {
    fn of(row: &MatrixRow, rounds: u32, stage: &TestBed, took: Duration) -> Self {
        let missing = stage.book.missing();
        let visible = if missing.is_empty() { 0 } else { stage.visible(missing.iter()) as u64 };
        let mut outcome = Self {
            name: row.name,
            about: row.about,
            rounds,
            account: stage.book.account(),
            set_aside: visible,
            lost: missing.len() as u64 - visible,
            restarts: stage.restarts,
            took,
            problems: stage.problems.clone(),
        };
        outcome.judge(row.allow);
        if !outcome.problems.is_empty() && std::env::var_os("PINTLE_KEEP_LOGS").is_some() {
            eprintln!("{}", stage.log());
        }
        outcome
    }

    /// Adds as problems what the row does not allow.
    fn judge(&mut self, allow: RowAllowance) {
        let account = &self.account;
        let most = allow.twice * u64::from(self.rounds);
        let kept = self.set_aside.saturating_sub(allow.set_aside * u64::from(self.rounds));
        let told = u64::from(!allow.reports) * account.reported;
        let restarts = u64::from(!allow.restart) * self.restarts;
        let twice = account.twice.saturating_sub(most);
        let silent = u64::from(account.promised == 0);
        let found = [
            (self.lost, "lost"),
            (kept, "not delivered, beyond what was destroyed"),
            (account.changed, "changed on the way"),
            (told, "given up, although they could have been delivered"),
            (restarts, "restarts needed"),
            (twice, "duplicates beyond what the row allows"),
            (silent, "rows in which nothing was acknowledged"),
        ];
        let bad = found.iter().filter(|(count, _)| *count > 0);
        self.problems.extend(bad.map(|(count, what)| format!("{count} {what}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(change: impl FnOnce(&mut RowOutcome)) -> Vec<String> {
        let mut outcome = RowOutcome {
            name: "x",
            about: "x",
            rounds: 2,
            account: CopyAccount { promised: 10, accounted: 10, ..CopyAccount::default() },
            set_aside: 0,
            lost: 0,
            restarts: 0,
            took: Duration::ZERO,
            problems: Vec::new(),
        };
        change(&mut outcome);
        outcome.judge(RowAllowance { twice: 3, restart: false, reports: false, set_aside: 0 });
        outcome.problems
    }

    #[test]
    fn each_thing_that_a_row_does_not_allow_is_a_problem() {
        assert_eq!(outcome(|_| ()), [""; 0]);
        assert_eq!(outcome(|outcome| outcome.account.twice = 6), [""; 0]);
        let changes: [fn(&mut RowOutcome); 7] = [
            |outcome| outcome.lost = 1,
            |outcome| outcome.set_aside = 1,
            |outcome| outcome.account.changed = 1,
            |outcome| outcome.account.reported = 1,
            |outcome| outcome.restarts = 1,
            |outcome| outcome.account.twice = 7,
            |outcome| outcome.account.promised = 0,
        ];
        for change in changes {
            assert_eq!(outcome(change).len(), 1);
        }
    }
}
