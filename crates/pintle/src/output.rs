//! Output of commands on standard output and standard error: ignores broken pipes, and removes terminal escapes.
//!
//! `println!` panics on a closed pipe, and `pintle queue list | head` closes one. That is no error: the reader has read
//! what it wanted, and the exit code still reports the command's result.
//!
//! Untrusted text must not control the terminal: a subject, an address, a next hop's reply or a plugin's text can hold
//! escape sequences that move the cursor, and bidirectional controls that reverse the text. Every line is filtered.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::process::ExitCode;

use pintle_mail::acts_on_terminal;
use serde::Serialize;

/// Prints a line on standard output, formatted as by `println!`.
macro_rules! say {
    ($($part:tt)*) => { $crate::output::line(format_args!($($part)*)) };
}

/// Prints a line on standard error, formatted as by `eprintln!`.
macro_rules! complain {
    ($($part:tt)*) => { $crate::output::complaint(format_args!($($part)*)) };
}

pub(crate) use {complain, say};

/// Why a command failed; `main` prints it and exits with code 1.
pub(crate) type CommandError = Box<dyn std::error::Error>;

/// The result of a command: its exit code, or an error.
pub(crate) type CommandResult = Result<ExitCode, CommandError>;

/// Writes a line to standard output. A broken pipe is ignored; other errors are reported on standard error.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    match writeln!(io::stdout().lock(), "{}", escape_lines(&text)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain!("pintle: standard output: {error}");
        }
        _ => {}
    }
}

/// Writes a line to standard error and ignores errors: `eprintln!` would panic if standard error is closed.
pub(crate) fn complaint(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let _ = writeln!(io::stderr().lock(), "{}", escape_lines(&text));
}

/// Prints an answer as JSON. Characters that could control a terminal become JSON escapes, so that nothing is lost.
pub(crate) fn json(answer: &impl Serialize) -> serde_json::Result<()> {
    let text = serde_json::to_string_pretty(answer)?;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if acts_on_terminal(c) && c != '\n' {
            // All of them are below U+10000, so one escape is enough.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    say!("{out}");
    Ok(())
}

/// Replaces each character of an untrusted text that could control a terminal, line ends included, by U+FFFD.
pub(crate) fn escape_untrusted(text: &str) -> String {
    text.chars().map(|c| if acts_on_terminal(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Like [`escape_untrusted`], but keeps `\n`: for our own lines with untrusted text in them.
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
    fn untrusted_text_does_not_control_the_terminal() {
        assert_eq!(escape_untrusted("free\u{1b}[2J money\r\n"), "free\u{fffd}[2J money\u{fffd}\u{fffd}");
        assert_eq!(escape_untrusted("\u{9b}2J <a\u{202e}b@x.example>"), "\u{fffd}2J <a\u{fffd}b@x.example>");
        assert_eq!(escape_untrusted("Grüße, 東京, שלום\t"), "Grüße, 東京, שלום\t");
    }

    #[test]
    fn line_ends_of_our_own_text_are_kept() {
        assert_eq!(escape_lines("\nheader:\n\ta"), "\nheader:\n\ta");
        assert_eq!(escape_lines("a\u{1b}c\rb"), "a\u{fffd}c\u{fffd}b");
    }
}
