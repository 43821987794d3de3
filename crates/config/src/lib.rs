//! The configuration file: raw, then lowered, every mistake at once
