//! Converts relays and the credentials for them. A password is sent only over TLS to a host whose certificate was
//! verified, unless the operator explicitly allows less.

use std::collections::BTreeMap;

use pintle_mail::TlsPolicy;
use pintle_outbound::{Channel, Credentials, Endpoint, NamedCredentials, Protocol, Relay};

use crate::reader::Section;
use crate::values::{NonEmpty, Positive, RelayHost, SecretText};
use crate::{Cause, DeliveryRule, SecretRule};

/// The words with a meaning of their own in `via`, which cannot be names of relays.
pub(super) const RESERVED: &[&str] = &["mx", "discard"];

pub(super) fn relay((name, section): (String, Section<'_>)) -> (String, Relay) {
    if RESERVED.contains(&name.as_str()) {
        section.here().rule(DeliveryRule::ReservedName(name.clone()));
    }
    let (protocol, implicit_tls) = (section.get("protocol"), section.get("implicit_tls"));
    let port = match (protocol, implicit_tls) {
        (Protocol::Lmtp, _) => 24,
        (Protocol::Smtp, true) => 465,
        (Protocol::Smtp, false) => 25,
    };
    let hosts = section.get::<NonEmpty<RelayHost>>("hosts").0;
    let relay = Relay {
        hosts: hosts.iter().filter_map(|host| Endpoint::parse(&host.0, port).ok()).collect(),
        protocol,
        tls: section.get("tls"),
        implicit_tls,
        credentials: own_credentials(&section),
        sessions: section.optional::<Positive<_>>("max_sessions").map(|limit| limit.0),
    };
    if let Some(credentials) = &relay.credentials {
        check(credentials, &name, &relay, &section, "tls");
    }
    (name, relay)
}

fn own_credentials(section: &Section<'_>) -> Option<Credentials> {
    if section.has("username") != section.has("password") {
        let written = if section.has("username") { "username" } else { "password" };
        section.rule(written, SecretRule::HalfCredentials);
    }
    let (user, password) =
        (section.optional::<String>("username"), section.optional::<SecretText>("password"));
    let over = weakest(section);
    Some(Credentials { over, ..Credentials::new(user?, password?.0) })
}

/// Credentials that plugins choose by name, with the relays that they may be sent to.
pub(super) fn named_credentials(
    (name, section): (String, Section<'_>),
    relays: &BTreeMap<String, Relay>,
) -> (String, NamedCredentials) {
    let (user, password) = (section.get::<String>("username"), section.get::<SecretText>("password"));
    let credentials = Credentials { over: weakest(&section), ..Credentials::new(user, password.0) };
    let belongs_to = section.get::<NonEmpty<String>>("relays").0;
    for name in &belongs_to {
        match relays.get(name) {
            Some(relay) => check(&credentials, name, relay, &section, "relays"),
            None => {
                let known = relays.keys().cloned().collect();
                section.complain("relays", Cause::Undefined { what: "relay", name: name.clone(), known });
            }
        }
    }
    (name, NamedCredentials { credentials, relays: belongs_to.into_iter().collect() })
}

/// The weakest channel over which the operator allows these credentials to be sent.
fn weakest(section: &Section<'_>) -> Channel {
    match (section.get("plain_without_tls"), section.get("credentials_without_verified_tls")) {
        (true, _) => Channel::Plain,
        (false, true) => Channel::Tls,
        (false, false) => Channel::VerifiedTls,
    }
}

/// Records a mistake if a session with the relay may be over a weaker channel than the credentials require: they would
/// not be sent, and the relay's mail would be deferred.
fn check(credentials: &Credentials, name: &str, relay: &Relay, section: &Section<'_>, key: &str) {
    let worst = match relay.tls {
        TlsPolicy::Verified => Channel::VerifiedTls,
        TlsPolicy::Required => Channel::Tls,
        TlsPolicy::None | TlsPolicy::Opportunistic if relay.implicit_tls => Channel::Tls,
        TlsPolicy::None | TlsPolicy::Opportunistic => Channel::Plain,
    };
    if worst >= credentials.over {
        return;
    }
    let name = name.to_owned();
    section.rule(
        key,
        if worst == Channel::Plain {
            SecretRule::CredentialsInTheClear(name)
        } else {
            SecretRule::CredentialsUnverified(name)
        },
    );
}
