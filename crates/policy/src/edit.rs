//! The changes that a judge requests, and applying them: all of one ruling, or none.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pintle_mail::{Address, HeaderEdit, HeaderError, NextHop, Param, Recipient, ReversePath, TlsPolicy};

use crate::pieced::Pieced;
use crate::{
    AuthResult, Delivery, DmarcDisposition, Fate, Hook, Lease, LeaseScope, Leases, Message, Piece,
    RequestedFate, Score, Session, Transaction, View,
};

/// One change. Whether the judge may make it has been checked before.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// Sets a note of the judge on the session; none removes it.
    SessionNote(String, Option<Vec<u8>>),
    /// Sets a fact on the session.
    SessionFact(String, String),
    /// Offers an ESMTP keyword, in place of one of the same name.
    Offer(Param),
    /// Does not offer the ESMTP keyword of this name.
    Withhold(String),
    /// Waits before the reply of this stage.
    Delay(Duration),
    /// Closes the session after the reply of this stage.
    Close,
    /// Sets a note of the judge on the transaction; none removes it.
    Note(String, Option<Vec<u8>>),
    /// Sets a fact on the transaction.
    Fact(String, String),
    /// Sets the score of a rule, in place of an earlier one; positive points count against the message.
    Score(String, f64),
    /// Adds a result for the Authentication-Results field, unless an equal one is there.
    AuthResult(AuthResult),
    /// Sets what was done because of the author domain's DMARC policy.
    Dmarc(DmarcDisposition),
    /// Requests what becomes of recipients.
    Fate {
        /// The ids of the recipients; empty for all, including those still to come.
        recipients: Vec<u32>,
        /// What becomes of them.
        fate: Fate,
        /// The hook in which it was requested.
        hook: Hook,
    },
    /// Adds a recipient under an id that is not in use.
    AddRecipient(u32, Address),
    /// Removes the recipient of this id.
    RemoveRecipient(u32),
    /// Gives this recipient another address.
    RewriteRecipient(u32, Address),
    /// Changes the reverse-path. A null reverse-path must stay null.
    RewriteSender(ReversePath),
    /// Allows this recipient's mail to be relayed to a domain that is not ours.
    GrantRelay(u32),
    /// Puts this recipient into a group of the judge's own; an empty name takes it out.
    Group(u32, String),
    /// Edits the header block. Indices number the fields as the judge saw them.
    Headers(Vec<HeaderEdit>),
    /// Replaces the body by these pieces.
    Body(Vec<Piece>),
    /// Adds a DKIM signature by the configured key of this name, once the stage is done.
    Sign(String),
    /// Adds an ARC set by the configured key of this name, once the stage is done.
    Seal(String),
    /// Chooses another next hop for this delivery: a relay of the configuration, or exchangers.
    NextHop(NextHop),
    /// Chooses a host or socket given by the judge, which the configuration does not list.
    UnlistedHop(NextHop),
    /// Requires at least this much TLS for this delivery.
    Tls(TlsPolicy),
    /// Binds this source address.
    Source(IpAddr),
    /// Uses the configured credentials of this name.
    Credentials(String),
    /// Sets when to try again if this attempt defers.
    RetryAfter(Duration),
    /// Does not report this recipient's failure to the sender.
    NoBounce(u32),
    /// Counts the session, the transaction or the attempt until it ends.
    Lease(LeaseScope, Lease),
}

