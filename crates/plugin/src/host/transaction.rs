//! Host functions of `transaction`: the envelope, and results about the mail (authentication results, scores, facts,
//! notes).

use arc_swap::ArcSwap;
use pintle_mail::{Address, BodyType, Charset, ReversePath};
use pintle_policy::{AuthResult, Edit, EditError, Fate, Hook};
use wasmtime::component::{HasData, Linker};

use super::checks::{self, need};
use super::facts;
use crate::bindings::pintle::plugin::transaction::{self, Host, Snapshot};
use crate::bindings::pintle::plugin::types::{self, HostError, Recipient};
use crate::call::CallState;
use crate::call::unavailable;
use crate::store_data::{HostParts, StoreData};
use crate::{Gateway, GrantKind, Grants, convert};

/// Maximum number of recipients that a transaction may reach through a plugin's additions.
const MAX_RECIPIENTS: usize = 10_000;
const MAX_PROPERTIES: usize = 32;
/// Maximum number of authentication results of a transaction over all plugins, and their total size: they become one
/// header field.
const MAX_RESULTS: usize = 256;
const MAX_RESULT_OCTETS: usize = 64 << 10;
/// Maximum number of scores over all plugins, and the budget charge for each that a call looks at, in octets.
const MAX_SCORES: usize = 1_000;
const SCORE_COST: u64 = 8;
/// Budget charge for requesting the fate of a recipient, in octets.
const FATE_COST: usize = 64;
/// Maximum lengths of a group and a quarantine name, in octets.
const MAX_GROUP: usize = 64;
const MAX_QUARANTINE: usize = 32;
/// Budget charge for returning a recipient or a list entry, in octets.
const ENTRY_COST: u64 = 256;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    transaction::add_to_linker::<_, TransactionInterface>(linker, |data| TransactionView::of(data.parts()))
}

struct TransactionInterface;

impl HasData for TransactionInterface {
    type Data<'a> = TransactionView<'a>;
}

/// The data that the interface accesses: the current call, and the gateway's local domains.
pub(crate) struct TransactionView<'a> {
    call: &'a mut CallState,
    grants: &'a Grants,
    gateway: &'a ArcSwap<Gateway>,
}

impl<'a> TransactionView<'a> {
    pub(super) fn of(HostParts { services, grants, call, .. }: HostParts<'a>) -> Self {
        Self { call, grants, gateway: &services.gateway }
    }
}

/// The hooks with a transaction before the message is accepted.
const RECEPTION: &[Hook] = &[Hook::Mail, Hook::Rcpt, Hook::Data, Hook::Headers, Hook::Message];

