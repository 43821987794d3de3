//! The real resolver: a caching stub on hickory that asks the configured name servers.
//!
//! Everything that hickory names stays in this file. It is a stub and not a recursor: the machine's own
//! resolver, or the one the operator names, does the walking.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as WireError, NetError};
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record as WireRecord, RecordType};
use hickory_resolver::{TokioResolver, system_conf};
use rustls::{ClientConfig, RootCertStore};

use crate::{DnsAnswer, DnsError, Record, RecordKind, Resolver, second_look};

/// Asks name servers over UDP, and over TCP when an answer does not fit; keeps what they say.
///
/// Clones share the cache. Identical questions in flight are asked once.
#[derive(Clone)]
pub struct HickoryResolver {
    /// All servers, the quickest first. It believes the first that answers, whatever the answer is.
    all: TokioResolver,
    /// Each server alone, where there are several: another one may know what the first does not.
    each: Arc<[TokioResolver]>,
    /// All servers, asked without EDNS.
    plain: TokioResolver,
    /// How long one server may take over one try.
    timeout: Duration,
    deadline: Duration,
    servers: Arc<[SocketAddr]>,
}

/// How to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whom to ask.
    pub servers: Servers,
    /// How long one server may take over one try.
    pub timeout: Duration,
    /// How often each question is tried before it is given up; at least once.
    pub attempts: usize,
    /// The limit of a whole lookup, all tries and aliases together.
    pub deadline: Duration,
    /// How many answers are kept; 0 keeps none.
    pub cache_entries: u64,
    /// Answers are kept no longer than this, whatever their TTL.
    pub max_ttl: Duration,
    /// "No such name" and "no such record" are kept no longer than this (RFC 2308 section 5 suggests one
    /// to three hours; a mail domain under repair wants less).
    pub max_negative_ttl: Duration,
    /// Whether the machine's hosts file is consulted first, for addresses.
    pub hosts_file: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: Servers::System,
            timeout: Duration::from_secs(3),
            attempts: 3,
            deadline: Duration::from_secs(20),
            cache_entries: 32_768,
            max_ttl: Duration::from_secs(86_400),
            max_negative_ttl: Duration::from_secs(900),
            hosts_file: true,
        }
    }
}

/// Where the name servers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// Those of the machine (`/etc/resolv.conf`). Its search list is ignored: a mail domain is complete.
    System,
    /// These, in this order of preference at the start.
    List(Vec<SocketAddr>),
}

/// Why no resolver can be made; the operator's to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The machine's resolver configuration cannot be read; the text is its reader's complaint.
    System(String),
    /// There is no name server to ask.
    NoServers,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(cause) => write!(
                f,
                "cannot read the machine's name servers (/etc/resolv.conf): {cause}; \
                 mend the file, or list the servers in Pintle's configuration"
            ),
            Self::NoServers => {
                f.write_str("no name server is configured; list at least one, as ADDRESS:PORT")
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl HickoryResolver {
    /// A resolver with an empty cache. No server is contacted before the first question.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let servers = name_servers(&config.servers)?;
        let addresses = servers.iter().map(address).collect();
        let with_edns = options(config);
        let each = if servers.len() > 1 { &servers[..] } else { &[] };
        let each = each.iter().map(|server| stub(vec![server.clone()], with_edns.clone()));
        let mut without_edns = with_edns.clone();
        without_edns.edns0 = false;
        Ok(Self {
            each: each.collect::<Result<_, _>>()?,
            plain: stub(servers.clone(), without_edns)?,
            all: stub(servers, with_edns)?,
            timeout: config.timeout,
            deadline: config.deadline,
            servers: addresses,
        })
    }

    /// Whom it asks, for people.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        self.servers.iter().map(ToString::to_string).collect()
    }

    async fn ask(&self, name: Name, kind: RecordKind) -> Result<DnsAnswer, DnsError> {
        let answer = tokio::time::timeout(self.deadline, self.ask_until_told(&name, kind)).await;
        let result = answer.unwrap_or(Err(DnsError::Timeout));
        if let Err(error) = &result {
            tracing::debug!(%name, %kind, %error, "lookup without an answer");
        }
        result
    }

    /// The answer of the first server that gives one; else what the first one said.
    async fn ask_until_told(&self, name: &Name, kind: RecordKind) -> Result<DnsAnswer, DnsError> {
        let error = match self.all.lookup(name.clone(), record_type(kind)).await {
            Ok(found) => return answer(name, kind, &found),
            Err(error) if is_bare_denial(&error) => return Err(self.look_again(name, kind).await),
            Err(error) => error,
        };
        for other in self.others(&error) {
            match other.lookup(name.clone(), record_type(kind)).await {
                Ok(found) => return answer(name, kind, &found),
                Err(told) if !classify(&told).is_temporary() => return Err(classify(&told)),
                Err(_) => {}
            }
        }
        Err(classify(&error))
    }

    /// What an answer without records, and without a word of who denies them, was.
    async fn look_again(&self, name: &Name, kind: RecordKind) -> DnsError {
        let denied = second_look::is_denied(&self.servers, name, record_type(kind), self.timeout).await;
        if denied { DnsError::NoData } else { DnsError::ServFail }
    }

    /// Who may know more than the server that failed so.
    fn others(&self, error: &NetError) -> &[TokioResolver] {
        match error {
            NetError::Dns(WireError::ResponseCode(
                ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS,
            )) => std::slice::from_ref(&self.plain),
            NetError::Dns(_) if classify(error).is_temporary() => &self.each,
            _ => &[],
        }
    }
}

