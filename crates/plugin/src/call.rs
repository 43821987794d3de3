//! State of one guest call: what the guest may read, and the edits it requests.
//!
//! Edits are only recorded here. The chain applies them together with the verdict, or discards them (law 5). During the
//! call the guest sees the effect of its own edits on facts, notes, scores, the envelope and the delivery. Header
//! fields and the body stay as they were when the hook was called, because edits refer to them by their original
//! positions.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{Bytes, HeaderEdit, Recipient};
use pintle_policy::{Delivery, Edit, Hook, Message, Piece, Session, Transaction, View};

use crate::bindings::pintle::plugin::types::HostError;
use crate::budget::Budget;
use crate::call_conditions::CallConditions;

/// Upper limit on the size of all edits of one call, in octets; new bodies are not counted.
const MAX_EDITS: usize = 4 << 20;
/// Minimum cost of an edit, in octets. An edit of a header field costs less, since remote senders control the number of
/// fields.
const EDIT_COST: usize = 64;
const HEADER_EDIT_COST: usize = 16;
/// Budget charge for copying or indexing one recipient, in octets.
const RECIPIENT_COST: u64 = 32;
/// Maximum number of pieces of a new body.
const MAX_PIECES: usize = 65_536;

/// Recipient ids with the edits so far applied; a set, so that lookups need no linear search.
struct RecipientIds {
    ids: HashSet<u32>,
    /// The highest id assigned so far, including removed recipients.
    last: u32,
}

/// State of the current guest call, or the idle state between calls.
pub(crate) struct CallState {
    judge: Arc<str>,
    max_message: u64,
    pub(crate) hook: Option<Hook>,
    was: Option<View>,
    /// The view with edits applied; `None` until the guest reads after an edit.
    now: Option<View>,
    edits: Vec<Edit>,
    /// Number of `edits` already applied to `now`.
    made: usize,
    spent: usize,
    recipients: Option<RecipientIds>,
    headers: Vec<HeaderEdit>,
    body: Option<NewBody>,
    delay: Duration,
    /// Cache of the last decoded MIME part: its index and content.
    pub(crate) decoded: Option<(u32, Bytes)>,
    /// Number of DNS queries made by this call.
    pub(crate) questions: usize,
    /// Budget for host work in this call.
    pub(crate) budget: Budget,
    /// Conditions of calling stated so far, in `configure`.
    pub(crate) conditions: CallConditions,
}

