//! Addresses that the world, or the house, is to see in another form: masquerading.

use pintle_plugin_sdk::Address;
use pintle_plugin_sdk::settings::Mailbox;
use serde::Deserialize;

use crate::block::Block;
use crate::replace_addresses;
use crate::rules::Direction;

/// One way to rewrite addresses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mapping {
    /// Addresses that it is for: one, a domain's, or those of all domains below one.
    from: Mailbox,
    /// An address, or a domain for the same local part.
    to: String,
    #[serde(default = "outbound")]
    direction: Direction,
    /// Where addresses are rewritten.
    #[serde(default = "usual_places", rename = "in")]
    places: Vec<Place>,
    /// The fields of [`Place::Header`].
    #[serde(default = "usual_fields")]
    fields: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Place {
    Sender,
    Recipients,
    Header,
}

/// Rewrites the addresses in fields.
pub(crate) fn in_fields(mappings: &[Mapping], outbound: bool, block: &mut Block) {
    for line in block.fields_mut().filter(|line| line.is_readable()) {
        let concerned = |mapping: &&Mapping| {
            mapping.concerns(Place::Header, outbound)
                && mapping.fields.iter().any(|name| line.name.eq_ignore_ascii_case(name))
        };
        let concerned: Vec<_> = mappings.iter().filter(concerned).collect();
        if !concerned.is_empty() {
            line.value = replace_addresses(&line.value, |local, domain| {
                concerned.iter().find_map(|mapping| mapping.map(local, domain))
            });
        }
    }
}

/// The envelope's sender in its new form, if it gets one. The null sender has none.
pub(crate) fn sender(mappings: &[Mapping], outbound: bool, sender: &Address) -> Option<String> {
    in_envelope(mappings, Place::Sender, outbound, sender)
}

/// A recipient in its new form, if it gets one.
pub(crate) fn recipient(mappings: &[Mapping], outbound: bool, recipient: &Address) -> Option<String> {
    in_envelope(mappings, Place::Recipients, outbound, recipient)
}

fn in_envelope(mappings: &[Mapping], place: Place, outbound: bool, address: &Address) -> Option<String> {
    let mut concerned = mappings.iter().filter(|mapping| mapping.concerns(place, outbound));
    let new = concerned.find_map(|mapping| mapping.map(&address.local, &address.domain_ascii))?;
    (new != address.to_string()).then_some(new)
}

impl Mapping {
    /// What is wrong with it, by key.
    pub(crate) fn mistake(&self) -> Option<(&'static str, String)> {
        if Mailbox::try_from(self.to.clone()).is_err() || self.to.starts_with('.') {
            return Some(("to", format!("{:?} is neither an address nor a domain", self.to)));
        }
        self.places.is_empty().then(|| ("in", "it rewrites nothing".to_owned()))
    }

    fn concerns(&self, place: Place, outbound: bool) -> bool {
        self.direction.fits(outbound) && self.places.contains(&place)
    }

    fn map(&self, local: &str, domain: &str) -> Option<String> {
        if !self.from.names(local, domain) {
            return None;
        }
        if self.to.contains('@') {
            return Some(self.to.clone());
        }
        let address =
            Address { local: local.to_owned(), domain: self.to.clone(), domain_ascii: self.to.clone() };
        // Its text form quotes a local part that needs it.
        Some(address.to_string())
    }
}

fn outbound() -> Direction {
    Direction::Outbound
}

fn usual_places() -> Vec<Place> {
    vec![Place::Sender, Place::Header]
}

fn usual_fields() -> Vec<String> {
    ["From", "Sender", "Reply-To"].map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::tests::{block, lines};

    fn mapping(from: &str, to: &str) -> Mapping {
        Mapping {
            from: from.to_owned().try_into().unwrap(),
            to: to.to_owned(),
            direction: Direction::Outbound,
            places: usual_places(),
            fields: usual_fields(),
        }
    }

    #[test]
    fn addresses_change_and_what_stands_around_them_stays() {
        let mappings =
            [mapping("root@a.corp.example", "admin@corp.example"), mapping(".corp.example", "corp.example")];
        let mut header = block(
            "From: \"Ann <x@a.corp.example>\" <ann@a.corp.example> (at home), root@A.corp.example\nTo: b@a.corp.example",
        );
        in_fields(&mappings, true, &mut header);
        assert_eq!(
            lines(&header),
            [
                "From: \"Ann <x@a.corp.example>\" <ann@corp.example> (at home), admin@corp.example",
                "To: b@a.corp.example"
            ]
        );
        let mut inbound = block("From: ann@a.corp.example");
        in_fields(&mappings, false, &mut inbound);
        assert_eq!(lines(&inbound), ["From: ann@a.corp.example"]);
    }

    #[test]
    fn the_envelope_changes_where_it_is_asked_for() {
        let mappings = [mapping(".corp.example", "corp.example")];
        let address = |local: &str, domain: &str| Address {
            local: local.to_owned(),
            domain: domain.to_owned(),
            domain_ascii: domain.to_owned(),
        };
        assert_eq!(
            sender(&mappings, true, &address("a b", "x.corp.example")).as_deref(),
            Some("\"a b\"@corp.example")
        );
        assert_eq!(sender(&mappings, true, &address("ann", "corp.example")), None);
        assert_eq!(sender(&mappings, true, &address("", "")), None, "the null sender");
        assert_eq!(recipient(&mappings, true, &address("ann", "x.corp.example")), None);
    }

    #[test]
    fn a_target_that_is_no_address_is_a_mistake() {
        assert_eq!(mapping("a.example", ".b.example").mistake().unwrap().0, "to");
        assert_eq!(mapping("a.example", "no domain").mistake().unwrap().0, "to");
        assert_eq!(mapping("a.example", "b.example").mistake(), None);
    }
}
