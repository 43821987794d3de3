//! The header block: its fields found by offset, and edits that leave every untouched byte as it was.
//!
//! A [`HeaderBlock`] holds the bytes of all fields with their line ends, without the empty line that follows. Fields are
//! offsets into these bytes, so that a message is parsed once and copied never; [`HeaderBlock::edited`] writes a new
//! block in which only the edited fields differ (a signature over the others stays good). What a field means (an address,
//! a date, a MIME type) is left to a MIME library.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memchr;
use serde::{Deserialize, Serialize};

/// New fields are folded so that lines stay within this many octets where white space allows (RFC 5322 section 2.1.1).
const FOLD_AT: usize = 78;
/// The longest line that may be written, without its CRLF (RFC 5322 section 2.1.1).
const MAX_LINE: usize = 998;

/// All header fields of a message, as received.
#[derive(Debug, Clone, Default)]
pub struct HeaderBlock {
    bytes: Bytes,
    fields: Vec<Span>,
}

/// Where a field stands: `name_end` is the end of its name, `end` lies behind its CRLF.
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

/// One change of a header block. Indices number the fields of the block that is edited, before any edit of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderEdit {
    /// A new field.
    Add {
        /// Where it goes.
        at: Position,
        /// Its name.
        name: String,
        /// Its value, unfolded; folded here when long.
        value: String,
    },
    /// A new value for the field of this index.
    Replace {
        /// Which field.
        index: usize,
        /// Its value, unfolded; folded here when long.
        value: String,
    },
    /// No more field of this index.
    Remove(usize),
    /// No more field of this name, in any case.
    RemoveAll(String),
    /// Another name for a field; what stands behind its name stays as it is, octet by octet.
    Rename {
        /// Which field.
        index: usize,
        /// Its new name.
        name: String,
    },
}

/// Where a new field goes. Fields added at one place by one list of edits stand in the order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Position {
    /// Above all others.
    Top,
    /// Below all others.
    Bottom,
    /// Above the field of this index.
    Before(usize),
}

/// Why an edit cannot be made. Whoever asked for it owns the fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderError {
    /// There is no field of this index.
    NoSuchField(usize),
    /// This is no field name (RFC 5322 section 2.2: printable ASCII without space and colon).
    Name(String),
    /// The value of the field of this name holds CR, LF or NUL, or a word or white space too long for any line.
    Value(String),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchField(index) => write!(f, "there is no header field {index}"),
            Self::Name(name) => write!(f, "{name:?} is no header field name"),
            Self::Value(name) => {
                write!(
                    f,
                    "the value for {name} holds CR, LF or NUL, or more than {MAX_LINE} octets that no line can hold"
                )
            }
        }
    }
}

impl std::error::Error for HeaderError {}

impl HeaderBlock {
    /// Finds the fields in `bytes`, which hold header lines alone, each ended by CRLF (the last may lack it).
    ///
    /// A line that is neither a field nor a continuation is counted to the field above it, so that nothing is lost.
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

