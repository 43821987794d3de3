//! Host functions of `mailboxes`: the mailboxes in address fields of the current message and in texts like them.

use std::sync::Arc;

use pintle_mail::address::domain_to_ascii;
use pintle_mail::mailboxes::entries;
use pintle_mail::{encoded_words, mailboxes as fields};
use wasmtime::component::{HasData, Linker};

use super::domains::{charge_domain, converted};
use super::header_fields::FieldNames;
use crate::bindings::pintle::plugin::mailboxes::{self, FieldMailbox, Host, MailboxEntry};
use crate::bindings::pintle::plugin::types::{Address, HostError};
use crate::call::CallState;
use crate::convert;
use crate::store_data::{HostParts, StoreData};

/// Maximum number of mailboxes that one call returns.
const MAX_MAILBOXES: usize = 10_000;
/// Maximum number of texts that one call decodes.
const MAX_TEXTS: usize = 10_000;
/// Budget charge per octet that is parsed or decoded, which takes several passes.
const OCTET_COST: u64 = 4;
/// Budget charge for a text or an entry, and for a mailbox, in addition to their octets.
const ENTRY_COST: usize = 32;
const MAILBOX_COST: usize = 128;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    mailboxes::add_to_linker::<_, MailboxesInterface>(linker, |data| MailboxesView::of(data.parts()))
}

struct MailboxesInterface;

impl HasData for MailboxesInterface {
    type Data<'a> = MailboxesView<'a>;
}

/// The data that the interface accesses: the current call.
pub(crate) struct MailboxesView<'a> {
    call: &'a mut CallState,
}

impl<'a> MailboxesView<'a> {
    pub(super) fn of(HostParts { call, .. }: HostParts<'a>) -> Self {
        Self { call }
    }
}

impl Host for MailboxesView<'_> {
    fn in_headers(&mut self, names: Vec<String>) -> Result<Vec<MailboxEntry>, HostError> {
        let names = FieldNames::read(self.call, names)?;
        let message = Arc::clone(self.call.message()?);
        let (mut found, mut room) = (Vec::new(), MAX_MAILBOXES);
        for field in message.header.iter().filter(|field| names.has(field)) {
            found.extend(self.read(convert::size(field.index as u64), &field.value(), &mut room)?);
        }
        Ok(found)
    }

    fn in_text(&mut self, value: String) -> Result<Vec<MailboxEntry>, HostError> {
        self.read(0, &value, &mut { MAX_MAILBOXES })
    }

    fn decode_words(&mut self, texts: Vec<String>) -> Result<Vec<String>, HostError> {
        if texts.len() > MAX_TEXTS {
            return Err(HostError::Limit(format!("one call takes at most {MAX_TEXTS} texts")));
        }
        let decoded = |text: String| {
            self.call.budget.charge(ENTRY_COST as u64 + OCTET_COST * text.len() as u64)?;
            Ok(encoded_words::decoded(&text))
        };
        texts.into_iter().map(decoded).collect()
    }
}

impl MailboxesView<'_> {
    /// The entries of one field's value. `room` is the number of mailboxes that may still be returned.
    fn read(&mut self, field: u32, value: &str, room: &mut usize) -> Result<Vec<MailboxEntry>, HostError> {
        self.call.budget.charge(OCTET_COST * value.len() as u64)?;
        // One mailbox more than there is room for shows that the limit is exceeded.
        let found = entries(value, *room + 1);
        let count = found.iter().map(|entry| entry.mailboxes.len()).sum();
        *room = room.checked_sub(count).ok_or_else(|| {
            HostError::Limit(format!(
                "one call returns at most {MAX_MAILBOXES} mailboxes, and there are more"
            ))
        })?;
        found.into_iter().map(|entry| self.entry(field, entry)).collect()
    }

    fn entry(&mut self, field: u32, entry: fields::MailboxEntry) -> Result<MailboxEntry, HostError> {
        let octets = ENTRY_COST + entry.name.len() + entry.encoded_name.len();
        self.call.budget.charge(octets as u64)?;
        Ok(MailboxEntry {
            field,
            // Decoded words can hold any character; no program shows controls.
            name: entry.name.replace(char::is_control, " "),
            encoded_name: entry.encoded_name,
            mailboxes: entry
                .mailboxes
                .into_iter()
                .map(|mailbox| self.mailbox(mailbox))
                .collect::<Result<_, _>>()?,
        })
    }

    fn mailbox(&mut self, mailbox: fields::FieldMailbox) -> Result<FieldMailbox, HostError> {
        let fields::FieldMailbox { range, text, local, domain } = mailbox;
        self.call.budget.charge((MAILBOX_COST + text.len() + local.len()) as u64)?;
        charge_domain(&mut self.call.budget, &domain)?;
        // The final dot of a name as DNS writes it is not part of an address.
        let normal = converted(domain.strip_suffix('.').unwrap_or(&domain), domain_to_ascii);
        Ok(FieldMailbox {
            begin: convert::size(range.start as u64),
            end: convert::size(range.end as u64),
            address: Address { text, local, domain: normal, domain_shown: domain },
        })
    }
}