/// Why edits cannot be made. The judge that requested them is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditError {
    /// The part of the view that the edit would change does not exist at this stage.
    Unavailable(&'static str),
    /// There is no recipient of this id, or there is one already.
    Recipient(u32),
    /// The reverse-path is null and must stay null.
    NullSender,
    /// The header block cannot be edited in this way.
    Header(HeaderError),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(part) => write!(f, "there is no {part} at this stage"),
            Self::Recipient(id) => write!(f, "recipient {id} does not exist, or exists already"),
            Self::NullSender => {
                f.write_str("a null reverse-path must stay null, so that no report is sent about a report")
            }
            Self::Header(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EditError {}

/// What the edits of a ruling request for the reply of the stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplyEffects {
    /// How long to wait before the reply.
    pub delay: Duration,
    /// Whether to close the session after the reply.
    pub close: bool,
}

impl View {
    /// Makes all edits of one ruling, or none. Returns what they request for the reply.
    ///
    /// # Errors
    /// The first edit that cannot be made; the view is as it was.
    pub fn apply(&mut self, judge: &Arc<str>, edits: Vec<Edit>) -> Result<ReplyEffects, EditError> {
        // A draft shares its parts with this view, so that the first edit of a part copies it. Edits that cannot fail,
        // which are nearly all, are made in place.
        if edits.iter().all(|edit| self.always_takes(edit)) {
            return self.make_all(judge, edits);
        }
        let mut draft = self.clone();
        let effects = draft.make_all(judge, edits)?;
        *self = draft;
        Ok(effects)
    }

    /// As [`View::apply`], but a failure may leave some edits behind: for the copy that is shown to the judge itself.
    /// It copies no part more than once.
    ///
    /// # Errors
    /// The first edit that cannot be made; those before it stay.
    pub fn apply_in_place(&mut self, judge: &Arc<str>, edits: Vec<Edit>) -> Result<(), EditError> {
        self.make_all(judge, edits).map(drop)
    }

    /// Whether this edit can always be made, whatever other such edits come before it.
    fn always_takes(&self, edit: &Edit) -> bool {
        match edit {
            Edit::Delay(_)
            | Edit::Close
            | Edit::SessionNote(..)
            | Edit::SessionFact(..)
            | Edit::Offer(_)
            | Edit::Withhold(_)
            | Edit::Lease(LeaseScope::Session, _) => true,
            Edit::Note(..)
            | Edit::Fact(..)
            | Edit::Score(..)
            | Edit::AuthResult(_)
            | Edit::Dmarc(_)
            | Edit::Fate { .. }
            | Edit::Lease(LeaseScope::Transaction, _) => self.transaction.is_some(),
            _ => false,
        }
    }

    fn make_all(&mut self, judge: &Arc<str>, edits: Vec<Edit>) -> Result<ReplyEffects, EditError> {
        let mut effects = ReplyEffects::default();
        let mut edits = edits.into_iter().peekable();
        while let Some(edit) = edits.next() {
            match edit {
                Edit::Delay(more) => effects.delay += more,
                Edit::Close => effects.close = true,
                edit if edit.is_of_recipients() => {
                    let transaction = part(&mut self.transaction, "transaction")?;
                    let rest = std::iter::from_fn(|| edits.next_if(Edit::is_of_recipients));
                    edit_recipients(judge, transaction, std::iter::once(edit).chain(rest))?;
                }
                edit => self.make(judge, edit)?,
            }
        }
        Ok(effects)
    }

    fn make(&mut self, judge: &Arc<str>, edit: Edit) -> Result<(), EditError> {
        match edit {
            Edit::SessionNote(..) | Edit::SessionFact(..) | Edit::Offer(_) | Edit::Withhold(_) => {
                edit_session(Arc::make_mut(&mut self.session), judge, edit);
                Ok(())
            }
            Edit::Headers(_) | Edit::Body(_) | Edit::Sign(_) | Edit::Seal(_) => {
                edit_message(part(&mut self.message, "message")?, edit)
            }
            Edit::NextHop(_)
            | Edit::UnlistedHop(_)
            | Edit::Tls(_)
            | Edit::Source(_)
            | Edit::Credentials(_)
            | Edit::RetryAfter(_)
            | Edit::NoBounce(_) => {
                edit_delivery(part(&mut self.delivery, "delivery")?, edit);
                Ok(())
            }
            Edit::Lease(scope, lease) => {
                self.leases_mut(scope)?.add(judge, lease);
                Ok(())
            }
            edit => edit_transaction(part(&mut self.transaction, "transaction")?, judge, edit),
        }
    }

    fn leases_mut(&mut self, scope: LeaseScope) -> Result<&mut Leases, EditError> {
        Ok(match scope {
            LeaseScope::Session => &mut Arc::make_mut(&mut self.session).leases,
            LeaseScope::Transaction => &mut part(&mut self.transaction, "transaction")?.leases,
            LeaseScope::Delivery => &mut part(&mut self.delivery, "delivery")?.leases,
        })
    }
}

impl Edit {
    /// Whether the edit changes the recipients.
    #[must_use]
    pub fn is_of_recipients(&self) -> bool {
        matches!(
            self,
            Self::AddRecipient(..)
                | Self::RemoveRecipient(_)
                | Self::RewriteRecipient(..)
                | Self::GrantRelay(_)
                | Self::Group(..)
        )
    }

    /// Whether the edit is stored with the message when it is made after a delivery attempt.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Note(..) | Self::Fact(..) | Self::Score(..) | Self::AuthResult(_))
    }

    /// Whether the edit objects to the mail or the session: what a judge requests after another one has accepted counts
    /// only if it is mandatory.
    #[must_use]
    pub fn objects(&self) -> bool {
        matches!(self, Self::Fate { .. } | Self::Close)
    }
}

