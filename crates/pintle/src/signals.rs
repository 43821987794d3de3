//! The signals that the gateway obeys.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that mean something to us.
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
