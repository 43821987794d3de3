//! What a header says of its part: its type, its name, its encoding.

use super::params::Structured;
use super::{Defect, Encoding, Marks};
use crate::HeaderBlock;

/// So much of one field is read.
const MAX_FIELD: usize = 64 << 10;
/// The longest type and the longest charset that are kept.
const MAX_TYPE: usize = 128;
const MAX_CHARSET: usize = 64;
/// The longest boundary: it must fit into a line. RFC 2046 section 5.1.1 allows 70 octets, and who sends more is read
/// all the same by most.
const MAX_BOUNDARY: usize = 990;

/// The fields of one part that matter to the tree.
pub(super) struct Described {
    /// None where there is no field, or none that says a type.
    pub(super) content_type: Option<String>,
    pub(super) charset: Option<String>,
    pub(super) filename: Option<String>,
    pub(super) attachment: bool,
    pub(super) encoding: Encoding,
    pub(super) boundary: Option<Vec<u8>>,
    pub(super) malformed: Marks<Defect>,
    /// A field was longer than what is read of one.
    pub(super) cut: bool,
}

/// What is found out on the way.
#[derive(Default)]
struct FieldFindings {
    malformed: Marks<Defect>,
    cut: bool,
}

impl Described {
    pub(super) fn by(header: &HeaderBlock) -> Self {
        let mut found = FieldFindings::default();
        let kind = first(header, "content-type", &["boundary", "charset", "name"], &mut found);
        let disposition = first(header, "content-disposition", &["filename"], &mut found);
        let encoding = first(header, "content-transfer-encoding", &[], &mut found);
        let named = |field: &Option<Structured>, name| field.as_ref().and_then(|field| field.text(name));
        let (kind, content_type) = typed(kind, &mut found.malformed);
        Self {
            content_type,
            charset: named(&kind, "charset")
                .filter(|charset| charset.len() <= MAX_CHARSET)
                .map(|charset| charset.to_lowercase()),
            filename: named(&disposition, "filename").or_else(|| named(&kind, "name")),
            attachment: disposition.is_some_and(|field| field.value == "attachment"),
            encoding: encoding.map_or(Encoding::Identity, |field| match field.value.as_str() {
                "base64" => Encoding::Base64,
                "quoted-printable" => Encoding::QuotedPrintable,
                _ => Encoding::Identity,
            }),
            boundary: kind
                .and_then(|kind| kind.octets("boundary"))
                .map(|boundary| boundary.trim_ascii_end().to_vec())
                .filter(|boundary| (1..=MAX_BOUNDARY).contains(&boundary.len())),
            malformed: found.malformed,
            cut: found.cut,
        }
    }
}

/// The first field of this name: what follows it is an attempt to make two programs see two things.
fn first(
    header: &HeaderBlock,
    name: &str,
    wanted: &[&'static str],
    found: &mut FieldFindings,
) -> Option<Structured> {
    let mut fields = header.named(name);
    let octets = fields.next()?.value_octets();
    found.cut |= octets.len() > MAX_FIELD;
    let read = Structured::parse(&octets[..octets.len().min(MAX_FIELD)], wanted);
    if read.repeated || fields.next().is_some() {
        found.malformed.mark(Defect::Repeated);
    }
    Some(read)
}

/// A field that says no type is read as if it were not there (RFC 2045 section 5.2).
fn typed(kind: Option<Structured>, malformed: &mut Marks<Defect>) -> (Option<Structured>, Option<String>) {
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