impl Host for TransactionView<'_> {
    fn info(&mut self) -> Result<Snapshot, HostError> {
        let transaction = self.call.transaction()?;
        let envelope = &transaction.envelope;
        Ok(Snapshot {
            id: transaction.id.to_string(),
            sender: convert::reverse_path(&envelope.sender),
            sender_params: convert::mail_params(&envelope.params),
            declared_size: envelope.params.size.map(convert::size),
            smtputf8: envelope.params.smtputf8,
            eight_bit: envelope.params.body != BodyType::SevenBit,
            require_tls: envelope.params.require_tls,
            recipient_count: u32::try_from(envelope.recipients.len()).unwrap_or(u32::MAX),
        })
    }

    fn recipients(&mut self) -> Result<Vec<Recipient>, HostError> {
        let count = self.call.transaction()?.envelope.recipients.len();
        self.call.budget.charge(ENTRY_COST * count as u64)?;
        let gateway = self.gateway.load();
        let recipients = &self.call.transaction()?.envelope.recipients;
        Ok(recipients.iter().map(|recipient| convert::recipient(recipient, &gateway)).collect())
    }

    fn recipient_by_id(&mut self, id: u32) -> Result<Recipient, HostError> {
        self.recipient(id)?;
        self.call.budget.charge(ENTRY_COST)?;
        let gateway = self.gateway.load();
        let found = self.call.recipient(id)?;
        found.map(|found| convert::recipient(&found, &gateway)).ok_or_else(|| no_recipient(id))
    }

    fn add_recipient(&mut self, address: String) -> Result<u32, HostError> {
        let address = self.envelope_address(&address)?;
        if self.call.recipient_count()? >= MAX_RECIPIENTS {
            return Err(HostError::Limit(format!("a transaction has at most {MAX_RECIPIENTS} recipients")));
        }
        let id = self.call.new_recipient_id()?;
        let octets = address.as_str().len();
        self.call.record(Edit::AddRecipient(id, address), octets)?;
        Ok(id)
    }

    fn remove_recipient(&mut self, id: u32) -> Result<(), HostError> {
        self.edits_envelope(GrantKind::EditEnvelope)?;
        self.recipient(id)?;
        self.call.record(Edit::RemoveRecipient(id), 0)
    }

    fn rewrite_recipient(&mut self, id: u32, address: String) -> Result<(), HostError> {
        let address = self.envelope_address(&address)?;
        self.recipient(id)?;
        let octets = address.as_str().len();
        self.call.record(Edit::RewriteRecipient(id, address), octets)
    }

    fn rewrite_sender(&mut self, address: String) -> Result<(), HostError> {
        // In on-deliver the sender changes for this attempt only, so our own reports still go to the stored sender.
        if self.call.hook == Some(Hook::Deliver) {
            need(self.grants, GrantKind::EditEnvelope)?;
        } else {
            self.edits_envelope(GrantKind::EditEnvelope)?;
        }
        let charset = self.charset()?;
        let path =
            ReversePath::parse(&address, charset).map_err(|error| HostError::Invalid(error.to_string()))?;
        // The core would refuse the edit together with the verdict; an error here lets the plugin continue without it.
        if !path.is_null() && self.call.transaction()?.envelope.sender.is_null() {
            return Err(HostError::Invalid(EditError::NullSender.to_string()));
        }
        self.call.record(Edit::RewriteSender(path), address.len())
    }

    fn grant_relay(&mut self, recipient: u32) -> Result<(), HostError> {
        self.edits_envelope(GrantKind::Relay)?;
        self.recipient(recipient)?;
        self.call.record(Edit::GrantRelay(recipient), 0)
    }

    fn set_group(&mut self, recipient: u32, group: String) -> Result<(), HostError> {
        self.at(&[Hook::Rcpt, Hook::Data, Hook::Headers, Hook::Message], "setting a group")?;
        if group.len() > MAX_GROUP || !group.bytes().all(is_group_octet) {
            return Err(HostError::Invalid(format!(
                "a group has at most {MAX_GROUP} letters, digits, dots, hyphens and underscores"
            )));
        }
        self.recipient(recipient)?;
        let octets = group.len();
        self.call.record(Edit::Group(recipient, group), octets)
    }

    fn quarantine(&mut self, recipients: Vec<u32>, name: String, reason: String) -> Result<(), HostError> {
        self.at(RECEPTION, "a quarantine")?;
        if !names_a_quarantine(&name) {
            return Err(HostError::Invalid(format!(
                "{name:?} names no quarantine: a name has 1 to {MAX_QUARANTINE} lower-case letters, digits and hyphens"
            )));
        }
        let reason = checks::line(&reason, checks::MAX_TEXT);
        self.request(recipients, Fate::Quarantine { name, reason })
    }

    fn discard(&mut self, recipients: Vec<u32>) -> Result<(), HostError> {
        need(self.grants, GrantKind::DropMail)?;
        self.at(&[RECEPTION, &[Hook::Deliver]].concat(), "discarding")?;
        self.request(recipients, Fate::Discard)
    }

    fn refuse(&mut self, recipients: Vec<u32>, reply: types::Reply) -> Result<(), HostError> {
        self.at(&[Hook::Headers, Hook::Message], "refusing single recipients")?;
        if recipients.is_empty() {
            return Err(HostError::Invalid(
                "no recipient is named: to refuse the message, answer `reject` or `defer`".into(),
            ));
        }
        let reply = convert::refusal(&reply).map_err(HostError::Invalid)?;
        self.request(recipients, Fate::Refuse(reply))
    }

    fn note(&mut self, key: String) -> Result<Option<Vec<u8>>, HostError> {
        let judge = self.call.judge().to_owned();
        let note = self.call.transaction()?.notes.get(&judge, &key).map(<[u8]>::to_vec);
        self.call.budget.charge(note.as_ref().map_or(0, Vec::len) as u64)?;
        Ok(note)
    }

    fn set_note(&mut self, key: String, value: Option<Vec<u8>>) -> Result<(), HostError> {
        self.is_kept()?;
        let judge = self.call.judge().to_owned();
        checks::check_note(&self.call.transaction()?.notes, &judge, &key, value.as_ref())?;
        let octets = key.len() + value.as_ref().map_or(0, Vec::len);
        self.call.record(Edit::Note(key, value), octets)
    }

    fn facts(&mut self, keys: Vec<String>) -> Result<Vec<Option<String>>, HostError> {
        facts::charge(&mut self.call.budget, keys.len())?;
        let found = facts::find(&self.call.transaction()?.facts, &keys);
        let octets: usize = found.iter().flatten().map(String::len).sum();
        self.call.budget.charge(octets as u64)?;
        Ok(found)
    }

    fn set_fact(&mut self, key: String, value: String) -> Result<(), HostError> {
        self.is_kept()?;
        let judge = self.call.judge().to_owned();
        let name = facts::name(&judge, &key)?;
        facts::check(&self.call.transaction()?.facts, &judge, &name, &value)?;
        let octets = name.len() + value.len();
        self.call.record(Edit::Fact(name, value), octets)
    }

    fn set_score(&mut self, rule: String, points: f64) -> Result<(), HostError> {
        self.is_kept()?;
        checks::name("a rule's name", &rule)?;
        let judge = self.call.judge().to_owned();
        let scores = &self.call.transaction()?.scores;
        let is_new = !scores.iter().any(|score| score.judge == judge && score.rule == rule);
        if is_new && scores.len() >= MAX_SCORES {
            return Err(HostError::Limit(format!("a transaction has at most {MAX_SCORES} scores")));
        }
        let count = scores.len();
        self.call.budget.charge(SCORE_COST * count as u64)?;
        if !points.is_finite() {
            return Err(HostError::Invalid("points are a finite number".into()));
        }
        let octets = rule.len();
        self.call.record(Edit::Score(rule, points), octets)
    }

    fn score(&mut self) -> Result<f64, HostError> {
        let count = self.call.transaction()?.scores.len();
        self.call.budget.charge(SCORE_COST * count as u64)?;
        Ok(self.call.transaction()?.score())
    }

    fn add_auth_result(&mut self, found: transaction::AuthResult) -> Result<(), HostError> {
        need(self.grants, GrantKind::AuthResults)?;
        self.at(RECEPTION, "the Authentication-Results field")?;
        let transaction::AuthResult { method, outcome, reason, properties } = found;
        let result = AuthResult { method, outcome, reason, properties };
        check_auth_result(&result)?;
        let octets = octets_of(&result);
        self.call.budget.charge(MAX_RESULTS as u64)?;
        let there = &self.call.transaction()?.auth_results;
        if there.contains(&result) {
            return Ok(());
        }
        if there.len() >= MAX_RESULTS
            || there.iter().map(octets_of).sum::<usize>() + octets > MAX_RESULT_OCTETS
        {
            return Err(HostError::Limit(format!(
                "a transaction has at most {MAX_RESULTS} authentication results, of {MAX_RESULT_OCTETS} octets \
                 together"
            )));
        }
        self.call.record(Edit::AuthResult(result), octets)
    }

    fn auth_results(&mut self) -> Result<Vec<transaction::AuthResult>, HostError> {
        let octets: usize = self.call.transaction()?.auth_results.iter().map(octets_of).sum();
        self.call.budget.charge(ENTRY_COST + 2 * octets as u64)?;
        Ok(self.call.transaction()?.auth_results.iter().cloned().map(auth_result).collect())
    }
}

