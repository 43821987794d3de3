//! The MIME tree of a message: parsed once, kept as places in the message, shared by all plugins that ask.
//!
//! Only places are kept. The decoded content of a part is made anew for each call that reads it, so that a large message
//! lies in memory while it is looked at and not for as long as it lives.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::{Encoding, MessageParser, MimeHeaders, PartType};
use pintle_mail::{Body, BodyError, Bytes};
use pintle_policy::Message;

/// The largest message that is parsed, in octets.
const MAX_PARSED: u64 = 128 << 20;
/// From this size on, parsing leaves the runtime's threads.
const LARGE: usize = 128 << 10;
/// How much of a body is read at once.
pub(crate) const CHUNK: usize = 256 << 10;

/// All parts of a message; the first is the root.
pub(crate) struct Tree {
    pub(crate) parts: Vec<Part>,
    /// Where the body begins in the offsets of the parts.
    body: u64,
}

/// One part; offsets count from the start of the message.
pub(crate) struct Part {
    pub(crate) parent: Option<u32>,
    pub(crate) content_type: String,
    pub(crate) charset: Option<String>,
    pub(crate) filename: Option<String>,
    pub(crate) attachment: bool,
    encoding: Encoding,
    header: Range<u64>,
    content: Range<u64>,
}

/// Why there is no tree, or no part.
pub(crate) enum MimeError {
    /// The message is larger than what is parsed.
    TooLarge,
    /// The body could not be read.
    Body(BodyError),
}

impl From<BodyError> for MimeError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

/// The tree of this message, which must have a body.
pub(crate) async fn tree(message: &Message, body: &Arc<dyn Body>) -> Result<Arc<Tree>, MimeError> {
    if let Some(tree) = message.shared.get().and_then(|any| Arc::clone(any).downcast().ok()) {
        return Ok(tree);
    }
    let header = message.header.as_bytes();
    if header.len() as u64 + body.size() > MAX_PARSED {
        return Err(MimeError::TooLarge);
    }
    let mut whole = Vec::with_capacity(header.len() + 2 + usize::try_from(body.size()).unwrap_or(0));
    whole.extend_from_slice(header);
    whole.extend_from_slice(b"\r\n");
    let body_at = whole.len() as u64;
    read_into(&mut whole, &**body, 0..body.size()).await?;
    let tree = Arc::new(if whole.len() < LARGE {
        Tree::parse(&whole, body_at)
    } else {
        parse_apart(whole, body_at).await
    });
    // Another plugin may have been faster; the trees are equal.
    let _ = message.shared.set(Arc::clone(&tree) as Arc<dyn Any + Send + Sync>);
    Ok(tree)
}

async fn parse_apart(whole: Vec<u8>, body_at: u64) -> Tree {
    let size = whole.len() as u64;
    tokio::task::spawn_blocking(move || Tree::parse(&whole, body_at))
        .await
        .unwrap_or_else(|_| Tree::of_one_part(size, body_at))
}

pub(crate) async fn read_into(
    out: &mut Vec<u8>,
    body: &dyn Body,
    range: Range<u64>,
) -> Result<(), BodyError> {
    let mut at = range.start;
    while at < range.end {
        let len = usize::try_from(range.end - at).unwrap_or(CHUNK).min(CHUNK);
        let piece = body.read(at, len).await?;
        if piece.is_empty() {
            break;
        }
        at += piece.len() as u64;
        out.extend_from_slice(&piece);
    }
    Ok(())
}

impl Tree {
    fn parse(whole: &[u8], body: u64) -> Self {
        let Some(message) = MessageParser::default().parse(whole) else {
            return Self::of_one_part(whole.len() as u64, body);
        };
        let mut parents = vec![None; message.parts.len()];
        for (at, part) in message.parts.iter().enumerate() {
            if let PartType::Multipart(children) = &part.body {
                for child in children {
                    if let Some(parent) = parents.get_mut(*child as usize) {
                        *parent = u32::try_from(at).ok();
                    }
                }
            }
        }
        let parts = message.parts.iter().zip(parents);
        Self { parts: parts.map(|(part, parent)| Part::new(part, parent)).collect(), body }
    }

    fn of_one_part(size: u64, body: u64) -> Self {
        let part = Part {
            parent: None,
            content_type: "text/plain".into(),
            charset: None,
            filename: None,
            attachment: false,
            encoding: Encoding::None,
            header: 0..body,
            content: body..size,
        };
        Self { parts: vec![part], body }
    }

