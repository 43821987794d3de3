//! Evaluation of SPF records, with the limits that apply to a whole check (RFC 7208 sections 4.6 to 6).

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};

use pintle_dns::{DnsError, DnsRecord, DnsRecordKind};

use super::SpfClient;
use super::macros::{MacroLetters, MacroString};
use super::record::{BadTerm, Prefixes, SpfMechanism, SpfRecord, is_spf};
use crate::{AuthOutcome, DeadlineResolver, domain};

/// Section 4.6.4: the most terms that cause DNS queries, over all records of a check.
const MAX_TERMS: u32 = 10;
/// Section 4.6.4: the most void lookups. More of them look like an attack on the name servers of a third party.
const MAX_VOIDS: u32 = 2;
/// Sections 4.6.4 and 5.5: the most MX records of one name, and PTR records of an address.
const MAX_HOSTS: usize = 10;
/// How deep records may include each other; the limit of ten terms is reached earlier.
const MAX_DEPTH: u32 = 12;
/// The most octets of an explanation that are used.
const MAX_EXPLANATION: usize = 400;

/// Section 9.1: the mechanism's name when nothing in a record matched.
const NO_MECHANISM: &str = "default";

/// The state of one check.
pub(super) struct Evaluation<'a> {
    dns: DeadlineResolver<'a>,
    client: &'a SpfClient<'a>,
    address: IpAddr,
    local: &'a str,
    sender_domain: &'a str,
    terms: u32,
    voids: u32,
    /// The client's confirmed names; none until they are needed.
    names: Option<Vec<String>>,
}

/// The result of evaluating a record.
#[derive(Debug)]
pub(super) struct Matched {
    pub(super) outcome: AuthOutcome,
    /// The mechanism that matched, as written; none when there is no record.
    pub(super) mechanism: Option<String>,
    /// The domain of the record that decided.
    pub(super) domain: String,
    /// The `exp=` of that record.
    pub(super) explanation: Option<MacroString>,
}

/// Why a check ends without a regular result.
#[derive(Debug)]
pub(super) enum SpfError {
    Temporary(DnsError),
    Permanent(String),
}

impl From<BadTerm> for SpfError {
    fn from(BadTerm(term): BadTerm) -> Self {
        Self::Permanent(format!("the record has a term that cannot be read: {term:.80}"))
    }
}

type CheckFuture<'e> = Pin<Box<dyn Future<Output = Result<Matched, SpfError>> + Send + 'e>>;

impl<'a> Evaluation<'a> {
    pub(super) fn new(
        dns: DeadlineResolver<'a>,
        client: &'a SpfClient<'a>,
        local: &'a str,
        sender_domain: &'a str,
    ) -> Self {
        Self {
            dns,
            client,
            address: client.address.to_canonical(),
            // Section 4.3: a sender without a local part is treated as postmaster.
            local: if local.is_empty() { "postmaster" } else { local },
            sender_domain: domain::bare(sender_domain),
            terms: 0,
            voids: 0,
            names: None,
        }
    }

    /// Looks up and evaluates the record of a domain.
    pub(super) fn check<'e>(&'e mut self, name: &'e str, depth: u32) -> CheckFuture<'e> {
        Box::pin(async move {
            let Some(record) = self.record(name).await? else {
                return Ok(Matched::none(name));
            };
            if depth > MAX_DEPTH {
                return Err(SpfError::Permanent("records include each other too deeply".into()));
            }
            for directive in &record.directives {
                if self.matches(&directive.mechanism, name, depth).await? {
                    return Ok(Matched {
                        outcome: directive.outcome,
                        mechanism: Some(directive.text.clone()),
                        domain: name.to_owned(),
                        explanation: record.explanation,
                    });
                }
            }
            match &record.redirect {
                Some(target) => self.redirect(target, name, depth).await,
                // Section 4.7: nothing matched, and there is no other default.
                None => Ok(Matched {
                    outcome: AuthOutcome::Neutral,
                    mechanism: Some(NO_MECHANISM.to_owned()),
                    ..Matched::none(name)
                }),
            }
        })
    }

    /// Section 4.5: the only record that begins with the version; several are an error.
    async fn record(&self, name: &str) -> Result<Option<SpfRecord>, SpfError> {
        let texts = self.dns.texts(name).await.map_err(SpfError::Temporary)?;
        let mut records = texts.iter().filter(|text| is_spf(text));
        match (records.next(), records.next()) {
            (None, _) => Ok(None),
            (Some(record), None) => Ok(Some(SpfRecord::parse(record)?)),
            (Some(_), Some(_)) => Err(SpfError::Permanent(format!("{name} has several SPF records"))),
        }
    }

