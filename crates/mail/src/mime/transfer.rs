//! Transfer encodings (RFC 2045 section 6), decoded piece by piece; and text by its charset.
//!
//! Characters that an encoding does not allow are skipped (base64, section 6.8) or left as they are (quoted-printable,
//! section 6.7), as programs that display mail do. Otherwise one stray octet could hide content from a plugin, but not
//! from the reader.

use super::{Encoding, MimePart};
use crate::encoded_words;

/// Decodes content piece by piece.
pub struct TransferDecoder {
    encoding: Encoding,
    out: Vec<u8>,
    /// Base64: the bits of an incomplete group, and its number of digits.
    group: (u32, u8),
    /// Quoted-printable: the octets after the last `=`.
    escape: Vec<u8>,
    /// Quoted-printable: the number of white-space octets at the end, which are dropped if the line ends there.
    blanks: usize,
}

impl TransferDecoder {
    /// A decoder for content in this encoding.
    #[must_use]
    pub fn new(encoding: Encoding) -> Self {
        Self { encoding, out: Vec::new(), group: (0, 0), escape: Vec::new(), blanks: 0 }
    }

    /// Decodes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        match self.encoding {
            Encoding::Identity => self.out.extend_from_slice(piece),
            Encoding::Base64 => piece.iter().for_each(|octet| self.base64(*octet)),
            Encoding::QuotedPrintable => piece.iter().for_each(|octet| self.quoted(*octet)),
        }
    }

    /// Ends the content and returns all of it, decoded.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.end_group();
        if !self.escape.is_empty() {
            self.literal();
        }
        self.out
    }

    fn base64(&mut self, octet: u8) {
        let digit = match octet {
            b'A'..=b'Z' => octet - b'A',
            b'a'..=b'z' => octet - b'a' + 26,
            b'0'..=b'9' => octet - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            // Two encoded texts in a row: the second begins with a new group.
            b'=' => return self.end_group(),
            _ => return,
        };
        self.group = (self.group.0 << 6 | u32::from(digit), self.group.1 + 1);
        if self.group.1 == 4 {
            self.out.extend_from_slice(&self.group.0.to_be_bytes()[1..]);
            self.group = (0, 0);
        }
    }

    fn end_group(&mut self) {
        let (bits, digits) = std::mem::take(&mut self.group);
        match digits {
            2 => self.out.extend_from_slice(&(bits << 12).to_be_bytes()[1..2]),
            3 => self.out.extend_from_slice(&(bits << 6).to_be_bytes()[1..3]),
            _ => {}
        }
    }

    fn quoted(&mut self, octet: u8) {
        if !self.escape.is_empty() {
            return self.escaped(octet);
        }
        match octet {
            b'=' => self.escape.push(octet),
            b' ' | b'\t' | b'\r' => {
                self.blanks += 1;
                self.out.push(octet);
            }
            b'\n' => {
                let ends = if self.out.ends_with(b"\r") { &b"\r\n"[..] } else { b"\n" };
                self.out.truncate(self.out.len() - self.blanks);
                self.blanks = 0;
                self.out.extend_from_slice(ends);
            }
            _ => {
                self.blanks = 0;
                self.out.push(octet);
            }
        }
    }

    /// `=41` is an octet, `=` at the end of a line is removed, and everything else stays as it is.
    fn escaped(&mut self, octet: u8) {
        self.escape.push(octet);
        match self.escape[1..] {
            [.., b'\n'] if self.escape[1..].trim_ascii().is_empty() => self.escape.clear(),
            [b' ' | b'\t' | b'\r', ..] if octet.is_ascii_whitespace() && self.escape.len() < 80 => {}
            [digit] if digit.is_ascii_hexdigit() => {}
            [high, low] if encoded_words::hex(&[high, low]).is_some() => {
                self.out.extend(encoded_words::hex(&[high, low]));
                self.escape.clear();
                self.blanks = 0;
            }
            _ => self.literal(),
        }
    }

    /// The `=` did not begin an escape: the octets after it are read again, at most as many as an escape has.
    fn literal(&mut self) {
        let escape = std::mem::take(&mut self.escape);
        self.out.push(b'=');
        self.blanks = 0;
        escape[1..].iter().for_each(|octet| self.quoted(*octet));
    }
}

/// Converts a part's decoded octets to text, by its charset.
#[must_use]
pub fn text(part: &MimePart, octets: &[u8]) -> String {
    encoded_words::text(octets, part.charset.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoding: Encoding, octets: &[u8]) -> Vec<u8> {
        let mut whole = TransferDecoder::new(encoding);
        whole.push(octets);
        let whole = whole.finish();
        let mut cut = TransferDecoder::new(encoding);
        octets.iter().for_each(|octet| cut.push(&[*octet]));
        assert_eq!(cut.finish(), whole, "the same however it is cut");
        whole
    }

    #[test]
    fn base64_passes_over_what_is_none() {
        for (encoded, content) in [
            ("aGVs\r\nbG8=\r\n", &b"hello"[..]),
            ("aGVsbG8", b"hello"),
            ("aG!VsbG8=", b"hello"),
            ("aGVsbG8=aGVsbG8=", b"hellohello"),
            ("YQ==", b"a"),
            ("a", b""),
            ("", b""),
        ] {
            assert_eq!(decoded(Encoding::Base64, encoded.as_bytes()), content, "{encoded}");
        }
    }

    #[test]
    fn quoted_printable_leaves_what_is_none() {
        for (encoded, content) in [
            ("Gr=FC=DFe", &b"Gr\xFC\xDFe"[..]),
            ("a=\r\nb=  \r\nc=\nd", b"abcd"),
            ("end  \t\r\nnext \n", b"end\r\nnext\n"),
            ("kept=20 \r\n", b"kept \r\n"),
            ("1=2=zz==41=4", b"1=2=zz=A=4"),
            ("=\rx", b"=\rx"),
            ("=3d", b"="),
            ("=", b"="),
        ] {
            assert_eq!(decoded(Encoding::QuotedPrintable, encoded.as_bytes()), content, "{encoded}");
        }
    }

    /// Octets after an `=` that is not an escape are read again; a chain of such signs must not be read again and
    /// again.
    #[test]
    fn work_is_linear_in_what_is_no_escape() {
        let hostile = "=   ".repeat(100_000) + &"=".repeat(100_000) + "=a=a=a ";
        assert!(decoded(Encoding::QuotedPrintable, hostile.as_bytes()).len() <= hostile.len());
    }
}
