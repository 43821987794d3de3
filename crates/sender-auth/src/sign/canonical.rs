//! The two forms in which DKIM and ARC sign header fields and bodies (RFC 6376 section 3.4).
//!
//! Bodies are hashed in pieces of any size, so that none has to be in memory as a whole.

use aws_lc_rs::digest::{Context, SHA256};
use memchr::{memchr, memchr2_iter};

/// The canonicalization of a part of the message: the form that is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Canonicalization {
    /// Changes of white space, of folding and of the case of field names do not break the signature.
    #[default]
    Relaxed,
    /// Almost any change breaks the signature.
    Simple,
}

impl Canonicalization {
    /// The form's name in the tag `c=`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relaxed => "relaxed",
            Self::Simple => "simple",
        }
    }

    /// Appends one header field in canonical form, ended by CRLF even if the field was not.
    pub(super) fn write_field(self, raw: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Simple => out.extend_from_slice(without_line_end(raw)),
            Self::Relaxed => write_relaxed(raw, out),
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn without_line_end(raw: &[u8]) -> &[u8] {
    let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
    raw.strip_suffix(b"\r").unwrap_or(raw)
}

/// Section 3.4.2, without the line end.
fn write_relaxed(raw: &[u8], out: &mut Vec<u8>) {
    let colon = memchr(b':', raw).unwrap_or(raw.len());
    out.extend(raw[..colon].trim_ascii_end().iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let start = out.len();
    let mut space = false;
    for octet in raw.iter().skip(colon + 1) {
        match octet {
            b'\r' | b'\n' => {}
            b' ' | b'\t' => space = true,
            _ => {
                if space && out.len() > start {
                    out.push(b' ');
                }
                space = false;
                out.push(*octet);
            }
        }
    }
}

/// Many line ends, to be hashed in one call.
const LINE_ENDS: &[u8; 64] = &{
    let mut ends = [b'\r'; 64];
    let mut at = 1;
    while at < ends.len() {
        ends[at] = b'\n';
        at += 2;
    }
    ends
};

/// The SHA-256 of a body in canonical form (sections 3.4.3 and 3.4.4), fed in pieces.
///
/// A bare LF counts as a line end, as every relay would convert it to one; a bare CR is text.
pub(crate) struct BodyHasher {
    canonicalization: Canonicalization,
    digest: Context,
    /// Canonical octets not yet hashed; the digest is faster with larger pieces.
    out: Vec<u8>,
    /// Pending line ends, which count only if text follows.
    line_ends: usize,
    /// Pending white space, which counts only if text follows on its line.
    space: bool,
    /// Whether the last piece ended in a CR, whose LF may follow.
    carriage_return: bool,
    has_text: bool,
}

impl BodyHasher {
    pub(crate) fn new(canonicalization: Canonicalization) -> Self {
        Self {
            canonicalization,
            digest: Context::new(&SHA256),
            out: Vec::new(),
            line_ends: 0,
            space: false,
            carriage_return: false,
            has_text: false,
        }
    }

    /// The hash of a whole body.
    pub(crate) fn hash(canonicalization: Canonicalization, body: &[u8]) -> Vec<u8> {
        let mut hasher = Self::new(canonicalization);
        body.chunks(64 << 10).for_each(|piece| hasher.update(piece));
        hasher.finish()
    }

    pub(crate) fn update(&mut self, mut piece: &[u8]) {
        while let Some(end) = memchr(b'\n', piece) {
            self.end_line(&piece[..end]);
            piece = &piece[end + 1..];
        }
        if !piece.is_empty() {
            self.resolve_carriage_return();
            let text = piece.strip_suffix(b"\r");
            self.carriage_return = text.is_some();
            self.text(text.unwrap_or(piece));
        }
        self.digest.update(&self.out);
        self.out.clear();
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.resolve_carriage_return();
        // An empty body has one line end in the simple form and none in the relaxed one.
        if self.has_text || self.canonicalization == Canonicalization::Simple {
            self.out.extend_from_slice(b"\r\n");
        }
        self.digest.update(&self.out);
        self.digest.finish().as_ref().to_vec()
    }

    /// Handles the rest of a line, including its end.
    fn end_line(&mut self, text: &[u8]) {
        if !text.is_empty() {
            self.resolve_carriage_return();
            self.text(text.strip_suffix(b"\r").unwrap_or(text));
        }
        self.carriage_return = false;
        self.space = false;
        self.line_ends += 1;
    }

    /// Handles a pending CR that was not part of a line end.
    fn resolve_carriage_return(&mut self) {
        if std::mem::take(&mut self.carriage_return) {
            self.text(b"\r");
        }
    }

    fn text(&mut self, text: &[u8]) {
        match self.canonicalization {
            Canonicalization::Simple => self.word(text),
            Canonicalization::Relaxed => {
                let mut start = 0;
                for at in memchr2_iter(b' ', b'\t', text) {
                    // A single space between words stays as it is; most white space is like that.
                    let follows = text.get(at + 1).is_some_and(|next| !matches!(next, b' ' | b'\t'));
                    if text[at] == b' ' && at > start && follows {
                        continue;
                    }
                    self.word(&text[start..at]);
                    self.space = true;
                    start = at + 1;
                }
                self.word(&text[start..]);
            }
        }
    }

    fn word(&mut self, word: &[u8]) {
        if word.is_empty() {
            return;
        }
        self.write_line_ends();
        if std::mem::take(&mut self.space) {
            self.out.push(b' ');
        }
        self.out.extend_from_slice(word);
        self.has_text = true;
    }

    fn write_line_ends(&mut self) {
        let mut left = 2 * std::mem::take(&mut self.line_ends);
        if left > LINE_ENDS.len() {
            self.digest.update(&self.out);
            self.out.clear();
        }
        while left > LINE_ENDS.len() {
            self.digest.update(LINE_ENDS);
            left -= LINE_ENDS.len();
        }
        self.out.extend_from_slice(&LINE_ENDS[..left]);
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::digest;

    use super::*;

    fn canonical(canonicalization: Canonicalization, raw: &str) -> String {
        let mut out = Vec::new();
        canonicalization.write_field(raw.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_relaxed_as_the_rfc_shows() {
        use Canonicalization::{Relaxed, Simple};
        // Section 3.4.5.
        assert_eq!(canonical(Relaxed, "A: X\r\n"), "a:X\r\n");
        assert_eq!(canonical(Relaxed, "B : Y\t\r\n\tZ  \r\n"), "b:Y Z\r\n");
        assert_eq!(canonical(Simple, "B : Y\t\r\n\tZ  \r\n"), "B : Y\t\r\n\tZ  \r\n");
        assert_eq!(canonical(Relaxed, "C:"), "c:\r\n");
        assert_eq!(canonical(Simple, "C:"), "C:\r\n");
        assert_eq!(canonical(Relaxed, "Subject: \t\r\n"), "subject:\r\n");
    }

    /// For each body: its relaxed and its simple form. The second half was compared with dkimpy 1.1.8.
    const BODIES: &[(&str, &str, &str)] = &[
        (" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n", " C \r\nD \t E\r\n"),
        ("", "", "\r\n"),
        ("\r\n\r\n", "", "\r\n"),
        (" \r\n", "", " \r\n"),
        ("a\r\n \t\r\n", "a\r\n", "a\r\n \t\r\n"),
        ("a\r\n\r\n \r\n", "a\r\n", "a\r\n\r\n \r\n"),
        ("a \r\n b", "a\r\n b\r\n", "a \r\n b\r\n"),
        ("a\nb", "a\r\nb\r\n", "a\r\nb\r\n"),
        ("a\rb\r", "a\rb\r\r\n", "a\rb\r\r\n"),
        ("a\r\r\n", "a\r\r\n", "a\r\r\n"),
    ];

    #[test]
    fn bodies_are_hashed_alike_however_they_are_cut() {
        let hash = |text: &str| digest(&SHA256, text.as_bytes()).as_ref().to_vec();
        for (body, relaxed, simple) in BODIES {
            let forms = [(Canonicalization::Relaxed, relaxed), (Canonicalization::Simple, simple)];
            for (canonicalization, form) in forms {
                for size in 1..=body.len().max(1) {
                    let mut hasher = BodyHasher::new(canonicalization);
                    body.as_bytes().chunks(size).for_each(|piece| hasher.update(piece));
                    assert_eq!(hasher.finish(), hash(form), "{body:?} {canonicalization:?} {size}");
                }
            }
        }
    }

    #[test]
    fn a_thousand_empty_lines_count_if_text_follows() {
        let lines = "\r\n".repeat(1_000);
        let (before, after) = (format!("a{lines}b\r\n"), format!("b{lines}"));
        let expected = digest(&SHA256, before.as_bytes());
        assert_eq!(BodyHasher::hash(Canonicalization::Relaxed, before.as_bytes()), expected.as_ref());
        let expected = digest(&SHA256, b"b\r\n");
        assert_eq!(BodyHasher::hash(Canonicalization::Relaxed, after.as_bytes()), expected.as_ref());
    }
}
