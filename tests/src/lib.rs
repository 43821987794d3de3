//! Scenarios on the real binary