fn part<'a, T: Clone>(part: &'a mut Option<Arc<T>>, name: &'static str) -> Result<&'a mut T, EditError> {
    part.as_mut().map(Arc::make_mut).ok_or(EditError::Unavailable(name))
}

fn edit_session(session: &mut Session, judge: &Arc<str>, edit: Edit) {
    match edit {
        Edit::SessionNote(key, value) => session.notes.set(judge, key, value),
        Edit::SessionFact(key, value) => {
            session.facts.insert(key, value);
        }
        Edit::Offer(param) => {
            session.extensions.retain(|offered| !offered.name.eq_ignore_ascii_case(&param.name));
            session.extensions.push(param);
        }
        Edit::Withhold(name) => {
            session.extensions.retain(|offered| !offered.name.eq_ignore_ascii_case(&name))
        }
        _ => {}
    }
}

fn edit_transaction(transaction: &mut Transaction, judge: &Arc<str>, edit: Edit) -> Result<(), EditError> {
    match edit {
        Edit::Note(key, value) => transaction.notes.set(judge, key, value),
        Edit::Fact(key, value) => {
            transaction.facts.insert(key, value);
        }
        Edit::Score(rule, points) => set_score(&mut transaction.scores, judge, rule, points),
        Edit::AuthResult(result) if transaction.auth_results.contains(&result) => {}
        Edit::AuthResult(result) => transaction.auth_results.push(result),
        Edit::Dmarc(disposition) => transaction.dmarc = Some(disposition),
        Edit::Fate { recipients, fate, hook } => {
            let requested = RequestedFate { fate, by: Arc::clone(judge), hook };
            transaction.fates.request(&recipients, &requested);
        }
        // RFC 5321 section 4.5.5: a message with a null reverse-path is never answered, and an address put there would
        // get a report from whichever system fails to deliver it, ourselves included.
        Edit::RewriteSender(path) if transaction.envelope.sender.is_null() && !path.is_null() => {
            return Err(EditError::NullSender);
        }
        Edit::RewriteSender(path) => {
            let before = std::mem::replace(&mut transaction.envelope.sender, path);
            transaction.original_sender.get_or_insert(before);
        }
        _ => {}
    }
    Ok(())
}

/// Replaces the judge's score for the rule, or adds one.
fn set_score(scores: &mut Vec<Score>, judge: &str, rule: String, points: f64) {
    match scores.iter_mut().find(|score| score.judge == judge && score.rule == rule) {
        Some(score) => score.points = points,
        None => scores.push(Score { judge: judge.to_owned(), rule, points }),
    }
}

/// Makes consecutive edits in one pass: ten thousand edits of ten thousand recipients must not take a search each, and
/// a removal must not move all recipients after it.
fn edit_recipients(
    judge: &str,
    transaction: &mut Transaction,
    edits: impl Iterator<Item = Edit>,
) -> Result<(), EditError> {
    let recipients = &mut transaction.envelope.recipients;
    let mut places: HashMap<u32, usize> =
        recipients.iter().enumerate().map(|(at, recipient)| (recipient.id, at)).collect();
    let mut gone = HashSet::new();
    for edit in edits {
        if let Edit::AddRecipient(id, address) = edit {
            if places.insert(id, recipients.len()).is_some() {
                return Err(EditError::Recipient(id));
            }
            recipients.push(Recipient::new(id, address));
            transaction.next_added = transaction.next_added.max(id.saturating_add(1));
            continue;
        }
        let (Edit::RemoveRecipient(id)
        | Edit::RewriteRecipient(id, _)
        | Edit::GrantRelay(id)
        | Edit::Group(id, _)) = edit
        else {
            continue;
        };
        let at = *places.get(&id).ok_or(EditError::Recipient(id))?;
        match edit {
            Edit::RemoveRecipient(_) => {
                places.remove(&id);
                transaction.fates.forget(id);
                gone.insert(at);
            }
            Edit::RewriteRecipient(_, address) => rewrite(&mut recipients[at], address),
            Edit::Group(_, group) => set_group(&mut recipients[at], judge, group),
            _ => recipients[at].relay = true,
        }
    }
    if !gone.is_empty() {
        let mut at = 0..;
        recipients.retain(|_| at.next().is_none_or(|at| !gone.contains(&at)));
    }
    Ok(())
}

