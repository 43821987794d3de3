//! Host functions of `transaction`: the envelope, and results about the mail (authentication results, scores, facts,
//! notes).

use pintle_mail::{Address, BodyType, Charset, ReversePath};
use pintle_policy::{AuthResult, Edit, EditError, Hook};
use wasmtime::component::{HasData, Linker};

use super::checks::{self, need};
use super::facts;
use crate::bindings::pintle::plugin::transaction::{self, Host, Snapshot};
use crate::bindings::pintle::plugin::types::{HostError, Recipient};
use crate::call::CallState;
use crate::call::unavailable;
use crate::store_data::{HostParts, StoreData};
use crate::{GrantKind, Grants, convert};

/// Maximum number of recipients that a transaction may reach through a plugin's additions.
const MAX_RECIPIENTS: usize = 10_000;
const MAX_PROPERTIES: usize = 32;
/// Maximum number of authentication results of a transaction over all plugins, and their total size: they become one
/// header field.
const MAX_RESULTS: usize = 256;
const MAX_RESULT_OCTETS: usize = 64 << 10;
/// Maximum number of score entries over all plugins.
const MAX_SCORES: usize = 1_000;
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

/// The data that the interface accesses: the current call.
pub(crate) struct TransactionView<'a> {
    call: &'a mut CallState,
    grants: &'a Grants,
}

impl<'a> TransactionView<'a> {
    fn of(HostParts { grants, call, .. }: HostParts<'a>) -> Self {
        Self { call, grants }
    }
}

impl Host for TransactionView<'_> {
    fn info(&mut self) -> Result<Snapshot, HostError> {
        let transaction = self.call.transaction()?;
        let envelope = &transaction.envelope;
        Ok(Snapshot {
            id: transaction.id.to_string(),
            sender: convert::reverse_path(&envelope.sender),
            sender_params: convert::mail_params(&envelope.params),
            declared_size: envelope.params.size,
            smtputf8: envelope.params.smtputf8,
            eight_bit: envelope.params.body != BodyType::SevenBit,
            require_tls: envelope.params.require_tls,
            recipient_count: u32::try_from(envelope.recipients.len()).unwrap_or(u32::MAX),
        })
    }

    fn recipients(&mut self) -> Vec<Recipient> {
        let count = self.call.recipient_count().unwrap_or(0);
        if self.call.budget.charge(ENTRY_COST * count as u64).is_err() {
            return Vec::new();
        }
        let transaction = self.call.transaction();
        transaction.map_or_else(
            |_| Vec::new(),
            |transaction| transaction.envelope.recipients.iter().map(convert::recipient).collect(),
        )
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

    fn note(&mut self, key: String) -> Option<Vec<u8>> {
        let judge = self.call.judge().to_owned();
        let note = self.call.transaction().ok()?.notes.get(&judge, &key).map(<[u8]>::to_vec);
        self.call.budget.charged(note, Vec::len)
    }

    fn set_note(&mut self, key: String, value: Option<Vec<u8>>) -> Result<(), HostError> {
        let judge = self.call.judge().to_owned();
        checks::check_note(&self.call.transaction()?.notes, &judge, &key, value.as_ref())?;
        let octets = key.len() + value.as_ref().map_or(0, Vec::len);
        self.call.record(Edit::Note(key, value), octets)
    }

    fn fact(&mut self, key: String) -> Option<String> {
        let judge = self.call.judge().to_owned();
        let fact = facts::find(&self.call.transaction().ok()?.facts, &judge, &key);
        self.call.budget.charged(fact, String::len)
    }

    fn set_fact(&mut self, key: String, value: String) -> Result<(), HostError> {
        let name = facts::name(self.call.judge(), key, self.grants)?;
        let judge = self.call.judge().to_owned();
        facts::check(&self.call.transaction()?.facts, &judge, &name, &value)?;
        let octets = name.len() + value.len();
        self.call.record(Edit::Fact(name, value), octets)
    }

    fn add_score(&mut self, rule: String, points: f64) -> Result<(), HostError> {
        self.call.transaction()?;
        checks::name("a rule's name", &rule)?;
        if self.call.transaction()?.scores.len() >= MAX_SCORES {
            return Err(HostError::Limit(format!(
                "a transaction has at most {MAX_SCORES} entries of points"
            )));
        }
        if !points.is_finite() {
            return Err(HostError::Invalid("points are a finite number".into()));
        }
        let octets = rule.len();
        self.call.record(Edit::Score(rule, points), octets)
    }

    fn score(&mut self) -> f64 {
        let score =
            self.call.transaction().map(|transaction| (transaction.score(), transaction.scores.len()));
        let (score, count) = score.unwrap_or((0.0, 0));
        // The cost of this call is known only afterwards; if it exceeds the budget, the next call is refused.
        let _ = self.call.budget.charge(8 * count as u64);
        score
    }

    fn add_auth_result(
        &mut self,
        method: String,
        outcome: String,
        reason: Option<String>,
        properties: Vec<(String, String)>,
    ) -> Result<(), HostError> {
        need(self.grants, GrantKind::AuthResults)?;
        self.call.transaction()?;
        let result = AuthResult { method, outcome, reason, properties };
        check_auth_result(&result)?;
        let octets = octets_of(&result);
        let there = &self.call.transaction()?.auth_results;
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

    fn auth_results(&mut self) -> Vec<transaction::AuthResult> {
        if self.call.budget.charge(MAX_RESULT_OCTETS as u64).is_err() {
            return Vec::new();
        }
        let transaction = self.call.transaction();
        transaction.map_or_else(
            |_| Vec::new(),
            |transaction| transaction.auth_results.iter().cloned().map(auth_result).collect(),
        )
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
        match self.call.hook {
            Some(Hook::Mail | Hook::Rcpt | Hook::Headers | Hook::Message) => Ok(()),
            _ => Err(unavailable("changing the envelope")),
        }
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

    fn recipient(&mut self, id: u32) -> Result<(), HostError> {
        let found = self.call.has_recipient(id)?;
        found.then_some(()).ok_or_else(|| HostError::Invalid(format!("there is no recipient {id}")))
    }
}

/// RFC 8601 section 2.2: methods, results and property names are tokens; reasons and values are quoted by the host.
fn check_auth_result(result: &AuthResult) -> Result<(), HostError> {
    let token = |text: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
        !text.is_empty() && text.len() <= checks::MAX_NAME && text.bytes().all(fits)
    };
    let free = |text: &str| text.len() <= 512 && !text.chars().any(char::is_control);
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
