//! Host functions of `message`: header, body and MIME parts of the current message, and edits of them.

use std::borrow::Cow;
use std::sync::Arc;

use arc_swap::ArcSwap;
use memchr::memmem;
use pintle_mail::auth_results::bears_the_name_of;
use pintle_mail::mime::{self as tree, Tree, transfer};
use pintle_mail::{Body, Bytes, FieldPosition, HeaderBlock, HeaderEdit, encoded_words, header};
use pintle_policy::facts::{MIME_MALFORMED, MIME_TRUNCATED};
use pintle_policy::{Edit, Hook};
use sha2::Digest;
use wasmtime::component::{HasData, Linker};

use super::checks::{self, need};
use super::header_fields::{FieldNames, charge_header};
use crate::bindings::pintle::plugin::message::{
    self, Field, Flaws, HeaderEdit as GuestEdit, Host, Part, Piece, Position as GuestPosition, Snapshot,
};
use crate::bindings::pintle::plugin::types::{Header, HostError};
use crate::budget::Budget;
use crate::call::CallState;
use crate::call::unavailable;
use crate::mime::{self, CHUNK, unreadable};
use crate::store_data::{HostParts, StoreData};
use crate::{Gateway, GrantKind, Grants, convert};

/// Maximum number of octets returned by one read.
const MAX_READ: u32 = 1 << 20;
/// Budget charge for a part, and for a read of a body, in addition to their octets.
const PART_COST: usize = 128;
const READ_COST: u64 = 256;
const MAX_NEEDLE: usize = 1 << 10;
const MAX_FOUND: usize = 10_000;
const MAX_HEADER_EDITS: usize = 10_000;
const MAX_HEADER_VALUE: usize = 64 << 10;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    message::add_to_linker::<_, MessageInterface>(linker, |data| MessageView::of(data.parts()))
}

struct MessageInterface;

impl HasData for MessageInterface {
    type Data<'a> = MessageView<'a>;
}

/// The data that the interface accesses: the current call, and the gateway's name.
pub(crate) struct MessageView<'a> {
    call: &'a mut CallState,
    grants: &'a Grants,
    gateway: &'a ArcSwap<Gateway>,
}

impl<'a> MessageView<'a> {
    pub(super) fn of(HostParts { services, grants, call, .. }: HostParts<'a>) -> Self {
        Self { call, grants, gateway: &services.gateway }
    }
}

