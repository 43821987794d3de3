//! Relay control: which clients may send mail to domains that are not ours, with which senders, and how much.
//!
//! The core relays only for authenticated identities and trusted networks. Rules of this plugin allow it for further
//! clients, or refuse it to some of these. The plugin can only ask the core to permit a single recipient, so the relay
//! stays closed if the plugin is missing or broken. An address that hides another (`user%host@ours`, `host!user@ours`,
//! `"user@host"@ours`) is checked for every domain that a next hop might read from it. The gateway's configuration
//! defines which domains are ours.

mod hidden;
mod normal;
mod rules;
mod senders;

use std::collections::BTreeMap;

use pintle_plugin_sdk::kv::{self, Bucket};
use pintle_plugin_sdk::settings::Domain;
use pintle_plugin_sdk::{gateway, mailboxes, metrics, prelude::*};
use serde::Deserialize;

use crate::rules::{Client, Rule, Word};
use crate::senders::{Others, Sender, may_use};

/// The operator's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RelayControl {
    /// Mail to these domains is not relaying, as for the gateway's own domains.
    local_domains: Vec<Domain>,
    /// Rules; the first that matches decides.
    rules: Vec<Rule>,
    /// The decision about relaying that no rule matches.
    otherwise: Otherwise,
    /// The senders that an identity may use.
    senders: BTreeMap<String, Vec<Sender>>,
    /// The same for identities that are not in `senders`.
    other_senders: Others,
    /// Whether the addresses in the From field are checked too.
    check_from: bool,
    /// Whether identities may send with the null reverse-path, as read receipts do.
    null_sender: bool,
    /// Limits per hour for each identity.
    limits: RelayLimits,
    /// Limits of individual identities, instead of `limits`.
    identity_limits: BTreeMap<String, RelayLimits>,
}

/// The decision about relaying that no rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Otherwise {
    /// The core decides: identities and trusted networks may relay.
    #[default]
    Core,
    Refuse,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RelayLimits {
    messages_per_hour: Option<u32>,
    recipients_per_hour: Option<u32>,
}

impl Default for RelayControl {
    fn default() -> Self {
        Self {
            local_domains: Vec::new(),
            rules: Vec::new(),
            otherwise: Otherwise::Core,
            senders: BTreeMap::new(),
            other_senders: Others::Any,
            check_from: true,
            null_sender: true,
            limits: RelayLimits::default(),
            identity_limits: BTreeMap::new(),
        }
    }
}

impl Plugin for RelayControl {
    const ID: &'static str = "pintle.relay-control";
    const WANTS: &'static [&'static str] = &["relay", "kv"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));

    fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        let mut mistakes = Vec::new();
        for (at, rule) in self.rules.iter_mut().enumerate() {
            let wrong = rule.prepare();
            mistakes.extend(wrong.into_iter().map(|(key, text)| mistake(format!("/rules/{at}{key}"), text)));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn conditions(&self) -> Result<(), HostError> {
        calls::only_known(&["on-mail", "on-headers"])
    }
}

impl RelayControl {
    fn on_mail(&self) -> Result<Verdict, HostError> {
        let Some(identity) = session::info()?.identity else {
            return Ok(Verdict::Next);
        };
        let sender = transaction::info()?.sender;
        let allowed = if sender.is_null() { self.null_sender } else { self.allows(&identity, &sender) };
        if !allowed {
            return Ok(not_as(&identity, &sender.to_string()));
        }
        self.count(&identity, "messages", |limits| limits.messages_per_hour)
    }

    fn on_rcpt(&self, rcpt: &Recipient) -> Result<Verdict, HostError> {
        let session = session::info()?;
        let client = Client::of_session(&session, transaction::info()?.sender)?;
        let verdict = match self.relaying(&client, &rcpt.address, gateway::is_local) {
            Relaying::None => Verdict::Next,
            Relaying::Allowed(rule) => {
                debug!(rcpt = rcpt.address, rule = rule; "relaying allowed");
                metrics::count("allowed", 1, &[]);
                transaction::grant_relay(rcpt.id)?;
                Verdict::Next
            }
            Relaying::Unsaid(_) if self.otherwise == Otherwise::Core => Verdict::Next,
            Relaying::Unsaid(domain) => refused(rcpt, &domain, "no rule allows it"),
            Relaying::Refused(domain, rule) => refused(rcpt, &domain, &rule),
            Relaying::Unreadable(why) => unreadable(rcpt, why),
        };
        match (&session.identity, &verdict) {
            (Some(identity), Verdict::Next) => {
                self.count(identity, "recipients", |limits| limits.recipients_per_hour)
            }
            _ => Ok(verdict),
        }
    }

