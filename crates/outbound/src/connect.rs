//! Opening a session: hosts in order, addresses in turn, TLS as the policy has it, until one next hop is ready.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pintle_mail::{EnhancedCode, QueueId, Reply, TlsPolicy};
use pintle_record::{PeerMembers, Tls};
use pintle_smtp::client::{
    Channel, Closed, Config as Speech, Credentials, DialogueStep, Limits, Owner, Session, Speaker,
};
use pintle_tls::{ClientPolicy, HandshakeError, PeerFacts};

use crate::clock::monotonic;
use crate::connection::{ClientConnection, SetUp};
use crate::network::{HostAddress, Stream};
use crate::plan::{Plan, Target};
use crate::resolve::{self, HopPath, Host};
use crate::session_pool::Quirk;
use crate::shared::OutboundShared;
use crate::talks::Asked;
use crate::{Config, Endpoint, exchanger};

/// How long an address at which nobody answered comes after the others: longer than an attempt waits for the next one.
const DEAD: Duration = Duration::from_secs(24 * 3600);

/// Why nothing was sent, for all recipients of an attempt alike.
#[derive(Debug, Clone)]
pub(crate) struct ConnectFailure {
    /// The recipients fail; otherwise they are deferred.
    pub(crate) final_: bool,
    pub(crate) reply: Reply,
    /// Whose words the reply holds.
    pub(crate) speaker: Speaker,
    /// Who was asked last.
    pub(crate) peer: Arc<PeerMembers>,
    /// The next hop as a whole is in trouble.
    pub(crate) hop: bool,
}

impl ConnectFailure {
    fn ours(final_: bool, reply: Reply) -> Self {
        Self { final_, reply, speaker: Speaker::Us, peer: Arc::default(), hop: !final_ }
    }

    /// The recipients fail.
    pub(crate) fn fail(reply: Reply) -> Self {
        Self::ours(true, reply)
    }

    /// The next hop cannot be used now.
    pub(crate) fn defer(reply: Reply) -> Self {
        Self::ours(false, reply)
    }

    /// The session is over.
    fn closed(why: &Closed, peer: PeerMembers) -> Self {
        Self { speaker: why.speaker(), peer: Arc::new(peer), ..Self::defer(why.reply()) }
    }
}

/// One attempt to open a session.
struct Connector<'a> {
    shared: &'a OutboundShared,
    config: &'a Config,
    /// For whom; others may use the session later.
    id: QueueId,
    target: &'a Target,
    /// With what to authenticate.
    login: Option<Credentials>,
    way: HopPath,
    /// Hosts that have had their say about this message.
    asked: &'a [Asked],
    /// The preference of the best exchanger that could not be reached.
    missed: Option<u16>,
    /// Addresses that may still be tried.
    left: usize,
    /// Those at which nobody answered.
    dead: Vec<String>,
    /// Those that come after the others, since nobody answered there lately.
    later: Vec<(Host, HostAddress)>,
    /// There were more addresses than may be tried.
    short: bool,
    /// The last trouble; a next hop's own words are kept over ours.
    last: Option<ConnectFailure>,
}

/// Opens a session along the plan's way, with none of the hosts that were asked already.
pub(crate) async fn open(
    shared: &OutboundShared,
    config: &Config,
    plan: &Plan,
    asked: &[Asked],
) -> Result<Box<ClientConnection>, ConnectFailure> {
    let target = &plan.target;
    let login = target.login(config).map_err(|text| {
        tracing::error!(queue_id = %plan.id, next_hop = %target.next_hop, "{text}");
        // RFC 3463 section 3.4: X.3.5, system incorrectly configured.
        ConnectFailure::defer(ours(EnhancedCode(4, 3, 5), text))
    })?;
    let way = resolve::way(target, config, shared.resolver.as_ref()).await?;
    let opening = Connector {
        shared,
        config,
        id: plan.id,
        target,
        login,
        asked,
        missed: None,
        left: way.addresses,
        dead: Vec::new(),
        later: Vec::new(),
        short: false,
        way,
        last: None,
    };
    opening.run().await
}

