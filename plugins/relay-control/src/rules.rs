//! Relay rules: conditions on the client, the sender and the recipient, and a decision.

use pintle_plugin_sdk::settings::{Mailbox, Network};
use pintle_plugin_sdk::{Address, HostError, IpAddress, session};
use serde::Deserialize;

use crate::senders::untagged;

/// One rule. It matches when all of its conditions do. A list matches when one of its items does; an absent condition
/// always matches.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    name: String,
    action: RuleAction,
    #[serde(default)]
    pub(crate) networks: Vec<Network>,
    #[serde(default)]
    identities: Vec<String>,
    /// SHA-256 fingerprints of client certificates.
    #[serde(default)]
    certificates: Vec<String>,
    /// Whether the client has authenticated.
    authenticated: Option<bool>,
    /// Whether the client is in a trusted network.
    pub(crate) trusted: Option<bool>,
    tls: Option<bool>,
    #[serde(default)]
    listeners: Vec<String>,
    #[serde(default)]
    senders: Vec<Mailbox>,
    #[serde(default)]
    pub(crate) recipients: Vec<Mailbox>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RuleAction {
    Allow,
    Refuse,
}

/// The decision of the rules, with the name of the rule.
#[derive(Debug, PartialEq)]
pub(crate) enum Word {
    Allow(String),
    Refuse(String),
    None,
}

/// The properties of a client that conditions examine.
pub(crate) struct Client {
    pub(crate) address: IpAddress,
    pub(crate) listener: String,
    pub(crate) identity: Option<String>,
    pub(crate) certificate: Option<String>,
    pub(crate) trusted: bool,
    pub(crate) tls: bool,
    pub(crate) sender: Address,
}

/// Returns the decision of the first rule that matches mail of this client to this domain. `local` is empty if the
/// domain was found hidden in an address.
pub(crate) fn word(rules: &[Rule], client: &Client, local: &str, domain: &str) -> Word {
    let first = rules.iter().find(|rule| rule.fits(client, local, domain));
    first.map_or(Word::None, |rule| match rule.action {
        RuleAction::Allow => Word::Allow(rule.name.clone()),
        RuleAction::Refuse => Word::Refuse(rule.name.clone()),
    })
}

impl Client {
    pub(crate) fn of_session(session: &session::Snapshot, sender: Address) -> Result<Self, HostError> {
        let certificate = session::client_certificate()?;
        Ok(Self {
            address: session.client.clone(),
            listener: session.listener.clone(),
            identity: session.identity.clone(),
            certificate: certificate.map(|certificate| fingerprint(&certificate.sha256)),
            trusted: session.trusted,
            tls: session.tls,
            sender,
        })
    }

    #[cfg(test)]
    pub(crate) fn stranger() -> Self {
        Self {
            address: IpAddress { text: "192.0.2.1".to_owned(), octets: vec![192, 0, 2, 1] },
            listener: "mx".to_owned(),
            identity: None,
            certificate: None,
            trusted: false,
            tls: false,
            sender: Address::new("ann", "x.example"),
        }
    }
}

impl Rule {
    /// Normalises fingerprints; returns each mistake with its key, which begins with a slash or is empty.
    pub(crate) fn prepare(&mut self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        for (at, certificate) in self.certificates.iter_mut().enumerate() {
            *certificate = fingerprint(certificate);
            if certificate.len() != 64 || !certificate.bytes().all(|b| b.is_ascii_hexdigit()) {
                mistakes.push((
                    format!("/certificates/{at}"),
                    "not the 64 hexadecimal digits of a SHA-256 fingerprint".to_owned(),
                ));
            }
        }
        if self.action == RuleAction::Allow && !self.says_who() {
            let text = "it allows without saying whom: add networks, identities, certificates, `authenticated = true` or \
                `trusted = true`; listeners, senders and recipients alone would make an open relay";
            mistakes.push((String::new(), text.to_owned()));
        }
        if self.action == RuleAction::Allow && self.networks.iter().any(Network::is_everybody) {
            mistakes.push((
                "/networks".to_owned(),
                "a network of all addresses would make an open relay".to_owned(),
            ));
        }
        mistakes
    }

