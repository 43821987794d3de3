//! Opening a session: hosts in order, their addresses in turn, with the TLS that each host must take, until one is
//! ready.
//!
//! If opportunistic TLS fails, it falls back to plain text. Addresses that do not answer are tried last the next time.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pintle_mail::{EnhancedCode, QueueId, Reply, TlsPolicy};
use pintle_record::{PeerMembers, Tls};
use pintle_smtp::client::{
    Channel, Closed, Config as SessionConfig, Credentials, DialogueStep, Limits, Owner, Session, Speaker,
};
use pintle_tls::{ClientPolicy, HandshakeError, PeerFacts};

use crate::clock::monotonic;
use crate::connect_failure::ConnectFailure;
use crate::connection::{ClientConnection, SetUp, channel};
use crate::host_defects::HostDefect;
use crate::network::{HostAddress, Stream};
use crate::parts::OutboundShared;
use crate::plan::{DeliveryPlan, HopTarget};
use crate::resolve::{self, HopHost, HopPath, HostId};
use crate::{Config, Endpoint, exchanger};

/// How long an address that did not answer is tried after the others: longer than an attempt waits for the next one.
const UNREACHABLE_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// One try at opening a session.
struct Connector<'a> {
    shared: &'a OutboundShared,
    config: &'a Config,
    /// The queue id of the message that it is opened for; the session may be reused for others.
    id: QueueId,
    target: &'a HopTarget,
    /// The credentials to authenticate with.
    login: Option<Credentials>,
    path: HopPath,
    /// Hosts that have replied about this message already.
    asked: &'a [HostId],
    /// The preference of the best exchanger that could not be used.
    missed: Option<u16>,
    /// Addresses that may still be tried.
    left: usize,
    /// Addresses that gave no session.
    unreachable: Vec<String>,
    /// Addresses that come after the others, since they did not answer lately.
    later: Vec<(HopHost, HostAddress)>,
    /// Whether there were more addresses than one attempt may try.
    has_more: bool,
    /// The last failure; a reply of the next hop is kept in preference to ours.
    last: Option<ConnectFailure>,
}

/// Opens a session for the plan with a host that has not been asked yet.
///
/// # Errors
/// No host gave a session, or none is left to be asked.
pub(crate) async fn open(
    shared: &OutboundShared,
    config: &Config,
    plan: &DeliveryPlan,
    asked: &[HostId],
) -> Result<Box<ClientConnection>, ConnectFailure> {
    let target = &plan.target;
    let login = target.login(config).map_err(|text| {
        tracing::error!(queue_id = %plan.id, next_hop = %target.next_hop, "{text}");
        // RFC 3463 section 3.4: X.3.5, system incorrectly configured.
        ConnectFailure::defer(ours(EnhancedCode(4, 3, 5), text))
    })?;
    let path = resolve::path(target, config, shared.resolver.as_ref()).await?;
    let connector = Connector {
        shared,
        config,
        id: plan.id,
        target,
        login,
        asked,
        missed: None,
        left: path.addresses,
        unreachable: Vec::new(),
        later: Vec::new(),
        has_more: false,
        path,
        last: None,
    };
    connector.run().await
}