    fn on_headers(&self) -> Result<Verdict, HostError> {
        let Some(identity) = session::info()?.identity.filter(|_| self.check_from) else {
            return Ok(Verdict::Next);
        };
        let authors = match mailboxes::addresses_in_headers(&["From"]) {
            // The sender decides how many there are, so this is not a fault.
            Err(HostError::Limit(_)) => return Ok(not_as(&identity, "more authors than can be checked")),
            authors => authors?,
        };
        for author in authors {
            if !self.allows(&identity, &author) {
                return Ok(not_as(&identity, &format!("{}@{}", author.local, author.domain_shown)));
            }
        }
        Ok(Verdict::Next)
    }

    fn allows(&self, identity: &str, sender: &Address) -> bool {
        may_use(&self.senders, self.other_senders, identity, &sender.local, &sender.domain)
    }

    /// The combined decision of the rules for every domain that mail to this address might reach.
    fn relaying(&self, client: &Client, address: &Address, is_local: impl Fn(&str) -> bool) -> Relaying {
        if self.rules.is_empty() && self.otherwise == Otherwise::Core {
            return Relaying::None;
        }
        let hidden = hidden::hidden(&address.local);
        let mut targets = vec![(address.local.clone(), address.domain.clone())];
        // A rule that names a mailbox applies to every spelling that the next hop may normalise to it.
        targets.push((normal::normal(&address.local), address.domain.clone()));
        targets.extend(hidden.hosts.into_iter().map(|domain| (String::new(), domain)));
        // RFC 5321 section 4.5.1: <postmaster> without a domain is ours.
        let is_ours = |domain: &str| {
            domain.is_empty()
                || is_local(domain)
                || self.local_domains.iter().any(|ours| ours.matches(domain))
        };
        let mut outcome = hidden.unreadable.map_or(Relaying::None, Relaying::Unreadable);
        for (local, domain) in targets.into_iter().filter(|(_, domain)| !is_ours(domain)) {
            match (rules::word(&self.rules, client, &local, &domain), &outcome) {
                (Word::Refuse(rule), _) => return Relaying::Refused(domain, rule),
                (_, Relaying::Unreadable(_)) => {}
                (Word::None, _) => outcome = Relaying::Unsaid(domain),
                (Word::Allow(rule), Relaying::None) => outcome = Relaying::Allowed(rule),
                (Word::Allow(_), _) => {}
            }
        }
        outcome
    }

    /// Takes a token for one message or recipient of this identity. If the store fails, the call fails, and the
    /// operator's failure policy applies: the user of a stolen password must not evade the limit by filling the store.
    fn count(
        &self,
        identity: &str,
        what: &str,
        limit: impl Fn(&RelayLimits) -> Option<u32>,
    ) -> Result<Verdict, HostError> {
        let limits = self.identity_limits.get(identity).unwrap_or(&self.limits);
        let Some(limit) = limit(limits) else {
            return Ok(Verdict::Next);
        };
        let bucket = Bucket { capacity: limit, refill_per_minute: f64::from(limit) / 60.0 };
        if kv::take(&format!("{what} {identity}"), 1, bucket)?.allowed {
            return Ok(Verdict::Next);
        }
        metrics::count("limited", 1, &[("what", what)]);
        warn!(identity = identity; "above its limit of {limit} {what} an hour: has its password been stolen?");
        Ok(defer("4.7.0", format!("{identity} may send {limit} {what} an hour: please try again later")))
    }
}

/// The decision about mail to an address.
#[derive(Debug, PartialEq)]
enum Relaying {
    /// Not relaying: every interpretation of the address is local.
    None,
    /// Allowed by the rule of this name.
    Allowed(String),
    /// Refused: the domain, and the name of the rule.
    Refused(String, String),
    /// No rule matches this domain.
    Unsaid(String),
    /// The address may lead to a host that cannot be determined, for this reason.
    Unreadable(&'static str),
}

fn refused(rcpt: &Recipient, domain: &str, rule: &str) -> Verdict {
    metrics::count("refused", 1, &[]);
    info!(rcpt = rcpt.address, domain = domain, rule = rule; "relaying refused");
    reject("5.7.1", format!("Relaying denied: you may not send mail to {domain} through this server"))
}

fn unreadable(rcpt: &Recipient, why: &str) -> Verdict {
    metrics::count("refused", 1, &[]);
    info!(rcpt = rcpt.address; "relaying refused: the local part {why}");
    reject("5.7.1", format!("Relaying denied: the local part {why}, so it may name another host"))
}

fn not_as(identity: &str, sender: &str) -> Verdict {
    metrics::count("wrong_sender", 1, &[]);
    warn!(identity = identity, sender = sender; "this identity may not use this sender");
    reject("5.7.1", format!("{identity} may not send mail as {sender}"))
}

pintle_plugin_sdk::export!(RelayControl: on_mail, on_rcpt, on_headers);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(local: &str, domain: &str) -> Address {
        Address::new(local, domain)
    }

