//! The header fields that say who sent a message, with the mailboxes in them.

use pintle_plugin_sdk::mailboxes::{self, MailboxEntry};
use pintle_plugin_sdk::message::{self, Field};
use pintle_plugin_sdk::{Address, HostError};

/// The fields that are read, and of these the fields whose mailboxes are.
const FIELDS: [&str; 7] =
    ["From", "Reply-To", "Sender", "List-Id", "List-Post", "Resent-From", "Resent-Sender"];
const WITH_MAILBOXES: usize = 3;

/// The fields of a message about its senders.
pub(crate) struct SenderFields {
    fields: Vec<Field>,
    /// The entries of all fields with mailboxes, in the order of the fields.
    entries: Vec<MailboxEntry>,
}

/// A field with its entries.
pub(crate) struct SenderField<'f> {
    pub(crate) field: &'f Field,
    pub(crate) entries: &'f [MailboxEntry],
}

impl SenderFields {
    /// Reads them from the message; `None` if they have more mailboxes than the gateway returns. The sender decides how
    /// many there are, so that must not be an error.
    pub(crate) fn of_message() -> Result<Option<Self>, HostError> {
        let fields = message::headers_named(&FIELDS.map(str::to_owned))?;
        let named: Vec<String> = FIELDS[..WITH_MAILBOXES].iter().map(|&name| name.to_owned()).collect();
        match mailboxes::in_headers(&named) {
            Ok(entries) => Ok(Some(Self { fields, entries })),
            Err(HostError::Limit(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The fields of this name, in order.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = SenderField<'_>> {
        let fields = self.fields.iter().filter(move |field| is_named(field, name));
        fields.map(|field| {
            let start = self.entries.partition_point(|entry| entry.field < field.index);
            let len = self.entries[start..].partition_point(|entry| entry.field == field.index);
            SenderField { field, entries: &self.entries[start..start + len] }
        })
    }

    /// The addresses in the fields of this name, in order.
    pub(crate) fn addresses(&self, name: &str) -> impl Iterator<Item = &Address> {
        let mailboxes = self.named(name).flat_map(|field| field.entries).flat_map(|entry| &entry.mailboxes);
        mailboxes.map(|mailbox| &mailbox.address)
    }

    /// Whether the header marks the message as passed on by a list or a person: RFC 2919, RFC 2369 section 3.4, RFC
    /// 5322 section 3.6.6.
    pub(crate) fn is_relayed(&self) -> bool {
        let signs = &FIELDS[WITH_MAILBOXES..];
        self.fields.iter().any(|field| signs.iter().any(|sign| is_named(field, sign)))
    }

    /// Parses lines such as "From: ann@example.org".
    #[cfg(test)]
    pub(crate) fn of_lines(lines: &[&str]) -> Self {
        let field = |(index, line): (usize, &&str)| {
            let (name, value) = line.split_once(':').unwrap();
            let (name, value) = (name.trim_end().to_owned(), value.trim().to_owned());
            Field { index: u32::try_from(index).unwrap(), name, value }
        };
        let fields: Vec<Field> = lines.iter().enumerate().map(field).collect();
        let entries = |field: &Field| {
            let mut entries = crate::gateway_text::mailboxes_in(&field.value).unwrap();
            entries.iter_mut().for_each(|entry| entry.field = field.index);
            entries
        };
        Self { entries: fields.iter().flat_map(entries).collect(), fields }
    }
}

fn is_named(field: &Field, name: &str) -> bool {
    field.name.eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_says_so() {
        assert!(SenderFields::of_lines(&["list-id: x"]).is_relayed());
        assert!(!SenderFields::of_lines(&["List-Unsubscribe: x"]).is_relayed());
    }

    #[test]
    fn each_field_has_its_own_mailboxes() {
        let header = SenderFields::of_lines(&[
            "From: a@x.example, b@x.example",
            "Sender: c@x.example",
            "From: nobody:;",
            "from: d@x.example",
        ]);
        let texts = |name| header.addresses(name).map(|address| address.text.as_str()).collect::<Vec<_>>();
        assert_eq!(texts("From"), ["a@x.example", "b@x.example", "d@x.example"]);
        assert_eq!(texts("Sender"), ["c@x.example"]);
        assert_eq!(texts("Reply-To"), [] as [&str; 0]);
    }
}
