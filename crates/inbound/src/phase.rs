//! How the receiving side is doing, for every session to see.

/// Running, or on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// As usual.
    Running,
    /// Finish the transaction, then go.
    Draining,
    /// Go.
    Aborting,
}
