//! How the receiving side is doing, for every session to see.

/// Running, or on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerPhase {
    /// As usual.
    Running,
    /// Finish the transaction, then go.
    Draining,
    /// Go.
    Aborting,
}
