//! The components that are part of the program, so that one file is the whole product.

use bytes::Bytes;

include!(concat!(env!("OUT_DIR"), "/components.rs"));

/// What `component = "stock:NAME"` can name.
pub(crate) fn components() -> Vec<(&'static str, Bytes)> {
    COMPONENTS.iter().map(|(name, bytes)| (*name, Bytes::from_static(bytes))).collect()
}