    /// The bytes of all fields, without the empty line behind them.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The field of this index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Field<'_>> {
        self.fields.get(index).map(|span| Field { index, bytes: &self.bytes, span: *span })
    }

    /// All fields, from the top.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.iter().enumerate().map(|(index, span)| Field { index, bytes: &self.bytes, span: *span })
    }

    /// The fields of this name, in any case.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Field<'a>> {
        self.iter().filter(move |field| field.name().eq_ignore_ascii_case(name.as_bytes()))
    }

    /// A new block with the edits made, all of them or none.
    ///
    /// # Errors
    /// The first edit that cannot be made.
    pub fn edited(&self, edits: &[HeaderEdit]) -> Result<Self, HeaderError> {
        if edits.is_empty() {
            return Ok(self.clone());
        }
        edits.iter().try_for_each(|edit| self.check(edit))?;
        let plan = Plan::of(edits);
        let mut out = BytesMut::with_capacity(self.bytes.len() + 128 * edits.len());
        plan.write_added(&mut out, Position::Top);
        for field in self.iter() {
            plan.write_added(&mut out, Position::Before(field.index));
            match plan.decision(field) {
                None => out.put_slice(field.raw()),
                Some(HeaderEdit::Replace { value, .. }) => {
                    out.put_slice(&folded(&field.name_text(), value));
                }
                Some(HeaderEdit::Rename { name, .. }) => {
                    out.put_slice(name.as_bytes());
                    out.put_slice(b":");
                    out.put_slice(field.value_octets());
                }
                Some(_) => {}
            }
        }
        end_line(&mut out);
        plan.write_added(&mut out, Position::Bottom);
        Ok(Self::parse(out.freeze()))
    }

    /// Whether this edit could be made of this block.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, edit: &HeaderEdit) -> Result<(), HeaderError> {
        let exists = |index: usize| {
            self.get(index)
                .map_or(Err(HeaderError::NoSuchField(index)), |field| Ok(field.name_text().into_owned()))
        };
        match edit {
            HeaderEdit::Add { at, name, value } => {
                if let Position::Before(index) = at {
                    exists(*index)?;
                }
                check_field(name, value)
            }
            HeaderEdit::Replace { index, value } => exists(*index).and_then(|name| check_field(&name, value)),
            HeaderEdit::Remove(index) => exists(*index).map(|_| ()),
            HeaderEdit::RemoveAll(_) => Ok(()),
            HeaderEdit::Rename { index, name } => exists(*index).and_then(|_| check_name(name)),
        }
    }
}