impl CallState {
    /// State between calls: no hook, no view.
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
            recipients: None,
            headers: Vec::new(),
            body: None,
            delay: Duration::ZERO,
            decoded: None,
            questions: 0,
            budget: Budget::default(),
            conditions: CallConditions::default(),
        }
    }

    /// Starts a call of this hook with this view; discards all state of the previous call.
    pub(crate) fn begin(&mut self, hook: Option<Hook>, view: Option<View>) {
        self.hook = hook;
        self.now = None;
        self.budget = Budget::of(view.as_ref());
        self.was = view;
        self.edits.clear();
        self.made = 0;
        self.spent = 0;
        self.recipients = None;
        self.headers.clear();
        self.body = None;
        self.delay = Duration::ZERO;
        self.decoded = None;
        self.questions = 0;
        self.conditions = CallConditions::default();
    }

    /// Ends a successful call and returns its edits in order. The state becomes idle.
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

    /// The session with the edits so far applied.
    pub(crate) fn session(&mut self) -> Result<&Session, HostError> {
        let now = self.now()?;
        Ok(&now.session)
    }

    /// The transaction with the edits so far applied.
    pub(crate) fn transaction(&mut self) -> Result<&Transaction, HostError> {
        let now = self.now()?;
        now.transaction.as_deref().ok_or_else(|| unavailable("the transaction"))
    }

    /// The session and transaction as they were when the hook was called.
    pub(crate) fn mail(&self) -> Result<(Arc<Session>, Arc<Transaction>), HostError> {
        let view = self.was.as_ref().ok_or_else(|| unavailable("the session"))?;
        let transaction = view.transaction.as_ref();
        let transaction = transaction.ok_or_else(|| unavailable("the transaction"))?;
        Ok((Arc::clone(&view.session), Arc::clone(transaction)))
    }

    /// The delivery with the edits so far applied.
    pub(crate) fn delivery(&mut self) -> Result<&Delivery, HostError> {
        let now = self.now()?;
        now.delivery.as_deref().ok_or_else(|| unavailable("the delivery"))
    }

    /// The message as it was when the hook was called.
    pub(crate) fn message(&self) -> Result<&Arc<Message>, HostError> {
        let message = self.was.as_ref().and_then(|view| view.message.as_ref());
        message.ok_or_else(|| unavailable("the message"))
    }

    /// Records an edit of approximately this many octets.
    pub(crate) fn record(&mut self, edit: Edit, octets: usize) -> Result<(), HostError> {
        self.spend(octets + EDIT_COST, 0)?;
        if let Some(recipients) = &mut self.recipients {
            recipients.note(&edit);
        }
        self.edits.push(edit);
        Ok(())
    }

    /// Records header edits that have already been validated.
    pub(crate) fn record_headers(&mut self, edits: Vec<HeaderEdit>, octets: usize) -> Result<(), HostError> {
        let fields = self.message()?.header.len();
        self.spend(octets + edits.len() * HEADER_EDIT_COST, 2 * fields * HEADER_EDIT_COST)?;
        self.headers.extend(edits);
        Ok(())
    }

    /// Increases the delay before the SMTP reply, up to `most`.
    pub(crate) fn delay(&mut self, more: Duration, most: Duration) {
        if self.was.is_some() {
            self.delay = self.delay.saturating_add(more).min(most);
        }
    }

    /// Returns an id for a recipient that the plugin adds. The session numbers its own recipients from 0 and continues
    /// after this call, so added ones use the upper half of the range. No id of the transaction is reused,
    /// even after its recipient is removed.
    pub(crate) fn new_recipient_id(&mut self) -> Result<u32, HostError> {
        let (_, transaction) = self.mail()?;
        let last = self.recipients()?.last;
        Ok(last.saturating_add(1).max(transaction.next_added))
    }

    /// The recipient of this id, with the edits so far applied.
    pub(crate) fn recipient(&mut self, id: u32) -> Result<Option<Recipient>, HostError> {
        Ok(self.transaction()?.recipient(id).cloned())
    }

    /// Whether a recipient with this id exists.
    pub(crate) fn has_recipient(&mut self, id: u32) -> Result<bool, HostError> {
        Ok(self.recipients()?.ids.contains(&id))
    }

    /// Number of recipients, with the edits so far applied.
    pub(crate) fn recipient_count(&mut self) -> Result<usize, HostError> {
        Ok(self.recipients()?.ids.len())
    }

    fn recipients(&mut self) -> Result<&RecipientIds, HostError> {
        if self.recipients.is_none() {
            let (_, transaction) = self.mail()?;
            let ids: HashSet<u32> =
                transaction.envelope.recipients.iter().map(|recipient| recipient.id).collect();
            self.budget.charge(RECIPIENT_COST * ids.len() as u64)?;
            let mut recipients = RecipientIds { last: ids.iter().copied().max().unwrap_or(0), ids };
            self.edits.iter().for_each(|edit| recipients.note(edit));
            self.recipients = Some(recipients);
        }
        self.recipients.as_ref().ok_or_else(|| unavailable("the transaction"))
    }

    /// The new body; created on first use.
    pub(crate) fn new_body(&mut self) -> &mut NewBody {
        let limit = self.max_message;
        self.body.get_or_insert_with(|| NewBody::new(limit))
    }

    /// Current position in the new body, to undo later writes; `None` if no new body exists.
    pub(crate) fn mark_body(&self) -> Option<BodyMark> {
        self.body.as_ref().map(NewBody::mark)
    }

    /// Discards the new body.
    pub(crate) fn drop_body(&mut self) {
        self.body = None;
    }

    /// Discards everything written after the mark.
    pub(crate) fn undo_body(&mut self, mark: Option<BodyMark>) {
        match (&mut self.body, mark) {
            (Some(body), Some(mark)) => body.undo(mark),
            (body, _) => *body = None,
        }
    }

    fn spend(&mut self, octets: usize, more_room: usize) -> Result<(), HostError> {
        self.budget.charge(octets as u64)?;
        let spent = self.spent.saturating_add(octets);
        if spent > MAX_EDITS + more_room {
            return Err(HostError::Limit(format!("the edits of one call hold at most {MAX_EDITS} octets")));
        }
        self.spent = spent;
        Ok(())
    }

    /// The view with all edits applied. They are applied lazily, on the first read: most hooks never read what they
    /// wrote, and the first edit of a shared part copies it.
    fn now(&mut self) -> Result<&View, HostError> {
        let was = self.was.as_ref().ok_or_else(|| unavailable("the session"))?;
        if self.edits.is_empty() {
            return Ok(was);
        }
        let now = self.now.get_or_insert_with(|| was.clone());
        if self.made < self.edits.len() {
            let fresh = self.edits[self.made..].to_vec();
            let copies = self.made == 0 || fresh.iter().any(Edit::is_of_recipients);
            let recipients = now.transaction.as_ref().filter(|_| copies);
            let recipients = recipients.map_or(0, |transaction| transaction.envelope.recipients.len());
            self.budget.charge(RECIPIENT_COST * recipients as u64)?;
            self.made = self.edits.len();
            let made = now.apply_in_place(&self.judge, fresh);
            made.map_err(|error| HostError::Invalid(error.to_string()))?;
        }
        Ok(now)
    }
}