impl Connector<'_> {
    async fn run(mut self) -> Result<Box<ClientConnection>, ConnectFailure> {
        let hosts = std::mem::take(&mut self.way.hosts);
        let by_mx = self.way.by_mx;
        // Exchangers of one preference are looked up together: one of them may turn out to be ourselves, and then none of
        // them is to be tried (RFC 5321 section 5.1).
        for equals in hosts.chunk_by(|one, next| by_mx && one.preference == next.preference) {
            let found = join_all(equals.iter().map(|host| self.addresses_of(host))).await;
            if found.iter().flatten().any(|places| self.is_us(places)) {
                break;
            }
            for (host, places) in equals.iter().zip(found) {
                match places.and_then(|places| self.admitted(host, places)) {
                    Ok(places) => {
                        if let Some(link) = self.host(host, places).await {
                            return Ok(link);
                        }
                    }
                    Err(trouble) => self.miss(host, trouble),
                }
            }
        }
        for (host, place) in std::mem::take(&mut self.later) {
            if let Some(link) = self.try_at(&host, &place).await {
                return Ok(link);
            }
        }
        self.remember_the_dead();
        Err(self.last.unwrap_or_else(|| resolve::loops_back(&domain_of(self.target))))
    }

    /// Tries the addresses of a host.
    async fn host(&mut self, host: &Host, places: Vec<HostAddress>) -> Option<Box<ClientConnection>> {
        if self.asked.iter().any(|asked| asked.host == host.name() && asked.port == host.port()) {
            return None;
        }
        for place in places {
            if self.shared.pool.knows(Quirk::Dead, &self.in_this_domain(&place)) {
                self.missed.get_or_insert(host.preference);
                self.later.push((host.clone(), place));
            } else if let Some(link) = self.try_at(host, &place).await {
                return Some(link);
            }
        }
        None
    }

    /// Tries an address, as long as some may be tried.
    async fn try_at(&mut self, host: &Host, place: &HostAddress) -> Option<Box<ClientConnection>> {
        let Some(left) = self.left.checked_sub(1) else {
            self.short = true;
            return None;
        };
        self.left = left;
        match self.host_at(host, place).await {
            Ok(link) => {
                self.shared.pool.forget(Quirk::Dead, &self.in_this_domain(place));
                // Hosts come in the order of their preferences, so that the first one missed is the best.
                let missed = self.missed.is_some_and(|missed| missed < host.preference);
                Some(if missed { link.stand_in() } else { link })
            }
            Err(trouble) => {
                self.dead.push(self.in_this_domain(place));
                self.miss(host, trouble);
                None
            }
        }
    }

    /// Where the dead are more than may be tried, they must not be all that is ever tried: the living come first next time.
    /// With all of them tried each time, the domain's order stands.
    fn remember_the_dead(&self) {
        for place in self.dead.iter().filter(|_| self.short) {
            self.shared.pool.remember(Quirk::Dead, place, DEAD);
        }
    }

    /// The place as an exchanger of this domain. Another domain's may be chosen so that it seems to be dead.
    fn in_this_domain(&self, place: &HostAddress) -> String {
        format!("{} {place}", self.target.next_hop)
    }

    /// Those addresses of a host that DNS may send us to.
    fn admitted(&self, host: &Host, places: Vec<HostAddress>) -> Result<Vec<HostAddress>, ConnectFailure> {
        let objection = |place: &HostAddress| match place {
            HostAddress::Tcp(address) if self.way.by_mx => exchanger::objection(address.ip(), self.config),
            _ => None,
        };
        let refused = places.iter().find_map(|place| Some((place.clone(), objection(place)?)));
        let good: Vec<HostAddress> = places.into_iter().filter(|place| objection(place).is_none()).collect();
        match refused {
            Some((place, what)) if good.is_empty() => Err(not_public(host, &place, what)),
            _ => Ok(good),
        }
    }

    /// The host could not be reached, or will never be.
    fn miss(&mut self, host: &Host, trouble: ConnectFailure) {
        if !trouble.final_ {
            self.missed.get_or_insert(host.preference);
        }
        self.note(trouble);
    }

    fn note(&mut self, trouble: ConnectFailure) {
        tracing::debug!(queue_id = %self.id, next_hop = %self.target.next_hop, host = trouble.peer.host, address = ?trouble.peer.address,
            reply = %trouble.reply, "no session");
        let keep = self.last.as_ref().is_some_and(|last| {
            // One host that may work later outweighs any number that never will.
            (!last.final_ && trouble.final_)
                || (last.speaker == Speaker::NextHop && trouble.speaker == Speaker::Us)
        });
        if !keep {
            self.last = Some(trouble);
        }
    }

    async fn addresses_of(&self, host: &Host) -> Result<Vec<HostAddress>, ConnectFailure> {
        match &host.endpoint {
            Endpoint::Unix(path) => Ok(vec![HostAddress::Unix(path.clone())]),
            Endpoint::Tcp { host, port } => {
                let found = resolve::addresses(host, *port, self.shared.resolver.as_ref()).await;
                let found = found.map_err(|error| resolve::no_address(host, error, self.way.by_mx))?;
                Ok(found.into_iter().map(HostAddress::Tcp).collect())
            }
        }
    }

    /// Whether the host is ourselves, whatever its name.
    fn is_us(&self, places: &[HostAddress]) -> bool {
        let ours = |place: &HostAddress| match place {
            HostAddress::Tcp(address) => {
                exchanger::is_us(*address, self.config, self.shared.network.as_ref())
            }
            HostAddress::Unix(_) => false,
        };
        self.way.by_mx && places.iter().any(ours)
    }

    /// Tries one address; with opportunistic TLS that fails, once more in plain text (RFC 7435 section 3).
    async fn host_at(
        &self,
        host: &Host,
        place: &HostAddress,
    ) -> Result<Box<ClientConnection>, ConnectFailure> {
        let opportunistic = self.target.tls == TlsPolicy::Opportunistic && !self.way.implicit_tls;
        let key = under_its_name(host.name(), &place.to_string());
        let policy = match self.target.tls {
            TlsPolicy::Opportunistic if opportunistic && self.shared.pool.knows(Quirk::NoTls, &key) => {
                TlsPolicy::None
            }
            policy => policy,
        };
        match self.session(host, place, policy).await {
            Err(failure) if opportunistic && failure.is_of_tls() => {
                let error = failure.to_string();
                tracing::warn!(queue_id = %self.id, next_hop = %self.target.next_hop, host = host.name(), %place, error,
                    "TLS failed, going on in plain text");
                self.shared.pool.remember(Quirk::NoTls, &key, self.config.sessions.plain_memory);
                let plain = self.session(host, place, TlsPolicy::None).await;
                plain.map_err(|failure| failure.trouble(self.id, host, place))
            }
            result => result.map_err(|failure| failure.trouble(self.id, host, place)),
        }
    }

    async fn session(
        &self,
        host: &Host,
        place: &HostAddress,
        tls: TlsPolicy,
    ) -> Result<Box<ClientConnection>, Failure> {
        let stream = self.connect(place).await?;
        let peer = peer(host, place);
        let (mut facts, mut encrypted) = (None, false);
        let stream = if self.way.implicit_tls {
            let limit = self.config.timeouts.greeting;
            let (stream, tls) = self.handshake(host, stream, limit).await?;
            facts = Some(tls);
            stream
        } else {
            stream
        };
        let speech = self.speech(tls, channel(facts.as_ref()));
        let machine = Session::new(speech, monotonic());
        let mut link = ClientConnection::new(stream, machine, PeerMembers { tls: facts, ..peer });
        loop {
            link = match link.set_up().await {
                SetUp::Ready(link) => return Ok(link),
                SetUp::Closed(why) => return Err(Failure::of(why, encrypted)),
                SetUp::StartTls(mut link) => {
                    let limit = link.time_left();
                    let (stream, tls) = self.handshake(host, link.take_stream(), limit).await?;
                    link.encrypted(stream, tls);
                    encrypted = true;
                    link
                }
            };
        }
    }

    async fn connect(&self, place: &HostAddress) -> Result<Box<dyn Stream>, Failure> {
        let connecting = self.shared.network.connect(place, self.source_for(place));
        match tokio::time::timeout(self.config.sessions.connect, connecting).await {
            Ok(connected) => connected.map_err(|error| Failure::Unreachable(error.to_string())),
            Err(_) => Err(Failure::Unreachable("no answer in time".to_owned())),
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
        host: &Host,
        stream: Box<dyn Stream>,
        limit: Duration,
    ) -> Result<(Box<dyn Stream>, Tls), Failure> {
        let policy = match self.target.tls {
            TlsPolicy::None | TlsPolicy::Opportunistic => ClientPolicy::Opportunistic,
            TlsPolicy::Required => ClientPolicy::Required,
            TlsPolicy::Verified => ClientPolicy::Verified,
        };
        let tls = self.shared.tls.load_full();
        match tokio::time::timeout(limit, tls.connect(policy, host.name(), stream)).await {
            Ok(Ok((stream, facts))) => Ok((Box::new(stream), tls_of(facts))),
            Ok(Err(error)) => Err(Failure::Tls(error)),
            Err(_) => Err(Failure::Tls(HandshakeError::Io(std::io::ErrorKind::TimedOut.into()))),
        }
    }

    fn speech(&self, tls: TlsPolicy, channel: Channel) -> Speech {
        Speech {
            hello_name: self.config.hostname.clone(),
            protocol: self.way.protocol,
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

/// Why one address gave no session.
enum Failure {
    Unreachable(String),
    Tls(HandshakeError),
    /// The session ended over STARTTLS, or with the first words under TLS: in TLS 1.3 a server refuses a handshake when the
    /// client has done its part.
    StartTls(Closed),
    Closed(Closed),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::Tls(why) => why.fmt(f),
            Self::StartTls(why) | Self::Closed(why) => why.fmt(f),
        }
    }
}

impl Failure {
    fn of(why: Closed, encrypted: bool) -> Self {
        match (&why, why.step()) {
            (Closed::Lost(DialogueStep::Hello) | Closed::TimedOut(DialogueStep::Hello), _) if encrypted => {
                Self::StartTls(why)
            }
            (_, DialogueStep::StartTls) => Self::StartTls(why),
            _ => Self::Closed(why),
        }
    }

    /// Whether a session in plain text may come to more.
    fn is_of_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::StartTls(_))
    }

    /// Never final: a host that refuses us today may be mended, and only a reply to a recipient or to the message itself
    /// speaks about the message.
    fn trouble(self, id: QueueId, host: &Host, place: &HostAddress) -> ConnectFailure {
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
                    tracing::error!(queue_id = %id, host = name, %place, %why, "the next hop does not serve us as we are configured");
                }
                return ConnectFailure::closed(&why, peer);
            }
        };
        ConnectFailure { peer: Arc::new(peer), ..ConnectFailure::defer(reply) }
    }
}