impl Host for MessageView<'_> {
    fn info(&mut self) -> Result<Snapshot, HostError> {
        let message = self.call.message()?;
        Ok(Snapshot {
            header_size: index(message.header.as_bytes().len()),
            body_size: message.body.as_ref().map_or(0, |body| convert::size(body.size())),
            header_count: index(message.header.len()),
            has_8bit: message.has_8bit,
        })
    }

    fn headers(&mut self) -> Result<Vec<Field>, HostError> {
        charge_header(self.call)?;
        Ok(self.call.message()?.header.iter().map(field).collect())
    }

    fn headers_named(&mut self, names: Vec<String>) -> Result<Vec<Field>, HostError> {
        self.fields(names, |value| value)
    }

    fn headers_shown(&mut self, names: Vec<String>) -> Result<Vec<Field>, HostError> {
        // Decoded words can hold any character; no program shows controls.
        let shown = |value: String| encoded_words::decoded(&value).replace(char::is_control, " ");
        self.fields(names, shown)
    }

    fn raw_header(&mut self, index: u32) -> Result<Vec<u8>, HostError> {
        let message = Arc::clone(self.call.message()?);
        let field = message.header.get(index as usize);
        let field = field.ok_or_else(|| HostError::Invalid(format!("there is no header field {index}")))?;
        self.call.budget.charge(field.raw().len() as u64)?;
        Ok(field.raw().to_vec())
    }

    fn edit_headers(&mut self, edits: Vec<GuestEdit>) -> Result<(), HostError> {
        self.edits_message(GrantKind::EditHeaders)?;
        if edits.len() > MAX_HEADER_EDITS {
            return Err(HostError::Limit(format!("one call takes at most {MAX_HEADER_EDITS} header edits")));
        }
        self.charge_edits(&edits)?;
        let ascii = !self.call.transaction()?.envelope.params.smtputf8;
        let header = &self.call.message()?.header;
        let edits: Vec<HeaderEdit> =
            edits.into_iter().map(|edit| header_edit(edit, header, ascii)).collect::<Result<_, _>>()?;
        edits.iter().try_for_each(|edit| check_edit(header, edit))?;
        edits.iter().try_for_each(|edit| self.may_say(edit))?;
        let octets = edits.iter().map(size_of).sum();
        self.call.record_headers(edits, octets)
    }

    async fn read_body(&mut self, offset: u32, len: u32) -> Result<Vec<u8>, HostError> {
        let body = self.body()?;
        self.read(&*body, offset.into(), len).await
    }

    async fn find_in_body(
        &mut self,
        needle: Vec<u8>,
        ignore_ascii_case: bool,
        max: u32,
    ) -> Result<Vec<u32>, HostError> {
        let needle = Needle::new(needle, ignore_ascii_case, max)?;
        let body = self.body()?;
        find(&*body, &needle, &mut self.call.budget).await
    }

    async fn parts(&mut self) -> Result<Vec<Part>, HostError> {
        let (tree, _) = self.tree().await?;
        let names = |part: &tree::MimePart| {
            let optional = [&part.filename, &part.content_id, &part.disposition];
            let optional: usize = optional.into_iter().flatten().map(String::len).sum();
            part.content_type.len() + part.transfer_encoding.len() + optional
        };
        let octets: usize = tree.parts.iter().map(|part| PART_COST + names(part)).sum();
        self.call.budget.charge(octets as u64)?;
        Ok(tree.parts.iter().enumerate().map(part).collect())
    }

    async fn tree_flaws(&mut self) -> Result<Flaws, HostError> {
        let (tree, _) = self.tree().await?;
        let words = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        Ok(Flaws { malformed: words(tree.malformed.names()), truncated: words(tree.truncated.names()) })
    }

    async fn part_headers(&mut self, index: u32) -> Result<Vec<Header>, HostError> {
        let (tree, body) = self.tree().await?;
        let header = mime::header(find_part(&tree, index)?, &*body, &mut self.call.budget).await?;
        let block = match header {
            Some(raw) => HeaderBlock::parse(mime::without_end(&raw)),
            None => {
                charge_header(self.call)?;
                self.call.message()?.header.clone()
            }
        };
        let header = |field: pintle_mail::Field<'_>| Header {
            name: field.name_text().into_owned(),
            value: field.value(),
        };
        Ok(block.iter().map(header).collect())
    }

    async fn read_part(&mut self, index: u32, offset: u32, len: u32) -> Result<Vec<u8>, HostError> {
        let content = self.part_content(index).await?;
        self.read(&content, offset.into(), len).await
    }

    async fn find_in_part(
        &mut self,
        index: u32,
        needle: Vec<u8>,
        ignore_ascii_case: bool,
        max: u32,
    ) -> Result<Vec<u32>, HostError> {
        let needle = Needle::new(needle, ignore_ascii_case, max)?;
        let content = self.part_content(index).await?;
        find(&content, &needle, &mut self.call.budget).await
    }

    async fn part_text(&mut self, index: u32, max: u32) -> Result<String, HostError> {
        let (tree, _) = self.tree().await?;
        let content = self.part_content(index).await?;
        let part = find_part(&tree, index)?;
        let max = max.min(MAX_READ) as usize;
        // No charset needs more than four octets per decoded octet.
        let start = &content[..content.len().min(max.saturating_mul(4))];
        self.call.budget.charge(start.len() as u64)?;
        let mut text = transfer::text(part, start);
        text.truncate(text.floor_char_boundary(max));
        Ok(text)
    }

    async fn part_digest(&mut self, index: u32, algorithm: String) -> Result<Vec<u8>, HostError> {
        let content = self.part_content(index).await?;
        match algorithm.as_str() {
            "md5" => self.digest::<md5::Md5>(&content).await,
            "sha1" => self.digest::<sha1::Sha1>(&content).await,
            "sha256" => self.digest::<sha2::Sha256>(&content).await,
            "sha512" => self.digest::<sha2::Sha512>(&content).await,
            _ => Err(HostError::Unavailable(
                "this host computes the digests \"md5\", \"sha1\", \"sha256\" and \"sha512\"".into(),
            )),
        }
    }

    async fn write_body(&mut self, pieces: Vec<Piece>) -> Result<(), HostError> {
        self.edits_message(GrantKind::EditBody)?;
        let old = self.body()?;
        // A refused call must leave no partial output, whatever pieces came before the invalid one: a plugin that
        // continues without its footer must not leave the message without a body.
        let mark = self.call.mark_body();
        let written = self.write_pieces(&*old, pieces).await;
        if written.is_err() {
            self.call.undo_body(mark);
        }
        written
    }

    fn drop_body(&mut self) -> Result<(), HostError> {
        self.edits_message(GrantKind::EditBody)?;
        self.call.drop_body();
        Ok(())
    }
}

