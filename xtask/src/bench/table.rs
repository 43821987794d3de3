//! The results: one line per run, a table of medians, and everything as JSON.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::bench::load::{LoadFigures, LoadShape};
use crate::bench::process::ProcessUsage;
use crate::run::ChoreError;

/// The results of one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measurement {
    contender: &'static str,
    sessions: u64,
    per_session: u64,
    accepted_per_second: f64,
    through_per_second: f64,
    cpu_s_per_1000: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    peak_mb: f64,
    idle_kb_per_session: Option<f64>,
}

impl Measurement {
    #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
    pub(crate) fn new(
        contender: &'static str,
        shape: LoadShape,
        figures: &LoadFigures,
        through: Duration,
        used: &ProcessUsage,
    ) -> Self {
        let messages = figures.accepted as f64;
        Self {
            contender,
            sessions: shape.sessions,
            per_session: shape.per_session,
            accepted_per_second: figures.per_second,
            through_per_second: messages / through.as_secs_f64(),
            cpu_s_per_1000: used.cpu_seconds * 1_000.0 / messages,
            p50_ms: figures.p50_ms,
            p90_ms: figures.p90_ms,
            p99_ms: figures.p99_ms,
            max_ms: figures.max_ms,
            peak_mb: used.peak_kb as f64 / 1_024.0,
            idle_kb_per_session: None,
        }
    }

    /// The memory of idle sessions; all other fields are empty.
    pub(crate) fn idle(contender: &'static str, sessions: u64, kb: f64) -> Self {
        Self {
            contender,
            sessions,
            per_session: 0,
            accepted_per_second: 0.0,
            through_per_second: 0.0,
            cpu_s_per_1000: 0.0,
            p50_ms: 0.0,
            p90_ms: 0.0,
            p99_ms: 0.0,
            max_ms: 0.0,
            peak_mb: 0.0,
            idle_kb_per_session: Some(kb),
        }
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<16} {:>4} x {:<3} {:>8.0}/s accepted {:>8.0}/s through {:>6.2} CPU s/1000  p50 {:>6.2}  p90 {:>6.2}  \
             p99 {:>7.2} ms  peak {:>5.0} MB",
            self.contender,
            self.sessions,
            self.per_session,
            self.accepted_per_second,
            self.through_per_second,
            self.cpu_s_per_1000,
            self.p50_ms,
            self.p90_ms,
            self.p99_ms,
            self.peak_mb
        )
    }
}

/// A table with one line for each contender and load.
pub(crate) fn medians(rows: &[Measurement]) -> String {
    let mut groups: Vec<(&'static str, u64, u64)> = Vec::new();
    for row in rows.iter().filter(|row| row.idle_kb_per_session.is_none()) {
        let group = (row.contender, row.sessions, row.per_session);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let line = |group: &(&'static str, u64, u64)| {
        let of_group = |row: &&Measurement| (row.contender, row.sessions, row.per_session) == *group;
        let members: Vec<&Measurement> = rows.iter().filter(of_group).collect();
        median_row(&members).map(|row| row.to_string()).unwrap_or_default()
    };
    groups.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn median_row(rows: &[&Measurement]) -> Option<Measurement> {
    let of = |figure: fn(&Measurement) -> f64| median(rows.iter().map(|row| figure(row)).collect());
    let first = *rows.first()?;
    Some(Measurement {
        accepted_per_second: of(|row| row.accepted_per_second),
        through_per_second: of(|row| row.through_per_second),
        cpu_s_per_1000: of(|row| row.cpu_s_per_1000),
        p50_ms: of(|row| row.p50_ms),
        p90_ms: of(|row| row.p90_ms),
        p99_ms: of(|row| row.p99_ms),
        max_ms: of(|row| row.max_ms),
        peak_mb: of(|row| row.peak_mb),
        ..first.clone()
    })
}

/// The middle value; of an even number of values the mean of the two in the middle, since either one alone would be
/// biased.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    f64::midpoint(values[last / 2], values[last.div_ceil(2)])
}

/// Writes all rows as a JSON list.
pub(crate) fn write_json(path: &Path, rows: &[Measurement]) -> Result<(), ChoreError> {
    let unreadable = |cause| ChoreError::Unreadable { path: path.display().to_string(), cause };
    let text = serde_json::to_string_pretty(rows).map_err(|error| unreadable(error.into()))?;
    std::fs::write(path, text).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one_counts() {
        assert!((median(vec![3.0, 1.0, 100.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(Vec::new()).abs() < f64::EPSILON);
    }
}
