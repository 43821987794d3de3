//! The message of the current call. Its content is copied into the plugin only on request.

use crate::bindings::services::pintle::plugin::message as host;
pub use crate::bindings::services::pintle::plugin::message::{
    Field, Flaws, HeaderEdit, Part, Piece, Position, Snapshot, drop_body, find_in_body, find_in_part,
    headers, headers_named, headers_shown, info, part_digest, part_headers, part_text, parts, raw_header,
    read_body, read_part, tree_flaws, write_body,
};
use crate::{Header, HostError};

/// The host's limit for one `read_body` call (1 MiB).
const CHUNK: u32 = 1 << 20;

/// Limits on the number and the size of edits passed to the host in one call. The host accepts any number of calls, of
/// 2 MiB each.
const EDITS: usize = 1_000;
const OCTETS: usize = 512 << 10;

/// Maximum length of a field value that the gateway writes, in octets.
pub const MAX_VALUE: usize = 64 << 10;
/// Maximum length of a line (RFC 5322 section 2.1.1), in octets.
const MAX_LINE: usize = 998;

/// Whether the gateway would write a field of this name and value. A field of a received message may fail this check:
/// lines from remote senders can be longer, or folded where folding is not permitted.
///
/// A value with characters outside ASCII is written as encoded words unless the transaction has SMTPUTF8. This function
/// does not foresee that: the gateway refuses such characters where encoded words are not permitted, as in an address,
/// and can split words that this function takes for too long. [`edit_headers_each`] copes with a refusal.
///
/// The gateway folds before white space that is followed by a word. So a line must have room for each word with all
/// white space before it, for the first word beside the name, and for the last one with the white space after it.
#[must_use]
pub fn can_be_written(name: &str, value: &str) -> bool {
    let is_name = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':');
    let mut beside = name.len() + 2;
    let fits = unfoldable_pieces(value).all(|piece| std::mem::take(&mut beside) + piece.len() <= MAX_LINE);
    is_name && fits && beside <= MAX_LINE && value.len() <= MAX_VALUE && !value.contains(['\r', '\n', '\0'])
}

/// The pieces of a value that cannot be folded, in order: each word with the blanks before it, and the last one with
/// those after it too. A field may be folded before each piece but the first (RFC 5322 section 2.2.3).
pub fn unfoldable_pieces(value: &str) -> impl Iterator<Item = &str> {
    let is_blank = |c: char| matches!(c, ' ' | '\t');
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

/// Edits header fields, which are numbered as they were when the hook was called. There may be as many edits as fields.
/// Grant: edit-headers.
///
/// # Errors
///
/// The grant is missing, a field does not exist, or a name or value is not valid in a header.
pub fn edit_headers(edits: &[HeaderEdit]) -> Result<(), HostError> {
    batches(edits, size).try_for_each(host::edit_headers)
}

/// Splits the items into batches that fit into one call of the host.
fn batches<T>(mut items: &[T], size: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut octets = 0;
        let fits = |item: &&T| {
            octets += size(item);
            octets <= OCTETS
        };
        let count = items.iter().take(EDITS).take_while(fits).count().max(1);
        let (batch, rest) = items.split_at_checked(count)?;
        items = rest;
        Some(batch)
    })
}

fn size(edit: &HeaderEdit) -> usize {
    match edit {
        HeaderEdit::Add((_, header)) => header.name.len() + header.value.len(),
        HeaderEdit::Replace((_, text)) | HeaderEdit::Rename((_, text)) | HeaderEdit::RemoveAll(text) => {
            text.len()
        }
        HeaderEdit::AddRaw((_, octets)) => octets.len(),
        HeaderEdit::ReplaceRaw((_, octets)) => octets.len(),
        HeaderEdit::Remove(_) => 0,
    }
}

/// Applies changes independently of each other; the edits of one change apply together. Use it for values that come
/// from the message: if the gateway refuses one change, the others are still applied, and a sender cannot make the
/// plugin fail. Returns the indices of the refused changes. Grant: edit-headers.
///
/// # Errors
///
/// The grant is missing, or there is no message at this stage.
pub fn edit_headers_each(changes: &[Vec<HeaderEdit>]) -> Result<Vec<usize>, HostError> {
    let (mut refused, mut begin) = (Vec::new(), 0);
    for some in batches(changes, |change| change.iter().map(size).sum()) {
        if !was_made(host::edit_headers(&some.concat()))? {
            for (change, at) in some.iter().zip(begin..) {
                if !was_made(host::edit_headers(change))? {
                    refused.push(at);
                }
            }
        }
        begin += some.len();
    }
    Ok(refused)
}

