//! Converts the sections about receiving mail: TLS certificates, accepted domains, users, logins, scores.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use pintle_inbound::{HashFault, LoginLimits, StoredPassword as Password, Users, config::Rules};
use pintle_mail::{Address, Charset, Domains, UnixTime};
use pintle_sender_auth::sign::Keyring;
use pintle_tls::{
    CertificateSource, ClientCertificates, ClientConfig, ClientTls, Roots, ServerConfig, ServerTls, TlsError,
    Validity,
};

use super::{Names, refuse_the_internet, unique};
use crate::exposed::FileKind;
use crate::reader::Section;
use crate::values::{DomainPattern, OrZero, Positive, SecretText};
use crate::{Cause, CertificateRule, DeliveryRule, ListenerRule, SecretRule};

/// A certificate that expires within this time should have been renewed. For a short validity it is a third of that.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
/// The length of the date in an RFC 3339 time, in octets.
const DATE: usize = 10;

/// The certificates of the listeners, and the root certificates that next hops are verified against. Each certificate
/// is loaded once, to check that it is usable.
pub(super) fn tls(root: &Section<'_>, hostname: &str) -> (Option<ServerConfig>, ClientConfig) {
    let section = root.table("tls");
    let sections = section.list("certificate");
    let config = ServerConfig {
        certificates: sections.iter().map(certificate).collect(),
        client_certificates: section.get("client_certificates"),
    };
    let is_covered = |tls: ServerTls| hostname.is_empty() || tls.covers(hostname);
    if ServerTls::load(&config).is_ok_and(|tls| !is_covered(tls)) {
        root.spot("hostname").warn(ListenerRule::HostnameNotCovered(hostname.to_owned()));
    }
    let server = (!config.certificates.is_empty()).then_some(config);
    (server, roots(&section))
}

fn certificate(section: &Section<'_>) -> CertificateSource {
    let (chain, key): (PathBuf, PathBuf) = (section.get("chain"), section.get("key"));
    let source = CertificateSource::Files { chain, key: key.clone() };
    let both = section.has("chain") && section.has("key");
    let alone =
        ServerConfig { certificates: vec![source.clone()], client_certificates: ClientCertificates::Ignore };
    if let (true, Err(error)) = (both, ServerTls::load(&alone)) {
        let at_key = match &error {
            TlsError::Unreadable { path, .. } => *path == key,
            TlsError::NoKey { .. } => true,
            _ => false,
        };
        section.complain(if at_key { "key" } else { "chain" }, Cause::Certificate(error.to_string()));
    }
    age(section, &source);
    if section.has("key") {
        section.spot("key").guard(&key, FileKind::Secret);
    }
    source
}

/// Warns of a certificate that has expired, expires soon, or is not valid yet. It is not a mistake: a gateway that does
/// not start accepts no mail at all, and most senders do not verify certificates.
fn age(section: &Section<'_>, source: &CertificateSource) {
    let Ok(Validity { begins, ends }) = source.validity() else { return };
    let now = SystemTime::now();
    let date = |time: SystemTime| UnixTime::from(time).rfc3339()[..DATE].to_owned();
    let lives = begins.zip(ends).and_then(|(begins, ends)| ends.duration_since(begins).ok());
    let soon = lives.map_or(SOON, |lives| SOON.min(lives / 3));
    let spot = section.spot("chain");
    match (begins, ends) {
        (_, Some(ends)) if ends <= now => spot.warn(CertificateRule::Expired(date(ends))),
        (Some(begins), _) if begins > now => spot.warn(CertificateRule::NotYetValid(date(begins))),
        (_, Some(ends)) if ends <= now + soon => spot.warn(CertificateRule::ExpiresSoon(date(ends))),
        _ => {}
    }
}

fn roots(section: &Section<'_>) -> ClientConfig {
    let Some(path) = section.optional::<PathBuf>("roots") else {
        return ClientConfig::default();
    };
    section.spot("roots").guard(&path, FileKind::Trusted);
    let config = ClientConfig { roots: Roots::File(path) };
    if let Err(error) = ClientTls::load(&config) {
        section.complain("roots", Cause::Certificate(error.to_string()));
    }
    config
}