fn stub(servers: Vec<NameServerConfig>, options: ResolverOpts) -> Result<TokioResolver, ConfigError> {
    let parts = ResolverConfig::from_name_servers(servers);
    let builder = TokioResolver::builder_with_config(parts, TokioRuntimeProvider::default());
    let resolver = builder.with_options(options).with_tls_config(no_tls()?).build();
    resolver.map_err(|error| ConfigError::System(error.to_string()))
}

impl Resolver for HickoryResolver {
    fn lookup(&self, name: &str, kind: RecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        let name = qualified(name);
        async move { self.ask(name?, kind).await }.boxed()
    }
}

impl fmt::Debug for HickoryResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HickoryResolver").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Trusts nobody, since nothing is asked over TLS. Where any crate of the graph switches the library's TLS on, its default
/// wants the machine's certificate authorities, and a machine without them (a bare container) could not resolve at all.
fn no_tls() -> Result<ClientConfig, ConfigError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::System(error.to_string()))?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn name_servers(servers: &Servers) -> Result<Vec<NameServerConfig>, ConfigError> {
    let list = match servers {
        Servers::List(addresses) => addresses.iter().copied().map(name_server).collect(),
        Servers::System => {
            let (config, _) =
                system_conf::read_system_conf().map_err(|error| ConfigError::System(error.to_string()))?;
            config.name_servers
        }
    };
    if list.is_empty() { Err(ConfigError::NoServers) } else { Ok(list) }
}

fn address(server: &NameServerConfig) -> SocketAddr {
    SocketAddr::new(server.ip, server.connections.first().map_or(53, |connection| connection.port))
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

fn options(config: &Config) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = config.timeout;
    options.attempts = config.attempts.saturating_sub(1);
    options.cache_size = config.cache_entries;
    options.positive_max_ttl = Some(config.max_ttl);
    options.negative_max_ttl = Some(config.max_negative_ttl);
    options.use_hosts_file = if config.hosts_file { ResolveHosts::Always } else { ResolveHosts::Never };
    // A busy gateway asks hundreds of questions at once; the default of 32 a connection answers "busy".
    options.max_active_requests = 1_024;
    options
}

/// The name as a complete one, so that no search list is ever tried.
fn qualified(name: &str) -> Result<Name, DnsError> {
    if name.is_empty() {
        return Err(DnsError::InvalidName);
    }
    let parsed = if name.is_ascii() { from_octets(name) } else { Name::from_utf8(name) };
    let mut name = parsed.map_err(|_| DnsError::InvalidName)?;
    name.set_fqdn(true);
    Ok(name)
}

/// Labels may hold any octet (RFC 2181 section 11), and names out of SPF macros do; a backslash is one, too, and escapes
/// nothing.
fn from_octets(name: &str) -> Result<Name, ProtoError> {
    match name.strip_suffix('.').unwrap_or(name) {
        "" => Ok(Name::root()),
        bare => Name::from_labels(bare.split('.').map(str::as_bytes)),
    }
}

fn record_type(kind: RecordKind) -> RecordType {
    match kind {
        RecordKind::A => RecordType::A,
        RecordKind::Aaaa => RecordType::AAAA,
        RecordKind::Mx => RecordType::MX,
        RecordKind::Txt => RecordType::TXT,
        RecordKind::Ptr => RecordType::PTR,
        RecordKind::Ns => RecordType::NS,
        RecordKind::Cname => RecordType::CNAME,
        RecordKind::Srv => RecordType::SRV,
        RecordKind::Tlsa => RecordType::TLSA,
    }
}

/// The longest chain of aliases that is followed, the same as in common resolvers.
const MAX_ALIASES: usize = 16;

/// Takes from the answer section what belongs to `name` or to the end of its aliases. Records of other
/// names that a server adds are not believed.
fn answer(name: &Name, kind: RecordKind, lookup: &Lookup) -> Result<DnsAnswer, DnsError> {
    let owner = if kind == RecordKind::Cname { name } else { end_of_aliases(name, lookup.answers()) };
    let matching = lookup.answers().iter().filter(|record| &record.name == owner);
    let records: Vec<Record> =
        matching.filter_map(|record| convert(&record.data)).filter(|record| record.kind() == kind).collect();
    if records.is_empty() {
        // Nobody has said that there is nothing: there are more aliases than are followed.
        return Err(DnsError::ServFail);
    }
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    Ok(DnsAnswer { records, ttl: Duration::from_secs(ttl.into()) })
}

