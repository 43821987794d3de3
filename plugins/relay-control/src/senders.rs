//! The senders that each identity may use, so that a stolen password cannot send as another user.

use std::collections::BTreeMap;

use pintle_plugin_sdk::settings::Mailbox;
use serde::Deserialize;

/// A sender that an identity may use: an address, a domain, or `*` for all.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Sender {
    Any,
    Of(Mailbox),
}

/// The senders permitted to identities without an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Others {
    #[default]
    Any,
    /// The address that is the identity's name.
    Own,
    None,
}

impl TryFrom<String> for Sender {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "*" { Ok(Self::Any) } else { Mailbox::try_from(text).map(Self::Of) }
    }
}

/// Whether this identity may send as this address.
pub(crate) fn may_use(
    senders: &BTreeMap<String, Vec<Sender>>,
    others: Others,
    identity: &str,
    local: &str,
    domain: &str,
) -> bool {
    let local = untagged(local);
    match (senders.get(identity), others) {
        (Some(listed), _) => listed.iter().any(|sender| match sender {
            Sender::Any => true,
            Sender::Of(mailbox) => mailbox.names(local, domain),
        }),
        (None, Others::Any) => true,
        (None, Others::Own) => format!("{local}@{domain}").to_lowercase() == identity.to_lowercase(),
        (None, Others::None) => false,
    }
}

/// The local part without a bounce tag (draft-levine-smtp-batv-01): `prvs=0123abcdef=ann` is ann's own address.
pub(crate) fn untagged(local: &str) -> &str {
    let tagged = local.get(..5).filter(|word| word.eq_ignore_ascii_case("prvs=")).and(local.get(5..));
    let parts = tagged.and_then(|rest| rest.split_once('='));
    let is_tag = |tag: &str| tag.len() == 10 && tag.bytes().all(|b| b.is_ascii_hexdigit());
    parts.filter(|(tag, own)| is_tag(tag) && !own.is_empty()).map_or(local, |(_, own)| own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_uses_its_own_senders() {
        let list =
            |texts: &[&str]| texts.iter().map(|text| Sender::try_from((*text).to_owned()).unwrap()).collect();
        let senders: BTreeMap<String, Vec<Sender>> = [
            ("ann".to_owned(), list(&["ann@x.example", "lists.example"])),
            ("scanner".to_owned(), list(&["*"])),
        ]
        .into();
        let may = |others, identity: &str, local: &str, domain: &str| {
            may_use(&senders, others, identity, local, domain)
        };
        assert!(may(Others::None, "ann", "Ann", "x.example"));
        assert!(may(Others::None, "ann", "any", "lists.example"));
        assert!(!may(Others::Any, "ann", "director", "x.example"));
        assert!(may(Others::None, "ann", "prvs=0123abcdef=ann", "x.example"), "listed, with its tag");
        assert!(!may(Others::Any, "ann", "prvs=0123abcdef=director", "x.example"));
        assert!(!may(Others::Any, "ann", "prvs=0123abcdef=prvs=0123abcdef=ann", "x.example"), "one tag");
        assert!(may(Others::None, "scanner", "director", "x.example"));
        assert!(may(Others::Own, "bob@x.example", "BOB", "x.example"));
        assert!(!may(Others::Own, "bob@x.example", "ann", "x.example"));
        assert!(
            may(Others::Own, "bob@x.example", "PRVS=0123abcdef=Bob", "x.example"),
            "a tag of ours or others"
        );
        for other in ["prvs=0123abcdef=ann", "prvs=bob", "prvs=0123abcdex=bob", "prvs=0123abcdef="] {
            assert!(!may(Others::Own, "bob@x.example", other, "x.example"), "{other}");
        }
        assert!(may(Others::Any, "bob", "ann", "x.example") && !may(Others::None, "bob", "ann", "x.example"));
    }
}
