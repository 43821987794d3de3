//! The readers of event records: the event log, which writes each record as a line of the program's log, and a metric.
//!
//! A record is logged in its public JSON form in the field `record`. JSON lines show it as an object, so that a log
//! collector needs one parser; text lines show it as `name=value`. The ids are fields of their own, so that `grep ID`
//! finds everything that happened to a message.

use std::sync::Arc;

use pintle_record::{Record, RecordReaders, RecordSink};
use tracing::{Level, enabled};

/// The target of all records, for filters.
pub(crate) const TARGET: &str = "pintle::record";

/// Combines `reader` with the counter of records.
pub(crate) fn readers(reader: Arc<dyn RecordSink>) -> Arc<dyn RecordSink> {
    Arc::new(RecordReaders::new(vec![Arc::new(RecordCounter), reader]))
}

/// Counts records by event in the metric `pintle_records_total`.
#[derive(Debug, Clone, Copy, Default)]
struct RecordCounter;

impl RecordSink for RecordCounter {
    fn record(&self, record: &Record) {
        metrics::counter!("pintle_records_total", "event" => record.event()).increment(1);
    }

    /// False: verdict records are not created only to be counted.
    fn wants_verdicts(&self) -> bool {
        false
    }
}

/// Writes records to the log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RecordLog;

impl RecordSink for RecordLog {
    fn record(&self, record: &Record) {
        if let Record::PluginVerdict(_) = record {
            tracing::debug!(target: TARGET, event = record.event(), record = json(record));
            return;
        }
        let queue_id = record.id().map(tracing::field::display);
        match record {
            Record::PluginFault(_) => {
                tracing::warn!(target: TARGET, event = record.event(), queue_id, record = json(record));
            }
            _ if enabled!(target: TARGET, Level::INFO) => {
                tracing::info!(target: TARGET, event = record.event(), queue_id, record = json(record));
            }
            _ => {}
        }
    }

    /// Verdict records are one line for each plugin and hook, so they are logged only at level debug.
    fn wants_verdicts(&self) -> bool {
        enabled!(target: TARGET, Level::DEBUG)
    }
}

fn json(record: &Record) -> String {
    serde_json::to_string(record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_records_are_made_only_at_level_debug() {
        let reader = |level| tracing_subscriber::fmt().with_max_level(level).finish();
        for (level, reads) in [(Level::INFO, false), (Level::DEBUG, true)] {
            tracing::subscriber::with_default(reader(level), || {
                assert_eq!((RecordLog.wanted(), RecordLog.wants_verdicts()), (true, reads));
            });
        }
    }
}
