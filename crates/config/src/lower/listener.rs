//! Converts the listeners. The kind of a listener determines the defaults of its keys; combinations of keys that cannot
//! work are mistakes.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use pintle_inbound::config::Rules;
use pintle_inbound::{AuthOffer, ListenerConfig, SessionLimits, StrangerLimits, TlsMode};
use pintle_smtp::server::config::{Auth, BareCr, Leniency, Limits, Timeouts};
use pintle_smtp::server::{self, SaslMechanism, SaslMechanisms};
use pintle_smtp::{Extension, Extensions};

use super::intake::networks;
use super::surroundings::TakenAddresses;
use super::{Names, unique};
use crate::ListenerRule;
use crate::reader::Section;
use crate::values::{Domain, ListenerKind, NonEmpty, Positive, Size};

/// The settings of other sections that all listeners depend on.
pub(super) struct ListenerDefaults<'a> {
    pub(super) hostname: &'a str,
    pub(super) rules: &'a Rules,
    pub(super) has_certificate: bool,
    /// Whether the file has users or plugins, valid or not, to authenticate clients: a mistake in one of them is
    /// reported there, and not again at each listener with AUTH.
    pub(super) has_users: bool,
    pub(super) has_plugins: bool,
    pub(super) networks: Vec<IpNet>,
}

/// The settings of one listener that depend on each other.
struct Access {
    kind: ListenerKind,
    tls: TlsMode,
    require_tls: bool,
    auth: AuthOffer,
    plain_without_tls: bool,
    trusted: Vec<IpNet>,
}

pub(super) fn listeners(
    root: &Section<'_>,
    shared: &ListenerDefaults<'_>,
    taken: &mut TakenAddresses,
) -> Vec<ListenerConfig> {
    let sections = root.list("listener");
    if !root.has("listener") {
        root.spot("listener").warn(ListenerRule::NoListener);
    }
    let mut names = Names::new();
    let lower = |section: &Section<'_>| {
        let config = listener(section, shared);
        unique(&mut names, section, "name", "listener", &config.name);
        config.addresses.iter().for_each(|address| taken.take(section, "addresses", *address));
        config
    };
    sections.iter().map(lower).collect()
}

fn listener(section: &Section<'_>, shared: &ListenerDefaults<'_>) -> ListenerConfig {
    let access = access(section, shared);
    check(section, &access, shared);
    ListenerConfig {
        name: section.get("name"),
        addresses: section.get::<NonEmpty<SocketAddr>>("addresses").0,
        tls: access.tls,
        auth: access.auth,
        limits: sessions(section, !access.trusted.is_empty()),
        strangers: StrangerLimits {
            time: section.get("max_stranger_time"),
            transactions: section.get::<Positive<_>>("max_stranger_transactions").0,
            octets: section.get::<Size>("max_stranger_size").0,
        },
        handshake_timeout: section.get("handshake_timeout"),
        smtp: Arc::new(smtp(section, &access, shared.hostname)),
        completes_header: section.optional("complete_header").unwrap_or(access.kind != ListenerKind::Mx),
        trusted: access.trusted,
    }
}

/// The limits on concurrent sessions. Without trusted networks, no sessions are reserved for trusted clients.
fn sessions(section: &Section<'_>, has_trusted: bool) -> SessionLimits {
    let total = section.get::<Positive<usize>>("max_sessions").0;
    let kept = section.optional("kept_for_trusted");
    if kept.is_some_and(|kept| kept >= total) {
        section.rule("kept_for_trusted", ListenerRule::NothingForStrangers);
    }
    SessionLimits {
        total,
        total_fits: !section.has("max_sessions"),
        kept_for_trusted: kept.unwrap_or(if has_trusted { total / 10 } else { 0 }),
        per_address: section.get::<Positive<_>>("max_per_address").0,
        per_network: section.get::<Positive<_>>("max_per_network").0,
        per_trusted_address: section.get::<Positive<_>>("max_per_trusted_address").0,
    }
}