impl Connector<'_> {
    async fn run(mut self) -> Result<Box<ClientConnection>, ConnectFailure> {
        let hosts = std::mem::take(&mut self.path.hosts);
        let by_mx = self.path.by_mx;
        // Exchangers of one preference are looked up together: if one of them turns out to be ourselves, none of them
        // is to be tried (RFC 5321 section 5.1).
        for equals in hosts.chunk_by(|one, next| by_mx && one.preference == next.preference) {
            let found = join_all(equals.iter().map(|host| self.addresses_of(host))).await;
            if found.iter().flatten().any(|places| self.is_us(places)) {
                break;
            }
            for (host, places) in equals.iter().zip(found) {
                match places.and_then(|places| self.admitted(host, places)) {
                    Ok(places) => {
                        if let Some(connection) = self.try_host(host, places).await {
                            return Ok(connection);
                        }
                    }
                    Err(failure) => self.note_failure(host, failure),
                }
            }
        }
        for (host, place) in std::mem::take(&mut self.later) {
            if let Some(connection) = self.try_address(&host, &place).await {
                return Ok(connection);
            }
        }
        self.remember_unreachable();
        Err(self.last.unwrap_or_else(|| resolve::loops_back(&domain_of(self.target))))
    }

    /// Tries the addresses of a host.
    async fn try_host(&mut self, host: &HopHost, places: Vec<HostAddress>) -> Option<Box<ClientConnection>> {
        if self.asked.iter().any(|asked| host.is(asked)) {
            return None;
        }
        for place in places {
            if self.shared.host_defects.knows(HostDefect::Unreachable, &self.in_this_domain(&place)) {
                self.missed.get_or_insert(host.preference);
                self.later.push((host.clone(), place));
            } else if let Some(connection) = self.try_address(host, &place).await {
                return Some(connection);
            }
        }
        None
    }

    /// Tries an address, unless this attempt has tried as many as it may.
    async fn try_address(&mut self, host: &HopHost, place: &HostAddress) -> Option<Box<ClientConnection>> {
        let Some(left) = self.left.checked_sub(1) else {
            self.has_more = true;
            return None;
        };
        self.left = left;
        match self.open_session(host, place).await {
            Ok(connection) => {
                self.shared.host_defects.forget(HostDefect::Unreachable, &self.in_this_domain(place));
                // Hosts come in the order of their preferences, so that the first one missed is the best.
                let missed = self.missed.is_some_and(|missed| missed < host.preference);
                Some(if missed { connection.stand_in() } else { connection })
            }
            Err(failure) => {
                self.unreachable.push(self.in_this_domain(place));
                self.note_failure(host, failure);
                None
            }
        }
    }

    /// If a domain has more addresses than one attempt may try, those that did not answer must not use up every
    /// attempt: the others are tried first the next time. If all are tried each time, the domain's order is kept.
    fn remember_unreachable(&self) {
        for place in self.unreachable.iter().filter(|_| self.has_more) {
            self.shared.host_defects.remember(HostDefect::Unreachable, place, UNREACHABLE_MEMORY);
        }
    }

    /// The key of an exchanger's address under this domain alone: otherwise the owner of another domain could make the
    /// address seem unreachable for all.
    fn in_this_domain(&self, place: &HostAddress) -> String {
        format!("{} {place}", self.target.next_hop)
    }

    /// The addresses of a host that DNS may send us to.
    fn admitted(&self, host: &HopHost, places: Vec<HostAddress>) -> Result<Vec<HostAddress>, ConnectFailure> {
        let objection = |place: &HostAddress| match place {
            HostAddress::Tcp(address) if self.path.by_mx => exchanger::objection(address.ip(), self.config),
            _ => None,
        };
        let refused = places.iter().find_map(|place| Some((place.clone(), objection(place)?)));
        let good: Vec<HostAddress> = places.into_iter().filter(|place| objection(place).is_none()).collect();
        match refused {
            Some((place, what)) if good.is_empty() => Err(not_public(host, &place, what)),
            _ => Ok(good),
        }
    }

    /// Logs why no session with a host was opened, and keeps the failure that says most about the next hop.
    fn note_failure(&mut self, host: &HopHost, failure: ConnectFailure) {
        if !failure.is_permanent {
            self.missed.get_or_insert(host.preference);
        }
        tracing::debug!(queue_id = %self.id, next_hop = %self.target.next_hop, host = failure.peer.host, address = ?failure.peer.address,
            reply = %failure.reply, "no session with this host");
        let keep = self.last.as_ref().is_some_and(|last| {
            // One temporary failure outweighs any number of permanent ones.
            (!last.is_permanent && failure.is_permanent)
                || (last.speaker == Speaker::NextHop && failure.speaker == Speaker::Us)
        });
        if !keep {
            self.last = Some(failure);
        }
    }

    async fn addresses_of(&self, host: &HopHost) -> Result<Vec<HostAddress>, ConnectFailure> {
        match &host.endpoint {
            Endpoint::Unix(path) => Ok(vec![HostAddress::Unix(path.clone())]),
            Endpoint::Tcp { host, port } => {
                let found = resolve::addresses(host, *port, self.shared.resolver.as_ref()).await;
                let found = found.map_err(|error| resolve::no_address(host, error, self.path.by_mx))?;
                Ok(found.into_iter().map(HostAddress::Tcp).collect())
            }
        }
    }

    /// Whether the address is our own, under any name.
    fn is_us(&self, places: &[HostAddress]) -> bool {
        let ours = |place: &HostAddress| match place {
            HostAddress::Tcp(address) => {
                exchanger::is_us(*address, self.config, self.shared.network.as_ref())
            }
            HostAddress::Unix(_) => false,
        };
        self.path.by_mx && places.iter().any(ours)
    }

    /// Opens a session with one address; if opportunistic TLS fails, once more in plain text (RFC 7435 section 3).
    async fn open_session(
        &self,
        host: &HopHost,
        place: &HostAddress,
    ) -> Result<Box<ClientConnection>, ConnectFailure> {
        let opportunistic = host.tls == TlsPolicy::Opportunistic && !self.path.implicit_tls;
        let key = under_its_name(host.name(), &place.to_string());
        let no_tls = opportunistic && self.shared.host_defects.knows(HostDefect::NoTls, &key);
        let policy = if no_tls { TlsPolicy::None } else { host.tls };
        match self.open_session_with(host, place, policy).await {
            Err(failure) if opportunistic && failure.is_of_tls() => {
                let error = failure.to_string();
                tracing::warn!(queue_id = %self.id, next_hop = %self.target.next_hop, host = host.name(), %place, error,
                    "TLS failed; going on in plain text, since the TLS policy is opportunistic");
                self.shared.host_defects.remember(HostDefect::NoTls, &key, self.config.sessions.plain_memory);
                let plain = self.open_session_with(host, place, TlsPolicy::None).await;
                plain.map_err(|failure| failure.into_connect_failure(self.id, host, place))
            }
            result => result.map_err(|failure| failure.into_connect_failure(self.id, host, place)),
        }
    }

    async fn open_session_with(
        &self,
        host: &HopHost,
        place: &HostAddress,
        tls: TlsPolicy,
    ) -> Result<Box<ClientConnection>, AddressFailure> {
        let stream = self.connect(place).await?;
        let peer = peer(host, place);
        let (mut facts, mut encrypted) = (None, false);
        let stream = if self.path.implicit_tls {
            let limit = self.config.timeouts.greeting;
            let (stream, tls) = self.handshake(host, stream, limit).await?;
            facts = Some(tls);
            stream
        } else {
            stream
        };
        let config = self.session_config(tls, channel(facts.as_ref()));
        let machine = Session::new(config, monotonic());
        let mut connection = ClientConnection::new(stream, machine, PeerMembers { tls: facts, ..peer });
        loop {
            connection = match connection.set_up().await {
                SetUp::Ready(connection) => return Ok(connection),
                SetUp::Closed(why) => return Err(AddressFailure::of(why, encrypted)),
                SetUp::StartTls(mut plain) => {
                    let limit = plain.time_left();
                    let (stream, tls) = self.handshake(host, plain.take_stream(), limit).await?;
                    plain.encrypted(stream, tls);
                    encrypted = true;
                    plain
                }
            };
        }
    }

    async fn connect(&self, place: &HostAddress) -> Result<Box<dyn Stream>, AddressFailure> {
        let connecting = self.shared.network.connect(place, self.source_for(place));
        match tokio::time::timeout(self.config.sessions.connect, connecting).await {
            Ok(connected) => connected.map_err(|error| AddressFailure::Unreachable(error.to_string())),
            Err(_) => Err(AddressFailure::Unreachable("it did not answer in time".to_owned())),
        }
    }

    /// The address to bind: of the same family as the destination, or the system's choice.
    fn source_for(&self, to: &HostAddress) -> Option<IpAddr> {
        let HostAddress::Tcp(to) = to else { return None };
        let sources = &self.config.sources;
        match self.target.source {
            Some(source) if source.is_ipv4() == to.is_ipv4() => Some(source),
            _ if to.is_ipv4() => sources.v4.map(IpAddr::V4),
            _ => sources.v6.map(IpAddr::V6),
        }
    }

    async fn handshake(
        &self,
        host: &HopHost,
        stream: Box<dyn Stream>,
        limit: Duration,
    ) -> Result<(Box<dyn Stream>, Tls), AddressFailure> {
        let policy = match host.tls {
            TlsPolicy::None | TlsPolicy::Opportunistic => ClientPolicy::Opportunistic,
            TlsPolicy::Required => ClientPolicy::Required,
            TlsPolicy::Verified => ClientPolicy::Verified,
        };
        let tls = self.shared.tls.load_full();
        match tokio::time::timeout(limit, tls.connect(policy, host.name(), stream)).await {
            Ok(Ok((stream, facts))) => Ok((Box::new(stream), tls_of(facts))),
            Ok(Err(error)) => Err(AddressFailure::Tls(error)),
            Err(_) => Err(AddressFailure::Tls(HandshakeError::Io(std::io::ErrorKind::TimedOut.into()))),
        }
    }

    fn session_config(&self, tls: TlsPolicy, channel: Channel) -> SessionConfig {
        SessionConfig {
            hello_name: self.config.hostname.clone(),
            protocol: self.path.protocol,
            tls,
            channel,
            credentials: self.login.clone(),
            transfer: self.config.transfer,
            eight_bit: self.config.eight_bit,
            timeouts: self.config.timeouts,
            limits: Limits::default(),
        }
    }
}

