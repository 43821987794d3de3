//! Address rewriting (masquerading) in header fields and the envelope.

use pintle_plugin_sdk::Address;
use pintle_plugin_sdk::mailboxes::FieldMailbox;
use pintle_plugin_sdk::settings::Mailbox;
use serde::Deserialize;

use crate::block::{Block, FieldLine};
use crate::mail::{Direction, MailAtStage, RewriteStage};
use crate::replace_addresses;

/// One address mapping.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mapping {
    /// The addresses to rewrite: one address, all of a domain, or all of the domains below one.
    from: Mailbox,
    /// The new address, or a new domain for the same local part.
    to: String,
    #[serde(default)]
    pub(crate) stage: RewriteStage,
    #[serde(default = "outbound")]
    direction: Direction,
    /// Where addresses are rewritten.
    #[serde(rename = "in")]
    places: Option<Vec<AddressPlace>>,
    /// The fields for [`AddressPlace::Header`].
    #[serde(default = "usual_fields")]
    fields: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AddressPlace {
    Sender,
    Recipients,
    Header,
}

/// Rewrites the addresses in header fields. `mailboxes` finds them in a value; a field for which it returns `None` stays
/// unchanged.
pub(crate) fn in_fields(
    mappings: &[Mapping],
    mail: &MailAtStage,
    block: &mut Block,
    mailboxes: impl Fn(&str) -> Option<Vec<FieldMailbox>>,
) {
    let concerned = |line: &FieldLine| {
        let is_for = |mapping: &&Mapping| {
            mapping.concerns(AddressPlace::Header, mail) && mapping.fields.iter().any(|name| line.is(name))
        };
        mappings.iter().filter(is_for).collect::<Vec<_>>()
    };
    block.rewrite(
        |line| !concerned(line).is_empty(),
        |line| {
            let mappings = concerned(line);
            replace_addresses(&line.value, &mailboxes(&line.value)?, |address| {
                mappings.iter().find_map(|mapping| mapping.map(&address.local, &address.domain))
            })
        },
    );
}

/// The rewritten envelope sender; `None` if no mapping applies. The null sender is never rewritten.
pub(crate) fn sender(mappings: &[Mapping], mail: &MailAtStage) -> Option<String> {
    in_envelope(mappings, AddressPlace::Sender, mail, &mail.sender)
}

/// The rewritten recipient; `None` if no mapping applies.
pub(crate) fn recipient(mappings: &[Mapping], mail: &MailAtStage, recipient: &Address) -> Option<String> {
    in_envelope(mappings, AddressPlace::Recipients, mail, recipient)
}

fn in_envelope(
    mappings: &[Mapping],
    place: AddressPlace,
    mail: &MailAtStage,
    address: &Address,
) -> Option<String> {
    let mut concerned = mappings.iter().filter(|mapping| mapping.concerns(place, mail));
    let new = concerned.find_map(|mapping| mapping.map(&address.local, &address.domain))?;
    (new != address.text).then_some(new)
}

impl Mapping {
    /// The first mistake in the mapping, with its key.
    pub(crate) fn mistake(&self) -> Option<(&'static str, String)> {
        if Mailbox::try_from(self.to.clone()).is_err() || self.to.starts_with('.') {
            return Some(("to", format!("{:?} is neither an address nor a domain", self.to)));
        }
        if self.places().is_empty() {
            return Some(("in", "the list is empty, so nothing is rewritten".to_owned()));
        }
        let envelope = self.places().iter().any(|place| *place != AddressPlace::Header);
        (self.stage == RewriteStage::Deliver && envelope).then(|| {
            (
                "in",
                "envelopes are rewritten at `receive` alone: leave `in` out, or say [\"header\"]".to_owned(),
            )
        })
    }

    fn concerns(&self, place: AddressPlace, mail: &MailAtStage) -> bool {
        self.stage == mail.stage && self.direction.fits(mail.way) && self.places().contains(&place)
    }

    fn places(&self) -> &[AddressPlace] {
        match (&self.places, self.stage) {
            (Some(places), _) => places,
            (None, RewriteStage::Receive) => &[AddressPlace::Sender, AddressPlace::Header],
            (None, RewriteStage::Deliver) => &[AddressPlace::Header],
        }
    }

    fn map(&self, local: &str, domain: &str) -> Option<String> {
        if !self.from.names(local, domain) {
            return None;
        }
        if self.to.contains('@') {
            return Some(self.to.clone());
        }
        // The text form quotes the local part if needed.
        Some(Address::new(local, &self.to).text)
    }
}

