//! Lines on standard output, for whoever asked.
//!
//! `println!` panics when nobody reads any more, and `pintle queue list | head` is a good way of asking. Such a reader has
//! what it wanted; the exit code still tells how the work went.

use std::fmt;
use std::io::{self, Write};

macro_rules! say {
    ($($part:tt)*) => { $crate::say::line(format_args!($($part)*)) };
}

pub(crate) use say;

/// Writes a line; trouble other than a reader that is gone is told on standard error.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("pintle: standard output: {error}");
        }
        _ => {}
    }
}