/// Why no session with one address was opened.
enum AddressFailure {
    Unreachable(String),
    Tls(HandshakeError),
    /// The session ended over STARTTLS, or with the first words under TLS: in TLS 1.3 a server refuses a handshake when
    /// the client has done its part.
    StartTls(Closed),
    Closed(Closed),
}

impl fmt::Display for AddressFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::Tls(why) => why.fmt(f),
            Self::StartTls(why) | Self::Closed(why) => why.fmt(f),
        }
    }
}

impl AddressFailure {
    fn of(why: Closed, encrypted: bool) -> Self {
        match (&why, why.step()) {
            (Closed::Lost(DialogueStep::Hello) | Closed::TimedOut(DialogueStep::Hello), _) if encrypted => {
                Self::StartTls(why)
            }
            (_, DialogueStep::StartTls) => Self::StartTls(why),
            _ => Self::Closed(why),
        }
    }

    /// Whether a session in plain text may succeed where this one failed.
    fn is_of_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::StartTls(_))
    }

    /// Never permanent: a host that refuses us today may accept us tomorrow, and only a reply to a recipient or to the
    /// message itself speaks about the message.
    fn into_connect_failure(self, id: QueueId, host: &HopHost, place: &HostAddress) -> ConnectFailure {
        let name = host.name();
        let peer = peer(host, place);
        let reply = match self {
            // RFC 3463 section 3.5: X.4.1, no answer from host.
            Self::Unreachable(why) => {
                ours(EnhancedCode(4, 4, 1), format!("{} cannot be reached: {why}", shown(host, place)))
            }
            // RFC 3463 section 3.8: X.7.5, cryptographic failure.
            Self::Tls(why) => ours(EnhancedCode(4, 7, 5), format!("{}: {why}", shown(host, place))),
            Self::StartTls(why) | Self::Closed(why) => {
                if why.owner() == Owner::Operator {
                    tracing::error!(queue_id = %id, host = name, %place, %why, "the next hop does not accept us as we are configured: check its credentials and TLS policy");
                }
                return ConnectFailure::closed(&why, peer);
            }
        };
        ConnectFailure { peer: Arc::new(peer), ..ConnectFailure::defer(reply) }
    }
}

