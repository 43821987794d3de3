//! The plugin host: WASI components in warm pools, within limits, in generations
