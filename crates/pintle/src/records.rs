//! The event log: every record becomes a line of the program's log and moves a counter.
//!
//! A record is logged as its public JSON form in the field `record`, which lines of JSON show as an object, so that
//! whoever collects them needs one parser, and lines of text as `name=value`; and with the ids beside it, so that
//! `grep ID` tells a message's whole life.

use pintle_record::{Record, RecordSink};
use tracing::{Level, enabled};

/// The target of all records, for filters.
pub(crate) const TARGET: &str = "pintle::record";

/// Writes records to the log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Log;

impl RecordSink for Log {
    fn record(&self, record: Record) {
        metrics::counter!("pintle_records_total", "event" => record.event()).increment(1);
        if let Record::PluginVerdict(_) = record {
            tracing::debug!(target: TARGET, event = record.event(), record = json(&record));
            return;
        }
        let queue_id = record.id().map(tracing::field::display);
        match &record {
            Record::PluginFault(_) => {
                tracing::warn!(target: TARGET, event = record.event(), queue_id, record = json(&record));
            }
            _ if enabled!(target: TARGET, Level::INFO) => {
                tracing::info!(target: TARGET, event = record.event(), queue_id, record = json(&record));
            }
            _ => {}
        }
    }

    /// One line a plugin and hook would drown the rest: that is for whoever asks for it.
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
    fn single_verdicts_are_made_for_those_who_read_them() {
        let reader = |level| tracing_subscriber::fmt().with_max_level(level).finish();
        for (level, reads) in [(Level::INFO, false), (Level::DEBUG, true)] {
            tracing::subscriber::with_default(reader(level), || {
                assert_eq!((Log.wanted(), Log.wants_verdicts()), (true, reads));
            });
        }
    }
}
