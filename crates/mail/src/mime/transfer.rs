//! Transfer encodings (RFC 2045 section 6), decoded piece by piece; and text by its charset.
//!
//! What does not belong into an encoding is passed over (base64, section 6.8) or stays as it is (quoted-printable, section
//! 6.7), as the programs do that show it to people: content that one stray octet could hide from a plugin would be hidden
//! from nobody else.

use super::{Encoding, Part, words};

/// Decodes what is pushed into it.
pub struct Decoder {
    encoding: Encoding,
    out: Vec<u8>,
    /// Base64: the bits of a group that is not yet whole, and how many digits it has.
    group: (u32, u8),
    /// Quoted-printable: what follows the last `=`.
    escape: Vec<u8>,
    /// Quoted-printable: how many octets of white space stand at the end, which go if the line ends there.
    blanks: usize,
}

impl Decoder {
    /// For content in this encoding.
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

    /// The content.
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
            // Two encodings one behind the other: the second begins with a group of its own.
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

    /// `=41` is an octet, `=` at the end of a line is nothing, and all else is what it says.
    fn escaped(&mut self, octet: u8) {
        self.escape.push(octet);
        match self.escape[1..] {
            [.., b'\n'] if self.escape[1..].trim_ascii().is_empty() => self.escape.clear(),
            [b' ' | b'\t' | b'\r', ..] if octet.is_ascii_whitespace() && self.escape.len() < 80 => {}
            [digit] if digit.is_ascii_hexdigit() => {}
            [high, low] if words::hex(&[high, low]).is_some() => {
                self.out.extend(words::hex(&[high, low]));
                self.escape.clear();
                self.blanks = 0;
            }
            _ => self.literal(),
        }
    }

    /// The `=` was none: what follows it is read anew, which is at most as long as an escape.
    fn literal(&mut self) {
        let escape = std::mem::take(&mut self.escape);
        self.out.push(b'=');
        self.blanks = 0;
        escape[1..].iter().for_each(|octet| self.quoted(*octet));
    }
}

/// Decoded octets of this part as text, by its charset.
#[must_use]
pub fn text(part: &Part, octets: &[u8]) -> String {
    words::text(octets, part.charset.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoding: Encoding, octets: &[u8]) -> Vec<u8> {
        let mut whole = Decoder::new(encoding);
        whole.push(octets);
        let whole = whole.finish();
        let mut cut = Decoder::new(encoding);
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

    /// An escape that turns out to be none is read again; a chain of them must not be read again and again.
    #[test]
    fn work_is_linear_in_what_is_no_escape() {
        let hostile = "=   ".repeat(100_000) + &"=".repeat(100_000) + "=a=a=a ";
        assert!(decoded(Encoding::QuotedPrintable, hostile.as_bytes()).len() <= hostile.len());
    }
}
