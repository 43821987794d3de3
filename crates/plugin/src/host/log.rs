//! Host functions of `log`: a plugin's lines in the gateway's log.

use tracing::Level as TraceLevel;
use wasmtime::component::{HasData, Linker};

use crate::bindings::pintle::plugin::log::{self, Host, Level};
use crate::budget::Budget;
use crate::guest_log;
use crate::guest_log::GuestLog;
use crate::store_data::{HostParts, StoreData};

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    log::add_to_linker::<_, LogInterface>(linker, |data| LogView::of(data.parts()))
}

struct LogInterface;

impl HasData for LogInterface {
    type Data<'a> = LogView<'a>;
}

/// The data that the interface accesses: the log of the instance, and the budget of the call.
pub(crate) struct LogView<'a> {
    log: &'a GuestLog,
    budget: &'a mut Budget,
}

impl<'a> LogView<'a> {
    pub(super) fn of(HostParts { call, log, .. }: HostParts<'a>) -> Self {
        Self { log, budget: &mut call.budget }
    }
}

impl Host for LogView<'_> {
    fn enabled(&mut self, level: Level) -> bool {
        guest_log::enabled(trace_level(level))
    }

    fn write(&mut self, level: Level, text: String, fields: Vec<(String, String)>) {
        if self.budget.pays_for(&text, &fields) {
            self.log.write(trace_level(level), &text, &fields);
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