/// Whether a change was applied. An error that concerns all changes, such as a missing grant, is returned.
fn was_made(result: Result<(), HostError>) -> Result<bool, HostError> {
    match result {
        Ok(()) => Ok(true),
        Err(HostError::Invalid(_) | HostError::Limit(_)) => Ok(false),
        Err(HostError::Denied(grant)) if grant != "edit-headers" => Ok(false),
        Err(error) => Err(error),
    }
}

impl Part {
    /// Whether the part is marked as an attachment, which mail programs do not show as part of the text.
    #[must_use]
    pub fn is_attachment(&self) -> bool {
        self.disposition == "attachment"
    }
}

/// The value of the first field of this name (case-insensitive); `None` if there is none.
///
/// # Errors
///
/// There is no message at this stage.
pub fn header(name: &str) -> Result<Option<String>, HostError> {
    let fields = headers_named(&[name.to_owned()])?;
    Ok(fields.into_iter().next().map(|field| field.value))
}

/// Adds a field at the top, as is usual for trace and filter fields (RFC 5321 section 4.4). Grant: edit-headers.
///
/// # Errors
///
/// The grant is missing, or the name or value is not valid in a header.
pub fn add_header(name: &str, value: &str) -> Result<(), HostError> {
    let field = Header { name: name.to_owned(), value: value.to_owned() };
    edit_headers(&[HeaderEdit::Add((Position::Top, field))])
}

/// Removes every field of this name and adds one at the top. Grant: edit-headers.
///
/// # Errors
///
/// As [`add_header`].
pub fn set_header(name: &str, value: &str) -> Result<(), HostError> {
    let field = Header { name: name.to_owned(), value: value.to_owned() };
    edit_headers(&[HeaderEdit::RemoveAll(name.to_owned()), HeaderEdit::Add((Position::Top, field))])
}

/// Removes every field of this name (case-insensitive). Grant: edit-headers.
///
/// # Errors
///
/// The grant is missing.
pub fn remove_header(name: &str) -> Result<(), HostError> {
    edit_headers(&[HeaderEdit::RemoveAll(name.to_owned())])
}

/// The first `max` octets of the body. Prefer [`find_in_body`] and [`part_text`], which do the work in the host.
///
/// # Errors
///
/// The body is not available at this stage, or the plugin's memory limit is exceeded.
pub fn body(max: usize) -> Result<Vec<u8>, HostError> {
    let mut body = Vec::new();
    while body.len() < max {
        let want = u32::try_from(max - body.len()).unwrap_or(CHUNK).min(CHUNK);
        // A body has at most 2^32-1 octets.
        let Ok(offset) = u32::try_from(body.len()) else { break };
        let chunk = read_body(offset, want)?;
        if chunk.is_empty() {
            break;
        }
        body.extend(chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_go_in_batches_that_the_host_takes() {
        let lengths = |sizes: &[usize]| batches(sizes, |size| *size).map(<[_]>::len).collect::<Vec<_>>();
        assert!(lengths(&[]).is_empty());
        assert_eq!(lengths(&[1; 2_500]), [1_000, 1_000, 500]);
        assert_eq!(lengths(&[64 << 10; 20]), [8, 8, 4]);
        assert_eq!(lengths(&[1, OCTETS + 1, 1, 1]), [1, 1, 2]);
    }

    #[test]
    fn a_line_holds_a_word_with_the_blanks_before_it() {
        let fits = |value: &str| can_be_written("Subject", value);
        let (blanks, word) = (" ".repeat(1_000), "w".repeat(997));
        assert!(fits("") && fits("\u{e9} ordinary\tvalue ") && fits(&format!("a {word}")));
        for value in
            [format!("a{blanks}b"), format!("a{blanks}"), format!("a  {word}"), format!("a\t {word}"), word]
        {
            assert!(!fits(&value), "{value:?}");
        }
        assert!(fits(&"w".repeat(998 - 9)) && !fits(&"w".repeat(998 - 8)), "the name stands beside it");
        assert!(fits(&"a ".repeat(MAX_VALUE / 2)) && !fits(&"a ".repeat(MAX_VALUE / 2 + 1)));
        assert!(!fits("a\r\nb") && !fits("a\0b"));
        assert!(!can_be_written("", "x") && !can_be_written("a b", "x") && !can_be_written("\u{e9}", "x"));
        assert!(can_be_written(&"n".repeat(996), "") && !can_be_written(&"n".repeat(997), ""));
    }
}
