//! The call that an instance serves: what the guest may see, and the journal of what it asks for.
//!
//! Edits are only written down here; they take effect with the verdict, in the chain, or never (law 5). Within the call
//! the guest sees its own: facts, notes, scores, the envelope and the delivery as its edits leave them. Header fields
//! and the body stay as they were when the hook was called, since edits of them go by that numbering.

use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{Bytes, HeaderEdit};
use pintle_policy::{Delivery, Edit, Hook, Message, Piece, Session, Transaction, View};

use crate::bindings::pintle::plugin::types::HostError;

/// What all edits of one call may hold, in octets, new bodies apart.
const MAX_EDITS: usize = 4 << 20;
/// What an edit costs at least.
const EDIT_COST: usize = 64;

/// The first id of a recipient that a plugin adds.
const ADDED: u32 = 1 << 31;

/// One call, or none.
pub(crate) struct Live {
    judge: Arc<str>,
    max_message: u64,
    pub(crate) hook: Option<Hook>,
    was: Option<View>,
    /// With edits made; none until one is.
    now: Option<View>,
    edits: Vec<Edit>,
    /// How many of `edits` are made in `now`.
    made: usize,
    spent: usize,
    headers: Vec<HeaderEdit>,
    body: Option<NewBody>,
    delay: Duration,
    /// The part that was decoded last.
    pub(crate) decoded: Option<(u32, Bytes)>,
    /// How many DNS questions this call has asked.
    pub(crate) questions: usize,
}

impl Live {
    /// No call.
    pub(crate) fn idle(judge: Arc<str>, max_message: u64) -> Self {
        Self {
            judge,
            max_message,
            hook: None,
            was: None,
            now: None,
            edits: Vec::new(),
            made: 0,
            spent: 0,
            headers: Vec::new(),
            body: None,
            delay: Duration::ZERO,
            decoded: None,
            questions: 0,
        }
    }

    /// A call begins.
    pub(crate) fn begin(&mut self, hook: Option<Hook>, view: Option<View>) {
        self.hook = hook;
        self.now = None;
        self.was = view;
        self.edits.clear();
        self.made = 0;
        self.spent = 0;
        self.headers.clear();
        self.body = None;
        self.delay = Duration::ZERO;
        self.decoded = None;
        self.questions = 0;
    }

    /// The call has ended well: its edits, in order. Nothing of the call stays behind.
    pub(crate) fn end(&mut self) -> Result<Vec<Edit>, String> {
        let edits = self.journal();
        self.begin(None, None);
        edits
    }

    fn journal(&mut self) -> Result<Vec<Edit>, String> {
        let mut edits = std::mem::take(&mut self.edits);
        if !self.delay.is_zero() {
            edits.push(Edit::Delay(self.delay));
        }
        if !self.headers.is_empty() {
            edits.push(Edit::Headers(std::mem::take(&mut self.headers)));
        }
        if let Some(body) = self.body.take() {
            edits.push(Edit::Body(body.finished()?));
        }
        Ok(edits)
    }

    pub(crate) fn judge(&self) -> &str {
        &self.judge
    }

    /// The session, as the edits so far leave it.
    pub(crate) fn session(&mut self) -> Result<&Session, HostError> {
        let now = self.now()?;
        Ok(&now.session)
    }

    /// The transaction, as the edits so far leave it.
    pub(crate) fn transaction(&mut self) -> Result<&Transaction, HostError> {
        let now = self.now()?;
        now.transaction.as_deref().ok_or_else(|| unavailable("the transaction"))
    }

    /// Session and transaction, as they were when the hook was called.
    pub(crate) fn mail(&self) -> Result<(Arc<Session>, Arc<Transaction>), HostError> {
        let view = self.was.as_ref().ok_or_else(|| unavailable("the session"))?;
        let transaction = view.transaction.as_ref();
        let transaction = transaction.ok_or_else(|| unavailable("the transaction"))?;
        Ok((Arc::clone(&view.session), Arc::clone(transaction)))
    }

