//! Writing a new header field: folding its value over lines (RFC 5322 sections 2.1.1 and 2.2.3).

use crate::encoded_words::WORD_START;

/// New fields are folded so that lines stay within this many octets where white space allows (RFC 5322 section 2.1.1).
pub(super) const FOLD_AT: usize = 78;
/// The same with encoded words (RFC 2047 section 2).
const FOLD_ENCODED_AT: usize = 76;
/// The longest line that may be written, without its CRLF (RFC 5322 section 2.1.1).
pub(super) const MAX_LINE: usize = 998;

/// Writes a whole field, folded, with its CRLF. The caller has checked name and value.
///
/// A fold is made only before white space that a word follows, so that no line is blank: some readers take a blank line
/// for the end of the header (RFC 5322 section 3.2.2 forbids writing it).
#[must_use]
pub fn folded(name: &str, value: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + value.len() + 8);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    let fold_at = if value.contains(WORD_START) { FOLD_ENCODED_AT } else { FOLD_AT };
    let mut line = out.len();
    for (at, piece) in pieces(value).enumerate() {
        if at > 0 && line + piece.len() > fold_at {
            out.extend_from_slice(b"\r\n");
            line = 0;
        }
        out.extend_from_slice(piece.as_bytes());
        line += piece.len();
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Splits a value into pieces that must stay on one line: a word with the white space before it, and for the last word
/// that after it too.
pub(super) fn pieces(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let word = rest.find(|c| !is_blank(c))?;
        let end = rest[word..].find(is_blank).map_or(rest.len(), |at| word + at);
        let is_last = rest[end..].chars().all(is_blank);
        let (piece, behind) = rest.split_at(if is_last { rest.len() } else { end });
        rest = behind;
        Some(piece)
    })
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}
