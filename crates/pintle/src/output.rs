//! Lines on standard output, for whoever asked.
//!
//! `println!` panics when nobody reads any more, and `pintle queue list | head` is a good way of asking. Such a reader has
//! what it wanted; the exit code still tells how the work went.
//!
//! What strangers wrote must not speak to the terminal: a subject, an address, a next hop's reply or a plugin's word can
//! hold sequences that move the cursor, and signs that turn the direction of a line round. No line lets them through.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::process::ExitCode;

use pintle_mail::acts_on_terminal;
use serde::Serialize;

macro_rules! say {
    ($($part:tt)*) => { $crate::output::line(format_args!($($part)*)) };
}

macro_rules! complain {
    ($($part:tt)*) => { $crate::output::complaint(format_args!($($part)*)) };
}

pub(crate) use {complain, say};

/// Why a command cannot do its work; `main` prints it.
pub(crate) type CommandError = Box<dyn std::error::Error>;

/// What a command comes to: its exit code, or an error.
pub(crate) type CommandResult = Result<ExitCode, CommandError>;

/// Writes a line; trouble other than a reader that is gone is told on standard error.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    match writeln!(io::stdout().lock(), "{}", escape_lines(&text)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain!("pintle: standard output: {error}");
        }
        _ => {}
    }
}

/// Writes a line to standard error, if anybody can have it: `eprintln!` would panic where nobody can.
pub(crate) fn complaint(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let _ = writeln!(io::stderr().lock(), "{}", escape_lines(&text));
}

/// An answer for machines. Within its texts every sign that could speak to a terminal is escaped, as JSON allows, so
/// that nothing is lost.
pub(crate) fn json(answer: &impl Serialize) -> serde_json::Result<()> {
    let text = serde_json::to_string_pretty(answer)?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if acts_on_terminal(c) && c != '\n' {
            // All of them are below U+10000.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    say!("{out}");
    Ok(())
}

/// A stranger's text as part of a line.
pub(crate) fn escape_untrusted(text: &str) -> String {
    text.chars().map(|c| if acts_on_terminal(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Lines of ours with strangers' words in them.
pub(crate) fn escape_lines(text: &str) -> Cow<'_, str> {
    let stays = |c: char| c == '\n' || !acts_on_terminal(c);
    if text.chars().all(stays) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if stays(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_wrote_does_not_speak_to_the_terminal() {
        assert_eq!(escape_untrusted("free\u{1b}[2J money\r\n"), "free\u{fffd}[2J money\u{fffd}\u{fffd}");
        assert_eq!(escape_untrusted("\u{9b}2J <a\u{202e}b@x.example>"), "\u{fffd}2J <a\u{fffd}b@x.example>");
        assert_eq!(escape_untrusted("Grüße, 東京, שלום\t"), "Grüße, 東京, שלום\t");
    }

    #[test]
    fn lines_of_ours_stay_lines() {
        assert_eq!(escape_lines("\nheader:\n\ta"), "\nheader:\n\ta");
        assert_eq!(escape_lines("a\u{1b}c\rb"), "a\u{fffd}c\u{fffd}b");
    }
}