fn auth_result(result: AuthResult) -> transaction::AuthResult {
    let AuthResult { method, outcome, reason, properties } = result;
    transaction::AuthResult { method, outcome, reason, properties }
}

impl TransactionView<'_> {
    /// Checks that the envelope may be edited: during reception. After that only the sender may change.
    fn edits_envelope(&self, grant: GrantKind) -> Result<(), HostError> {
        need(self.grants, grant)?;
        self.at(RECEPTION, "changing the envelope")
    }

    /// Checks that changes of this call count.
    fn is_kept(&self) -> Result<(), HostError> {
        match self.call.hook {
            Some(Hook::Queued) => Err(unavailable("changing the transaction")),
            _ => Ok(()),
        }
    }

    fn at(&self, hooks: &[Hook], what: &str) -> Result<(), HostError> {
        let is_at = self.call.hook.is_some_and(|hook| hooks.contains(&hook));
        is_at.then_some(()).ok_or_else(|| unavailable(what))
    }

    /// Records what becomes of these recipients, which must exist; in a delivery, they must belong to it.
    fn request(&mut self, recipients: Vec<u32>, fate: Fate) -> Result<(), HostError> {
        let hook = self.call.hook.ok_or_else(|| unavailable("the transaction"))?;
        self.call.transaction()?;
        checks::bounded("a list of recipients", recipients.len(), MAX_RECIPIENTS)?;
        recipients.iter().try_for_each(|id| self.recipient_of_call(*id))?;
        let octets = recipients.len() * FATE_COST + checks::MAX_TEXT;
        self.call.record(Edit::Fate { recipients, fate, hook }, octets)
    }

    fn envelope_address(&mut self, text: &str) -> Result<Address, HostError> {
        self.edits_envelope(GrantKind::EditEnvelope)?;
        Address::parse(text, self.charset()?).map_err(|error| HostError::Invalid(error.to_string()))
    }

    /// RFC 6531 section 3.4: without SMTPUTF8 all addresses of a transaction must be ASCII.
    fn charset(&mut self) -> Result<Charset, HostError> {
        let smtputf8 = self.call.mail()?.1.envelope.params.smtputf8;
        Ok(if smtputf8 { Charset::Utf8 } else { Charset::Ascii })
    }

    /// Checks that the recipient exists and, in a delivery, belongs to it.
    fn recipient_of_call(&mut self, id: u32) -> Result<(), HostError> {
        if self.call.hook != Some(Hook::Deliver) {
            return self.recipient(id);
        }
        let recipients = &self.call.delivery()?.recipients;
        let found = recipients.iter().any(|recipient| recipient.id == id);
        found.then_some(()).ok_or_else(|| no_recipient(id))
    }

    fn recipient(&mut self, id: u32) -> Result<(), HostError> {
        let found = self.call.has_recipient(id)?;
        found.then_some(()).ok_or_else(|| no_recipient(id))
    }
}