impl MessageView<'_> {
    /// The fields with one of these names, with their values converted.
    fn fields(
        &mut self,
        names: Vec<String>,
        shown: impl Fn(String) -> String,
    ) -> Result<Vec<Field>, HostError> {
        let names = FieldNames::read(self.call, names)?;
        let field = |found| {
            let Field { index, name, value } = field(found);
            Field { index, name, value: shown(value) }
        };
        Ok(self.call.message()?.header.iter().filter(|field| names.has(field)).map(field).collect())
    }

    /// Checks that the message may be edited: before it is committed, or for a delivery attempt; not after one.
    fn edits_message(&self, grant: GrantKind) -> Result<(), HostError> {
        need(self.grants, grant)?;
        match self.call.hook {
            Some(Hook::Headers | Hook::Message | Hook::Deliver) => Ok(()),
            _ => Err(unavailable("changing the message")),
        }
    }

    /// Refuses authentication results in the gateway's name without the grant `auth-results`, by any kind of edit:
    /// `edit-headers` does not include that permission.
    fn may_say(&self, edit: &HeaderEdit) -> Result<(), HostError> {
        let header = &self.call.message()?.header;
        let raw = match edit {
            HeaderEdit::AddRaw { field, .. } | HeaderEdit::ReplaceRaw { field, .. } => {
                HeaderBlock::parse(field.clone())
            }
            _ => HeaderBlock::parse(Bytes::new()),
        };
        // The field whose name or value stays, if the edit does not give it.
        let field = match edit {
            HeaderEdit::Replace { index, .. } | HeaderEdit::Rename { index, .. } => header.get(*index),
            _ => raw.get(0),
        };
        let name = match edit {
            HeaderEdit::Add { name, .. } | HeaderEdit::Rename { name, .. } => Cow::Borrowed(name.as_str()),
            _ => field.map(|field| field.name_text()).unwrap_or_default(),
        };
        if !is_of_results(&name) {
            return Ok(());
        }
        let value = match edit {
            HeaderEdit::Add { value, .. } | HeaderEdit::Replace { value, .. } => value.clone(),
            _ => field.map(|field| field.value()).unwrap_or_default(),
        };
        let is_ours = bears_the_name_of(&value, &self.gateway.load().hostname);
        if is_ours { need(self.grants, GrantKind::AuthResults) } else { Ok(()) }
    }

    /// Charges for edits, and for the fields that they concern, whose names and values are looked at.
    fn charge_edits(&mut self, edits: &[GuestEdit]) -> Result<(), HostError> {
        let header = &self.call.message()?.header;
        let field = |index: &u32| header.get(*index as usize).map_or(0, |field| field.raw().len());
        let octets = |edit: &GuestEdit| match edit {
            GuestEdit::Add((_, Header { name, value })) => name.len() + value.len(),
            GuestEdit::Replace((index, value)) => field(index) + value.len(),
            GuestEdit::Rename((index, name)) => field(index) + name.len(),
            GuestEdit::AddRaw((_, raw)) | GuestEdit::ReplaceRaw((_, raw)) => raw.len(),
            GuestEdit::Remove(_) => 0,
            GuestEdit::RemoveAll(name) => name.len(),
        };
        let octets: usize = edits.iter().map(octets).sum();
        self.call.budget.charge(octets as u64)
    }

    fn body(&self) -> Result<Arc<dyn Body>, HostError> {
        let body = self.call.message()?.body.as_ref();
        body.map(Arc::clone).ok_or_else(|| unavailable("the body"))
    }

    async fn tree(&mut self) -> Result<(Arc<Tree>, Arc<dyn Body>), HostError> {
        let body = self.body()?;
        let message = Arc::clone(self.call.message()?);
        let tree = mime::tree(&message, &body, &mut self.call.budget).await?;
        self.tell_flaws(&tree)?;
        Ok((tree, body))
    }

    /// Records defects of the MIME tree as facts, for plugins that do not examine parts themselves and for the
    /// operator.
    fn tell_flaws(&mut self, tree: &Tree) -> Result<(), HostError> {
        let found = [(MIME_MALFORMED, tree.malformed.names()), (MIME_TRUNCATED, tree.truncated.names())];
        for (key, names) in found.into_iter().filter(|(_, names)| !names.is_empty()) {
            let Ok(transaction) = self.call.transaction() else { break };
            let told = names.join(" ");
            if transaction.facts.get(key) != Some(&told) {
                self.call.record(Edit::Fact(key.to_owned(), told), 0)?;
            }
        }
        Ok(())
    }

    async fn read(&mut self, from: &dyn Body, offset: u64, len: u32) -> Result<Vec<u8>, HostError> {
        let len = u64::from(len.min(MAX_READ)).min(from.size().saturating_sub(offset));
        self.call.budget.charge(READ_COST + len)?;
        let read = from.read(offset, usize::try_from(len).unwrap_or(0)).await;
        read.map(|bytes| bytes.to_vec()).map_err(unreadable)
    }

    async fn digest<D: Digest>(&mut self, content: &Bytes) -> Result<Vec<u8>, HostError> {
        let mut digest = D::new();
        let budget = &mut self.call.budget;
        mime::for_each_chunk(content, 0..content.size(), |chunk| {
            digest.update(chunk);
            budget.charge(chunk.len() as u64)
        })
        .await?;
        Ok(digest.finalize().to_vec())
    }

    /// Decoded content of a part, cached until the call ends or requests another part.
    async fn part_content(&mut self, index: u32) -> Result<Bytes, HostError> {
        if let Some((at, content)) = &self.call.decoded
            && *at == index
        {
            return Ok(content.clone());
        }
        let (tree, body) = self.tree().await?;
        let content = mime::content(find_part(&tree, index)?, &*body, &mut self.call.budget).await?;
        self.call.decoded = Some((index, content.clone()));
        Ok(content)
    }

    async fn write_pieces(&mut self, old: &dyn Body, pieces: Vec<Piece>) -> Result<(), HostError> {
        // A call without pieces still starts a new body: this is how a plugin makes a body empty.
        self.call.new_body();
        for piece in pieces {
            match piece {
                Piece::Bytes(octets) => {
                    self.call.budget.charge(octets.len() as u64)?;
                    self.call.new_body().append(&octets)?;
                }
                Piece::Copy((offset, len)) => self.copy(old, offset.into(), len.into()).await?,
            }
        }
        Ok(())
    }

    async fn copy(&mut self, old: &dyn Body, offset: u64, len: u64) -> Result<(), HostError> {
        if offset > old.size() {
            return Err(HostError::Invalid(format!("the body ends before {offset}")));
        }
        let len = len.min(old.size() - offset);
        if len == 0 {
            return Ok(());
        }
        self.call.budget.charge(2 * READ_COST)?;
        let first = octet(old, offset).await?;
        let last = octet(old, offset + len - 1).await?;
        self.call.new_body().copy(offset, len, first, last)
    }
}

