//! Header rewriting by rules in the configuration: what the edge takes away for safety, what must not leave the house, and
//! whatever else has to be added, removed, renamed or replaced; and addresses that the world is to see in another form.
//!
//! All of it happens when the header is there and before the body is, so that later plugins see the result. The fields are
//! copied into a [`block::Block`], every step works on that, and what differs at the end becomes edits; so a dry run can
//! print exactly what would be changed, and a field that no step touches keeps its bytes.

mod addresses;
mod block;
mod rules;

use pintle_plugin_sdk::{fields, metrics, prelude::*};
use serde::Deserialize;

use crate::addresses::Mapping;
use crate::block::{Block, Glob};
use crate::rules::{Mail, Rule};

/// What the operator may configure.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HeaderRewrite {
    /// Taken away from what strangers send.
    strip_inbound: Vec<Glob>,
    /// Taken away from what our own clients send.
    strip_outbound: Vec<Glob>,
    /// Our names in Authentication-Results: a field that bears one and comes from a stranger is forged.
    authserv_ids: Vec<String>,
    /// In this order.
    rules: Vec<Rule>,
    /// After the rules; the first that fits an address is used.
    addresses: Vec<Mapping>,
    /// Log what would be changed, and change nothing.
    dry_run: bool,
}

impl Default for HeaderRewrite {
    fn default() -> Self {
        // Exchange trusts these inside of an organisation: its header firewall, for the edge before it.
        let exchange = ["X-MS-Exchange-Organization-*", "X-MS-Exchange-Forest-*"];
        Self {
            strip_inbound: exchange.into_iter().map(Glob::new).collect(),
            strip_outbound: Vec::new(),
            authserv_ids: Vec::new(),
            rules: Vec::new(),
            addresses: Vec::new(),
            dry_run: false,
        }
    }
}

impl Plugin for HeaderRewrite {
    const ID: &'static str = "pintle.header-rewrite";
    const WANTS: &'static [&'static str] = &["edit-headers", "edit-envelope"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));

    fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        let mut mistakes = Vec::new();
        for (at, rule) in self.rules.iter_mut().enumerate() {
            let wrong = rule.prepare();
            mistakes.extend(wrong.into_iter().map(|(key, text)| mistake(format!("/rules/{at}{key}"), text)));
        }
        for (at, mapping) in self.addresses.iter().enumerate() {
            mistakes
                .extend(mapping.mistake().map(|(key, text)| mistake(format!("/addresses/{at}/{key}"), text)));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }
}

impl HeaderRewrite {
    fn on_headers(&self) -> Result<Verdict, HostError> {
        let mail = Mail::at_hand()?;
        let mut block = Block::new(message::headers()?);
        self.rewrite(&mut block, &mail);
        self.change_fields(&block)?;
        self.change_envelope(&mail)?;
        Ok(Verdict::Next)
    }

    /// Every step on the header.
    fn rewrite(&self, block: &mut Block, mail: &Mail) {
        let strip = if mail.outbound { &self.strip_outbound } else { &self.strip_inbound };
        block.remove(|field| strip.iter().any(|glob| glob.matches(&field.name)));
        if !mail.outbound {
            block.remove(|field| self.is_forged(&field.name, &field.value));
        }
        for rule in &self.rules {
            rule.apply(block, mail);
        }
        addresses::in_fields(&self.addresses, mail.outbound, block);
    }

    /// RFC 8601 section 5: a field with our own identifier that others wrote must not stay.
    fn is_forged(&self, name: &str, value: &str) -> bool {
        let id = rules::authserv_id(value);
        name.eq_ignore_ascii_case("Authentication-Results")
            && self.authserv_ids.iter().any(|ours| ours.eq_ignore_ascii_case(&id))
    }

    fn change_fields(&self, block: &Block) -> Result<(), HostError> {
        let edits = block.edits();
        if edits.is_empty() {
            return Ok(());
        }
        self.tell(&block.difference());
        if self.dry_run {
            return Ok(());
        }
        metrics::count("fields_changed", edits.len() as u64, &[]);
        message::edit_headers(&edits)
    }

    fn change_envelope(&self, mail: &Mail) -> Result<(), HostError> {
        if let Some(to) = addresses::sender(&self.addresses, mail.outbound, &mail.sender) {
            self.tell(&[format!("- MAIL FROM:<{}>", mail.sender), format!("+ MAIL FROM:<{to}>")]);
            if !self.dry_run {
                metrics::count("senders_rewritten", 1, &[]);
                transaction::rewrite_sender(&to)?;
            }
        }
        for rcpt in &mail.recipients {
            let Some(to) = addresses::recipient(&self.addresses, mail.outbound, &rcpt.address) else {
                continue;
            };
            self.tell(&[format!("- RCPT TO:<{}>", rcpt.address), format!("+ RCPT TO:<{to}>")]);
            if !self.dry_run {
                metrics::count("recipients_rewritten", 1, &[]);
                transaction::rewrite_recipient(rcpt.id, &to)?;
            }
        }
        Ok(())
    }

    fn tell(&self, difference: &[String]) {
        for line in difference {
            if self.dry_run {
                info!("dry run: {line}");
            } else {
                debug!("{line}");
            }
        }
    }
}

/// The addresses in a field's value, each replaced by what `map` says.
fn replace_addresses(value: &str, map: impl Fn(&str, &str) -> Option<String>) -> String {
    let mut new = value.to_owned();
    for found in fields::addresses(value).into_iter().rev() {
        if let Some(to) = map(&found.local, &found.domain) {
            new.replace_range(found.place, &to);
        }
    }
    new
}

pintle_plugin_sdk::export!(HeaderRewrite: on_headers);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::tests::{block, lines};

    fn plugin() -> HeaderRewrite {
        HeaderRewrite {
            strip_outbound: vec![Glob::new("Received"), Glob::new("X-Internal-*")],
            authserv_ids: vec!["mx.ours.example".to_owned()],
            ..HeaderRewrite::default()
        }
    }

    fn rewritten(outbound: bool, text: &str) -> Vec<String> {
        let mut block = block(text);
        plugin().rewrite(&mut block, &Mail::of(outbound));
        lines(&block)
    }

    const HEADER: &str = "Received: by inner\nX-Internal-Id: 7\nX-MS-Exchange-Organization-SCL: -1\n\
        Authentication-Results: mx.ours.example; spf=pass\nAuthentication-Results: other.example; spf=pass\nSubject: s";

    #[test]
    fn what_strangers_forge_is_taken_away() {
        assert_eq!(
            rewritten(false, HEADER),
            [
                "Received: by inner",
                "X-Internal-Id: 7",
                "Authentication-Results: other.example; spf=pass",
                "Subject: s"
            ]
        );
    }

    #[test]
    fn what_is_internal_does_not_leave() {
        let left = rewritten(true, HEADER);
        assert!(left[0].starts_with("X-MS-Exchange-Organization-SCL"), "{left:?}");
        assert_eq!(left.len(), 4);
    }
}
