//! Write Pintle plugins in Rust