    /// Whether the rule has a condition that a stranger cannot meet by a false claim.
    fn says_who(&self) -> bool {
        !self.networks.is_empty()
            || !self.identities.is_empty()
            || !self.certificates.is_empty()
            || self.authenticated == Some(true)
            || self.trusted == Some(true)
    }

    fn fits(&self, client: &Client, local: &str, domain: &str) -> bool {
        any(&self.networks, |network| network.contains(&client.address))
            && any(&self.identities, |name| client.identity.as_ref() == Some(name))
            && any(&self.certificates, |print| client.certificate.as_ref() == Some(print))
            && self.authenticated.is_none_or(|wanted| wanted == client.identity.is_some())
            && self.trusted.is_none_or(|wanted| wanted == client.trusted)
            && self.tls.is_none_or(|wanted| wanted == client.tls)
            && any(&self.listeners, |name| *name == client.listener)
            && any(&self.senders, |mailbox| {
                mailbox.names(untagged(&client.sender.local), &client.sender.domain)
            })
            && any(&self.recipients, |mailbox| mailbox.names(local, domain))
    }

    #[cfg(test)]
    pub(crate) fn named(name: &str, allow: bool) -> Self {
        Self {
            name: name.to_owned(),
            action: if allow { RuleAction::Allow } else { RuleAction::Refuse },
            networks: Vec::new(),
            identities: Vec::new(),
            certificates: Vec::new(),
            authenticated: None,
            trusted: None,
            tls: None,
            listeners: Vec::new(),
            senders: Vec::new(),
            recipients: Vec::new(),
        }
    }
}

fn any<T>(list: &[T], fits: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(fits)
}

/// The fingerprint in lower case, without the colons that many programs print.
fn fingerprint(text: &str) -> String {
    text.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_conditions_of_a_rule_must_fit_and_the_first_rule_decides() {
        let mut first = Rule::named("first", false);
        first.listeners = vec!["submission".to_owned()];
        let mut second = Rule::named("second", true);
        second.identities = vec!["ann".to_owned(), "bob".to_owned()];
        second.senders = vec!["x.example".to_owned().try_into().unwrap()];
        let rules = [first, second];
        let mut client = Client::stranger();
        assert_eq!(word(&rules, &client, "c", "y.example"), Word::None);
        client.identity = Some("bob".to_owned());
        assert_eq!(word(&rules, &client, "c", "y.example"), Word::Allow("second".to_owned()));
        client.listener = "submission".to_owned();
        assert_eq!(word(&rules, &client, "c", "y.example"), Word::Refuse("first".to_owned()));
        client.listener = "mx".to_owned();
        client.sender.domain = "z.example".to_owned();
        assert_eq!(word(&rules, &client, "c", "y.example"), Word::None);
    }

    #[test]
    fn a_sender_with_a_tag_is_the_one_behind_it() {
        let mut rule = Rule::named("director", false);
        rule.senders = vec!["director@x.example".to_owned().try_into().unwrap()];
        let mut client = Client::stranger();
        for (local, fits) in
            [("director", true), ("prvs=0123abcdef=Director", true), ("prvs=x=director", false)]
        {
            client.sender.local = local.to_owned();
            assert_eq!(rule.fits(&client, "c", "y.example"), fits, "{local}");
        }
    }

    #[test]
    fn fingerprints_are_compared_in_one_form() {
        let mut rule = Rule::named("printer", true);
        rule.certificates = vec![["AB"; 32].join(":")];
        assert_eq!(rule.prepare(), []);
        let mut client = Client::stranger();
        assert!(!rule.fits(&client, "c", "y.example"));
        client.certificate = Some("ab".repeat(32));
        assert!(rule.fits(&client, "c", "y.example"));
        rule.certificates.push("ab".to_owned());
        assert_eq!(rule.prepare()[0].0, "/certificates/1");
    }
}
