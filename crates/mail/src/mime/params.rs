//! One structured field of MIME: a value and its parameters (RFC 2045 section 5.1, RFC 2231), read in one pass.
//!
//! Nested comments are tracked by a counter, and only requested parameters are kept, so that even a hundred thousand
//! parentheses or parameters cost no more than their octets.

use crate::encoded_words;

/// The most pieces of one parameter (RFC 2231 section 3) that are joined.
const MAX_PIECES: usize = 1_000;

/// A field's value, and its requested parameters.
pub(super) struct StructuredField {
    /// The text before the first semicolon, without comments and white space, in lower case.
    pub(super) value: String,
    /// Whether a requested parameter was given twice.
    pub(super) repeated: bool,
    params: Vec<(&'static str, ParamPieces)>,
}

#[derive(Default)]
struct ParamPieces {
    plain: Option<Vec<u8>>,
    /// For each piece: its number, whether it is percent-encoded, its octets.
    pieces: Vec<(u32, bool, Vec<u8>)>,
}

impl StructuredField {
    /// Parses a field's value as received, folding included. Only the parameters in `wanted` are kept.
    pub(super) fn parse(octets: &[u8], wanted: &[&'static str]) -> Self {
        let mut reader = ParamReader { octets, at: 0 };
        let value = reader.main();
        let mut params: Vec<_> = wanted.iter().map(|name| (*name, ParamPieces::default())).collect();
        let mut repeated = false;
        while reader.next_param() {
            let name = reader.name();
            let Some(value) = reader.value() else { continue };
            let (name, number, encoded) = split_name(&name);
            if let Some((_, pieces)) = params.iter_mut().find(|(wanted, _)| *wanted == name) {
                repeated |= !pieces.add(number, encoded, value);
            }
        }
        Self { value, repeated, params }
    }

    /// A parameter's octets, joined from its pieces.
    pub(super) fn octets(&self, name: &str) -> Option<Vec<u8>> {
        let pieces = self.pieces(name)?;
        if pieces.pieces.is_empty() {
            return pieces.plain.clone();
        }
        Some(pieces.joined().1)
    }

    /// A parameter as text, decoded by the charset that it names (RFC 2231 section 4). Encoded words in it are decoded
    /// as most programs do, although RFC 2047 section 5 does not allow them in parameters.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let pieces = self.pieces(name)?;
        if pieces.pieces.is_empty() {
            let plain = String::from_utf8_lossy(pieces.plain.as_deref()?);
            return Some(encoded_words::decoded(&plain));
        }
        let (charset, octets) = pieces.joined();
        Some(encoded_words::text(&octets, charset.as_deref()))
    }

    fn pieces(&self, name: &str) -> Option<&ParamPieces> {
        self.params.iter().find(|(known, _)| *known == name).map(|(_, pieces)| pieces)
    }
}

impl ParamPieces {
    /// Adds a piece. False when there was no room, or when it is a repetition.
    fn add(&mut self, number: Option<u32>, encoded: bool, value: Vec<u8>) -> bool {
        match number {
            None if self.plain.is_some() => false,
            None => {
                self.plain = Some(value);
                true
            }
            Some(_) if self.pieces.len() == MAX_PIECES => false,
            Some(number) => {
                self.pieces.push((number, encoded, value));
                true
            }
        }
    }

    /// The charset that the first piece names, and all octets in the order of their numbers.
    fn joined(&self) -> (Option<String>, Vec<u8>) {
        let mut order: Vec<_> = self.pieces.iter().collect();
        // The sort is stable: of two pieces with one number, the first counts.
        order.sort_by_key(|(number, ..)| *number);
        order.dedup_by_key(|(number, ..)| *number);
        let (mut charset, mut out) = (None, Vec::new());
        for (at, (_, encoded, value)) in order.into_iter().enumerate() {
            let mut rest = value.as_slice();
            if at == 0 && *encoded {
                (charset, rest) = without_charset(rest);
            }
            if *encoded { percent_decode(rest, &mut out) } else { out.extend_from_slice(rest) }
        }
        (charset, out)
    }
}

/// `charset'language'value` (RFC 2231 section 4).
fn without_charset(value: &[u8]) -> (Option<String>, &[u8]) {
    let mut ticks = value.iter().enumerate().filter(|(_, octet)| **octet == b'\'').map(|(at, _)| at);
    match (ticks.next(), ticks.next()) {
        (Some(first), Some(second)) => {
            let charset = String::from_utf8_lossy(&value[..first]).to_ascii_lowercase();
            (Some(charset).filter(|charset| !charset.is_empty()), &value[second + 1..])
        }
        _ => (None, value),
    }
}

fn percent_decode(octets: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(&octet) = octets.get(at) {
        let hex = (octet == b'%').then(|| octets.get(at + 1..at + 3)).flatten().and_then(encoded_words::hex);
        out.push(hex.unwrap_or(octet));
        at += if hex.is_some() { 3 } else { 1 };
    }
}

/// Splits a parameter's name: `filename*1*` is piece 1 of `filename`, percent-encoded; `filename*` is its only piece.
fn split_name(name: &str) -> (&str, Option<u32>, bool) {
    let Some((base, rest)) = name.split_once('*') else { return (name, None, false) };
    let (number, encoded) = rest.strip_suffix('*').map_or((rest, rest.is_empty()), |number| (number, true));
    match number {
        "" => (base, Some(0), encoded),
        number => number.parse().map_or((name, None, false), |number| (base, Some(number), encoded)),
    }
}

struct ParamReader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl ParamReader<'_> {
    fn peek(&self) -> Option<u8> {
        self.octets.get(self.at).copied()
    }