    /// Follows `redirect=` (section 6.1).
    async fn redirect(&mut self, target: &MacroString, name: &str, depth: u32) -> Result<Matched, SpfError> {
        self.count_term()?;
        let target = self.name(target, name).await;
        let matched = if domain::is_qualified(&target) {
            self.check(&target, depth + 1).await?
        } else {
            Matched::none(&target)
        };
        match matched.outcome {
            AuthOutcome::None => {
                Err(SpfError::Permanent(format!("redirect to {target}, which has no record")))
            }
            _ => Ok(matched),
        }
    }

    async fn matches(&mut self, mechanism: &SpfMechanism, name: &str, depth: u32) -> Result<bool, SpfError> {
        match mechanism {
            SpfMechanism::All => Ok(true),
            SpfMechanism::Ip(network, prefix) => Ok(within(self.address, *network, *prefix)),
            SpfMechanism::Include(spec) => self.include(spec, name, depth).await,
            SpfMechanism::A(spec, prefixes) => {
                let host = self.target(spec.as_ref(), name).await?;
                let addresses = self.ask_term(self.dns.addresses(&host, self.address).await)?;
                Ok(self.is_among(&addresses, *prefixes))
            }
            SpfMechanism::Mx(spec, prefixes) => {
                let host = self.target(spec.as_ref(), name).await?;
                self.matches_mx(&host, *prefixes).await
            }
            SpfMechanism::Ptr(spec) => {
                let parent = self.target(spec.as_ref(), name).await?;
                let names = self.confirmed_names().await;
                Ok(names.iter().any(|name| domain::is_within(name, &parent)))
            }
            SpfMechanism::Exists(spec) => {
                let host = self.target(Some(spec), name).await?;
                // Section 5.7: an A record, even if the client's address is IPv6.
                let found = self.dns.records(&host, DnsRecordKind::A).await;
                Ok(!self.ask_term(found)?.is_empty())
            }
        }
    }

    /// Section 5.2: what the result of the included record means for this one.
    async fn include(&mut self, spec: &MacroString, name: &str, depth: u32) -> Result<bool, SpfError> {
        let target = self.target(Some(spec), name).await?;
        let outcome = if domain::is_qualified(&target) {
            self.check(&target, depth + 1).await?.outcome
        } else {
            AuthOutcome::None
        };
        match outcome {
            AuthOutcome::Pass => Ok(true),
            AuthOutcome::None => {
                Err(SpfError::Permanent(format!("it includes {target}, which has no record")))
            }
            _ => Ok(false),
        }
    }

    /// The mechanism `mx` (section 5.4).
    async fn matches_mx(&mut self, host: &str, prefixes: Prefixes) -> Result<bool, SpfError> {
        let records = self.ask_term(self.dns.records(host, DnsRecordKind::Mx).await)?;
        if records.len() > MAX_HOSTS {
            return Err(SpfError::Permanent(format!("{host} has more than {MAX_HOSTS} MX records")));
        }
        for record in &records {
            let DnsRecord::Mx { exchange, .. } = record else {
                continue;
            };
            // A host without an address of the client's family says nothing against the sender, so this is not a void
            // lookup.
            match self.dns.addresses(exchange, self.address).await {
                Ok(addresses) if self.is_among(&addresses, prefixes) => return Ok(true),
                Err(error) if error.is_temporary() => return Err(SpfError::Temporary(error)),
                _ => {}
            }
        }
        Ok(false)
    }

    /// The client's names that resolve back to its address (section 5.5). A name for which a lookup fails is not
    /// confirmed.
    async fn confirmed_names(&mut self) -> Vec<String> {
        if self.names.is_none() {
            let mut names = self.dns.pointers(self.address).await.unwrap_or_default();
            names.truncate(MAX_HOSTS);
            let mut confirmed = Vec::new();
            for name in names {
                let back = self.dns.addresses(&name, self.address).await.unwrap_or_default();
                if back.contains(&self.address) {
                    confirmed.push(name);
                }
            }
            self.names = Some(confirmed);
        }
        self.names.clone().unwrap_or_default()
    }