    /// The delivery, as the edits so far leave it.
    pub(crate) fn delivery(&mut self) -> Result<&Delivery, HostError> {
        let now = self.now()?;
        now.delivery.as_deref().ok_or_else(|| unavailable("the delivery"))
    }

    /// The message, as it was when the hook was called.
    pub(crate) fn message(&self) -> Result<&Arc<Message>, HostError> {
        let message = self.was.as_ref().and_then(|view| view.message.as_ref());
        message.ok_or_else(|| unavailable("the message"))
    }

    /// Writes down an edit that costs about so many octets.
    pub(crate) fn record(&mut self, edit: Edit, octets: usize) -> Result<(), HostError> {
        self.spend(octets)?;
        self.edits.push(edit);
        Ok(())
    }

    /// Writes down changes of the header block, which have been checked.
    pub(crate) fn record_headers(&mut self, edits: Vec<HeaderEdit>, octets: usize) -> Result<(), HostError> {
        self.spend(octets + edits.len() * EDIT_COST)?;
        self.headers.extend(edits);
        Ok(())
    }

    /// Waits longer before the reply, as far as `most`.
    pub(crate) fn delay(&mut self, more: Duration, most: Duration) {
        if self.was.is_some() {
            self.delay = self.delay.saturating_add(more).min(most);
        }
    }

    /// An id for a recipient that the plugin adds. The session numbers its own from 0 as they come, also after this
    /// call, so added ones have the upper half of all numbers; none is given twice, whether its recipient is still
    /// there or not.
    pub(crate) fn new_recipient_id(&mut self) -> Result<u32, HostError> {
        let there = self.transaction()?.envelope.recipients.iter().map(|recipient| recipient.id).max();
        let added = self.edits.iter().filter_map(|edit| match edit {
            Edit::AddRecipient(id, _) => Some(*id),
            _ => None,
        });
        let last = added.chain(there).max().unwrap_or(0);
        Ok(last.max(ADDED - 1).saturating_add(1))
    }

    /// The new body, begun by whoever asks first.
    pub(crate) fn new_body(&mut self) -> &mut NewBody {
        let limit = self.max_message;
        self.body.get_or_insert_with(|| NewBody::new(limit))
    }

    fn spend(&mut self, octets: usize) -> Result<(), HostError> {
        let spent = self.spent.saturating_add(octets).saturating_add(EDIT_COST);
        if spent > MAX_EDITS {
            return Err(HostError::Limit(format!("the edits of one call hold at most {MAX_EDITS} octets")));
        }
        self.spent = spent;
        Ok(())
    }

    /// The view with all edits made. Making them waits until somebody reads, since most hooks never read what they
    /// wrote, and the first edit of a shared part copies it.
    fn now(&mut self) -> Result<&View, HostError> {
        let was = self.was.as_ref().ok_or_else(|| unavailable("the session"))?;
        if self.edits.is_empty() {
            return Ok(was);
        }
        let now = self.now.get_or_insert_with(|| was.clone());
        if self.made < self.edits.len() {
            let fresh = self.edits[self.made..].to_vec();
            self.made = self.edits.len();
            now.apply(&self.judge, fresh).map_err(|error| HostError::Invalid(error.to_string()))?;
        }
        Ok(now)
    }
}

/// What is not there at this stage.
pub(crate) fn unavailable(what: &str) -> HostError {
    HostError::Unavailable(format!("{what} is not available in this hook"))
}

/// A body that a plugin writes, piece by piece. Line ends are kept whole across pieces: a bare CR or LF in a message is
/// how one message is made to look like two.
pub(crate) struct NewBody {
    pieces: Vec<Piece>,
    limit: u64,
    size: u64,
    end: End,
}

/// How a body ends so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing yet, or CRLF.
    Line,
    /// CR, whose LF must come next.
    Cr,
    /// Anything else.
    Text,
}

