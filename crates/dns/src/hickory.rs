//! The real resolver: a caching stub resolver on hickory that queries the configured name servers.
//!
//! Hickory's types do not leave this crate. This is a stub and not a recursive resolver: the machine's own resolver, or
//! the one that the operator configures, does the recursion.

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

use crate::rdata::record;
use crate::{DnsAnswer, DnsError, DnsRecord, DnsRecordKind, Resolver, second_look};

/// Queries name servers over UDP, and over TCP when an answer does not fit, and caches the answers.
///
/// Clones share the cache. Identical queries in progress are sent only once.
#[derive(Clone)]
pub struct HickoryResolver {
    /// All servers, the fastest first. It accepts the first answer, whatever it is.
    all: TokioResolver,
    /// Each server alone, if there are several: another one may have an answer when the first has none.
    each: Arc<[TokioResolver]>,
    /// All servers, queried without EDNS.
    plain: TokioResolver,
    /// How long one server may take for one try.
    timeout: Duration,
    deadline: Duration,
    servers: Arc<[SocketAddr]>,
}

/// The settings of the resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name servers to query.
    pub servers: NameServers,
    /// How long one server may take for one try.
    pub timeout: Duration,
    /// How often each query is tried before it fails; at least once.
    pub attempts: usize,
    /// The time limit of a whole lookup, with all tries and aliases.
    pub deadline: Duration,
    /// The most answers in the cache; 0 disables it.
    pub cache_entries: u64,
    /// The longest time that answers are cached, whatever their TTL.
    pub max_ttl: Duration,
    /// The longest time that "no such name" and "no such record" are cached (RFC 2308 section 5 suggests one to three
    /// hours; a mail domain under repair needs less).
    pub max_negative_ttl: Duration,
    /// Whether the machine's hosts file is consulted first, for addresses.
    pub hosts_file: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: NameServers::System,
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

/// Which name servers to query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameServers {
    /// Those of the machine (`/etc/resolv.conf`). Its search list is ignored: a mail domain is complete.
    System,
    /// These servers, initially in this order of preference.
    List(Vec<SocketAddr>),
}

/// Why no resolver can be made. The operator has to fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The machine's resolver configuration cannot be read; the text is the parser's error.
    System(String),
    /// There is no name server to query.
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
    /// A resolver with an empty cache. No server is contacted before the first query.
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

    /// The name servers that it queries, for display.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        self.servers.iter().map(ToString::to_string).collect()
    }

    async fn ask(&self, name: Name, kind: DnsRecordKind) -> Result<DnsAnswer, DnsError> {
        let answer = tokio::time::timeout(self.deadline, self.ask_until_told(&name, kind)).await;
        let result = answer.unwrap_or(Err(DnsError::Timeout));
        if let Err(error) = &result {
            tracing::debug!(%name, %kind, %error, "lookup without an answer");
        }
        result
    }

    /// Returns the first answer that a server gives; if there is none, the error of the first server.
    async fn ask_until_told(&self, name: &Name, kind: DnsRecordKind) -> Result<DnsAnswer, DnsError> {
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

    /// Classifies an answer that has no records and no SOA record to deny them.
    async fn look_again(&self, name: &Name, kind: DnsRecordKind) -> DnsError {
        let denied = second_look::is_denied(&self.servers, name, record_type(kind), self.timeout).await;
        if denied { DnsError::NoData } else { DnsError::ServFail }
    }

    /// The resolvers that may have an answer when a server failed with this error.
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
    fn lookup(&self, name: &str, kind: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        let name = qualified(name);
        async move { self.ask(name?, kind).await }.boxed()
    }
}

impl fmt::Debug for HickoryResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HickoryResolver").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// An empty set of trusted authorities, since nothing is queried over TLS. If any crate of the dependency graph enables
/// the library's TLS, its default loads the machine's certificate authorities, and a machine without them (a bare
/// container) could not resolve at all.
fn no_tls() -> Result<ClientConfig, ConfigError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::System(error.to_string()))?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn name_servers(servers: &NameServers) -> Result<Vec<NameServerConfig>, ConfigError> {
    let list = match servers {
        NameServers::List(addresses) => addresses.iter().copied().map(name_server).collect(),
        NameServers::System => {
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
    // A busy gateway has hundreds of queries in progress; with the default of 32 per connection it would get "busy"
    // errors.
    options.max_active_requests = 1_024;
    options
}

/// The name as a fully qualified one, so that no search list is used.
fn qualified(name: &str) -> Result<Name, DnsError> {
    if name.is_empty() {
        return Err(DnsError::InvalidName);
    }
    let parsed = if name.is_ascii() { from_octets(name) } else { Name::from_utf8(name) };
    let mut name = parsed.map_err(|_| DnsError::InvalidName)?;
    name.set_fqdn(true);
    Ok(name)
}

/// Labels may contain any octet (RFC 2181 section 11), and names from SPF macros do. A backslash is an ordinary octet,
/// too, and escapes nothing.
fn from_octets(name: &str) -> Result<Name, ProtoError> {
    match name.strip_suffix('.').unwrap_or(name) {
        "" => Ok(Name::root()),
        bare => Name::from_labels(bare.split('.').map(str::as_bytes)),
    }
}

fn record_type(kind: DnsRecordKind) -> RecordType {
    RecordType::from(kind.number())
}

/// The longest chain of aliases that is followed, as in common resolvers.
const MAX_ALIASES: usize = 16;

/// Takes from the answer section the records that belong to `name` or to the end of its aliases. Records of other names
/// that a server adds are ignored.
fn answer(name: &Name, kind: DnsRecordKind, lookup: &Lookup) -> Result<DnsAnswer, DnsError> {
    let owner = if kind == DnsRecordKind::Cname { name } else { end_of_aliases(name, lookup.answers()) };
    let matching = lookup.answers().iter().filter(|record| &record.name == owner);
    let records: Vec<DnsRecord> =
        matching.filter_map(|found| record(&found.data)).filter(|record| record.kind() == kind).collect();
    if records.is_empty() {
        // No server has said that there is nothing: there are just more aliases than are followed.
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

/// Whether this may be a denial, or an answer with records that were not asked for.
fn is_bare_denial(error: &NetError) -> bool {
    matches!(error, NetError::Dns(WireError::NoRecordsFound(none))
        if none.response_code == ResponseCode::NoError && none.soa.is_none() && none.ns.is_none())
}

fn classify(error: &NetError) -> DnsError {
    match error {
        NetError::Timeout => DnsError::Timeout,
        NetError::Dns(WireError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => DnsError::NxDomain,
            // RFC 2308 section 2.2.1: name servers without an SOA record are a referral, by a server that does not know
            // and will not resolve for us. It has not said that there is nothing.
            _ if none.soa.is_none() && none.ns.is_some() => DnsError::Refused,
            _ => DnsError::NoData,
        },
        NetError::Dns(WireError::ResponseCode(ResponseCode::Refused)) => DnsError::Refused,
        NetError::Io(cause) if cause.kind() == std::io::ErrorKind::TimedOut => DnsError::Timeout,
        NetError::Io(_) | NetError::NoConnections | NetError::Busy => DnsError::Unreachable,
        // Other response codes, malformed answers, endless aliases: the servers failed.
        _ => DnsError::ServFail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdata::text;

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
        let config = Config { servers: NameServers::List(vec![]), ..Config::default() };
        assert_eq!(HickoryResolver::new(&config).err(), Some(ConfigError::NoServers));
    }
}