/// The rules that a reload can change while sessions run. `loops`: the routes send mail for our own name back to us.
pub(super) fn rules(root: &Section<'_>, loops: bool, keys: Arc<Keyring>) -> Rules {
    let accepted: Vec<DomainPattern> = root.table("domains").get("accepted");
    let (score, recipients) = (root.table("score"), root.table("recipients"));
    let (reject, quarantine) = (score.optional("reject"), score.optional("quarantine"));
    if let (Some(reject), Some(quarantine)) = (reject, quarantine)
        && quarantine >= reject
    {
        score.spot("quarantine").warn(DeliveryRule::QuarantineAboveReject);
    }
    let postmaster =
        root.optional::<Address>("postmaster").or_else(|| postmaster(&accepted).filter(|_| loops));
    if postmaster.is_none() && loops && !accepted.is_empty() {
        root.spot("postmaster").warn(DeliveryRule::PostmasterNowhere);
    }
    Rules {
        domains: Domains::new(accepted.iter().map(|pattern| pattern.0.as_str())),
        users: users(root),
        logins: logins(&root.table("authentication")),
        postmaster,
        max_hops: root.table("limits").get::<Positive<_>>("max_hops").0,
        max_refusals: root.table("limits").get::<Positive<_>>("max_refusals").0,
        keys,
        reject_score: reject,
        quarantine_score: quarantine,
        refused_recipients: recipients.get("refused"),
        one_group_per_transaction: recipients.get("one_group_per_transaction"),
    }
}

/// The postmaster of the first accepted domain: RFC 5321 section 4.5.1 requires one. None if all patterns start with a
/// dot.
fn postmaster(accepted: &[DomainPattern]) -> Option<Address> {
    let first = accepted.iter().find(|pattern| !pattern.0.starts_with('.'))?;
    Address::parse(&format!("postmaster@{}", first.0), Charset::Ascii).ok()
}

/// The networks of this key, which may relay. The whole Internet among them is a mistake.
pub(super) fn networks(section: &Section<'_>, key: &'static str) -> Vec<IpNet> {
    let networks: Vec<IpNet> = section.get(key);
    refuse_the_internet(&networks, section, key);
    networks
}

fn users(root: &Section<'_>) -> Users {
    let mut seen = Names::new();
    let mut users = HashMap::new();
    for section in root.list("user") {
        let name: String = section.get("name");
        unique(&mut seen, &section, "name", "user", &name);
        if let Some(password) = password(&section) {
            users.insert(name, password);
        }
    }
    Users::new(users)
}

fn password(section: &Section<'_>) -> Option<Password> {
    if section.has("password") == section.has("password_hash") {
        section.here().rule(SecretRule::OnePassword);
    }
    let plain = section.optional::<SecretText>("password").map(|secret| Password::Plain(secret.0));
    let hash = section.optional::<String>("password_hash").and_then(|hash| argon2(section, &hash));
    plain.or(hash)
}

/// Checks an Argon2 hash. With a truncated hash every login would fail without a visible reason; with a hash that costs
/// gigabytes of memory any client could exhaust the gateway.
fn argon2(section: &Section<'_>, hash: &str) -> Option<Password> {
    let complain = |fault: HashFault| {
        let expected = "an Argon2 hash in PHC form: \"$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH\"".into();
        section.complain("password_hash", Cause::Malformed { expected, why: fault.to_string() });
    };
    Password::argon2(hash).map_err(complain).ok()
}

/// The limits on failed logins from one network.
fn logins(section: &Section<'_>) -> LoginLimits {
    LoginLimits {
        max_failures: section.get::<Positive<_>>("max_failures").0,
        window: section.get("failure_window"),
        delay: section.get::<OrZero>("failure_delay").0,
        exempt: section.get("exempt"),
    }
}
