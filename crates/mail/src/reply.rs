//! SMTP replies: a code, an enhanced status code and a text (RFC 5321 section 4.2, RFC 3463).
//!
//! A [`Reply`] is the same whether we send it or receive it from a next hop. Creating one checks nothing but the
//! ranges. Writing one to the wire makes it safe: control characters and 8-bit bytes never reach a client.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, BytesMut};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest text on one line, so that the line stays within 512 octets (RFC 5321 section 4.5.3.1.5).
const MAX_TEXT: usize = 490;

/// An SMTP reply: sent by us, or received from a next hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The reply code, 200 to 599.
    pub code: u16,
    /// The enhanced status code at the start of the text; none for replies that never have one (RFC 2034 section 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enhanced: Option<EnhancedCode>,
    /// The text: one line, or several separated by `\n`.
    pub text: Cow<'static, str>,
}

/// What the first digit of a reply code says about the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// 2xx: the command was carried out.
    Positive,
    /// 3xx: the client has to send more.
    Intermediate,
    /// 4xx: the command failed for now and may be tried again.
    Transient,
    /// 5xx, and any number that is not a reply code: the command failed and must not be repeated in this form.
    Permanent,
}

impl Reply {
    /// A reply with an enhanced status code.
    #[must_use]
    pub fn new(code: u16, enhanced: EnhancedCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, enhanced: Some(enhanced), text: text.into() }
    }

    /// A reply without an enhanced status code: the greeting, the replies to EHLO and HELO, 354 and 334 (RFC 2034
    /// section 4).
    #[must_use]
    pub fn plain(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, enhanced: None, text: text.into() }
    }

    /// The severity that the code's first digit expresses.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self.code / 100 {
            2 => Severity::Positive,
            3 => Severity::Intermediate,
            4 => Severity::Transient,
            _ => Severity::Permanent,
        }
    }

    /// Whether the code is 2xx.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.severity() == Severity::Positive
    }

    /// Appends the reply in its wire form: every line with code, separator, enhanced code and CRLF.
    pub fn write_to(&self, out: &mut BytesMut) {
        // Nearly every reply is one safe line and is written without copying its text; a server writes several per
        // message.
        if is_wire_line(&self.text) {
            return self.write_line(out, b' ', &self.text);
        }
        let mut lines = self.text.split('\n').flat_map(wire_lines).peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { b'-' } else { b' ' };
            self.write_line(out, separator, &line);
        }
    }

    fn write_line(&self, out: &mut BytesMut, separator: u8, line: &str) {
        out.reserve(line.len() + 24);
        put_number(out, self.code);
        out.put_u8(separator);
        if let Some(EnhancedCode(class, subject, detail)) = self.enhanced {
            put_number(out, class.into());
            out.put_u8(b'.');
            put_number(out, subject);
            out.put_u8(b'.');
            put_number(out, detail);
            out.put_u8(b' ');
        }
        out.put_slice(line.as_bytes());
        out.put_slice(b"\r\n");
    }
}

/// Whether a text can be written to the wire as one line without changes.
fn is_wire_line(text: &str) -> bool {
    text.len() <= MAX_TEXT && text.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
}

fn put_number(out: &mut BytesMut, number: u16) {
    let mut divisor = 10_000;
    while divisor > 1 && divisor > number {
        divisor /= 10;
    }
    while divisor > 0 {
        let digit = u8::try_from(number / divisor % 10).unwrap_or(0);
        out.put_u8(b'0' + digit);
        divisor /= 10;
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        write!(f, " {}", self.text.replace('\n', " / "))
    }
}

/// Makes a text safe for the wire, one entry for each line, cut where a line would be too long.
fn wire_lines(text: &str) -> Vec<String> {
    // RFC 5321 section 4.2: the text of a reply is printable US-ASCII, HT and SP.
    let safe = |c: char| {
        if c == '\t' || (' '..='~').contains(&c) { c } else { '?' }
    };
    let text: Vec<char> = text.trim_end_matches('\r').chars().map(safe).collect();
    if text.is_empty() {
        return vec![String::new()];
    }
    text.chunks(MAX_TEXT).map(|chunk| chunk.iter().collect()).collect()
}

/// An enhanced status code (RFC 3463): class, subject, detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnhancedCode(pub u8, pub u16, pub u16);

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The text is not an enhanced status code: class 2, 4 or 5, and two numbers of at most three digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnhancedCodeError;

impl fmt::Display for EnhancedCodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an enhanced status code looks like 5.7.1, with class 2, 4 or 5")
    }
}

impl std::error::Error for EnhancedCodeError {}

impl FromStr for EnhancedCode {
    type Err = EnhancedCodeError;

    fn from_str(text: &str) -> Result<Self, EnhancedCodeError> {
        let mut parts = text.split('.').map(number);
        match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten(), parts.next()) {
            (Some(class @ (2 | 4 | 5)), Some(subject), Some(detail), None) => {
                Ok(Self(u8::try_from(class).map_err(|_| EnhancedCodeError)?, subject, detail))
            }
            _ => Err(EnhancedCodeError),
        }
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl Serialize for EnhancedCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EnhancedCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = BytesMut::new();
        reply.write_to(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn lines_bear_code_and_enhanced_code() {
        let reply = Reply::new(550, EnhancedCode(5, 7, 1), "no\nreally");
        assert_eq!(wire(&reply), "550-5.7.1 no\r\n550 5.7.1 really\r\n");
        assert_eq!(wire(&Reply::plain(354, "go")), "354 go\r\n");
        assert_eq!(wire(&Reply::plain(334, "")), "334 \r\n");
    }

    #[test]
    fn nothing_unsafe_reaches_the_wire() {
        let reply = Reply::plain(550, "a\r\nb\u{7}c ä".to_owned());
        assert_eq!(wire(&reply), "550-a\r\n550 b?c ?\r\n");
        let long = wire(&Reply::plain(250, "x".repeat(1200)));
        assert!(long.lines().count() == 3 && long.lines().all(|line| line.len() <= 510));
    }

    #[test]
    fn numbers_are_written_whole() {
        for code in [0, 7, 10, 99, 100, 250, 999, 65_535] {
            assert_eq!(wire(&Reply::plain(code, "x")), format!("{code} x\r\n"));
        }
        assert_eq!(wire(&Reply::new(250, EnhancedCode(2, 10, 0), "x")), "250 2.10.0 x\r\n");
    }

    #[test]
    fn enhanced_codes_are_read_strictly() {
        assert_eq!("5.7.1".parse(), Ok(EnhancedCode(5, 7, 1)));
        assert_eq!("2.0.0".parse(), Ok(EnhancedCode(2, 0, 0)));
        for bad in ["3.0.0", "5.7", "5.7.1.1", "5.7.x", "5..1", "5.7.1000", ""] {
            assert_eq!(bad.parse::<EnhancedCode>(), Err(EnhancedCodeError), "{bad}");
        }
    }
}
