//! The versions of the plugin contract: `wit/plugin.wit`, the frozen versions in `wit/frozen`, and the comparison that
//! keeps the contract compatible with every frozen version of its line.

pub(crate) mod elements;
pub(crate) mod freeze;
pub(crate) mod frozen;
pub(crate) mod growth;

/// The contract, from the repository's root.
pub(crate) const CONTRACT: &str = "wit/plugin.wit";
/// The folder of the frozen versions, from the repository's root: `VERSION/plugin.wit`, `SHA256SUMS`, `RELEASED`.
pub(crate) const FROZEN: &str = "wit/frozen";
/// What no release serves, from the repository's root.
pub(crate) const PREVIEW: &str = "wit/preview/preview.wit";
