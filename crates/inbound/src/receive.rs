//! Receives a message, from the header to the commit point: the draft that the body is written to, trace fields, and
//! the commit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use pintle_mail::trace;
use pintle_mail::{Address, Body, BodyError, Bytes, HeaderBlock, HeaderEdit, Recipient, auth_results};
use pintle_policy::{Frozen, Message, Session, Transaction, facts};
use pintle_spool::{Content, Draft, HoldReason, NewMessage, Receipt, Spool, SpoolError};

use crate::ids;
use crate::sign::method_result;

/// How much of an edited body is copied at a time, in octets.
const COPY: usize = 256 * 1024;

/// The draft that a message body is written to, or the error after which it was abandoned.
pub(crate) struct IncomingDraft {
    draft: Result<Draft, SpoolError>,
    separated: bool,
}

impl IncomingDraft {
    /// Opens a draft. `separated` says whether an empty line followed the header.
    pub(crate) fn begin(spool: &dyn Spool, separated: bool) -> Result<Self, SpoolError> {
        Ok(Self { draft: Ok(spool.begin()?), separated })
    }

    /// Writes the next piece of the body. An error is kept and returned by [`Self::finish`], because no reply can be
    /// sent before the end of data.
    pub(crate) async fn append(&mut self, chunk: Bytes) {
        if let Ok(draft) = &mut self.draft
            && let Err(error) = draft.append(chunk).await
        {
            self.draft = Err(error);
        }
    }

    /// Ends the body.
    pub(crate) async fn finish(self) -> Result<CompleteMessage, SpoolError> {
        Ok(CompleteMessage { content: self.draft?.finish().await?, separated: self.separated })
    }
}

/// A message that has been received completely and is not yet durable.
pub(crate) struct CompleteMessage {
    content: Content,
    separated: bool,
}

impl CompleteMessage {
    /// Returns the body for reading.
    pub(crate) fn body(&self) -> Arc<dyn Body> {
        Arc::new(self.content.clone())
    }

    /// Makes the message durable, as plugins have left it.
    pub(crate) async fn commit(
        self,
        accepted: &Accepted<'_>,
        spool: &dyn Spool,
    ) -> Result<Receipt, SpoolError> {
        let content = match accepted.edited_body() {
            Some(body) => copy(body, spool).await?,
            None => self.content,
        };
        store(accepted, content, self.separated, spool).await
    }

    /// Makes a copy of the message durable.
    pub(crate) async fn commit_copy(
        &self,
        accepted: &Accepted<'_>,
        spool: &dyn Spool,
    ) -> Result<Receipt, SpoolError> {
        let content = copy(accepted.edited_body().unwrap_or(&self.content), spool).await?;
        store(accepted, content, self.separated, spool).await
    }
}

async fn store(
    accepted: &Accepted<'_>,
    content: Content,
    separated: bool,
    spool: &dyn Spool,
) -> Result<Receipt, SpoolError> {
    let Accepted { session, transaction, message, header, hold, .. } = accepted;
    let entry = pintle_spool::Entry {
        envelope: transaction.envelope.clone(),
        received: ids::now(),
        parent: None,
        hold: hold.clone(),
        released: None,
        has_8bit: message.has_8bit || !header.as_bytes().is_ascii(),
        needs_smtputf8: transaction.envelope.params.smtputf8 && needs_smtputf8(transaction, header),
        context: Frozen::of(session, transaction).to_bytes(),
    };
    let head = accepted.head(separated || content.size() > 0);
    spool.commit(NewMessage { id: transaction.id, head, content, entry }).await
}

/// A message that has passed every stage.
pub(crate) struct Accepted<'a> {
    pub(crate) session: &'a Session,
    /// The transaction, with the recipients of this copy.
    pub(crate) transaction: Transaction,
    pub(crate) message: &'a Message,
    /// The header block to store, below the fields that the gateway adds.
    pub(crate) header: &'a HeaderBlock,
    pub(crate) hostname: &'a str,
    pub(crate) hold: Option<HoldReason>,
    /// Signatures and seal, to be placed above the header.
    pub(crate) signatures: &'a [u8],
}

