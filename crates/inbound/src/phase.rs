//! The phase of the server (running, draining, aborting), which every session watches.

/// Whether sessions may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerPhase {
    /// Normal operation.
    Running,
    /// Sessions finish their transaction and then end.
    Draining,
    /// Sessions end at once.
    Aborting,
}