fn outbound() -> Direction {
    Direction::Outbound
}

fn usual_fields() -> Vec<String> {
    ["From", "Sender", "Reply-To"].map(str::to_owned).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::block::tests::{block, lines};
    use crate::mail::MailDirection;

    pub(crate) fn mapping(from: &str, to: &str) -> Mapping {
        Mapping {
            from: from.to_owned().try_into().unwrap(),
            to: to.to_owned(),
            stage: RewriteStage::Receive,
            direction: Direction::Outbound,
            places: None,
            fields: usual_fields(),
        }
    }

    /// The mailboxes at these addresses, which occur in the value in this order.
    fn mailboxes(value: &str, addresses: &[&str]) -> Vec<FieldMailbox> {
        let mut from = 0;
        let mailbox = |address: &&str| {
            let begin = from + value[from..].find(address).unwrap();
            from = begin + address.len();
            let (local, domain) = address.split_once('@').unwrap();
            let place = |at: usize| u32::try_from(at).unwrap();
            FieldMailbox { begin: place(begin), end: place(from), address: Address::new(local, domain) }
        };
        addresses.iter().map(mailbox).collect()
    }

    /// Takes the whole value for one address.
    pub(crate) fn only_mailbox(value: &str) -> Option<Vec<FieldMailbox>> {
        Some(mailboxes(value, &[value]))
    }

    #[test]
    fn addresses_change_and_what_stands_around_them_stays() {
        let mappings =
            [mapping("root@a.corp.example", "admin@corp.example"), mapping(".corp.example", "corp.example")];
        let mut header = block(
            "From: \"Ann <x@a.corp.example>\" <ann@a.corp.example> (at home), root@A.corp.example\nTo: b@a.corp.example",
        );
        in_fields(&mappings, &MailAtStage::of(MailDirection::Outbound), &mut header, |value| {
            Some(mailboxes(value, &["ann@a.corp.example", "root@A.corp.example"]))
        });
        assert_eq!(
            lines(&header),
            [
                "From: \"Ann <x@a.corp.example>\" <ann@corp.example> (at home), admin@corp.example",
                "To: b@a.corp.example"
            ]
        );
        let mut inbound = block("From: ann@a.corp.example");
        in_fields(&mappings, &MailAtStage::of(MailDirection::Inbound), &mut inbound, only_mailbox);
        assert_eq!(lines(&inbound), ["From: ann@a.corp.example"]);
    }

    #[test]
    fn a_field_with_too_many_mailboxes_stays_and_is_reported() {
        let mut header = block("From: ann@a.corp.example");
        let mail = MailAtStage::of(MailDirection::Outbound);
        in_fields(&[mapping(".corp.example", "corp.example")], &mail, &mut header, |_| None);
        assert_eq!(lines(&header), ["From: ann@a.corp.example"]);
        assert_eq!(header.unwritable().count(), 1);
    }

    #[test]
    fn the_envelope_changes_where_it_is_asked_for() {
        let mappings = [mapping(".corp.example", "corp.example")];
        let address = Address::new;
        let from = |sender: Address| MailAtStage { sender, ..MailAtStage::of(MailDirection::Outbound) };
        assert_eq!(
            sender(&mappings, &from(address("a b", "x.corp.example"))).as_deref(),
            Some("\"a b\"@corp.example")
        );
        assert_eq!(sender(&mappings, &from(address("ann", "corp.example"))), None);
        assert_eq!(sender(&mappings, &from(address("", ""))), None, "the null sender");
        let mail = MailAtStage::of(MailDirection::Outbound);
        assert_eq!(recipient(&mappings, &mail, &address("ann", "x.corp.example")), None);
    }

    #[test]
    fn a_target_that_is_no_address_is_a_mistake() {
        assert_eq!(mapping("a.example", ".b.example").mistake().unwrap().0, "to");
        assert_eq!(mapping("a.example", "no domain").mistake().unwrap().0, "to");
        assert_eq!(mapping("a.example", "b.example").mistake(), None);
        let mut late = Mapping { stage: RewriteStage::Deliver, ..mapping("a.example", "b.example") };
        assert_eq!(late.mistake(), None, "by default the header alone");
        late.places = Some(vec![AddressPlace::Header, AddressPlace::Sender]);
        assert_eq!(late.mistake().unwrap().0, "in");
    }
}
