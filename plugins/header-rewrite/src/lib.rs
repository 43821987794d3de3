//! Header rewriting by configured rules: removes fields for safety at the edge and internal fields from outgoing mail;
//! adds, removes, renames and replaces other fields; rewrites addresses (masquerading).
//!
//! Most of it runs after the header and before the body, so that later plugins see the result; changes that differ
//! between the recipients of one message run before each delivery. The fields are copied into a [`block::Block`], all
//! steps modify that, and the differences become edits. So a dry run can log exactly what would change, and a field
//! that no step touches keeps its octets.

mod addresses;
mod block;
mod mail;
mod octets;
mod rules;

use pintle_plugin_sdk::mailboxes::{self, FieldMailbox};
use pintle_plugin_sdk::{metrics, prelude::*};
use serde::Deserialize;

use crate::addresses::Mapping;
use crate::block::{Block, Glob};
use crate::mail::{MailAtStage, MailDirection, RewriteStage};
use crate::rules::Rule;

/// The operator's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HeaderRewrite {
    /// Fields removed from mail of strangers.
    strip_inbound: Vec<Glob>,
    /// Fields removed from outgoing mail of our own clients.
    strip_outbound: Vec<Glob>,
    /// The stage at which `strip_outbound` applies.
    strip_outbound_at: RewriteStage,
    /// Our identifiers in Authentication-Results in addition to the gateway's own: a stranger's field with one of them
    /// is forged.
    authserv_ids: Vec<String>,
    /// Rules, applied in this order.
    rules: Vec<Rule>,
    /// Address mappings, applied after the rules; the first that matches an address is used.
    addresses: Vec<Mapping>,
    /// Log the changes without making them.
    dry_run: bool,
}