fn no_recipient(id: u32) -> HostError {
    HostError::Invalid(format!("there is no recipient {id}"))
}

fn is_group_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_')
}

/// Checks a quarantine name. It becomes a metric label, part of log lines and a command argument for as long as the
/// message is held.
fn names_a_quarantine(name: &str) -> bool {
    let fits = |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-';
    (1..=MAX_QUARANTINE).contains(&name.len()) && name.bytes().all(fits)
}

/// RFC 8601 section 2.2: methods, results and property names are tokens; reasons and values are quoted by the host.
fn check_auth_result(result: &AuthResult) -> Result<(), HostError> {
    let token = |text: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
        !text.is_empty() && text.len() <= checks::MAX_NAME && text.bytes().all(fits)
    };
    let free = |text: &str| text.len() <= checks::MAX_TEXT && !text.chars().any(char::is_control);
    let fits = token(&result.method)
        && token(&result.outcome)
        && result.reason.as_deref().is_none_or(free)
        && result.properties.len() <= MAX_PROPERTIES
        && result.properties.iter().all(|(name, value)| token(name) && free(value));
    if !fits {
        return Err(HostError::Invalid(
            "a method, an outcome and property names are tokens; a reason and values are short lines of text"
                .into(),
        ));
    }
    Ok(())
}

fn octets_of(result: &AuthResult) -> usize {
    let properties = result.properties.iter().map(|(name, value)| name.len() + value.len());
    let words = result.method.len() + result.outcome.len() + result.reason.as_ref().map_or(0, String::len);
    properties.sum::<usize>() + words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarantine_names_are_short_words() {
        for good in ["spam", "virus-2", "x", &"x".repeat(MAX_QUARANTINE)] {
            assert!(names_a_quarantine(good), "{good}");
        }
        for bad in [
            "",
            "two words",
            "Spam",
            "a\u{1b}[2J",
            "\u{202e}x",
            "a\nb",
            "a/b",
            &"x".repeat(MAX_QUARANTINE + 1),
        ] {
            assert!(!names_a_quarantine(bad), "{bad:?}");
        }
    }
}