/// The place under the name that TLS is begun with. Under a name of his own a stranger may have TLS fail at anybody's
/// address, which must not have others' mail sent there in plain text.
pub(crate) fn under_its_name(host: &str, place: &str) -> String {
    format!("{host} {place}")
}

/// A place as senders may read of it: they have no use for paths of this machine.
fn shown(host: &Host, place: &HostAddress) -> String {
    match place {
        HostAddress::Tcp(_) => format!("{} [{place}]", host.name()),
        HostAddress::Unix(_) => "the local mail system".to_owned(),
    }
}

fn ours(code: EnhancedCode, text: String) -> Reply {
    Reply::new(451, code, text)
}

/// Never to become better by waiting: it is what the domain's DNS says. The next exchanger may still do.
fn not_public(host: &Host, place: &HostAddress, what: &str) -> ConnectFailure {
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

fn peer(host: &Host, place: &HostAddress) -> PeerMembers {
    PeerMembers {
        host: Some(host.name().to_owned()),
        address: match place {
            HostAddress::Tcp(address) => Some(*address),
            HostAddress::Unix(_) => None,
        },
        ..PeerMembers::default()
    }
}

/// What the bytes run over, as far as the session has to know.
pub(crate) fn channel(tls: Option<&Tls>) -> Channel {
    match tls {
        None => Channel::Plain,
        Some(tls) if tls.verified => Channel::VerifiedTls,
        Some(_) => Channel::Tls,
    }
}

fn tls_of(facts: PeerFacts) -> Tls {
    Tls { version: facts.version, cipher: facts.cipher, verified: facts.verified }
}

fn domain_of(target: &Target) -> String {
    match &target.next_hop {
        pintle_mail::NextHop::Mx(domain) => domain.clone(),
        other => other.to_string(),
    }
}
