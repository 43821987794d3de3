//! The header block: finding its fields, and edits that leave every other byte as it was.
//!
//! A [`HeaderBlock`] holds the bytes of all fields with their line ends, without the empty line that follows. Fields
//! are offsets into these bytes, so that a message is parsed once and never copied. [`HeaderBlock::edited`] writes a
//! new block in which only the edited fields differ, so a signature over the others stays valid. What a value means is
//! read elsewhere: addresses in [`mailboxes`](crate::mailboxes), the fields of MIME in [`mime`](crate::mime).

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memchr;

mod check;
mod edit;
mod encoded;
mod encoded_addresses;
mod fold;

pub use self::check::HeaderError;
pub use self::edit::{FieldPosition, HeaderEdit};
pub use self::encoded::encoded;
pub use self::fold::folded;

/// All header fields of a message, as received.
#[derive(Debug, Clone, Default)]
pub struct HeaderBlock {
    bytes: Bytes,
    fields: Vec<Span>,
}

/// Where a field is in the block: `name_end` is the end of its name, `value` the start of its value, `end` the offset
/// after its CRLF.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    name_end: usize,
    value: usize,
    end: usize,
}

/// One header field within its block.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Position among the fields, from 0 at the top.
    pub index: usize,
    bytes: &'a [u8],
    span: Span,
}

impl HeaderBlock {
    /// Finds the fields in `bytes`, which hold header lines alone, each ended by CRLF (the last may lack it).
    ///
    /// A line that is neither a field nor a continuation is counted as part of the field above it, so that nothing is
    /// lost.
    #[must_use]
    pub fn parse(bytes: Bytes) -> Self {
        let mut fields: Vec<Span> = Vec::with_capacity(16);
        let mut start = 0;
        while start < bytes.len() {
            let end = memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |at| start + at + 1);
            let line = &bytes[start..end];
            match (field_name(line), fields.last_mut()) {
                (Some(name), _) => fields.push(span_of(&bytes, start, end, name)),
                (None, Some(above)) => above.end = end,
                (None, None) => fields.push(Span { start, name_end: start, value: start, end }),
            }
            start = end;
        }
        Self { bytes, fields }
    }

    /// The bytes of all fields, without the empty line after them.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether the block has no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The field of this index; none when there are fewer fields.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Field<'_>> {
        self.fields.get(index).map(|span| Field { index, bytes: &self.bytes, span: *span })
    }

    /// All fields, from the top.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.iter().enumerate().map(|(index, span)| Field { index, bytes: &self.bytes, span: *span })
    }

    /// All fields of this name, in any case, from the top.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Field<'a>> {
        self.iter().filter(move |field| field.name().eq_ignore_ascii_case(name.as_bytes()))
    }
}

impl<'a> Field<'a> {
    /// The name as received.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        let name = &self.bytes[self.span.start..self.span.name_end];
        // Obsolete syntax allows white space before the colon (RFC 5322 section 4.5.1).
        name.trim_ascii_end()
    }

    /// The name as text.
    #[must_use]
    pub fn name_text(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.name())
    }

    /// All bytes of the field, from its name to its final CRLF.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        &self.bytes[self.span.start..self.span.end]
    }

    /// The octets after the colon, folding included.
    #[must_use]
    pub fn value_octets(&self) -> &'a [u8] {
        &self.bytes[self.span.value..self.span.end]
    }

    /// The value, unfolded (RFC 5322 section 2.2.3) and without surrounding white space; bytes that are not UTF-8
    /// become U+FFFD.
    #[must_use]
    pub fn value(&self) -> String {
        let unfolded: Vec<u8> =
            self.value_octets().iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
        String::from_utf8_lossy(unfolded.trim_ascii()).into_owned()
    }
}

/// Whether this line, with or without its CRLF, can begin a header field: a name and a colon (RFC 5322 section 2.2).
#[must_use]
pub fn is_field_line(line: &[u8]) -> bool {
    field_name(line).is_some()
}

/// Whether this line comes from a mailbox file: `From ann Mon Jan …`, or the same after `>`. Cron, fax servers and old
/// clients leave such a line above the header. It is not a field, and does not end the header either.
#[must_use]
pub fn is_mailbox_line(line: &[u8]) -> bool {
    let marks = line.iter().take_while(|octet| **octet == b'>').count();
    line[marks..].starts_with(b"From ") && !is_field_line(line)
}

/// Whether this line continues the field above it (RFC 5322 section 2.2.3).
#[must_use]
pub fn is_continuation(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    let is_ftext = |byte: &u8| (33..=126).contains(byte);
    (!name.is_empty() && name.iter().all(is_ftext)).then_some(&line[..colon])
}

fn span_of(bytes: &[u8], start: usize, end: usize, name: &[u8]) -> Span {
    let name_end = start + name.len();
    debug_assert!(bytes[name_end] == b':', "a field's name ends at its colon");
    Span { start, name_end, value: name_end + 1, end }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] =
        b"Received: from a\r\n\tby b\r\nSubject:  hello\r\n  world \r\nX-Odd : 1\r\nsubject: again\r\n";

    fn block() -> HeaderBlock {
        HeaderBlock::parse(Bytes::from_static(BLOCK))
    }

    #[test]
    fn fields_are_found_and_unfolded() {
        let block = block();
        let fields: Vec<_> = block.iter().map(|f| (f.name_text().into_owned(), f.value())).collect();
        let expected =
            [("Received", "from a\tby b"), ("Subject", "hello  world"), ("X-Odd", "1"), ("subject", "again")];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(block.named("SUBJECT").count(), 2);
        assert_eq!(block.get(1).unwrap().raw(), b"Subject:  hello\r\n  world \r\n");
    }
}
