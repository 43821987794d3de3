//! Resolves a next hop's name to hosts, and hosts to addresses (RFC 5321 section 5.1, RFC 7505): MX, null MX, implicit
//! MX, or the hosts of a relay. Each host has its own TLS policy.

use std::net::SocketAddr;

use pintle_dns::{DnsError, Exchanger, MailRoute, Resolver};
use pintle_mail::{EnhancedCode, NextHop, Reply, TlsPolicy};
use pintle_record::PeerMembers;

use crate::config::{Config, Protocol};
use crate::connect_failure::ConnectFailure;
use crate::plan::HopTarget;
use crate::{Endpoint, Relay};

/// The hosts of a next hop.
#[derive(Debug)]
pub(crate) struct HopPath {
    /// To be tried in this order; never empty.
    pub(crate) hosts: Vec<HopHost>,
    pub(crate) protocol: Protocol,
    pub(crate) implicit_tls: bool,
    /// The most addresses that one attempt tries.
    pub(crate) addresses: usize,
    /// The hosts are mail exchangers of a domain: one that turns out to be ourselves ends the list (RFC 5321 section
    /// 5.1).
    pub(crate) by_mx: bool,
}

/// One host of a next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HopHost {
    pub(crate) endpoint: Endpoint,
    /// Lower is tried first; all zero where the configuration gives the order.
    pub(crate) preference: u16,
    /// The TLS policy for this host.
    pub(crate) tls: TlsPolicy,
}

/// A host, known by its name and its port: a relay may list several at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostId {
    host: String,
    port: Option<u16>,
}

impl HostId {
    /// The host at the other end of a session.
    pub(crate) fn of(peer: &PeerMembers) -> Self {
        let host = peer.host.clone().unwrap_or_default();
        Self { host, port: peer.address.map(|address| address.port()) }
    }
}

impl HopHost {
    /// The name to verify and to show.
    pub(crate) fn name(&self) -> &str {
        match &self.endpoint {
            Endpoint::Tcp { host, .. } => host,
            Endpoint::Unix(path) => path.to_str().unwrap_or("unix"),
        }
    }

    pub(crate) fn is(&self, id: &HostId) -> bool {
        id.host == self.name() && id.port == self.port()
    }

    fn port(&self) -> Option<u16> {
        match &self.endpoint {
            Endpoint::Tcp { port, .. } => Some(*port),
            Endpoint::Unix(_) => None,
        }
    }
}

/// The default ports where none is written: RFC 5321, and RFC 2033 with the port that IANA gives LMTP.
const SMTP_PORT: u16 = 25;
const LMTP_PORT: u16 = 24;

/// The most exchangers of a domain that an attempt looks up. A domain may list thousands, and each costs two DNS
/// queries.
const MAX_EXCHANGERS: usize = 32;

/// How to reach a next hop.
///
/// # Errors
/// The next hop has no host that may be tried, or DNS does not answer.
pub(crate) async fn path(
    target: &HopTarget,
    config: &Config,
    resolver: &dyn Resolver,
) -> Result<HopPath, ConnectFailure> {
    match (&target.next_hop, config.relay(&target.next_hop)) {
        (NextHop::Mx(domain), _) => mx(domain, target, config, resolver).await,
        (NextHop::Relay(_) | NextHop::Lmtp(_), Some((name, relay))) => to_relay(name, relay, target),
        // A name that the configuration does not list any more must not be used as a host name.
        (NextHop::Relay(name) | NextHop::Lmtp(name), None) if !target.unlisted => Err(unknown_relay(name)),
        (NextHop::Relay(name), None) => unlisted_host(name, Protocol::Smtp, target),
        (NextHop::Lmtp(name), None) => unlisted_host(name, Protocol::Lmtp, target),
        (NextHop::Discard, _) => Err(ConnectFailure::fail(Reply::new(
            550,
            EnhancedCode(5, 3, 5),
            "mail for nowhere cannot be sent",
        ))),
    }
}

/// The TLS policy of one host, which sessions with it must keep. Today it is the next hop's: what the configuration,
/// plugins and REQUIRETLS demand together. What is published for a single MX name (MTA-STS, DANE) belongs here, and may
/// demand more, never less.
fn host_tls(target: &HopTarget) -> TlsPolicy {
    target.tls
}