fn access(section: &Section<'_>, shared: &ListenerDefaults<'_>) -> Access {
    let kind: ListenerKind = section.get("kind");
    let by_certificate = if shared.has_certificate { TlsMode::StartTls } else { TlsMode::None };
    let tls = section.optional("tls").unwrap_or(by_certificate);
    let plain_without_tls = section.get("plain_without_tls");
    let can_ask = shared.has_plugins || shared.has_users;
    let can_authenticate = can_ask && (tls != TlsMode::None || plain_without_tls);
    let by_kind = match kind {
        ListenerKind::Submission => AuthOffer::Required,
        ListenerKind::Relay if can_authenticate => AuthOffer::Offered,
        ListenerKind::Relay | ListenerKind::Mx => AuthOffer::Off,
    };
    let mut trusted = shared.networks.clone();
    trusted.extend(networks(section, "trusted"));
    Access {
        kind,
        tls,
        require_tls: section.optional("require_tls").unwrap_or(kind == ListenerKind::Submission),
        auth: section.optional("auth").unwrap_or(by_kind),
        plain_without_tls,
        trusted,
    }
}

fn check(section: &Section<'_>, access: &Access, shared: &ListenerDefaults<'_>) {
    let has_tls = access.tls != TlsMode::None;
    let has_auth = access.auth != AuthOffer::Off;
    // A listener with TLS that only lacks the certificate has one mistake; its consequences are not reported.
    let wants_tls = has_tls || access.require_tls && !section.has("tls");
    if wants_tls && !shared.has_certificate {
        section.rule("tls", ListenerRule::TlsWithoutCertificate);
    } else if access.require_tls && !has_tls {
        section.rule("require_tls", ListenerRule::RequireTlsWithoutTls);
    }
    if has_auth && !wants_tls && !access.plain_without_tls {
        section.rule("auth", ListenerRule::AuthNeverOffered);
    }
    if has_auth && !shared.has_users && !shared.has_plugins {
        section.rule("auth", ListenerRule::AuthWithoutUsers);
    }
    if has_auth && access.plain_without_tls {
        section.spot("plain_without_tls").warn(ListenerRule::PlainPasswords);
    }
    let has_domains = shared.rules.domains != pintle_mail::Domains::default();
    if !has_domains && !has_auth && access.trusted.is_empty() && !shared.has_plugins {
        section.here().warn(ListenerRule::AcceptsNothing);
    }
}

fn smtp(section: &Section<'_>, access: &Access, hostname: &str) -> server::Config {
    server::Config {
        hostname: hostname.to_owned(),
        banner: section.get("banner"),
        extensions: extensions(section, access),
        auth: Auth { mechanisms: mechanisms(section), without_tls: access.plain_without_tls },
        require_tls: access.require_tls,
        require_auth: access.auth == AuthOffer::Required,
        limits: limits(section),
        timeouts: Timeouts {
            command: section.get("command_timeout"),
            data: section.get("data_timeout"),
            message: section.get("message_timeout"),
        },
        leniency: leniency(section, access.kind),
        default_domain: section.optional::<Domain>("default_domain").map(|domain| domain.0),
    }
}

fn extensions(section: &Section<'_>, access: &Access) -> Extensions {
    let mut extensions = Extensions::default();
    if access.tls == TlsMode::StartTls {
        extensions = extensions.with(Extension::StartTls);
    }
    if access.auth != AuthOffer::Off {
        extensions = extensions.with(Extension::Auth);
    }
    section.get::<Vec<Extension>>("withhold").into_iter().fold(extensions, Extensions::without)
}

fn mechanisms(section: &Section<'_>) -> SaslMechanisms {
    let named: Vec<SaslMechanism> = section.get("mechanisms");
    SaslMechanisms {
        plain: named.contains(&SaslMechanism::Plain),
        login: named.contains(&SaslMechanism::Login),
    }
}

fn limits(section: &Section<'_>) -> Limits {
    Limits {
        recipients: section.get::<Positive<_>>("max_recipients").0,
        message: section.get::<Size>("max_message_size").0,
        header: section.get::<Size>("max_header_size").octets(),
        bad_commands: section.get::<Positive<_>>("max_bad_commands").0,
        auth_failures: section.get::<Positive<_>>("max_auth_failures").0,
        messages: section.optional::<Positive<_>>("max_messages").map(|limit| limit.0),
        ..Limits::default()
    }
}

fn leniency(section: &Section<'_>, kind: ListenerKind) -> Leniency {
    let default = Leniency::default();
    let bare_cr = if kind == ListenerKind::Mx { BareCr::Refuse } else { BareCr::Normalise };
    Leniency {
        bare_lf: section.optional("bare_lf").unwrap_or(default.bare_lf),
        bare_cr: section.optional("bare_cr").unwrap_or(bare_cr),
        early_talk: section.optional("early_talk").unwrap_or(default.early_talk),
    }
}
