//! The generated bindings, by one name within this crate. They are compiled apart: see `pintle-plugin-bindings`.

pub(crate) use pintle_plugin_bindings::{exports, pintle};