/// The addresses of a host, in the order in which to try them.
pub(crate) async fn addresses(
    host: &str,
    port: u16,
    resolver: &dyn Resolver,
) -> Result<Vec<SocketAddr>, DnsError> {
    let found = pintle_dns::addresses(resolver, host).await?;
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// What a failed look-up of a host's addresses means for the message.
pub(crate) fn no_address(host: &str, error: DnsError, by_mx: bool) -> ConnectFailure {
    if error.is_temporary() || !by_mx {
        // A relay that cannot be found is the operator's mistake, and may be corrected while the mail waits.
        return ConnectFailure::defer(Reply::new(
            451,
            EnhancedCode(4, 4, 3),
            format!("the address of {host} cannot be found: {error}"),
        ));
    }
    // RFC 5321 section 5.1: an error is reported when no exchanger is usable.
    let text = format!("{host} has no address: {error}");
    ConnectFailure::fail(Reply::new(550, EnhancedCode(5, 4, 4), text))
}

/// The failure for a domain whose mail would loop back to us.
pub(crate) fn loops_back(domain: &str) -> ConnectFailure {
    let text = format!(
        "mail for {domain} loops back to us: its best mail exchanger is this gateway, which has no route for it"
    );
    // RFC 3463 section 3.5: X.4.6, routing loop detected.
    ConnectFailure::fail(Reply::new(554, EnhancedCode(5, 4, 6), text))
}

/// The host or socket that a plugin has given in place of a relay's name.
fn unlisted_host(name: &str, protocol: Protocol, target: &HopTarget) -> Result<HopPath, ConnectFailure> {
    let port = if protocol == Protocol::Lmtp { LMTP_PORT } else { SMTP_PORT };
    let endpoint = Endpoint::parse(name, port).map_err(|_| unknown_relay(name))?;
    to_relay(name, &Relay { protocol, ..Relay::new(vec![endpoint]) }, target)
}

fn to_relay(name: &str, relay: &Relay, target: &HopTarget) -> Result<HopPath, ConnectFailure> {
    let hosts = relay.hosts.iter().cloned();
    let hosts: Vec<HopHost> =
        hosts.map(|endpoint| HopHost { endpoint, preference: 0, tls: host_tls(target) }).collect();
    if hosts.is_empty() {
        return Err(unknown_relay(name));
    }
    Ok(HopPath {
        hosts,
        protocol: relay.protocol,
        implicit_tls: relay.implicit_tls,
        addresses: usize::MAX,
        by_mx: false,
    })
}

fn unknown_relay(name: &str) -> ConnectFailure {
    let text = format!("the configuration has no relay named {name}");
    // RFC 3463 section 3.4: X.3.5, system incorrectly configured.
    ConnectFailure::defer(Reply::new(451, EnhancedCode(4, 3, 5), text))
}

async fn mx(
    domain: &str,
    target: &HopTarget,
    config: &Config,
    resolver: &dyn Resolver,
) -> Result<HopPath, ConnectFailure> {
    let exchangers = match pintle_dns::address_literal(domain) {
        // RFC 5321 section 4.1.3: mail to an address literal goes to that address and asks no DNS.
        Some(address) => vec![Exchanger { preference: 0, host: address.to_string(), implicit: true }],
        None => exchangers(domain, config, resolver).await?,
    };
    let as_host = |Exchanger { preference, host, .. }: Exchanger| HopHost {
        endpoint: Endpoint::Tcp { host, port: config.mx.port },
        preference,
        tls: host_tls(target),
    };
    Ok(HopPath {
        hosts: exchangers.into_iter().map(as_host).collect(),
        protocol: Protocol::Smtp,
        implicit_tls: false,
        addresses: config.mx.addresses.max(1),
        by_mx: true,
    })
}

async fn exchangers(
    domain: &str,
    config: &Config,
    resolver: &dyn Resolver,
) -> Result<Vec<Exchanger>, ConnectFailure> {
    let route = pintle_dns::mail_exchangers(resolver, domain, pintle_dns::random_seed()).await;
    let found = match route {
        Ok(MailRoute::Exchangers(found)) => found,
        Ok(MailRoute::NullMx) => return Err(null_mx(domain)),
        Err(error) => return Err(no_route(domain, error)),
    };
    // RFC 5321 section 5.1: only exchangers better than ourselves may be tried.
    let mut before = pintle_dns::before_ours(found, |name| config.is_our_name(name));
    if before.is_empty() {
        return Err(loops_back(domain));
    }
    before.truncate(MAX_EXCHANGERS);
    Ok(before)
}

fn null_mx(domain: &str) -> ConnectFailure {
    // RFC 7505 section 4.1: 556 with 5.1.10.
    let text = format!("{domain} accepts no mail (null MX)");
    ConnectFailure::fail(Reply::new(556, EnhancedCode(5, 1, 10), text))
}

fn no_route(domain: &str, error: DnsError) -> ConnectFailure {
    let text = format!("the mail exchangers of {domain} cannot be found: {error}");
    if error.is_temporary() {
        ConnectFailure::defer(Reply::new(451, EnhancedCode(4, 4, 3), text))
    } else {
        // RFC 3463 section 3.2: X.1.2, bad destination system address.
        ConnectFailure::fail(Reply::new(550, EnhancedCode(5, 1, 2), text))
    }
}

/// The protocol that a next hop speaks: SMTP or LMTP.
pub(crate) fn protocol_of(next_hop: &NextHop, config: &Config) -> Protocol {
    match next_hop {
        NextHop::Mx(_) | NextHop::Discard => Protocol::Smtp,
        NextHop::Relay(name) => config.relays.get(name).map_or(Protocol::Smtp, |relay| relay.protocol),
        NextHop::Lmtp(name) => config.relays.get(name).map_or(Protocol::Lmtp, |relay| relay.protocol),
    }
}

#[cfg(test)]
mod tests {
    use pintle_testkit::StaticResolver;

    use super::*;

    #[tokio::test]
    async fn each_host_has_the_tls_policy_of_its_target() {
        let mut config = Config::new("gate.example");
        let hosts = ["a.example", "b.example"].map(|host| Endpoint::parse(host, SMTP_PORT).unwrap());
        config.relays.insert("next".to_owned(), Relay::new(hosts.into()));
        let hop = NextHop::Relay("next".to_owned());
        for tls in [TlsPolicy::Opportunistic, TlsPolicy::Verified] {
            let target = HopTarget { tls, ..HopTarget::of(&hop, &config) };
            let path = path(&target, &config, &StaticResolver::new()).await.unwrap();
            assert_eq!(path.hosts.iter().map(|host| host.tls).collect::<Vec<_>>(), [tls, tls]);
        }
    }
}