    /// Reads the value before the parameters: its tokens, up to white space that follows something other than a slash.
    fn main(&mut self) -> String {
        let mut out = Vec::new();
        loop {
            let gap = self.skip_blank();
            match self.peek() {
                None | Some(b';') => break,
                Some(octet) if gap && octet != b'/' && !out.is_empty() && !out.ends_with(b"/") => break,
                Some(octet) => out.push(octet.to_ascii_lowercase()),
            }
            self.at += 1;
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Moves past the next semicolon, if there is one.
    fn next_param(&mut self) -> bool {
        loop {
            self.skip_blank();
            let Some(octet) = self.peek() else { return false };
            self.at += 1;
            match octet {
                b';' => return true,
                b'"' => drop(self.quoted()),
                _ => {}
            }
        }
    }

    fn name(&mut self) -> String {
        let mut out = Vec::new();
        loop {
            self.skip_blank();
            match self.peek() {
                None | Some(b'=' | b';') => break,
                Some(octet) => out.push(octet.to_ascii_lowercase()),
            }
            self.at += 1;
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Reads the text after the equals sign. An unquoted value extends to the semicolon, as in `name=a b.pdf`.
    fn value(&mut self) -> Option<Vec<u8>> {
        if self.peek() != Some(b'=') {
            return None;
        }
        self.at += 1;
        self.skip_blank();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Some(self.quoted());
        }
        let mut out = Vec::new();
        while let Some(octet) = self.peek().filter(|octet| *octet != b';') {
            // A parenthesis begins a comment only after white space: `name=a(1).pdf` is a name.
            if octet == b'(' && out.last().is_none_or(u8::is_ascii_whitespace) {
                self.comment();
                continue;
            }
            if !matches!(octet, b'\r' | b'\n') {
                out.push(octet);
            }
            self.at += 1;
        }
        out.truncate(out.trim_ascii_end().len());
        Some(out)
    }

    /// Reads the rest of a quoted string, whose opening quote has been read (RFC 2822 section 3.2.5).
    fn quoted(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(octet) = self.peek() {
            self.at += 1;
            match octet {
                b'"' => break,
                b'\\' => {
                    out.extend(self.peek());
                    self.at += 1;
                }
                b'\r' | b'\n' => {}
                octet => out.push(octet),
            }
        }
        out
    }

    /// Skips white space and comments; true if there were any.
    fn skip_blank(&mut self) -> bool {
        let start = self.at;
        while let Some(octet) = self.peek() {
            match octet {
                b'(' => self.comment(),
                octet if octet.is_ascii_whitespace() => self.at += 1,
                _ => break,
            }
        }
        self.at > start
    }

    /// Skips a comment, nested ones included. An unterminated one extends to the end.
    fn comment(&mut self) {
        let mut open = 0_usize;
        while let Some(octet) = self.peek() {
            self.at += if octet == b'\\' { 2 } else { 1 };
            match octet {
                b'(' => open += 1,
                b')' => open -= 1,
                _ => {}
            }
            if open == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &[&str] = &["boundary", "name", "filename", "charset"];

    #[test]
    fn values_and_parameters_are_read_as_programs_read_them() {
        for (field, value, name, text) in [
            ("Text/HTML; charset=UTF-8", "text/html", "charset", Some("UTF-8")),
            (
                "text/plain (a (nested \\) one)); charset=us-ascii (Plain)",
                "text/plain",
                "charset",
                Some("us-ascii"),
            ),
            ("multipart/mixed;\r\n\tboundary=\"a b\\\"c\"", "multipart/mixed", "boundary", Some("a b\"c")),
            ("text / plain ; NAME = a b (1).pdf ; x=y", "text/plain", "name", Some("a b .pdf")),
            ("a/b; name=a(1).pdf", "a/b", "name", Some("a(1).pdf")),
            ("a/b; name=\"one\"; name=two", "a/b", "name", Some("one")),
            ("a/b; x=\"; name=hidden\"; name=shown", "a/b", "name", Some("shown")),
            ("a/b; name=\"=?utf-8?Q?Zo=C3=AB?=.pdf\"", "a/b", "name", Some("Zoë.pdf")),
            ("attachment; filename*=UTF-8''a%20b%C3%AB; filename=c", "attachment", "filename", Some("a bë")),
            (
                "attachment; filename*1=b.exe; filename*0*=iso-8859-1'de'%FC",
                "attachment",
                "filename",
                Some("üb.exe"),
            ),
            (
                "attachment; filename*0=\"a\"; filename*0=x; filename*2=c",
                "attachment",
                "filename",
                Some("ac"),
            ),
            ("a/b; name", "a/b", "name", None),
            ("", "", "name", None),
            ("a/b; name=\"open", "a/b", "name", Some("open")),
            ("a/b; name=x\\", "a/b", "name", Some("x\\")),
            ("a/b; name=\"x\\", "a/b", "name", Some("x")),
            ("a/b; name=é", "a/b", "name", Some("é")),
        ] {
            let read = StructuredField::parse(field.as_bytes(), WANTED);
            assert_eq!(read.value, value, "{field}");
            assert_eq!(read.text(name).as_deref(), text, "{field}");
        }
        assert!(StructuredField::parse(b"a/b; name=x; name=y", WANTED).repeated);
        assert!(!StructuredField::parse(b"a/b; name=x; name*=y; other=1; other=2", WANTED).repeated);
    }
}
