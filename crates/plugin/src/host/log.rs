//! `log`: a plugin's own lines in the gateway's log.

use tracing::Level as TraceLevel;

use crate::bindings::pintle::plugin::log::{Host, Level};
use crate::guest_log;
use crate::store_data::StoreData;

impl Host for StoreData {
    fn enabled(&mut self, level: Level) -> bool {
        guest_log::enabled(trace_level(level))
    }

    fn write(&mut self, level: Level, text: String, fields: Vec<(String, String)>) {
        if self.pays_for(&text, &fields) {
            self.scribe.write(trace_level(level), &text, &fields);
        }
    }
}

fn trace_level(level: Level) -> TraceLevel {
    match level {
        Level::Trace => TraceLevel::TRACE,
        Level::Debug => TraceLevel::DEBUG,
        Level::Info => TraceLevel::INFO,
        Level::Warn => TraceLevel::WARN,
        Level::Error => TraceLevel::ERROR,
    }
}
