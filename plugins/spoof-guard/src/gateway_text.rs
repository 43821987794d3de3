//! The gateway's functions on texts of a message: decoding, mailboxes, registered domains, skeletons. Unit tests, which
//! have no gateway to call, use the crate that the gateway uses.

use pintle_plugin_sdk::HostError;
use pintle_plugin_sdk::mailboxes::MailboxEntry;
#[cfg(not(test))]
use pintle_plugin_sdk::{mailboxes, names};

#[cfg(test)]
use self::native::{mailboxes, names};

/// Length at which texts are cut before they are handed over, in octets. A header may be larger than what the gateway
/// accepts in one call.
const MAX_TEXT: usize = 64 << 10;

/// The texts with encoded words decoded, control characters included.
pub(crate) fn decoded<'t>(texts: impl Iterator<Item = &'t str>) -> Result<Vec<String>, HostError> {
    mailboxes::decode_words(&cut(texts))
}

/// The entries of a text that is written like an address field.
pub(crate) fn mailboxes_in(text: &str) -> Result<Vec<MailboxEntry>, HostError> {
    mailboxes::in_text(start(text))
}

/// The registered domain of each domain; see [`pintle_plugin_sdk::names`].
pub(crate) fn registered_domains<'t>(
    domains: impl Iterator<Item = &'t str>,
) -> Result<Vec<Option<String>>, HostError> {
    names::registered_domains(&cut(domains))
}

/// The skeletons of the texts (UTS 39), in normal form D.
pub(crate) fn skeletons<'t>(texts: impl Iterator<Item = &'t str>) -> Result<Vec<String>, HostError> {
    names::skeletons(&cut(texts))
}

fn cut<'t>(texts: impl Iterator<Item = &'t str>) -> Vec<String> {
    texts.map(|text| start(text).to_owned()).collect()
}

fn start(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

/// The same functions without a gateway.
#[cfg(test)]
pub(crate) mod native {
    pub(crate) mod mailboxes {
        use pintle_mail::address::domain_to_ascii;
        use pintle_mail::{encoded_words, mailboxes};
        use pintle_plugin_sdk::mailboxes::{FieldMailbox, MailboxEntry};
        use pintle_plugin_sdk::{Address, HostError};

        pub(crate) fn decode_words(texts: &[String]) -> Result<Vec<String>, HostError> {
            Ok(texts.iter().map(|text| encoded_words::decoded(text)).collect())
        }

        pub(crate) fn in_text(text: &str) -> Result<Vec<MailboxEntry>, HostError> {
            let mailbox = |found: mailboxes::FieldMailbox| FieldMailbox {
                begin: u32::try_from(found.range.start).unwrap(),
                end: u32::try_from(found.range.end).unwrap(),
                address: Address {
                    text: found.text,
                    local: found.local,
                    domain: domain_to_ascii(&found.domain),
                    domain_shown: found.domain,
                },
            };
            let entry = |found: mailboxes::MailboxEntry| MailboxEntry {
                field: 0,
                name: found.name.replace(char::is_control, " "),
                encoded_name: found.encoded_name,
                mailboxes: found.mailboxes.into_iter().map(mailbox).collect(),
            };
            Ok(mailboxes::entries(text, 10_000).into_iter().map(entry).collect())
        }
    }

    pub(crate) mod names {
        use pintle_mail::names;
        use pintle_plugin_sdk::HostError;

        pub(crate) fn registered_domains(domains: &[String]) -> Result<Vec<Option<String>>, HostError> {
            Ok(domains.iter().map(|domain| names::registered_domain(domain)).collect())
        }

        pub(crate) fn skeletons(texts: &[String]) -> Result<Vec<String>, HostError> {
            Ok(texts.iter().map(|text| names::skeleton(text)).collect())
        }
    }
}