async fn octet(body: &dyn Body, at: u64) -> Result<u8, HostError> {
    let read = body.read(at, 1).await.map_err(unreadable)?;
    read.first().copied().ok_or_else(|| HostError::Temporary("the body ends early".into()))
}

/// The octets to search for.
struct Needle {
    octets: Vec<u8>,
    ignore_case: bool,
    /// The maximum number of offsets to return.
    max: usize,
}

impl Needle {
    fn new(octets: Vec<u8>, ignore_case: bool, max: u32) -> Result<Self, HostError> {
        if octets.is_empty() || octets.len() > MAX_NEEDLE {
            return Err(HostError::Invalid(format!("what is searched for has 1 to {MAX_NEEDLE} octets")));
        }
        let octets = if ignore_case { octets.to_ascii_lowercase() } else { octets };
        Ok(Self { octets, ignore_case, max: (max as usize).min(MAX_FOUND) })
    }
}

/// Searches for the needle. The body is searched in chunks that overlap by the needle's length minus one.
async fn find(body: &dyn Body, needle: &Needle, budget: &mut Budget) -> Result<Vec<u32>, HostError> {
    let finder = memmem::Finder::new(&needle.octets);
    let overlap = needle.octets.len() as u64 - 1;
    let (mut found, mut at) = (Vec::new(), 0);
    while found.len() < needle.max && at + overlap < body.size() {
        let chunk = body.read(at, CHUNK).await.map_err(unreadable)?;
        if chunk.len() as u64 <= overlap {
            break;
        }
        budget.charge(chunk.len() as u64)?;
        let chunk = if needle.ignore_case { chunk.to_ascii_lowercase().into() } else { chunk };
        let left = needle.max - found.len();
        found.extend(finder.find_iter(&chunk).take(left).map(|offset| convert::size(at + offset as u64)));
        at += chunk.len() as u64 - overlap;
        // Reading a body in memory never yields by itself, and a search through 25 MB must not block the thread.
        tokio::task::yield_now().await;
    }
    Ok(found)
}