fn set_group(recipient: &mut Recipient, judge: &str, group: String) {
    if group.is_empty() {
        recipient.groups.remove(judge);
    } else {
        recipient.groups.insert(judge.to_owned(), group);
    }
}

fn rewrite(recipient: &mut Recipient, address: Address) {
    let before = std::mem::replace(&mut recipient.address, address);
    recipient.original.get_or_insert(before);
    // The permission to relay was given for the previous address.
    recipient.relay = false;
}

fn edit_message(message: &mut Message, edit: Edit) -> Result<(), EditError> {
    match edit {
        Edit::Headers(edits) => {
            let edited = message.header.edited(&edits).map_err(EditError::Header)?;
            let before = std::mem::replace(&mut message.header, edited);
            message.original_header.get_or_insert(before);
        }
        Edit::Body(pieces) => {
            let base = message.body.take().ok_or(EditError::Unavailable("body"))?;
            message.original_body.get_or_insert_with(|| Arc::clone(&base));
            message.has_8bit |= pieces.iter().any(|piece| matches!(piece, Piece::Bytes(b) if !b.is_ascii()));
            message.body = Some(Arc::new(Pieced::new(base, pieces)));
            message.body_edited = true;
        }
        // The message itself is not changed, so what was computed of it stays valid.
        Edit::Sign(key) if message.sign.contains(&key) => return Ok(()),
        Edit::Sign(key) => {
            message.sign.push(key);
            return Ok(());
        }
        Edit::Seal(key) => {
            message.seal = Some(key);
            return Ok(());
        }
        _ => {}
    }
    message.shared = Arc::new(OnceLock::new());
    Ok(())
}