    /// Our domain is ours.example; trusted clients may send to partner.example, and no client to enemy.example.
    fn plugin() -> RelayControl {
        let mut allow = Rule::named("partners", true);
        allow.trusted = Some(true);
        allow.recipients = vec!["partner.example".to_owned().try_into().unwrap()];
        let mut refuse = Rule::named("enemies", false);
        refuse.recipients = vec!["enemy.example".to_owned().try_into().unwrap()];
        RelayControl {
            local_domains: vec!["more.example".to_owned().try_into().unwrap()],
            rules: vec![refuse, allow],
            ..RelayControl::default()
        }
    }

    fn relaying(local: &str, domain: &str) -> Relaying {
        let client = Client { trusted: true, ..Client::stranger() };
        plugin().relaying(&client, &address(local, domain), |domain| domain == "ours.example")
    }

    #[test]
    fn an_address_is_judged_by_every_domain_that_it_might_reach() {
        let unsaid = |domain: &str| Relaying::Unsaid(domain.to_owned());
        let refused = Relaying::Refused("enemy.example".to_owned(), "enemies".to_owned());
        assert_eq!(relaying("ann", "ours.example"), Relaying::None);
        assert_eq!(relaying("postmaster", ""), Relaying::None);
        assert_eq!(relaying("ann", "partner.example"), Relaying::Allowed("partners".to_owned()));
        assert_eq!(relaying("ann", "other.example"), unsaid("other.example"));
        assert_eq!(relaying("ann%partner.example", "ours.example"), Relaying::Allowed("partners".to_owned()));
        assert_eq!(relaying("ann%other.example", "partner.example"), unsaid("other.example"));
        assert_eq!(relaying("other.example!ann", "partner.example"), unsaid("other.example"));
        assert_eq!(relaying("ann@enemy.example", "ours.example"), refused);
        assert_eq!(relaying("@enemy.example:ann", "partner.example"), refused);
        assert_eq!(relaying("ann%ours.example", "ours.example"), Relaying::None);
        assert_eq!(relaying("ann%more.example", "ours.example"), Relaying::None);
        assert_eq!(relaying("enemy.example\u{ff1a}\u{ff1a}ann", "partner.example"), refused);
        assert_eq!(relaying(" IMCEASMTP-ann+40enemy.example", "partner.example"), refused);
        assert_eq!(relaying("ann%40enemy.example", "partner.example"), refused);
        assert!(matches!(relaying("=?x?q?ann?=", "partner.example"), Relaying::Unreadable(_)));
        assert!(matches!(relaying("=?x?q?ann?=%b.example", "partner.example"), Relaying::Unreadable(_)));
        assert_eq!(relaying("=?x?q?ann?=%enemy.example", "partner.example"), refused);
    }

    #[test]
    fn a_mailbox_is_refused_in_every_spelling() {
        let mut boss = Rule::named("boss", false);
        boss.recipients = vec!["boss@partner.example".to_owned().try_into().unwrap()];
        let mut plugin = plugin();
        plugin.rules.insert(0, boss);
        let client = Client { trusted: true, ..Client::stranger() };
        for local in ["boss", "BOSS", " boss", "bo\u{200b}ss", "\u{ff42}oss"] {
            let relaying = plugin.relaying(&client, &address(local, "partner.example"), |_| false);
            assert_eq!(
                relaying,
                Relaying::Refused("partner.example".to_owned(), "boss".to_owned()),
                "{local:?}"
            );
        }
    }

    #[test]
    fn where_nothing_is_said_of_relaying_the_core_decides_alone() {
        let is_local = |domain: &str| domain == "ours.example";
        let none = RelayControl::default();
        let strange = address("=?x?q?ann?=%b.example", "other.example");
        assert_eq!(none.relaying(&Client::stranger(), &strange, is_local), Relaying::None);
        let closed = RelayControl { otherwise: Otherwise::Refuse, ..none };
        let other = address("ann", "other.example");
        assert_eq!(
            closed.relaying(&Client::stranger(), &other, is_local),
            Relaying::Unsaid("other.example".to_owned())
        );
    }

    #[test]
    fn an_open_relay_is_a_mistake() {
        let mut plugin = plugin();
        plugin.rules.push(Rule::named("all", true));
        let mut everywhere = Rule::named("everywhere", true);
        everywhere.networks = vec!["0.0.0.0/0".to_owned().try_into().unwrap()];
        plugin.rules.push(everywhere);
        let places: Vec<_> = plugin.check().unwrap_err().into_iter().map(|mistake| mistake.at).collect();
        assert_eq!(places, ["/rules/2", "/rules/3/networks"]);
    }
}