fn field(field: pintle_mail::Field<'_>) -> Field {
    Field { index: index(field.index), name: field.name_text().into_owned(), value: field.value() }
}

fn part((at, part): (usize, &tree::MimePart)) -> Part {
    Part {
        index: index(at),
        parent: part.parent,
        content_type: part.content_type.clone(),
        charset: part.charset.clone(),
        filename: part.filename.clone(),
        disposition: part.disposition.clone().unwrap_or_default(),
        content_id: part.content_id.clone(),
        transfer_encoding: part.transfer_encoding.clone(),
        header_offset: convert::size(part.header.as_ref().map_or(0, |header| header.start)),
        offset: convert::size(part.content.start),
        encoded_size: convert::size(part.encoded_size()),
    }
}

fn find_part(tree: &Tree, index: u32) -> Result<&tree::MimePart, HostError> {
    let part = tree.parts.get(index as usize);
    part.ok_or_else(|| HostError::Invalid(format!("there is no part {index}")))
}

fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Converts an edit. In a header that must be ASCII, other characters are written as encoded words (RFC 2047).
fn header_edit(edit: GuestEdit, header: &HeaderBlock, ascii: bool) -> Result<HeaderEdit, HostError> {
    let written = |name: &str, value: String| {
        checks::bounded("a header field's value", value.len(), MAX_HEADER_VALUE)?;
        if !ascii || value.is_ascii() {
            return Ok(value);
        }
        header::encoded(name, &value).map_err(|error| HostError::Invalid(error.to_string()))
    };
    Ok(match edit {
        GuestEdit::Add((at, Header { name, value })) => {
            HeaderEdit::Add { at: position(at), value: written(&name, value)?, name }
        }
        GuestEdit::Replace((index, value)) => {
            let index = index as usize;
            let name = header.get(index).map(|field| field.name_text().into_owned()).unwrap_or_default();
            HeaderEdit::Replace { index, value: written(&name, value)? }
        }
        GuestEdit::Remove(index) => HeaderEdit::Remove(index as usize),
        GuestEdit::RemoveAll(name) => HeaderEdit::RemoveAll(name),
        GuestEdit::Rename((index, name)) => HeaderEdit::Rename { index: index as usize, name },
        GuestEdit::AddRaw((at, field)) => HeaderEdit::AddRaw { at: position(at), field: field.into() },
        GuestEdit::ReplaceRaw((index, field)) => {
            HeaderEdit::ReplaceRaw { index: index as usize, field: field.into() }
        }
    })
}

