//! The format of SMTP transcripts, shared by the tests of the server and of the client.
//!
//! A transcript is a file of lines, each with one meaning:
//!
//! ```text
//! # RFC 5321 section 4.1.4: what is shown here (the first line must name its standard; further `#` lines are notes)
//! % setting value        configuration; before all steps
//! C: EHLO client.example bytes of the client, CRLF added
//! S: 250 ok              bytes of the server, CRLF added
//! ! accept               an action of the host
//! @ 5m                   time passes (s, m, h)
//! = closed quit          the next event
//! ```
//!
//! In `C:`, `S:`, `!` and `=` lines `\r \n \t \0 \\ \xHH` stand for octets and `\*80{text}` repeats; a backslash at the end
//! of a `C:` or `S:` line omits its CRLF. Actions and events are described at the runner of each side.
//!
//! A runner plays each file with every [`Cut`] of the other side's bytes and expects the same outcome each time.

// Each test binary uses a different part of this module.
#![allow(dead_code)]
#![allow(unreachable_pub, reason = "public to the test binaries that include it, which the lint cannot see")]
#![allow(clippy::unwrap_used, reason = "a transcript that cannot be read is a failed test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

/// A parsed transcript.
pub struct Script {
    /// The path of the file, for messages.
    pub path: PathBuf,
    /// `%` lines: name and value (empty when there is none).
    pub settings: Vec<(String, String)>,
    /// All other lines, in order.
    pub steps: Vec<Step>,
}

/// One line of a transcript.
pub struct Step {
    /// The line number, from 1.
    pub line: usize,
    pub kind: Kind,
}

/// The meaning of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Client(Vec<u8>),
    Server(Vec<u8>),
    Act(String),
    Clock(Duration),
    Event(String),
}

/// How the bytes of the other side are split before they are passed to the session.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// Adjacent lines in one piece.
    Whole,
    /// Byte by byte.
    Bytes,
    /// In pieces of random length; the seed is part of the message when a run fails.
    Random(u64),
}

impl Cut {
    /// Returns the cuts that every transcript is played with.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Whole, Self::Bytes].into_iter().chain((1..=24).map(Self::Random))
    }

    /// Splits the bytes.
    pub fn pieces(self, bytes: &[u8]) -> Vec<Vec<u8>> {
        match self {
            Self::Whole => vec![bytes.to_vec()],
            Self::Bytes => bytes.iter().map(|byte| vec![*byte]).collect(),
            Self::Random(seed) => random_pieces(seed, bytes),
        }
    }
}

fn random_pieces(seed: u64, mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ rest.len() as u64;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        // xorshift64, because cuts must be the same in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let longest = if state & 0x100 == 0 { 4 } else { 64 };
        let len = usize::try_from(state % longest).unwrap() + 1;
        let (piece, after) = rest.split_at(len.min(rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

/// Reads all transcripts of a folder below `tests/transcripts`, in order of their names. Panics if there is none.
pub fn scripts(folder: &str) -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "smtp"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no transcripts in {}", folder.display());
    paths.into_iter().map(Script::read).collect()
}

impl Script {
    /// Reads a file; panics with its path and line if a line is malformed.
    pub fn read(path: PathBuf) -> Self {
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let is_named = ["# RFC ", "# draft-"].iter().any(|standard| text.starts_with(standard));
        assert!(is_named, "{}: the first line names no RFC section or Internet-Draft", path.display());
        let mut script = Self { path, settings: Vec::new(), steps: Vec::new() };
        for (at, line) in text.lines().enumerate() {
            script.take(at + 1, line);
        }
        script
    }

    fn take(&mut self, line: usize, text: &str) {
        let (mark, rest) = text.split_once(' ').unwrap_or((text, ""));
        let kind = match mark {
            "" | "#" => return,
            "%" => {
                assert!(self.steps.is_empty(), "{}:{line}: settings stand before steps", self.path.display());
                let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
                self.settings.push((name.to_owned(), value.to_owned()));
                return;
            }
            "C:" => Kind::Client(wire(rest)),
            "S:" => Kind::Server(wire(rest)),
            "!" => Kind::Act(rest.to_owned()),
            "@" => Kind::Clock(duration(rest)),
            "=" => Kind::Event(rest.to_owned()),
            _ => panic!("{}:{line}: what is {mark:?}?", self.path.display()),
        };
        self.steps.push(Step { line, kind });
    }

    /// Returns `path:line`, to begin a failure's message with.
    pub fn place(&self, step: &Step) -> String {
        format!("{}:{}", self.path.display(), step.line)
    }
}

/// Parses `90s`, `5m`, `2h`.
pub fn duration(text: &str) -> Duration {
    let (number, unit) = text.trim().split_at(text.trim().len() - 1);
    let number: u64 = number.parse().unwrap_or_else(|_| panic!("no duration: {text:?}"));
    Duration::from_secs(match unit {
        "s" => number,
        "m" => 60 * number,
        "h" => 3600 * number,
        _ => panic!("no duration: {text:?}"),
    })
}

/// Returns a line as it is sent.
pub fn wire(text: &str) -> Vec<u8> {
    let slashes = text.len() - text.trim_end_matches('\\').len();
    if slashes % 2 == 1 {
        return unescape(&text[..text.len() - 1]);
    }
    let mut bytes = unescape(text);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Replaces the escapes of a line by their octets.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let (octets, after) = escape(after);
        bytes.extend_from_slice(&octets);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

fn escape(after: &str) -> (Vec<u8>, &str) {
    let (letter, rest) = after.split_at(after.chars().next().map_or(0, char::len_utf8));
    match letter {
        "r" => (vec![b'\r'], rest),
        "n" => (vec![b'\n'], rest),
        "t" => (vec![b'\t'], rest),
        "0" => (vec![0], rest),
        "\\" => (vec![b'\\'], rest),
        "x" => (vec![u8::from_str_radix(&rest[..2], 16).unwrap()], &rest[2..]),
        "*" => repeat(rest),
        _ => panic!("no escape: \\{after}"),
    }
}

fn repeat(text: &str) -> (Vec<u8>, &str) {
    let (count, rest) = text.split_once('{').expect("\\*COUNT{text}");
    let (unit, rest) = rest.split_once('}').expect("\\*COUNT{text}");
    (unescape(unit).repeat(count.parse().unwrap()), rest)
}

/// Formats bytes as in `=` lines: quoted, with the escapes of this format.
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        match byte {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            0 => text.push_str("\\0"),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('"');
    text
}