impl RecipientIds {
    fn note(&mut self, edit: &Edit) {
        match edit {
            Edit::AddRecipient(id, _) => {
                self.ids.insert(*id);
                self.last = self.last.max(*id);
            }
            Edit::RemoveRecipient(id) => {
                self.ids.remove(id);
            }
            _ => {}
        }
    }
}

/// Error for a value that is not available at this stage.
pub(crate) fn unavailable(what: &str) -> HostError {
    HostError::Unavailable(format!("{what} is not available in this hook"))
}

/// A message body that a plugin writes in pieces. CRLF sequences are kept intact across pieces: a bare CR or LF enables
/// SMTP smuggling, where one message is interpreted as two.
pub(crate) struct NewBody {
    pieces: Vec<Piece>,
    /// New octets appended after the last piece.
    fresh: Vec<u8>,
    limit: u64,
    size: u64,
    end: BodyEnd,
}

/// How the body written so far ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyEnd {
    /// Empty, or ends with CRLF.
    Line,
    /// Ends with CR; the next octet must be LF.
    Cr,
    /// Ends with any other octet.
    Text,
}

/// A position in a new body.
#[derive(Clone, Copy)]
pub(crate) struct BodyMark {
    pieces: usize,
    /// Length of the last piece in octets if it is a copied range, since later copies may extend it.
    copied: u64,
    fresh: usize,
    size: u64,
    end: BodyEnd,
}

impl NewBody {
    fn mark(&self) -> BodyMark {
        let copied = match self.pieces.last() {
            Some(Piece::Copy { len, .. }) => *len,
            _ => 0,
        };
        BodyMark {
            pieces: self.pieces.len(),
            copied,
            fresh: self.fresh.len(),
            size: self.size,
            end: self.end,
        }
    }

    fn undo(&mut self, mark: BodyMark) {
        let BodyMark { pieces, copied, fresh, size, end } = mark;
        let mut undone = self.pieces.drain(pieces.min(self.pieces.len())..);
        // What was written before the mark may have been flushed since. It is taken back, not copied: it may be large.
        if let Some(Piece::Bytes(flushed)) = undone.next().filter(|_| fresh > 0) {
            self.fresh = flushed.try_into_mut().map_or_else(|shared| shared.to_vec(), Vec::from);
        }
        drop(undone);
        self.fresh.truncate(fresh);
        if let Some(Piece::Copy { len, .. }) = self.pieces.last_mut() {
            *len = copied;
        }
        (self.size, self.end) = (size, end);
    }

    fn new(limit: u64) -> Self {
        Self { pieces: Vec::new(), fresh: Vec::new(), limit, size: 0, end: BodyEnd::Line }
    }