impl NewBody {
    fn new(limit: u64) -> Self {
        Self { pieces: Vec::new(), limit, size: 0, end: End::Line }
    }

    /// Appends octets of the plugin's: bare LF becomes CRLF, bare CR and NUL are refused.
    pub(crate) fn append(&mut self, octets: &[u8]) -> Result<(), HostError> {
        let mut out = Vec::with_capacity(octets.len() + 16);
        let mut end = self.end;
        for &octet in octets {
            end = match (octet, end) {
                (b'\n', End::Cr) => End::Line,
                (_, End::Cr) => return Err(invalid("a bare CR in the new body")),
                (0, _) => return Err(invalid("a NUL in the new body")),
                (b'\n', _) => {
                    out.push(b'\r');
                    End::Line
                }
                (b'\r', _) => End::Cr,
                _ => End::Text,
            };
            out.push(octet);
        }
        self.grow(out.len() as u64)?;
        self.end = end;
        self.pieces.push(Piece::Bytes(out.into()));
        Ok(())
    }

    /// Appends octets of the old body, whose first and last are these.
    pub(crate) fn copy(&mut self, offset: u64, len: u64, first: u8, last: u8) -> Result<(), HostError> {
        if (self.end == End::Cr) != (first == b'\n') {
            return Err(invalid("a copy that parts a CR from its LF"));
        }
        self.grow(len)?;
        self.end = match last {
            b'\r' => End::Cr,
            b'\n' => End::Line,
            _ => End::Text,
        };
        self.pieces.push(Piece::Copy { offset, len });
        Ok(())
    }

    fn grow(&mut self, octets: u64) -> Result<(), HostError> {
        let size = self.size.saturating_add(octets);
        if size > self.limit {
            return Err(HostError::Limit(format!("a body has at most {} octets", self.limit)));
        }
        self.size = size;
        Ok(())
    }

    fn finished(mut self) -> Result<Vec<Piece>, String> {
        match self.end {
            End::Line => {}
            End::Cr => return Err("the new body ends in a bare CR".into()),
            End::Text => self.pieces.push(Piece::Bytes(Bytes::from_static(b"\r\n"))),
        }
        Ok(self.pieces)
    }
}

fn invalid(what: &str) -> HostError {
    HostError::Invalid(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pieces: &[&[u8]]) -> Result<Vec<u8>, ()> {
        let mut body = NewBody::new(1_000);
        for piece in pieces {
            body.append(piece).map_err(drop)?;
        }
        let bytes = |piece: &Piece| match piece {
            Piece::Bytes(bytes) => bytes.to_vec(),
            Piece::Copy { .. } => Vec::new(),
        };
        Ok(body.finished().map_err(drop)?.iter().flat_map(bytes).collect())
    }

    #[test]
    fn line_ends_are_whole_across_pieces() {
        assert_eq!(written(&[b"a\nb"]).unwrap(), b"a\r\nb\r\n");
        assert_eq!(written(&[b"a\r", b"\nb\r\n"]).unwrap(), b"a\r\nb\r\n");
        assert_eq!(written(&[b"a\r", b"b"]), Err(()));
        assert_eq!(written(&[b"a\r"]), Err(()));
        assert_eq!(written(&[b"a\0b"]), Err(()));
        assert_eq!(written(&[]).unwrap(), b"");
    }

    #[test]
    fn copies_never_part_a_line_end() {
        let mut body = NewBody::new(1_000);
        assert!(body.copy(1, 5, b'\n', b'x').is_err(), "begins with the LF of a CRLF");
        body.copy(0, 5, b'a', b'\r').unwrap();
        assert!(body.append(b".\r\n").is_err());
        assert!(body.copy(9, 5, b'x', b'x').is_err());
        body.copy(5, 1, b'\n', b'\n').unwrap();
        assert!(body.copy(0, 2_000, b'a', b'b').is_err(), "too large");
        assert_eq!(body.finished().unwrap().len(), 2);
    }
}