    /// Counts a term that causes a DNS query, and returns the name to query.
    async fn target(&mut self, spec: Option<&MacroString>, name: &str) -> Result<String, SpfError> {
        self.count_term()?;
        Ok(match spec {
            Some(spec) => self.name(spec, name).await,
            None => name.to_owned(),
        })
    }

    fn count_term(&mut self) -> Result<(), SpfError> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(SpfError::Permanent(format!("more than {MAX_TERMS} terms ask DNS")));
        }
        Ok(())
    }

    /// The result of a term's query: an empty list when there are no records, which counts as a void lookup.
    fn ask_term<T>(&mut self, found: Result<Vec<T>, DnsError>) -> Result<Vec<T>, SpfError> {
        match found {
            Ok(found) => Ok(found),
            Err(error) if error.is_temporary() => Err(SpfError::Temporary(error)),
            Err(_) => {
                self.voids += 1;
                if self.voids > MAX_VOIDS {
                    return Err(SpfError::Permanent(format!("more than {MAX_VOIDS} void lookups")));
                }
                Ok(Vec::new())
            }
        }
    }

    fn is_among(&self, addresses: &[IpAddr], prefixes: Prefixes) -> bool {
        let prefix = if self.address.is_ipv4() { prefixes.v4 } else { prefixes.v6 };
        addresses.iter().any(|address| within(self.address, *address, prefix))
    }

    async fn name(&mut self, spec: &MacroString, name: &str) -> String {
        let client_name = self.client_name(spec, name).await;
        spec.expand_domain(|letter| self.value(letter, name, &client_name))
    }

    /// The macro `p`: a confirmed name, preferably the domain itself, next a subdomain of it (section 7.3).
    async fn client_name(&mut self, spec: &MacroString, name: &str) -> String {
        if !spec.wants_name() {
            return String::new();
        }
        let names = self.confirmed_names().await;
        let best = names
            .iter()
            .find(|known| domain::same(known, name))
            .or_else(|| names.iter().find(|known| domain::is_within(known, name)))
            .or_else(|| names.first());
        best.map_or_else(|| "unknown".to_owned(), Clone::clone)
    }

    /// The value of a macro letter (section 7.2).
    fn value(&self, letter: char, name: &str, client_name: &str) -> String {
        match letter {
            's' => format!("{}@{}", self.local, self.sender_domain),
            'l' => self.local.to_owned(),
            'o' => self.sender_domain.to_owned(),
            'd' => domain::bare(name).to_owned(),
            'i' => dotted(self.address),
            'p' => client_name.to_owned(),
            'v' if self.address.is_ipv4() => "in-addr".to_owned(),
            'v' => "ip6".to_owned(),
            'h' => self.client.hello.to_owned(),
            'c' => self.address.to_string(),
            'r' => self.client.receiver.to_owned(),
            't' => seconds().to_string(),
            _ => String::new(),
        }
    }

    /// The explanation of a fail (section 6.2). None when it cannot be fetched, which is not an error.
    pub(super) async fn explain(&mut self, spec: &MacroString, name: &str) -> Option<String> {
        let target = self.name(spec, name).await;
        let texts = self.dns.texts(&target).await.ok()?;
        let [text] = texts.as_slice() else { return None };
        let text = std::str::from_utf8(text).ok()?;
        let spec = MacroString::parse(text, MacroLetters::Any)?;
        let client_name = self.client_name(&spec, name).await;
        let mut text = spec.expand(|letter| self.value(letter, name, &client_name));
        // It is put into a reply and into logs, and comes from an untrusted source.
        let printable = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        if !printable {
            return None;
        }
        text.truncate(MAX_EXPLANATION);
        Some(text)
    }
}

impl Matched {
    /// The result when there is no record.
    fn none(name: &str) -> Self {
        Self { outcome: AuthOutcome::None, mechanism: None, domain: name.to_owned(), explanation: None }
    }
}

/// Whether two addresses of one family have the same first bits.
fn within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (a, b, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let ignored = u32::from(width - prefix.min(width));
    (a ^ b).checked_shr(ignored).unwrap_or(0) == 0
}

/// The macro `i`: dotted numbers, for IPv6 one for each nibble.
fn dotted(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let digits = format!("{:032x}", v6.to_bits());
            let nibbles: Vec<&str> = (0..32).map(|at| &digits[at..=at]).collect();
            nibbles.join(".")
        }
    }
}

/// The macro `t`, which is allowed in explanations only and does not affect the result.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
