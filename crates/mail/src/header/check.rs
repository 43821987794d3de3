//! Checks of what is written into a header block: field names, values, and whole fields as octets.

use std::fmt;

use memchr::{memchr, memmem};

use super::fold::{MAX_LINE, pieces};

/// Why an edit cannot be made. The caller that asked for the edit is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderError {
    /// There is no field of this index.
    NoSuchField(usize),
    /// This is not a field name (RFC 5322 section 2.2: printable ASCII without space and colon).
    Name(String),
    /// The value of the field of this name holds CR, LF or NUL, or a word or white space too long for any line.
    Value(String),
    /// A raw field is not one field that may be written.
    Raw {
        /// The text before its colon, as far as it is a field name.
        name: String,
        /// What is wrong with it, as the rest of a sentence about it.
        reason: &'static str,
    },
    /// The value of a field cannot be written in ASCII.
    NotAscii {
        /// The name of the field.
        name: String,
        /// Why, as a sentence.
        reason: &'static str,
    },
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchField(index) => write!(f, "there is no header field {index}"),
            Self::Name(name) => write!(f, "{name:?} is not a header field name"),
            Self::Value(name) => {
                write!(
                    f,
                    "the value for {name} holds CR, LF or NUL, or more than {MAX_LINE} octets that no line can hold"
                )
            }
            Self::Raw { name, reason } => write!(f, "the raw field {name:?} {reason}"),
            Self::NotAscii { name, reason } => write!(f, "the value for {name} cannot be in ASCII: {reason}"),
        }
    }
}

impl std::error::Error for HeaderError {}

/// Checks that a new field may be written.
///
/// # Errors
/// What is wrong with the name or the value.
pub(super) fn check_field(name: &str, value: &str) -> Result<(), HeaderError> {
    check_name(name)?;
    check_value(name, value)
}

pub(super) fn check_name(name: &str) -> Result<(), HeaderError> {
    if is_name(name.as_bytes()) { Ok(()) } else { Err(HeaderError::Name(name.to_owned())) }
}

/// Whether a field may have this name (RFC 5322 section 2.2).
fn is_name(name: &[u8]) -> bool {
    let is_ftext = |byte: &u8| (33..=126).contains(byte) && *byte != b':';
    !name.is_empty() && name.len() <= MAX_LINE - 2 && name.iter().all(is_ftext)
}

fn check_value(name: &str, value: &str) -> Result<(), HeaderError> {
    // A line end inside a value would let its author write fields without permission.
    let breaks_line = value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    let mut pieces = pieces(value);
    let first = name.len() + 2 + pieces.next().map_or(0, str::len);
    let too_long = first > MAX_LINE || pieces.any(|piece| piece.len() > MAX_LINE);
    if breaks_line || too_long { Err(HeaderError::Value(name.to_owned())) } else { Ok(()) }
}

/// Checks a whole field, which is to be written as it is: name, colon, value and folding, without the final CRLF (RFC
/// 5322 sections 2.1.1, 2.2 and 2.2.3).
///
/// A continuation line of white space alone is refused: some readers take it for the end of the header. Octets above 127
/// are not checked.
///
/// # Errors
/// What is wrong with the field.
pub(super) fn check_raw(field: &[u8]) -> Result<(), HeaderError> {
    let colon = memchr(b':', field).filter(|colon| is_name(&field[..*colon]));
    let Some(colon) = colon else {
        return Err(raw_error("", "does not begin with a field name and a colon"));
    };
    let fault = raw_lines(field).enumerate().find_map(|(number, line)| line_fault(line, number > 0));
    let name = || String::from_utf8_lossy(&field[..colon]);
    fault.map_or(Ok(()), |reason| Err(raw_error(&name(), reason)))
}

fn raw_error(name: &str, reason: &'static str) -> HeaderError {
    HeaderError::Raw { name: name.to_owned(), reason }
}

fn raw_lines(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(field);
    std::iter::from_fn(move || {
        let octets = rest?;
        let end = memmem::find(octets, b"\r\n");
        rest = end.map(|end| &octets[end + 2..]);
        Some(&octets[..end.unwrap_or(octets.len())])
    })
}

/// What is wrong with a line of a raw field, if anything.
fn line_fault(line: &[u8], is_continuation: bool) -> Option<&'static str> {
    let is_blank = |octet: &u8| matches!(octet, b' ' | b'\t');
    if line.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
        Some("has a CR or LF that is not part of a CRLF, or NUL")
    } else if line.len() > MAX_LINE {
        Some("has a line of more than 998 octets")
    } else if is_continuation && !line.first().is_some_and(is_blank) {
        Some("has a CRLF that no space or tab follows")
    } else if is_continuation && line.iter().all(is_blank) {
        Some("has a line of white space alone")
    } else {
        None
    }
}
