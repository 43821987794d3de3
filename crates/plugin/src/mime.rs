//! MIME structure of a message: parsed once, stored as offsets into the message, shared by all plugins.
//!
//! Only offsets are stored. The content of a part is decoded again for each call that reads it, so that a large message
//! is in memory only while it is read. Parsing and decoding proceed in chunks within the requesting call: each chunk is
//! charged to the call's budget, the task yields between chunks, and all work stops when the call ends.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use pintle_mail::mime::transfer::TransferDecoder;
use pintle_mail::mime::{MimeLimits, MimePart, Scanner, Tree};
use pintle_mail::{Body, BodyError, Bytes};
use pintle_policy::Message;

use crate::bindings::pintle::plugin::types::HostError;
use crate::budget::Budget;

/// Number of octets read from a body at a time.
pub(crate) const CHUNK: usize = 256 << 10;

/// The MIME tree of a message, which must have a body.
pub(crate) async fn tree(
    message: &Message,
    body: &Arc<dyn Body>,
    budget: &mut Budget,
) -> Result<Arc<Tree>, HostError> {
    if let Some(tree) = message.shared.get().and_then(|any| Arc::clone(any).downcast().ok()) {
        return Ok(tree);
    }
    budget.charge(message.header.as_bytes().len() as u64)?;
    let mut scanner = Scanner::new(&message.header, MimeLimits::default());
    let mut charged = 0;
    for_each_chunk(&**body, 0..body.size(), |chunk| {
        scanner.push(chunk);
        let fresh = scanner.steps() - charged;
        charged = scanner.steps();
        budget.charge(fresh.max(chunk.len() as u64))
    })
    .await?;
    let tree = Arc::new(scanner.finish());
    // Another call may have stored its tree first; the trees are equal.
    let _ = message.shared.set(Arc::clone(&tree) as Arc<dyn Any + Send + Sync>);
    Ok(tree)
}

/// The header block of a part, without the empty line that ends it.
pub(crate) fn without_end(raw: &Bytes) -> Bytes {
    let end = if raw.ends_with(b"\r\n\r\n") { raw.len() - 2 } else { raw.len() };
    if raw.as_ref() == b"\r\n" { Bytes::new() } else { raw.slice(..end) }
}

/// The header block of a part; `None` for the root, whose header is the message's.
pub(crate) async fn header(
    part: &MimePart,
    body: &dyn Body,
    budget: &mut Budget,
) -> Result<Option<Bytes>, HostError> {
    let Some(place) = part.header.clone() else { return Ok(None) };
    let mut raw = Vec::new();
    for_each_chunk(body, place, |chunk| {
        raw.extend_from_slice(chunk);
        budget.charge(chunk.len() as u64)
    })
    .await?;
    Ok(Some(raw.into()))
}

/// The content of a part, with the transfer encoding decoded.
pub(crate) async fn content(
    part: &MimePart,
    body: &dyn Body,
    budget: &mut Budget,
) -> Result<Bytes, HostError> {
    let mut decoder = TransferDecoder::new(part.encoding);
    for_each_chunk(body, part.content.clone(), |chunk| {
        budget.charge(chunk.len() as u64)?;
        decoder.push(chunk);
        Ok(())
    })
    .await?;
    Ok(decoder.finish().into())
}

/// Reads a range of a body and passes each chunk to `act`, until `act` returns an error.
pub(crate) async fn for_each_chunk(
    body: &dyn Body,
    place: Range<u64>,
    mut act: impl FnMut(&[u8]) -> Result<(), HostError>,
) -> Result<(), HostError> {
    let mut at = place.start;
    while at < place.end {
        let len = usize::try_from(place.end - at).unwrap_or(CHUNK).min(CHUNK);
        let chunk = body.read(at, len).await.map_err(unreadable)?;
        if chunk.is_empty() {
            break;
        }
        at += chunk.len() as u64;
        act(&chunk)?;
        // Reading a body in memory never yields by itself, and processing 25 MB must not block the thread.
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
pub(crate) fn unreadable(error: BodyError) -> HostError {
    HostError::Temporary(error.to_string())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use pintle_mail::HeaderBlock;
    use pintle_mail::mime::transfer;

    use super::*;

    const HEADER: &str = "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n";
    const BODY: &str = "--b\r\nContent-Type: text/plain; charset=ISO-8859-1\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe\r\n\
        --b\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Disposition: attachment\r\n\
        Content-Transfer-Encoding: base64\r\n\r\naGVs\r\nbG8=\r\n--b--\r\n";

    fn message(body: &Arc<dyn Body>) -> Message {
        Message::new(HeaderBlock::parse(Bytes::from_static(HEADER.as_bytes())), Some(Arc::clone(body)))
    }

    #[tokio::test]
    async fn parts_are_found_decoded_and_shared() {
        let body: Arc<dyn Body> = Arc::new(Bytes::from_static(BODY.as_bytes()));
        let (message, budget) = (message(&body), &mut Budget::of(None));
        let first = tree(&message, &body, budget).await.unwrap();
        let again = tree(&message, &body, budget).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let types: Vec<_> =
            first.parts.iter().map(|part| (part.parent, part.content_type.as_str())).collect();
        let expected = [(None, "multipart/mixed"), (Some(0), "text/plain"), (Some(0), "application/pdf")];
        assert_eq!(types, expected);
        let text = content(&first.parts[1], &*body, budget).await.unwrap();
        assert_eq!(transfer::text(&first.parts[1], &text), "Grüße");
        assert_eq!(content(&first.parts[2], &*body, budget).await.unwrap().as_ref(), b"hello");
        assert_eq!(first.parts[2].disposition.as_deref(), Some("attachment"));
        assert_eq!(first.parts[2].filename.as_deref(), Some("a.pdf"));
        let of_part = header(&first.parts[2], &*body, budget).await.unwrap().unwrap();
        assert!(of_part.starts_with(b"Content-Type: application/pdf"));
        assert!(header(&first.parts[0], &*body, budget).await.unwrap().is_none());
    }

    /// Parsing starts no task and no thread, so it ends with its call.
    #[test]
    fn a_scan_stops_between_chunks_and_where_the_budget_ends() {
        let body: Arc<dyn Body> = Arc::new(Bytes::from(vec![b'x'; 3 * CHUNK]));
        let message = message(&body);
        let mut scan = Box::pin(async { tree(&message, &body, &mut Budget::of(None)).await.is_ok() });
        assert_eq!(scan.as_mut().now_or_never(), None, "others get their turn after the first chunk");
        drop(scan);
        assert!(message.shared.get().is_none());
        let mut spent = Budget::of(None);
        spent.charge((64 << 20) - CHUNK as u64).unwrap();
        let scan = async { tree(&message, &body, &mut spent).await.is_err() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(scan));
        assert!(message.shared.get().is_none() && spent.check().is_err());
    }
}