fn edit_delivery(delivery: &mut Delivery, edit: Edit) {
    match edit {
        Edit::NextHop(hop) => (delivery.next_hop, delivery.unlisted) = (hop, false),
        Edit::UnlistedHop(hop) => (delivery.next_hop, delivery.unlisted) = (hop, true),
        // A later judge cannot lower what an earlier one requires.
        Edit::Tls(policy) => {
            delivery.tls = delivery.tls.max(policy);
            delivery.tls_asked = delivery.tls_asked.max(Some(policy));
        }
        Edit::Source(address) => delivery.source = Some(address),
        Edit::Credentials(name) => delivery.credentials = Some(name),
        Edit::RetryAfter(wait) => delivery.retry_after = Some(wait),
        Edit::NoBounce(id) => delivery.no_bounce.push(id),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Transaction;
    use pintle_mail::{Charset, Envelope, MailParams, QueueId, SessionId, UnixTime};

    fn view(sender: ReversePath) -> View {
        let envelope = Envelope { sender, params: MailParams::default(), recipients: Vec::new() };
        let transaction = Transaction::new(QueueId::new(UnixTime::from_millis(0), 1), envelope);
        View {
            transaction: Some(Arc::new(transaction)),
            ..View::of(Session {
                esmtp: true,
                ..Session::new(
                    SessionId::new(UnixTime::from_millis(0), 1),
                    "mx".into(),
                    ([192, 0, 2, 1], 1).into(),
                    ([192, 0, 2, 2], 25).into(),
                    UnixTime::from_millis(0),
                )
            })
        }
    }

    #[test]
    fn an_edit_that_cannot_be_made_takes_those_before_it_along() {
        let mut early = View { transaction: None, ..view(ReversePath::Null) };
        let fact = |key: &str| Edit::SessionFact(key.into(), "yes".into());
        let edits = vec![fact("a"), Edit::Fact("b".into(), "no".into())];
        assert_eq!(early.apply(&"judge".into(), edits), Err(EditError::Unavailable("transaction")));
        assert!(early.session.facts.is_empty());
        let delay = Duration::from_secs(1);
        let effects = ReplyEffects { delay, close: true };
        assert_eq!(
            early.apply(&"judge".into(), vec![fact("a"), Edit::Delay(delay), Edit::Close]),
            Ok(effects)
        );
        assert_eq!(early.session.facts["a"], "yes");
    }

    #[test]
    fn a_judge_that_still_runs_on_an_old_view_sees_no_edit() {
        let mut new = view(ReversePath::Null);
        let old = new.clone();
        let edits = || vec![Edit::SessionFact("a".into(), "b".into()), Edit::Fact("a".into(), "b".into())];
        for _ in 0..2 {
            new.apply(&"judge".into(), edits()).unwrap();
        }
        assert!(old.session.facts.is_empty() && old.transaction.unwrap().facts.is_empty());
        assert_eq!(new.session.facts["a"], new.transaction.unwrap().facts["a"]);
    }

    #[test]
    fn recipients_change_in_order_and_by_their_ids() {
        let address = |n: u32| Address::parse(&format!("r{n}@there.example"), Charset::Ascii).unwrap();
        let count = 20_000;
        let mut many = view(ReversePath::Null);
        let added = (0..count).map(|id| Edit::AddRecipient(id, address(id)));
        let rest = (0..count).flat_map(|id| match id % 4 {
            0 => vec![Edit::RemoveRecipient(id)],
            1 => vec![Edit::GrantRelay(id), Edit::RewriteRecipient(id, address(id + 1))],
            2 => vec![Edit::RemoveRecipient(id), Edit::AddRecipient(id, address(0))],
            _ => vec![Edit::GrantRelay(id)],
        });
        many.apply(&"judge".into(), added.chain(rest).collect()).unwrap();
        let recipients = &many.transaction.as_ref().unwrap().envelope.recipients;
        let ids: Vec<u32> = recipients.iter().take(3).map(|recipient| recipient.id).collect();
        assert_eq!((recipients.len(), ids), (15_000, vec![1, 3, 5]));
        assert!(
            !recipients[0].relay && recipients[0].original.is_some(),
            "the permission was for the other address"
        );
        assert!(recipients[1].relay && recipients.last().unwrap().id == count - 2, "added again at the end");
        for bad in [Edit::RemoveRecipient(0), Edit::AddRecipient(1, address(1)), Edit::GrantRelay(count)] {
            assert!(matches!(many.apply(&"judge".into(), vec![bad]), Err(EditError::Recipient(_))));
        }
    }

    #[test]
    fn a_rule_has_one_value_and_a_result_is_added_once() {
        let mut mail = view(ReversePath::Null);
        let result =
            AuthResult { method: "spf".into(), outcome: "pass".into(), reason: None, properties: Vec::new() };
        for points in [1.0, 2.5] {
            let edits = vec![Edit::Score("rule".into(), points), Edit::AuthResult(result.clone())];
            mail.apply(&"judge".into(), edits).unwrap();
        }
        mail.apply(&"other".into(), vec![Edit::Score("rule".into(), -1.0)]).unwrap();
        let transaction = mail.transaction.unwrap();
        assert_eq!((transaction.score(), transaction.scores.len()), (1.5, 2));
        assert_eq!(transaction.auth_results, [result]);
    }

    #[test]
    fn groups_belong_to_the_judge_that_sets_them() {
        let mut mail = view(ReversePath::Null);
        let address = Address::parse("a@there.example", Charset::Ascii).unwrap();
        mail.apply(&"one".into(), vec![Edit::AddRecipient(0, address), Edit::Group(0, "x".into())]).unwrap();
        mail.apply(&"two".into(), vec![Edit::Group(0, "y".into())]).unwrap();
        let groups = |mail: &View| mail.transaction.as_ref().unwrap().envelope.recipients[0].groups.clone();
        assert_eq!(
            groups(&mail).into_iter().collect::<Vec<_>>(),
            [("one", "x"), ("two", "y")].map(|(a, b)| (a.into(), b.into()))
        );
        mail.apply(&"one".into(), vec![Edit::Group(0, String::new())]).unwrap();
        assert!(!groups(&mail).contains_key("one") && groups(&mail).contains_key("two"));
        assert_eq!(mail.apply(&"one".into(), vec![Edit::Group(1, "x".into())]), Err(EditError::Recipient(1)));
    }

    #[test]
    fn no_judge_gives_a_report_somebody_to_answer_to() {
        let address = |text: &str| ReversePath::parse(text, Charset::Ascii).unwrap();
        let rewrite =
            |view: &mut View, to: &str| view.apply(&"srs".into(), vec![Edit::RewriteSender(address(to))]);
        let mut report = view(ReversePath::Null);
        assert_eq!(rewrite(&mut report, "srs@gate.example"), Err(EditError::NullSender));
        assert!(report.transaction.as_ref().unwrap().envelope.sender.is_null());
        assert!(rewrite(&mut report, "").is_ok());
        let mut mail = view(address("ann@there.example"));
        assert!(rewrite(&mut mail, "srs@gate.example").is_ok());
        assert_eq!(mail.transaction.as_ref().unwrap().envelope.sender.as_str(), "srs@gate.example");
    }
}
