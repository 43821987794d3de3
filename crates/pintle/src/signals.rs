//! Signal handlers: SIGHUP, SIGTERM and SIGINT.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Streams of the signals that the gateway handles. Installing them replaces the default action of each signal.
pub(crate) struct Signals {
    pub(crate) hang_up: Signal,
    pub(crate) terminate: Signal,
    pub(crate) interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}