fn end_of_aliases<'a>(name: &'a Name, answers: &'a [WireRecord]) -> &'a Name {
    let mut owner = name;
    for _ in 0..MAX_ALIASES {
        let alias = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if &record.name == owner => Some(&target.0),
            _ => None,
        });
        match alias {
            Some(target) => owner = target,
            None => break,
        }
    }
    owner
}

fn convert(data: &RData) -> Option<Record> {
    Some(match data {
        RData::A(address) => Record::A(address.0),
        RData::AAAA(address) => Record::Aaaa(address.0),
        RData::MX(mx) => Record::Mx { preference: mx.preference, exchange: text(&mx.exchange) },
        RData::TXT(txt) => Record::Txt(txt.txt_data.concat()),
        RData::PTR(name) => Record::Ptr(text(&name.0)),
        RData::NS(name) => Record::Ns(text(&name.0)),
        RData::CNAME(name) => Record::Cname(text(&name.0)),
        RData::SRV(srv) => Record::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: text(&srv.target),
        },
        RData::TLSA(tlsa) => Record::Tlsa {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            data: tlsa.cert_data.clone(),
        },
        _ => return None,
    })
}

/// Without the last dot, as mail writes names; the root keeps its dot, or it would be empty. As [`from_octets`] reads it,
/// but for labels that would not come back the same: those are escaped, and so name nothing that exists.
fn text(name: &Name) -> String {
    let plain = |label: &[u8]| label.iter().all(|b| b.is_ascii_graphic() && !b".\\".contains(b));
    if !name.is_root() && name.iter().all(plain) {
        let labels: Vec<_> = name.iter().map(String::from_utf8_lossy).collect();
        return labels.join(".");
    }
    let mut text = name.to_ascii();
    if text.len() > 1 && text.ends_with('.') {
        text.pop();
    }
    text
}

/// Whether this may be a denial, or an answer with records that nobody asked for.
fn is_bare_denial(error: &NetError) -> bool {
    matches!(error, NetError::Dns(WireError::NoRecordsFound(none))
        if none.response_code == ResponseCode::NoError && none.soa.is_none() && none.ns.is_none())
}

fn classify(error: &NetError) -> DnsError {
    match error {
        NetError::Timeout => DnsError::Timeout,
        NetError::Dns(WireError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => DnsError::NxDomain,
            // RFC 2308 section 2.2.1: servers named without an SOA record are a referral, by a server that does not
            // know and will not ask for us. It has not said that there is nothing.
            _ if none.soa.is_none() && none.ns.is_some() => DnsError::Refused,
            _ => DnsError::NoData,
        },
        NetError::Dns(WireError::ResponseCode(ResponseCode::Refused)) => DnsError::Refused,
        NetError::Io(cause) if cause.kind() == std::io::ErrorKind::TimedOut => DnsError::Timeout,
        NetError::Io(_) | NetError::NoConnections | NetError::Busy => DnsError::Unreachable,
        // Other response codes, answers that cannot be read, endless aliases: the servers failed us.
        _ => DnsError::ServFail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_complete_with_or_without_their_dot() {
        for given in ["mail.example", "mail.example."] {
            assert_eq!(qualified(given).map(|name| name.to_ascii()), Ok("mail.example.".into()));
        }
        assert_eq!(
            qualified("bücher.example").map(|name| name.to_ascii()),
            Ok("xn--bcher-kva.example.".into())
        );
        assert!(qualified("_25._tcp.mail.example").is_ok());
        let strange = qualified(r"a b:c/%\046d.example").unwrap();
        assert_eq!(strange.iter().next(), Some(&br"a b:c/%\046d"[..]));
    }

    #[test]
    fn names_in_answers_can_be_asked_for_again() {
        for given in ["mail.example", "foo:bar/baz.example", "_x$.Example"] {
            assert_eq!(text(&qualified(given).unwrap()), given);
        }
        assert_eq!(text(&Name::root()), ".");
        let dotted = Name::from_labels([b"a.b".as_slice(), b"example"]).unwrap();
        let asked_again = qualified(&text(&dotted)).unwrap();
        assert_ne!(asked_again, dotted, "a label with a dot in it must not become two");
        assert_ne!(asked_again, qualified("a.b.example").unwrap());
    }

    #[test]
    fn what_cannot_be_a_name_is_never_asked() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = "abcdefgh.".repeat(32);
        for bad in ["", "a..example", ".example", long_label.as_str(), long_name.as_str()] {
            assert_eq!(qualified(bad), Err(DnsError::InvalidName), "{bad:?}");
        }
    }

    #[test]
    fn a_resolver_without_servers_cannot_be_made() {
        let config = Config { servers: Servers::List(vec![]), ..Config::default() };
        assert_eq!(HickoryResolver::new(&config).err(), Some(ConfigError::NoServers));
    }
}