fn position(at: GuestPosition) -> FieldPosition {
    match at {
        GuestPosition::Top => FieldPosition::Top,
        GuestPosition::Bottom => FieldPosition::Bottom,
        GuestPosition::Before(index) => FieldPosition::Before(index as usize),
        GuestPosition::After(index) => FieldPosition::After(index as usize),
    }
}

/// Validates an edit immediately, so that the plugin gets the error, and without rewriting the whole block.
fn check_edit(header: &HeaderBlock, edit: &HeaderEdit) -> Result<(), HostError> {
    if let HeaderEdit::AddRaw { field, .. } | HeaderEdit::ReplaceRaw { field, .. } = edit {
        checks::bounded("a header field", field.len(), MAX_HEADER_VALUE)?;
    }
    header.check(edit).map_err(|error| HostError::Invalid(error.to_string()))
}

fn is_of_results(name: &str) -> bool {
    name.trim_end().eq_ignore_ascii_case("Authentication-Results")
}

fn size_of(edit: &HeaderEdit) -> usize {
    match edit {
        HeaderEdit::Add { name, value, .. } => name.len() + value.len(),
        HeaderEdit::Replace { value, .. } => value.len(),
        HeaderEdit::AddRaw { field, .. } | HeaderEdit::ReplaceRaw { field, .. } => field.len(),
        HeaderEdit::Remove(_) => 0,
        HeaderEdit::RemoveAll(name) | HeaderEdit::Rename { name, .. } => name.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_needle_is_found_across_chunks_and_in_any_case() {
        let mut body = vec![b'x'; 2 * CHUNK];
        body[CHUNK - 2..CHUNK + 2].copy_from_slice(b"NeEd");
        body[7..11].copy_from_slice(b"need");
        let body = Bytes::from(body);
        for (needle, any_case, max, found) in [
            ("need", true, 9, vec![7, u32::try_from(CHUNK).unwrap() - 2]),
            ("need", false, 9, vec![7]),
            ("need", true, 1, vec![7]),
            ("absent", true, 9, vec![]),
        ] {
            let budget = &mut Budget::of(None);
            let needle = Needle::new(needle.into(), any_case, max).unwrap();
            assert_eq!(find(&body, &needle, budget).await.unwrap(), found);
        }
    }

    #[test]
    fn edits_are_checked_one_by_one() {
        let header = HeaderBlock::parse(Bytes::from_static(b"Subject: x\r\n"));
        let add = |at, value: &str| HeaderEdit::Add { at, name: "X-A".into(), value: value.into() };
        assert!(check_edit(&header, &add(FieldPosition::Before(0), "fine")).is_ok());
        assert!(check_edit(&header, &add(FieldPosition::Before(1), "fine")).is_err());
        assert!(check_edit(&header, &add(FieldPosition::Top, "two\r\nlines")).is_err());
        assert!(check_edit(&header, &HeaderEdit::Remove(1)).is_err());
    }
}
