//! Parses SMTP replies (RFC 5321 section 4.2). It accepts whatever has only one meaning, and keeps no more of it than
//! the limits allow.
//!
//! Real servers end lines with LF alone, write lines of any length, use codes that no RFC lists, and omit the code on a
//! line of a long reply. None of that makes yes, no or later ambiguous. If it is ambiguous, the reply is a fault and
//! ends the session. What a reply means at its step is decided by the states.

use std::fmt;

use pintle_mail::{EnhancedCode, Reply};

use super::config::Limits;

/// Why bytes are not a reply. The next hop is at fault in each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyFault {
    /// The first line does not begin with three digits of a code from 200 to 599, followed by a space, a hyphen or the
    /// end of the line.
    Code,
    /// The lines of one reply disagree: yes and no, or no and later.
    CodesDisagree,
    /// The reply is longer than the limit.
    TooLong,
}

impl fmt::Display for ReplyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Code => "a line of the reply has no valid code",
            Self::CodesDisagree => "the lines of the reply have contradictory codes",
            Self::TooLong => "the reply is too long",
        })
    }
}

/// Collects lines until a reply is complete.
#[derive(Debug)]
pub(crate) struct ReplyReader {
    limits: Limits,
    /// The beginning of a line whose end has not come, up to the limit.
    line: Vec<u8>,
    /// Octets of the reply so far, including those that were not kept.
    read: usize,
    partial: Option<Partial>,
}

/// A reply whose first lines have come.
#[derive(Debug)]
struct Partial {
    code: u16,
    enhanced: Option<EnhancedCode>,
    text: String,
}

/// Whether more lines of the reply follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinePosition {
    Middle,
    Last,
}

impl ReplyReader {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, line: Vec::new(), read: 0, partial: None }
    }

    /// Takes bytes off the front of `input` up to the end of a reply; `None` when more input is needed.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, ReplyFault> {
        while let Some(end) = memchr::memchr(b'\n', input) {
            let (head, rest) = input.split_at(end + 1);
            *input = rest;
            self.keep(head)?;
            let line = std::mem::take(&mut self.line);
            if self.add_line(&line)? == LinePosition::Last {
                self.read = 0;
                return Ok(self.partial.take().map(Partial::into_reply));
            }
        }
        self.keep(std::mem::take(input))?;
        Ok(None)
    }

    /// Keeps a line up to the limit, and skips the rest of it.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), ReplyFault> {
        self.read += bytes.len();
        if self.read > self.limits.reply_octets {
            return Err(ReplyFault::TooLong);
        }
        let room = self.limits.reply_line.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(())
    }

    fn add_line(&mut self, line: &[u8]) -> Result<LinePosition, ReplyFault> {
        // RFC 5321 section 2.3.8 requires CR LF. A line that ends in LF alone is not ambiguous: what we send contains
        // neither, so it cannot have been injected into a reply.
        let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        let line = &line[..end];
        match (&mut self.partial, split_line(line)) {
            (None, Ok((code, position, text))) => {
                self.partial = Some(Partial::new(code, text));
                Ok(position)
            }
            (Some(partial), Ok((code, position, text))) => {
                partial.add(code, text, self.limits.reply_text)?;
                Ok(position)
            }
            (Some(partial), Err(_)) => {
                partial.add_text(&printable(line), self.limits.reply_text);
                Ok(LinePosition::Middle)
            }
            (None, Err(fault)) => Err(fault),
        }
    }
}

impl Partial {
    fn new(code: u16, text: &[u8]) -> Self {
        let text = printable(text);
        let (enhanced, rest) = split_enhanced(code, &text);
        Self { code, enhanced, text: rest.to_owned() }
    }

    /// RFC 5321 section 4.2.1: the code on each line must be the same. If it is not, the last one counts, as it does
    /// for most clients, provided that all of them have the same class.
    fn add(&mut self, code: u16, text: &[u8], limit: usize) -> Result<(), ReplyFault> {
        if code / 100 != self.code / 100 {
            return Err(ReplyFault::CodesDisagree);
        }
        self.code = code;
        let text = printable(text);
        let (found, rest) = split_enhanced(code, &text);
        // A later enhanced code that differs is only text: the first one counts.
        self.enhanced = self.enhanced.or(found);
        let agrees = found.is_some() && found == self.enhanced;
        self.add_text(if agrees { rest } else { &text }, limit);
        Ok(())
    }

    fn add_text(&mut self, text: &str, limit: usize) {
        if self.text.len() + text.len() < limit {
            self.text.push('\n');
            self.text.push_str(text);
        }
    }

    fn into_reply(self) -> Reply {
        Reply { code: self.code, enhanced: self.enhanced, text: self.text.into() }
    }
}

/// Returns code, position and text of a line without its CRLF.
fn split_line(line: &[u8]) -> Result<(u16, LinePosition, &[u8]), ReplyFault> {
    // RFC 5321 section 4.2 ends the second digit at 5. Filters refuse with 571 and 590, and the first digit is enough.
    let &[first @ b'2'..=b'5', second @ b'0'..=b'9', third @ b'0'..=b'9', ref rest @ ..] = line else {
        return Err(ReplyFault::Code);
    };
    let code = [first, second, third].iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        // RFC 5321 section 4.2: a client must accept a code without text, with or without the space.
        [] => Ok((code, LinePosition::Last, rest)),
        [b' ' | b'\t', text @ ..] => Ok((code, LinePosition::Last, text)),
        [b'-', text @ ..] => Ok((code, LinePosition::Middle, text)),
        _ => Err(ReplyFault::Code),
    }
}