impl Default for HeaderRewrite {
    fn default() -> Self {
        // Exchange trusts these fields within an organisation; this is its header firewall, applied at the gateway in
        // front of it.
        let exchange = ["X-MS-Exchange-Organization-*", "X-MS-Exchange-Forest-*"];
        Self {
            strip_inbound: exchange.into_iter().map(Glob::new).collect(),
            strip_outbound: Vec::new(),
            strip_outbound_at: RewriteStage::Receive,
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
        let mail = MailAtStage::received()?;
        let mut block = Block::new(octets::fields()?);
        self.rewrite(&mut block, &mail, mailboxes_in);
        self.change_fields(&block)?;
        self.change_envelope(&mail)?;
        Ok(Verdict::Next)
    }

    fn on_deliver(&self) -> Result<Verdict, HostError> {
        if !self.has_work_at_deliveries() {
            return Ok(Verdict::Next);
        }
        let mail = MailAtStage::delivered()?;
        let mut block = Block::new(octets::fields()?);
        self.rewrite(&mut block, &mail, mailboxes_in);
        self.change_fields(&block)?;
        Ok(Verdict::Next)
    }

    fn has_work_at_deliveries(&self) -> bool {
        let strips = self.strip_outbound_at == RewriteStage::Deliver && !self.strip_outbound.is_empty();
        strips
            || self.rules.iter().any(|rule| rule.stage == RewriteStage::Deliver)
            || self.addresses.iter().any(|mapping| mapping.stage == RewriteStage::Deliver)
    }

    /// Applies all steps to the header. `mailboxes` finds the mailboxes in a value, as [`mailboxes_in`] does.
    fn rewrite(
        &self,
        block: &mut Block,
        mail: &MailAtStage,
        mailboxes: impl Fn(&str) -> Option<Vec<FieldMailbox>>,
    ) {
        match mail.way {
            MailDirection::Inbound if mail.stage == RewriteStage::Receive => {
                strip(&self.strip_inbound, block, mail.stage);
                block.remove(|field| self.is_forged(mail, &field.name, &field.value));
            }
            MailDirection::Outbound if mail.stage == self.strip_outbound_at => {
                strip(&self.strip_outbound, block, mail.stage);
            }
            MailDirection::Inbound | MailDirection::Outbound | MailDirection::Internal => {}
        }
        for rule in self.rules.iter().filter(|rule| rule.stage == mail.stage) {
            rule.apply(block, mail);
        }
        addresses::in_fields(&self.addresses, mail, block, mailboxes);
    }

    /// RFC 8601 section 5: a field with our own identifier that others wrote must be removed.
    fn is_forged(&self, mail: &MailAtStage, name: &str, value: &str) -> bool {
        let id = rules::authserv_id(value);
        let mut ours = self.authserv_ids.iter().chain([&mail.hostname]);
        name.eq_ignore_ascii_case("Authentication-Results") && ours.any(|ours| ours.eq_ignore_ascii_case(&id))
    }

    fn change_fields(&self, block: &Block) -> Result<(), HostError> {
        let unwritable: Vec<&str> = block.unwritable().map(|line| line.name.as_str()).collect();
        tell_left(&unwritable);
        let edits = block.edits();
        let count = edits.removals.len() + edits.changes.len();
        if count == 0 {
            return Ok(());
        }
        self.tell(&block.difference());
        if self.dry_run {
            return Ok(());
        }
        // A failed removal fails the call, so that no mail passes with a field that should be removed. Other edits
        // depend on the message, and senders must not be able to make the plugin fail.
        message::edit_headers(&edits.removals)?;
        let refused = message::edit_headers_each(&edits.changes)?;
        tell_left(&refused.iter().map(|at| edits.names[*at]).collect::<Vec<_>>());
        metrics::count_all("fields_changed", count - refused.len(), &[]);
        Ok(())
    }

    fn change_envelope(&self, mail: &MailAtStage) -> Result<(), HostError> {
        if let Some(to) = addresses::sender(&self.addresses, mail) {
            self.tell(&[format!("- MAIL FROM:<{}>", mail.sender.text), format!("+ MAIL FROM:<{to}>")]);
            if !self.dry_run {
                rewritten("senders_rewritten", transaction::rewrite_sender(&to))?;
            }
        }
        for rcpt in &mail.recipients {
            let Some(to) = addresses::recipient(&self.addresses, mail, &rcpt.address) else {
                continue;
            };
            self.tell(&[format!("- RCPT TO:<{}>", rcpt.address.text), format!("+ RCPT TO:<{to}>")]);
            if !self.dry_run {
                rewritten("recipients_rewritten", transaction::rewrite_recipient(rcpt.id, &to))?;
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

/// Logs the fields whose new value could not be written.
fn tell_left(names: &[&str]) {
    if !names.is_empty() {
        metrics::count_all("fields_left", names.len(), &[]);
        warn!(fields = names.join(" "); "left unchanged, since the new value fits in no header");
    }
}

/// Keeps an address that is not valid in an envelope unchanged: the sender controls it, and must not be able to make
/// the plugin fail.
fn rewritten(counter: &str, result: Result<(), HostError>) -> Result<(), HostError> {
    match result {
        Err(HostError::Invalid(why)) => {
            warn!("an address is left unchanged: {why}");
            metrics::count("rewrites_refused", 1, &[]);
            Ok(())
        }
        Ok(()) => {
            metrics::count(counter, 1, &[]);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Removes fields. RFC 5321 section 4.4 requires that each hop adds its trace information: at a delivery the topmost
/// Received field is this gateway's own, and is never removed.
fn strip(names: &[Glob], block: &mut Block, stage: RewriteStage) {
    let own =
        block.fields().position(|field| field.is("Received")).filter(|_| stage == RewriteStage::Deliver);
    block.remove_each(|at, field| Some(at) != own && names.iter().any(|glob| glob.matches(&field.name)));
}

/// The mailboxes in the value of an address field, which earlier steps may have changed. `None` if they are more than the
/// gateway returns, or if the value is far longer than any that the gateway writes.
fn mailboxes_in(value: &str) -> Option<Vec<FieldMailbox>> {
    let is_readable = value.len() <= 16 * message::MAX_VALUE;
    let entries = is_readable.then(|| mailboxes::in_text(value).ok()).flatten()?;
    Some(entries.into_iter().flat_map(|entry| entry.mailboxes).collect())
}

/// Replaces the addresses of these mailboxes, which are in order, by the results of `map`; `None` if the value exceeds
/// the length limit of a field.
fn replace_addresses(
    value: &str,
    mailboxes: &[FieldMailbox],
    map: impl Fn(&Address) -> Option<String>,
) -> Option<String> {
    // Built in one pass from the front: a field may contain thousands of addresses.
    let (mut new, mut from) = (String::with_capacity(value.len()), 0);
    for mailbox in mailboxes {
        let place = mailbox.range();
        let fresh = map(&mailbox.address).filter(|_| place.start >= from);
        if let Some(to) = fresh {
            new.push_str(&value[from..place.start]);
            new.push_str(&to);
            from = place.end;
            if new.len() > message::MAX_VALUE {
                return None;
            }
        }
    }
    Some(if from == 0 { value.to_owned() } else { new + &value[from..] })
}

pintle_plugin_sdk::export!(HeaderRewrite: on_headers, on_deliver);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::tests::only_mailbox;
    use crate::block::tests::{block, lines};

    fn plugin() -> HeaderRewrite {
        HeaderRewrite {
            strip_outbound: vec![Glob::new("Received"), Glob::new("X-Internal-*")],
            authserv_ids: vec!["old.ours.example".to_owned()],
            ..HeaderRewrite::default()
        }
    }

    fn rewritten(plugin: &HeaderRewrite, mail: &MailAtStage) -> Vec<String> {
        let mut block = block(HEADER);
        plugin.rewrite(&mut block, mail, only_mailbox);
        lines(&block)
    }

    const HEADER: &str = "Received: by gate\nReceived: by inner\nX-Internal-Id: 7\n\
        X-MS-Exchange-Organization-SCL: -1\nAuthentication-Results: gate.ours.example; spf=pass\n\
        Authentication-Results: OLD.ours.example 1; spf=pass\nAuthentication-Results: other.example; spf=pass\n\
        Subject: s";

    #[test]
    fn what_strangers_forge_is_taken_away() {
        assert_eq!(
            rewritten(&plugin(), &MailAtStage::of(MailDirection::Inbound)),
            [
                "Received: by gate",
                "Received: by inner",
                "X-Internal-Id: 7",
                "Authentication-Results: other.example; spf=pass",
                "Subject: s"
            ]
        );
    }

    #[test]
    fn what_is_internal_does_not_leave() {
        let left = rewritten(&plugin(), &MailAtStage::of(MailDirection::Outbound));
        assert!(left[0].starts_with("X-MS-Exchange-Organization-SCL"), "{left:?}");
        assert_eq!(left.len(), 5);
        assert_eq!(
            rewritten(&plugin(), &MailAtStage::of(MailDirection::Internal)).len(),
            8,
            "it does not leave"
        );
    }

    #[test]
    fn at_deliveries_the_gateways_own_trace_stays() {
        let plugin = HeaderRewrite { strip_outbound_at: RewriteStage::Deliver, ..plugin() };
        let delivery = |way| MailAtStage { stage: RewriteStage::Deliver, ..MailAtStage::of(way) };
        assert!(plugin.has_work_at_deliveries());
        let left = rewritten(&plugin, &delivery(MailDirection::Outbound));
        assert_eq!(left[..2], ["Received: by gate", "X-MS-Exchange-Organization-SCL: -1"]);
        assert_eq!(rewritten(&plugin, &MailAtStage::of(MailDirection::Outbound)).len(), 8, "not before");
        assert_eq!(rewritten(&plugin, &delivery(MailDirection::Inbound)).len(), 8);
    }

    #[test]
    fn rules_are_for_one_stage() {
        let mut plugin = HeaderRewrite {
            rules: vec![rules::tests::adding("X-Out", "1")],
            addresses: vec![addresses::tests::mapping("a.example", "b.example")],
            ..HeaderRewrite::default()
        };
        plugin.rules[0].stage = RewriteStage::Deliver;
        plugin.addresses[0].stage = RewriteStage::Deliver;
        let mut header = block("From: x@a.example");
        plugin.rewrite(&mut header, &MailAtStage::of(MailDirection::Outbound), only_mailbox);
        assert_eq!(lines(&header), ["From: x@a.example"]);
        plugin.rewrite(
            &mut header,
            &MailAtStage { stage: RewriteStage::Deliver, ..MailAtStage::of(MailDirection::Outbound) },
            only_mailbox,
        );
        assert_eq!(lines(&header), ["X-Out: 1", "From: x@b.example"]);
    }
}