/// Edits by the places that they concern: each field asks for its own, and not through all of the list.
#[derive(Default)]
struct Plan<'a> {
    added: HashMap<Position, Vec<(&'a str, &'a str)>>,
    /// The last edit of a field, and its number in the list.
    by_index: HashMap<usize, (usize, &'a HeaderEdit)>,
    /// By name in lower case.
    by_name: HashMap<Vec<u8>, (usize, &'a HeaderEdit)>,
}

impl<'a> Plan<'a> {
    fn of(edits: &'a [HeaderEdit]) -> Self {
        let mut plan = Self::default();
        for (number, edit) in edits.iter().enumerate() {
            match edit {
                HeaderEdit::Add { at, name, value } => {
                    plan.added.entry(*at).or_default().push((name, value));
                }
                HeaderEdit::Replace { index, .. }
                | HeaderEdit::Remove(index)
                | HeaderEdit::Rename { index, .. } => {
                    plan.by_index.insert(*index, (number, edit));
                }
                HeaderEdit::RemoveAll(name) => {
                    plan.by_name.insert(name.to_ascii_lowercase().into_bytes(), (number, edit));
                }
            }
        }
        plan
    }

    /// The last edit that concerns a field decides.
    fn decision(&self, field: Field<'_>) -> Option<&'a HeaderEdit> {
        let by_index = self.by_index.get(&field.index);
        let by_name = (!self.by_name.is_empty())
            .then(|| self.by_name.get(&field.name().to_ascii_lowercase()))
            .flatten();
        by_index.into_iter().chain(by_name).max_by_key(|(number, _)| number).map(|(_, edit)| *edit)
    }

    fn write_added(&self, out: &mut BytesMut, at: Position) {
        for (name, value) in self.added.get(&at).into_iter().flatten() {
            out.put_slice(&folded(name, value));
        }
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

    /// Every byte of the field, from its name to its last CRLF.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        &self.bytes[self.span.start..self.span.end]
    }

    /// The octets behind the colon, folding and all.
    #[must_use]
    pub fn value_octets(&self) -> &'a [u8] {
        &self.bytes[self.span.value..self.span.end]
    }

    /// The value, unfolded (RFC 5322 section 2.2.3) and without white space around it; bytes that are not UTF-8 show
    /// as U+FFFD.
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

/// Whether a message that begins with this line comes out of a mailbox file: `From ann Mon Jan …`, or with `>` before it. Cron,
/// fax servers and old clients leave the line above the header; it is no field, and no end of the header either.
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

/// A whole field, folded, with its CRLF. The caller has checked name and value.
///
/// Folding goes before white space that a word follows, so that no line is blank: some readers take such a line for the end
/// of the header (RFC 5322 section 3.2.2 forbids writing it).
#[must_use]
pub fn folded(name: &str, value: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + value.len() + 8);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    let mut line = out.len();
    for (at, piece) in pieces(value).enumerate() {
        if at > 0 && line + piece.len() > FOLD_AT {
            out.extend_from_slice(b"\r\n");
            line = 0;
        }
        out.extend_from_slice(piece.as_bytes());
        line += piece.len();
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// What must stay on one line: a word with the white space before it; the last one with that behind it, too.
fn pieces(value: &str) -> impl Iterator<Item = &str> {
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

/// Whether a new field may be written.
///
/// # Errors
/// Names what is wrong with it.
pub fn check_field(name: &str, value: &str) -> Result<(), HeaderError> {
    check_name(name)?;
    check_value(name, value)
}

fn check_name(name: &str) -> Result<(), HeaderError> {
    let is_ftext = |byte: u8| (33..=126).contains(&byte) && byte != b':';
    if name.is_empty() || name.len() > MAX_LINE - 2 || !name.bytes().all(is_ftext) {
        return Err(HeaderError::Name(name.to_owned()));
    }
    Ok(())
}

fn check_value(name: &str, value: &str) -> Result<(), HeaderError> {
    // A line end inside a value would let its author write fields that nobody granted.
    let breaks_line = value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    let mut pieces = pieces(value);
    let first = name.len() + 2 + pieces.next().map_or(0, str::len);
    let too_long = first > MAX_LINE || pieces.any(|piece| piece.len() > MAX_LINE);
    if breaks_line || too_long { Err(HeaderError::Value(name.to_owned())) } else { Ok(()) }
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

/// The last line of a block may lack its CRLF; what is added below must not run into it.
fn end_line(out: &mut BytesMut) {
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.put_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] =
        b"Received: from a\r\n\tby b\r\nSubject:  hello\r\n  world \r\nX-Odd : 1\r\nsubject: again\r\n";

    fn block() -> HeaderBlock {
        HeaderBlock::parse(Bytes::from_static(BLOCK))
    }

    fn text(block: &HeaderBlock) -> &str {
        std::str::from_utf8(block.as_bytes()).unwrap()
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

    #[test]
    fn untouched_bytes_stay() {
        let edits = [
            HeaderEdit::Add { at: Position::Top, name: "X-A".into(), value: "1".into() },
            HeaderEdit::Add { at: Position::Before(2), name: "X-B".into(), value: "2".into() },
            HeaderEdit::Add { at: Position::Bottom, name: "X-C".into(), value: "3".into() },
            HeaderEdit::Replace { index: 3, value: "new".into() },
            HeaderEdit::Remove(0),
        ];
        let edited = block().edited(&edits).unwrap();
        assert_eq!(
            text(&edited),
            "X-A: 1\r\nSubject:  hello\r\n  world \r\nX-B: 2\r\nX-Odd : 1\r\nsubject: new\r\nX-C: 3\r\n"
        );
    }

    #[test]
    fn a_rename_keeps_octets() {
        let raw = [b"A : \xff\xfe  x\r\n\t".as_slice(), &[b'w'; 2_000], b"\r\nB: 2"].concat();
        let block = HeaderBlock::parse(Bytes::from(raw));
        let rename = |index, name: &str| HeaderEdit::Rename { index, name: name.into() };
        let edited = block.edited(&[rename(0, "X-A"), rename(1, "X-B")]).unwrap();
        let expected = [b"X-A: \xff\xfe  x\r\n\t".as_slice(), &[b'w'; 2_000], b"\r\nX-B: 2\r\n"].concat();
        assert_eq!(edited.as_bytes().as_ref(), expected);
        assert_eq!(block.edited(&[rename(0, "X A")]).unwrap_err(), HeaderError::Name("X A".into()));
        assert_eq!(block.edited(&[rename(2, "X-A")]).unwrap_err(), HeaderError::NoSuchField(2));
    }

    #[test]
    fn all_fields_of_a_name_go() {
        let edited = block().edited(&[HeaderEdit::RemoveAll("SUBJECT".into())]).unwrap();
        assert_eq!(text(&edited), "Received: from a\r\n\tby b\r\nX-Odd : 1\r\n");
    }

    #[test]
    fn the_last_edit_of_a_field_decides() {
        let replace = |value: &str| HeaderEdit::Replace { index: 3, value: value.into() };
        let all = || HeaderEdit::RemoveAll("subject".into());
        let edited = |edits: &[HeaderEdit]| block().edited(edits).unwrap().named("subject").count();
        assert_eq!(edited(&[replace("kept"), all()]), 0);
        assert_eq!(edited(&[all(), replace("kept")]), 1);
        assert_eq!(edited(&[all(), replace("kept"), HeaderEdit::Remove(3)]), 0);
    }

    /// Fifty thousand edits of fifty thousand fields: by the list, this would be thousands of millions of comparisons.
    #[test]
    fn many_edits_of_many_fields_are_found_by_their_places() {
        let count = 50_000;
        let many = HeaderBlock::parse(Bytes::from("X-A: 1\r\n".repeat(count)));
        let edits: Vec<_> = (0..count)
            .map(|index| match index % 3 {
                0 => HeaderEdit::Remove(index),
                1 => HeaderEdit::Replace { index, value: "2".into() },
                _ => HeaderEdit::Add { at: Position::Before(index), name: "X-B".into(), value: "3".into() },
            })
            .collect();
        let edited = many.edited(&edits).unwrap();
        assert_eq!(edited.named("X-B").count(), count / 3);
        assert_eq!(edited.named("X-A").filter(|field| field.value() == "2").count(), count.div_ceil(3));
    }

    #[test]
    fn one_bad_edit_stops_all() {
        let good = HeaderEdit::Remove(0);
        for (bad, error) in [
            (HeaderEdit::Remove(9), HeaderError::NoSuchField(9)),
            (
                HeaderEdit::Add { at: Position::Top, name: "X Y".into(), value: String::new() },
                HeaderError::Name("X Y".into()),
            ),
            (
                HeaderEdit::Replace { index: 2, value: "a\r\nBcc: b".into() },
                HeaderError::Value("X-Odd".into()),
            ),
        ] {
            assert_eq!(block().edited(&[good.clone(), bad]).unwrap_err(), error);
        }
    }

    #[test]
    fn long_values_are_folded_and_survive() {
        let value = "word ".repeat(40) + "end";
        let edit = HeaderEdit::Add { at: Position::Bottom, name: "X-Long".into(), value: value.clone() };
        let edited = HeaderBlock::default().edited(&[edit]).unwrap();
        assert!(text(&edited).lines().all(|line| line.len() <= FOLD_AT));
        assert_eq!(edited.get(0).unwrap().value(), value);
    }

    /// What stands above the first field may be none, and has no name that a value could be written behind.
    #[test]
    fn what_is_no_field_gets_no_value() {
        let block = HeaderBlock::parse(Bytes::from_static(b"no field\r\nA: 1\r\n"));
        let replace = |index| block.check(&HeaderEdit::Replace { index, value: "2".into() });
        assert_eq!((replace(0), replace(1)), (Err(HeaderError::Name(String::new())), Ok(())));
    }

    /// Each piece of white space stays with the word behind it, whatever that makes of the lines' lengths.
    #[test]
    fn no_line_of_a_new_field_is_blank() {
        let blanks = " ".repeat(200);
        for value in
            [format!("a{blanks}b"), format!("a{blanks}"), blanks.clone(), format!("{blanks}a \t \t b")]
        {
            let block = HeaderBlock::parse(Bytes::from(folded("X", &value)));
            assert!(text(&block).lines().skip(1).all(|line| !line.trim().is_empty()), "{:?}", text(&block));
            assert_eq!(block.get(0).unwrap().value(), value.trim());
        }
        let no_line = HeaderEdit::Replace { index: 0, value: format!("a{}b", " ".repeat(MAX_LINE)) };
        assert!(matches!(block().check(&no_line), Err(HeaderError::Value(_))));
    }

    #[test]
    fn a_last_line_without_its_end_gets_one_before_an_addition() {
        let block = HeaderBlock::parse(Bytes::from_static(b"A: 1"));
        let edit = HeaderEdit::Add { at: Position::Bottom, name: "B".into(), value: "2".into() };
        assert_eq!(text(&block.edited(&[edit]).unwrap()), "A: 1\r\nB: 2\r\n");
    }
}