impl Accepted<'_> {
    /// The body that plugins have written; none if it is as received.
    fn edited_body(&self) -> Option<&dyn Body> {
        self.message.body.as_deref().filter(|_| self.message.body_edited)
    }

    /// Returns the fields that the gateway adds, the header block as edited, and the empty line.
    fn head(&self, separator: bool) -> Bytes {
        let mut head = self.authentication_results();
        head.extend_from_slice(&self.received());
        head.extend_from_slice(self.signatures);
        head.reserve(self.header.as_bytes().len() + 4);
        head.extend_from_slice(self.header.as_bytes());
        if !head.ends_with(b"\n") {
            head.extend_from_slice(b"\r\n");
        }
        // Without an empty line, the first line of such a body would be read as a malformed header field once the
        // gateway's fields precede it.
        if separator {
            head.extend_from_slice(b"\r\n");
        }
        head.into()
    }

    /// Returns the Authentication-Results field; empty if no plugin has a result.
    fn authentication_results(&self) -> Vec<u8> {
        let results = &self.transaction.auth_results;
        if results.is_empty() {
            return Vec::new();
        }
        auth_results::to_field(self.hostname, results.iter().map(method_result))
    }

    fn received(&self) -> Vec<u8> {
        let session = self.session;
        let recipients = &self.transaction.envelope.recipients;
        let received = trace::ReceivedField {
            hello: session.hello.as_deref().unwrap_or(""),
            client_name: session.facts.get(facts::CLIENT_NAME).map(String::as_str),
            client: session.client.ip().to_canonical(),
            by: self.hostname,
            with: protocol(session, self.transaction.envelope.params.smtputf8),
            tls: session.tls.as_ref().map(|tls| (tls.version.as_str(), tls.cipher.as_str())),
            id: self.transaction.id,
            // RFC 5321 section 7.2: recipients must not learn of each other.
            recipient: if let [only] = recipients.as_slice() { Some(&only.address) } else { None },
            at: ids::now(),
        };
        received.to_field()
    }
}

/// Merges recipients with the same mailbox and the same groups, named twice by the client or created by plugins, so that
/// no one gets two copies. What was requested for any of them is kept.
pub(crate) fn unite(recipients: &mut Vec<Recipient>) {
    if recipients.len() < 2 {
        return;
    }
    let mut places = HashMap::new();
    let mut united: Vec<Recipient> = Vec::with_capacity(recipients.len());
    for recipient in recipients.drain(..) {
        let treatment = (recipient.groups.clone(), recipient.refused.is_some());
        match places.entry((recipient.address.key(), treatment)) {
            Entry::Vacant(place) => {
                place.insert(united.len());
                united.push(recipient);
            }
            Entry::Occupied(place) => {
                let first = &mut united[*place.get()];
                first.relay |= recipient.relay;
                first.params.notify = first.params.notify.zip(recipient.params.notify).map(|(a, b)| a.or(b));
            }
        }
    }
    *recipients = united;
}

/// RFC 8601 section 5: removes Authentication-Results fields in our name, which are forged if they come from outside.
/// Those from our own network may be genuine.
pub(crate) fn without_forgeries<'h>(
    header: &'h HeaderBlock,
    session: &Session,
    hostname: &str,
) -> Cow<'h, HeaderBlock> {
    if session.trusted {
        return Cow::Borrowed(header);
    }
    let forged = auth_results::in_the_name_of(header, hostname);
    if forged.is_empty() {
        return Cow::Borrowed(header);
    }
    let edits: Vec<_> = forged.into_iter().map(HeaderEdit::Remove).collect();
    // These edits only remove existing fields, so they cannot fail.
    let clean = header.edited(&edits);
    clean.map_or(Cow::Borrowed(header), Cow::Owned)
}

/// Returns the protocol's name in the Received field (RFC 3848; RFC 6531 section 4.3).
fn protocol(session: &Session, smtputf8: bool) -> &'static str {
    match (session.esmtp, smtputf8, session.tls.is_some(), session.identity.is_some()) {
        (false, ..) => "SMTP",
        (true, false, false, false) => "ESMTP",
        (true, false, true, false) => "ESMTPS",
        (true, false, false, true) => "ESMTPA",
        (true, false, true, true) => "ESMTPSA",
        (true, true, false, false) => "UTF8SMTP",
        (true, true, true, false) => "UTF8SMTPS",
        (true, true, false, true) => "UTF8SMTPA",
        (true, true, true, true) => "UTF8SMTPSA",
    }
}

/// Whether the message needs SMTPUTF8 at the next hop, as opposed to the client having requested it (RFC 6531 section
/// 3.6).
fn needs_smtputf8(transaction: &Transaction, header: &HeaderBlock) -> bool {
    let envelope = &transaction.envelope;
    envelope.sender.address().is_some_and(Address::needs_smtputf8)
        || envelope.recipients.iter().any(|recipient| recipient.address.needs_smtputf8())
        || !header.as_bytes().is_ascii()
}

/// Whether the message has passed too many hops (RFC 5321 section 6.3).
pub(crate) fn loops(header: &HeaderBlock, max_hops: usize) -> bool {
    trace::hops(header) >= max_hops
}

async fn copy(body: &dyn Body, spool: &dyn Spool) -> Result<Content, SpoolError> {
    let mut draft = spool.begin()?;
    let mut offset = 0;
    loop {
        let piece = body.read(offset, COPY).await.map_err(|BodyError(why)| SpoolError::Store(why))?;
        if piece.is_empty() {
            break;
        }
        offset += piece.len() as u64;
        draft.append(piece).await?;
    }
    draft.finish().await
}
