//! The header fields that describe a MIME part: its type, its file name, its encoding.

use memchr::memchr;

use super::params::StructuredField;
use super::{Defect, Encoding, FlagSet};
use crate::HeaderBlock;

/// The most octets of one field that are read.
const MAX_FIELD: usize = 64 << 10;
/// The longest type and the longest charset that are kept.
const MAX_TYPE: usize = 128;
const MAX_CHARSET: usize = 64;
/// The longest disposition and the longest transfer encoding that are kept. All that are registered are shorter.
const MAX_WORD: usize = 64;
/// The longest Content-ID that is kept: a line.
const MAX_ID: usize = 998;
/// The longest boundary: it must fit into a line. RFC 2046 section 5.1.1 allows 70 octets, but most programs read
/// longer ones.
const MAX_BOUNDARY: usize = 990;

/// The fields of one part that matter to the MIME tree.
pub(super) struct PartFields {
    /// The type in lower case; none when there is no field, or none with a type.
    pub(super) content_type: Option<String>,
    pub(super) charset: Option<String>,
    pub(super) filename: Option<String>,
    pub(super) disposition: Option<String>,
    pub(super) content_id: Option<String>,
    /// The declared encoding in lower case, or `7bit`.
    pub(super) transfer_encoding: String,
    pub(super) encoding: Encoding,
    pub(super) boundary: Option<Vec<u8>>,
    pub(super) malformed: FlagSet<Defect>,
    /// A field was longer than [`MAX_FIELD`].
    pub(super) cut: bool,
}

/// What reading the fields found to report.
#[derive(Default)]
struct FieldFindings {
    malformed: FlagSet<Defect>,
    cut: bool,
}

impl PartFields {
    pub(super) fn by(header: &HeaderBlock) -> Self {
        let mut found = FieldFindings::default();
        let kind = first(header, "content-type", &["boundary", "charset", "name"], &mut found);
        let disposition = first(header, "content-disposition", &["filename"], &mut found);
        let encoding = first(header, "content-transfer-encoding", &[], &mut found).map(|field| field.value);
        let content_id = content_id(header, &mut found);
        let named = |field: &Option<StructuredField>, name| field.as_ref().and_then(|field| field.text(name));
        let (kind, content_type) = typed(kind, &mut found.malformed);
        Self {
            content_type,
            charset: named(&kind, "charset")
                .filter(|charset| charset.len() <= MAX_CHARSET)
                .map(|charset| charset.to_lowercase()),
            filename: named(&disposition, "filename").or_else(|| named(&kind, "name")),
            disposition: disposition.and_then(|field| word(field.value)),
            content_id,
            encoding: encoding.as_deref().map_or(Encoding::Identity, |word| match word {
                "base64" => Encoding::Base64,
                "quoted-printable" => Encoding::QuotedPrintable,
                _ => Encoding::Identity,
            }),
            transfer_encoding: encoding.and_then(word).unwrap_or_else(|| "7bit".to_owned()),
            boundary: kind
                .and_then(|kind| kind.octets("boundary"))
                .map(|boundary| boundary.trim_ascii_end().to_vec())
                .filter(|boundary| (1..=MAX_BOUNDARY).contains(&boundary.len())),
            malformed: found.malformed,
            cut: found.cut,
        }
    }
}

/// Reads the first field of this name: further ones are an attempt to make two programs see different things.
fn first(
    header: &HeaderBlock,
    name: &str,
    wanted: &[&'static str],
    found: &mut FieldFindings,
) -> Option<StructuredField> {
    let read = StructuredField::parse(first_octets(header, name, found)?, wanted);
    if read.repeated {
        found.malformed.mark(Defect::Repeated);
    }
    Some(read)
}

/// The octets of the first field of this name, at most [`MAX_FIELD`].
fn first_octets<'a>(header: &'a HeaderBlock, name: &'a str, found: &mut FieldFindings) -> Option<&'a [u8]> {
    let mut fields = header.named(name);
    let octets = fields.next()?.value_octets();
    if fields.next().is_some() {
        found.malformed.mark(Defect::Repeated);
    }
    found.cut |= octets.len() > MAX_FIELD;
    Some(&octets[..octets.len().min(MAX_FIELD)])
}

/// The text between the first angle brackets; without them the whole value, as some programs write it.
fn content_id(header: &HeaderBlock, found: &mut FieldFindings) -> Option<String> {
    let octets = first_octets(header, "content-id", found)?;
    let inner = memchr(b'<', octets).map_or(octets, |start| &octets[start + 1..]);
    let inner = memchr(b'>', inner).map_or(inner, |end| &inner[..end]);
    let unfolded: Vec<u8> = inner.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    let id = unfolded.trim_ascii();
    (1..=MAX_ID).contains(&id.len()).then(|| String::from_utf8_lossy(id).into_owned())
}

/// The word, cut to the length that is kept; none if it is empty.
fn word(mut word: String) -> Option<String> {
    word.truncate(word.floor_char_boundary(MAX_WORD));
    (!word.is_empty()).then_some(word)
}

/// A field without a type is ignored (RFC 2045 section 5.2).
fn typed(
    kind: Option<StructuredField>,
    malformed: &mut FlagSet<Defect>,
) -> (Option<StructuredField>, Option<String>) {
    let Some(kind) = kind else { return (None, None) };
    let whole = kind.value.split_once('/').is_some_and(|(kind, sub)| !kind.is_empty() && !sub.is_empty());
    if !whole {
        malformed.mark(Defect::Type);
    }
    let mut name = kind.value.clone();
    name.truncate(name.floor_char_boundary(MAX_TYPE));
    let says_one = !name.is_empty() && !name.starts_with('/');
    (Some(kind), says_one.then_some(name))
}
