//! The stock plugins: components compiled into the binary, so that one file is the whole product.

use bytes::Bytes;

include!(concat!(env!("OUT_DIR"), "/components.rs"));

/// The names that `component = "stock:NAME"` accepts, each with the bytes of its WebAssembly component.
pub(crate) fn components() -> Vec<(&'static str, Bytes)> {
    COMPONENTS.iter().map(|(name, bytes)| (*name, Bytes::from_static(bytes))).collect()
}