/// Returns the text in a form that is safe to log and quote: each octet that is not printable US-ASCII becomes U+FFFD,
/// so that control characters from a next hop reach neither a terminal nor a DSN.
fn printable(text: &[u8]) -> String {
    text.iter()
        .map(|&byte| match byte {
            b'\t' | b' '..=b'~' => char::from(byte),
            _ => char::REPLACEMENT_CHARACTER,
        })
        .collect()
}

/// Splits off the enhanced code at the front of the text, if its class agrees with the reply code (RFC 2034 section 4).
fn split_enhanced(code: u16, text: &str) -> (Option<EnhancedCode>, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word.parse::<EnhancedCode>() {
        Ok(enhanced) if u16::from(enhanced.0) == code / 100 => (Some(enhanced), rest),
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Result<Option<Reply>, ReplyFault> {
        ReplyReader::new(Limits::default()).next(&mut &input[..])
    }

    #[test]
    fn replies_are_read_whole() {
        assert_eq!(read(b"250 ok\r\n"), Ok(Some(Reply::plain(250, "ok"))));
        assert_eq!(read(b"250-a\r\n250 b\r\n"), Ok(Some(Reply::plain(250, "a\nb"))));
        assert_eq!(read(b"354\r\n"), Ok(Some(Reply::plain(354, ""))));
        assert_eq!(read(b"250-a\r\n"), Ok(None));
        assert_eq!(read(b"250 o"), Ok(None));
    }

    #[test]
    fn enhanced_codes_count_when_their_class_agrees() {
        let gone = Reply::new(550, EnhancedCode(5, 1, 1), "gone\nreally");
        assert_eq!(read(b"550-5.1.1 gone\r\n550 5.1.1 really\r\n"), Ok(Some(gone)));
        assert_eq!(read(b"550 4.1.1 odd\r\n"), Ok(Some(Reply::plain(550, "4.1.1 odd"))));
        assert_eq!(
            read(b"250-2.0.0 a\r\n250 2.1.5 b\r\n"),
            Ok(Some(Reply::new(250, EnhancedCode(2, 0, 0), "a\n2.1.5 b")))
        );
        let full = Reply::new(452, EnhancedCode(4, 2, 2), "sorry\nmailbox full");
        assert_eq!(read(b"452-sorry\r\n452 4.2.2 mailbox full\r\n"), Ok(Some(full)));
    }

    #[test]
    fn every_breach_is_named() {
        for (input, fault) in [
            (&b"199 no\r\n"[..], ReplyFault::Code),
            (b"600 no\r\n", ReplyFault::Code),
            (b"25\r\n", ReplyFault::Code),
            (b"250ok\r\n", ReplyFault::Code),
            (b"\r\n", ReplyFault::Code),
            (b"250-a\r\n550 c\r\n", ReplyFault::CodesDisagree),
            (b"450-a\r\n550 c\r\n", ReplyFault::CodesDisagree),
            (&[b'2'; 70_000], ReplyFault::TooLong),
            (&b"250-a\r\n".repeat(10_000), ReplyFault::TooLong),
        ] {
            assert_eq!(read(input), Err(fault), "{}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn what_has_one_meaning_only_is_taken() {
        assert_eq!(read(b"250 ok\n"), Ok(Some(Reply::plain(250, "ok"))));
        assert_eq!(read(b"250-a\n250 b\r\r\n"), Ok(Some(Reply::plain(250, "a\nb"))));
        assert_eq!(read(b"250 o\rk\r\n"), Ok(Some(Reply::plain(250, "o\u{fffd}k"))));
        assert_eq!(read(b"571 no\r\n"), Ok(Some(Reply::plain(571, "no"))));
        assert_eq!(read(b"550-a\r\n554 b\r\n"), Ok(Some(Reply::plain(554, "a\nb"))));
        assert_eq!(read(b"550-a\r\nsee below\r\n550 b\r\n"), Ok(Some(Reply::plain(550, "a\nsee below\nb"))));
    }

    #[test]
    fn of_long_lines_and_long_replies_the_beginning_is_kept() {
        let long = format!("550 {}\r\n250 ok\r\n", "x".repeat(5_000));
        let (mut reader, mut input) = (ReplyReader::new(Limits::default()), long.as_bytes());
        assert_eq!(reader.next(&mut input), Ok(Some(Reply::plain(550, "x".repeat(2_044)))));
        assert_eq!(reader.next(&mut input), Ok(Some(Reply::plain(250, "ok"))));
        let lines = format!("{}250 end\r\n", "250-0123456789\r\n".repeat(2_000));
        let reply = read(lines.as_bytes()).unwrap().unwrap();
        assert!(
            reply.code == 250 && reply.text.len() <= Limits::default().reply_text,
            "{}",
            reply.text.len()
        );
    }

    #[test]
    fn octets_outside_ascii_are_replaced_one_by_one() {
        let reply = read(b"550 sch\xc3\xb6n\x07\r\n").unwrap().unwrap();
        assert_eq!(reply.text, "sch\u{fffd}\u{fffd}n\u{fffd}");
    }
}
