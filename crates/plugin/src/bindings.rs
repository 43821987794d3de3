//! Re-export of the generated bindings. They are compiled in a crate of their own, `pintle-plugin-bindings`.

pub(crate) use pintle_plugin_bindings::{exports, pintle};