    /// A part's header block; none for the root, whose header is the message's.
    pub(crate) async fn header(&self, part: &Part, body: &dyn Body) -> Result<Option<Bytes>, BodyError> {
        if part.header.start < self.body {
            return Ok(None);
        }
        let mut raw = Vec::new();
        read_into(&mut raw, body, self.in_body(&part.header)).await?;
        Ok(Some(raw.into()))
    }

    /// A part's content, transfer-decoded. What cannot be decoded is given as it is.
    pub(crate) async fn content(&self, part: &Part, body: &dyn Body) -> Result<Bytes, BodyError> {
        let mut raw = Vec::new();
        read_into(&mut raw, body, self.in_body(&part.content)).await?;
        let decoded = match part.encoding {
            Encoding::None => None,
            Encoding::Base64 => base64_decode(&raw),
            Encoding::QuotedPrintable => quoted_printable_decode(&raw),
        };
        Ok(decoded.unwrap_or(raw).into())
    }

    fn in_body(&self, range: &Range<u64>) -> Range<u64> {
        range.start.saturating_sub(self.body)..range.end.saturating_sub(self.body)
    }
}

impl Part {
    fn new(part: &mail_parser::MessagePart<'_>, parent: Option<u32>) -> Self {
        let kind = part.content_type();
        let disposition = part.content_disposition();
        Self {
            parent,
            content_type: kind.map_or_else(|| "text/plain".into(), type_name),
            charset: kind.and_then(|kind| kind.attribute("charset")).map(str::to_lowercase),
            filename: part.attachment_name().map(str::to_owned),
            attachment: disposition.is_some_and(|it| it.c_type.eq_ignore_ascii_case("attachment")),
            encoding: part.encoding,
            header: part.offset_header.into()..part.offset_body.into(),
            content: part.offset_body.into()..part.offset_end.into(),
        }
    }

    /// Its size as it stands in the message.
    pub(crate) fn encoded_size(&self) -> u64 {
        self.content.end - self.content.start
    }

    /// Octets of this part as text, by its charset.
    pub(crate) fn text(&self, octets: &[u8]) -> String {
        let decoder = self.charset.as_deref().and_then(|charset| match charset {
            "utf-8" | "utf8" | "us-ascii" => None,
            other => charset_decoder(other.as_bytes()),
        });
        decoder.map_or_else(|| unicode(octets), |decode| decode(octets))
    }
}

/// UTF-8, with U+FFFD for what is none. Most text is whole, and that is checked by the word, not by the octet.
fn unicode(octets: &[u8]) -> String {
    std::str::from_utf8(octets).map_or_else(|_| String::from_utf8_lossy(octets).into_owned(), str::to_owned)
}

fn type_name(kind: &mail_parser::ContentType<'_>) -> String {
    let subtype = kind.c_subtype.as_deref().unwrap_or("");
    format!("{}/{subtype}", kind.c_type).to_lowercase()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use pintle_mail::HeaderBlock;

    use super::*;

    const HEADER: &str = "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n";
    const BODY: &str = "--b\r\nContent-Type: text/plain; charset=ISO-8859-1\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe\r\n\
        --b\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Disposition: attachment\r\n\
        Content-Transfer-Encoding: base64\r\n\r\naGVs\r\nbG8=\r\n--b--\r\n";

    #[test]
    fn parts_are_found_decoded_and_shared() {
        let body: Arc<dyn Body> = Arc::new(Bytes::from_static(BODY.as_bytes()));
        let header = HeaderBlock::parse(Bytes::from_static(HEADER.as_bytes()));
        let message = Message::new(header, Some(Arc::clone(&body)));
        let first = tree(&message, &body).now_or_never().unwrap().ok().unwrap();
        let again = tree(&message, &body).now_or_never().unwrap().ok().unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let types: Vec<_> =
            first.parts.iter().map(|part| (part.parent, part.content_type.as_str())).collect();
        let expected = [(None, "multipart/mixed"), (Some(0), "text/plain"), (Some(0), "application/pdf")];
        assert_eq!(types, expected);
        let content = |at: usize| first.content(&first.parts[at], &*body).now_or_never().unwrap().unwrap();
        assert_eq!(first.parts[1].text(&content(1)), "Grüße");
        assert_eq!(content(2).as_ref(), b"hello");
        assert!(first.parts[2].attachment);
        assert_eq!(first.parts[2].filename.as_deref(), Some("a.pdf"));
        let header = first.header(&first.parts[2], &*body).now_or_never().unwrap().unwrap().unwrap();
        assert!(header.starts_with(b"Content-Type: application/pdf"));
        assert!(first.header(&first.parts[0], &*body).now_or_never().unwrap().unwrap().is_none());
    }
}
