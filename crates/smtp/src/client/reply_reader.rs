//! Bytes into replies, strictly (RFC 5321 section 4.2), with every limit enforced before anything is kept.
//!
//! A next hop that cannot format a reply cannot be trusted with its meaning either, so each breach is a fault and ends
//! the session. What it means that a reply came is the affair of the states.

use std::fmt;

use pintle_mail::{EnhancedCode, Reply};

use super::config::Limits;

/// Why bytes are no reply. The next hop owns each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyFault {
    /// A line does not begin with three digits of a code from 200 to 559, and a space, a hyphen or its end.
    Code,
    /// The lines of one reply bear different codes.
    CodesDisagree,
    /// A line ends in a bare LF, or holds a bare CR.
    LineEnd,
    /// A line is too long.
    LineTooLong,
    /// The reply has too many lines or octets.
    TooLong,
}

impl fmt::Display for ReplyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Code => "a line of the reply has no valid code",
            Self::CodesDisagree => "the lines of the reply bear different codes",
            Self::LineEnd => "a line of the reply does not end in CR LF",
            Self::LineTooLong => "a line of the reply is too long",
            Self::TooLong => "the reply is too long",
        })
    }
}

/// Collects lines until a reply is whole.
#[derive(Debug)]
pub(crate) struct ReplyReader {
    limits: Limits,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    partial: Option<Partial>,
}

/// A reply of which at least one line has come.
#[derive(Debug)]
struct Partial {
    code: u16,
    enhanced: Option<EnhancedCode>,
    text: String,
    lines: usize,
}

/// What a line says of the lines after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Middle,
    Last,
}

impl ReplyReader {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, line: Vec::new(), partial: None }
    }

    /// Takes bytes off the front of `input` up to the end of a reply; none when more input is needed.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, ReplyFault> {
        while let Some(end) = memchr::memchr(b'\n', input) {
            let (head, rest) = input.split_at(end + 1);
            *input = rest;
            self.keep(head)?;
            let line = std::mem::take(&mut self.line);
            if self.add_line(&line)? == Position::Last {
                return Ok(self.partial.take().map(Partial::into_reply));
            }
        }
        self.keep(std::mem::take(input))?;
        Ok(None)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), ReplyFault> {
        if self.line.len() + bytes.len() > self.limits.reply_line {
            return Err(ReplyFault::LineTooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn add_line(&mut self, line: &[u8]) -> Result<Position, ReplyFault> {
        // RFC 5321 section 2.3.8: nothing but CR LF ends a line, in either direction.
        let line = line.strip_suffix(b"\r\n").ok_or(ReplyFault::LineEnd)?;
        if memchr::memchr(b'\r', line).is_some() {
            return Err(ReplyFault::LineEnd);
        }
        let (code, position, text) = split_line(line)?;
        match &mut self.partial {
            None => self.partial = Some(Partial::new(code, text)),
            Some(partial) => partial.add(code, text)?,
        }
        self.check_length()?;
        Ok(position)
    }

    fn check_length(&self) -> Result<(), ReplyFault> {
        let over = |partial: &Partial| {
            partial.lines > self.limits.reply_lines || partial.text.len() > self.limits.reply_octets
        };
        if self.partial.as_ref().is_some_and(over) {
            return Err(ReplyFault::TooLong);
        }
        Ok(())
    }
}

impl Partial {
    fn new(code: u16, text: &[u8]) -> Self {
        let text = printable(text);
        let (enhanced, rest) = split_enhanced(code, &text);
        Self { code, enhanced, text: rest.to_owned(), lines: 1 }
    }

    fn add(&mut self, code: u16, text: &[u8]) -> Result<(), ReplyFault> {
        // RFC 5321 section 4.2.1: the code on each line must be the same.
        if code != self.code {
            return Err(ReplyFault::CodesDisagree);
        }
        let text = printable(text);
        let rest = match split_enhanced(code, &text) {
            (Some(enhanced), rest) if Some(enhanced) == self.enhanced => rest,
            // A second opinion on the enhanced code is only text: the first line's stands.
            _ => text.as_str(),
        };
        self.text.push('\n');
        self.text.push_str(rest);
        self.lines += 1;
        Ok(())
    }

    fn into_reply(self) -> Reply {
        Reply { code: self.code, enhanced: self.enhanced, text: self.text.into() }
    }
}

/// Code, position and text of a line without its CRLF.
fn split_line(line: &[u8]) -> Result<(u16, Position, &[u8]), ReplyFault> {
    // RFC 5321 section 4.2: Reply-code = %x32-35 %x30-35 %x30-39.
    let &[first @ b'2'..=b'5', second @ b'0'..=b'5', third @ b'0'..=b'9', ref rest @ ..] = line else {
        return Err(ReplyFault::Code);
    };
    let code = [first, second, third].iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest {
        // RFC 5321 section 4.2: a client must take a code without text, with or without the space.
        [] => Ok((code, Position::Last, rest)),
        [b' ', text @ ..] => Ok((code, Position::Last, text)),
        [b'-', text @ ..] => Ok((code, Position::Middle, text)),
        _ => Err(ReplyFault::Code),
    }
}

/// The text as it may be logged and quoted: what is not printable US-ASCII becomes U+FFFD, one for each octet, so that
/// neither a terminal nor a DSN is ever fed a next hop's control characters.
fn printable(text: &[u8]) -> String {
    text.iter()
        .map(|&byte| match byte {
            b'\t' | b' '..=b'~' => char::from(byte),
            _ => char::REPLACEMENT_CHARACTER,
        })
        .collect()
}

/// The enhanced code at the text's front, when its class agrees with the reply code (RFC 2034 section 4).
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
    }

    #[test]
    fn every_breach_is_named() {
        for (input, fault) in [
            (&b"199 no\r\n"[..], ReplyFault::Code),
            (b"260 no\r\n", ReplyFault::Code),
            (b"25\r\n", ReplyFault::Code),
            (b"250ok\r\n", ReplyFault::Code),
            (b"\r\n", ReplyFault::Code),
            (b"250-a\r\n550 c\r\n", ReplyFault::CodesDisagree),
            (b"250 ok\n", ReplyFault::LineEnd),
            (b"250 o\rk\r\n", ReplyFault::LineEnd),
            (&[b'2'; 3000], ReplyFault::LineTooLong),
            (&b"250-a\r\n".repeat(129), ReplyFault::TooLong),
        ] {
            assert_eq!(read(input), Err(fault), "{}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn octets_outside_ascii_are_replaced_one_by_one() {
        let reply = read(b"550 sch\xc3\xb6n\x07\r\n").unwrap().unwrap();
        assert_eq!(reply.text, "sch\u{fffd}\u{fffd}n\u{fffd}");
    }
}
