//! The message of this call. Nothing of it is copied into the plugin unless asked for.

use crate::bindings::services::pintle::plugin::message as host;
pub use crate::bindings::services::pintle::plugin::message::{
    DigestAlgorithm, Field, Flaws, HeaderEdit, Part, Piece, Position, Snapshot, find_in_body, headers,
    headers_named, info, part_digest, part_headers, part_text, parts, raw_header, read_body, read_part,
    tree_flaws, write_body,
};
use crate::{Header, HostError};

/// The host's limit for one `read_body` (1 MiB).
const CHUNK: u32 = 1 << 20;

/// So many edits go to the host at once, which takes them in any number of calls.
const EDITS: usize = 1_000;

/// Changes of header fields, in the numbering of the fields as they were when the hook was called. They may be as many as
/// the fields. Grant: edit-headers.
///
/// # Errors
///
/// The grant is missing, there is no such field, or a name or value cannot stand in a header.
pub fn edit_headers(edits: &[HeaderEdit]) -> Result<(), HostError> {
    edits.chunks(EDITS).try_for_each(host::edit_headers)
}

/// The value of the first field of this name, in any case.
///
/// # Errors
///
/// There is no message at this stage.
pub fn header(name: &str) -> Result<Option<String>, HostError> {
    let fields = headers_named(&[name.to_owned()])?;
    Ok(fields.into_iter().next().map(|field| field.value))
}

/// Adds a field on top, where fields of trace and of filters belong (RFC 5321 section 4.4). Grant: edit-headers.
///
/// # Errors
///
/// The grant is missing, or name or value cannot stand in a header.
pub fn add_header(name: &str, value: &str) -> Result<(), HostError> {
    let field = Header { name: name.to_owned(), value: value.to_owned() };
    edit_headers(&[HeaderEdit::Add((Position::Top, field))])
}

/// Removes every field of this name and adds one on top. Grant: edit-headers.
///
/// # Errors
///
/// As [`add_header`].
pub fn set_header(name: &str, value: &str) -> Result<(), HostError> {
    let field = Header { name: name.to_owned(), value: value.to_owned() };
    edit_headers(&[HeaderEdit::RemoveAll(name.to_owned()), HeaderEdit::Add((Position::Top, field))])
}

/// Removes every field of this name, in any case. Grant: edit-headers.
///
/// # Errors
///
/// The grant is missing.
pub fn remove_header(name: &str) -> Result<(), HostError> {
    edit_headers(&[HeaderEdit::RemoveAll(name.to_owned())])
}

/// The body's first `max` bytes. Prefer [`find_in_body`] and [`part_text`], which leave the work to the host.
///
/// # Errors
///
/// The body is not here at this stage, or the plugin's memory limit is passed.
pub fn body(max: usize) -> Result<Vec<u8>, HostError> {
    let mut body = Vec::new();
    while body.len() < max {
        let want = u32::try_from(max - body.len()).unwrap_or(CHUNK).min(CHUNK);
        let chunk = read_body(body.len() as u64, want)?;
        if chunk.is_empty() {
            break;
        }
        body.extend(chunk);
    }
    Ok(body)
}