    /// Appends octets from the plugin: converts a bare LF to CRLF; refuses a bare CR and NUL.
    pub(crate) fn append(&mut self, octets: &[u8]) -> Result<(), HostError> {
        let mut out = Vec::with_capacity(octets.len() + 16);
        let mut end = self.end;
        for &octet in octets {
            end = match (octet, end) {
                (b'\n', BodyEnd::Cr) => BodyEnd::Line,
                (_, BodyEnd::Cr) => return Err(invalid("a bare CR in the new body")),
                (0, _) => return Err(invalid("a NUL in the new body")),
                (b'\n', _) => {
                    out.push(b'\r');
                    BodyEnd::Line
                }
                (b'\r', _) => BodyEnd::Cr,
                _ => BodyEnd::Text,
            };
            out.push(octet);
        }
        self.grow(out.len() as u64)?;
        self.end = end;
        // Consecutive appends share one piece, even when the plugin writes octet by octet.
        if self.fresh.is_empty() && !out.is_empty() {
            self.room()?;
        }
        self.fresh.append(&mut out);
        Ok(())
    }

    /// Appends a range of the original body; `first` and `last` are the first and last octets of the range.
    pub(crate) fn copy(&mut self, offset: u64, len: u64, first: u8, last: u8) -> Result<(), HostError> {
        if (self.end == BodyEnd::Cr) != (first == b'\n') {
            return Err(invalid("a copy that separates a CR from its LF"));
        }
        self.grow(len)?;
        self.end = match last {
            b'\r' => BodyEnd::Cr,
            b'\n' => BodyEnd::Line,
            _ => BodyEnd::Text,
        };
        self.flush();
        match self.pieces.last_mut() {
            Some(Piece::Copy { offset: before, len: so_far }) if *before + *so_far == offset => {
                *so_far += len;
            }
            _ => {
                self.room()?;
                self.pieces.push(Piece::Copy { offset, len });
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        if !self.fresh.is_empty() {
            self.pieces.push(Piece::Bytes(std::mem::take(&mut self.fresh).into()));
        }
    }

    fn room(&self) -> Result<(), HostError> {
        if self.pieces.len() >= MAX_PIECES {
            return Err(HostError::Limit(format!("a new body has at most {MAX_PIECES} pieces")));
        }
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
            BodyEnd::Line => {}
            BodyEnd::Cr => return Err("the new body ends in a bare CR".into()),
            BodyEnd::Text => self.fresh.extend_from_slice(b"\r\n"),
        }
        self.flush();
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
    fn pieces_are_few_however_a_body_is_written() {
        let mut body = NewBody::new(1 << 20);
        (0..200_000).for_each(|_| body.append(b"x").unwrap());
        (0..200_000).for_each(|at| body.copy(at, 1, b'a', b'a').unwrap());
        assert_eq!(body.finished().unwrap().len(), 3, "new octets, a copy, and the last line's end");
        let mut body = NewBody::new(1 << 20);
        let refused = (0..200_000).any(|at| body.copy(2 * at, 1, b'a', b'a').is_err());
        assert!(refused && body.finished().unwrap().len() <= MAX_PIECES + 1);
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
        assert_eq!(body.finished().unwrap().len(), 1, "copies that adjoin are one");
    }

    #[test]
    fn what_is_undone_was_never_written() {
        type BodyStep = fn(&mut NewBody);
        let text: BodyStep = |body| body.append(b"text").unwrap();
        let copy: BodyStep = |body| body.copy(0, 5, b'a', b'b').unwrap();
        let next: BodyStep = |body| body.copy(5, 5, b'a', b'b').unwrap();
        for before in [vec![], vec![text], vec![copy], vec![text, copy], vec![copy, text]] {
            for undone in [vec![text], vec![copy, text], vec![next], vec![text, next, copy, text]] {
                let (mut body, mut expected) = (NewBody::new(1_000), NewBody::new(1_000));
                before.iter().for_each(|step| (step(&mut body), step(&mut expected)).0);
                let mark = body.mark();
                undone.iter().for_each(|step| step(&mut body));
                body.undo(mark);
                text(&mut body);
                text(&mut expected);
                assert_eq!((body.size, body.finished()), (expected.size, expected.finished()));
            }
        }
    }
}
