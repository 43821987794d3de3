//! Durable messages: a body log and SQLite envelopes with one committer