/// The key of an address together with the host name that TLS uses. The owner of a name can make TLS fail at any
/// address under that name, which must not send other domains' mail there in plain text.
pub(crate) fn under_its_name(host: &str, place: &str) -> String {
    format!("{host} {place}")
}

/// An address as it is shown to senders, without paths of this machine.
fn shown(host: &HopHost, place: &HostAddress) -> String {
    match place {
        HostAddress::Tcp(_) => format!("{} [{place}]", host.name()),
        HostAddress::Unix(_) => "the local mail system".to_owned(),
    }
}

fn ours(code: EnhancedCode, text: String) -> Reply {
    Reply::new(451, code, text)
}

/// Permanent, since waiting does not change what the domain's DNS says. The next exchanger may still be usable.
fn not_public(host: &HopHost, place: &HostAddress, what: &str) -> ConnectFailure {
    let name = host.name();
    let text = format!(
        "the mail exchanger {name} is at {place}, {what}: mail is sent by MX to public addresses, and to the networks that the \
         gateway's operator lists (mx_networks)"
    );
    // RFC 3463 section 3.5: X.4.4, unable to route.
    ConnectFailure {
        peer: Arc::new(peer(host, place)),
        ..ConnectFailure::fail(Reply::new(550, EnhancedCode(5, 4, 4), text))
    }
}

fn peer(host: &HopHost, place: &HostAddress) -> PeerMembers {
    PeerMembers {
        host: Some(host.name().to_owned()),
        address: match place {
            HostAddress::Tcp(address) => Some(*address),
            HostAddress::Unix(_) => None,
        },
        ..PeerMembers::default()
    }
}

fn tls_of(facts: PeerFacts) -> Tls {
    Tls { version: facts.version, cipher: facts.cipher, verified: facts.verified }
}

fn domain_of(target: &HopTarget) -> String {
    match &target.next_hop {
        pintle_mail::NextHop::Mx(domain) => domain.clone(),
        other => other.to_string(),
    }
}
