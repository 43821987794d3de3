//! The vocabulary of the event log
