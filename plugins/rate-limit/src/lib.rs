//! Rate limits: token buckets by address, network, identity, sender or recipient. When a bucket is empty, the reply is
//! delayed or the client is deferred. Concurrency limits: how many sessions a client may have at once, and how many
//! messages a user may send at once.
//!
//! The buckets are in the host's store (`kv.take`), so that all instances share them and concurrent takes cannot
//! overdraw one. A client in a trusted network is only ever delayed: Exchange waits a quarter of an hour after each
//! refusal and gives up after two days, while a delayed reply costs it seconds. If the store fails, mail passes.

use std::time::Duration;

use pintle_plugin_sdk::kv::{self, Bucket};
use pintle_plugin_sdk::settings::{self, Network, network_of};
use pintle_plugin_sdk::{leases, metrics, prelude::*};
use serde::Deserialize;

/// The operator's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLimit {
    #[serde(default)]
    limits: Vec<RateLimitRule>,
    #[serde(default)]
    concurrent: Vec<ConcurrencyRule>,
    /// Clients without limits.
    #[serde(default)]
    exempt_networks: Vec<Network>,
}

/// One limit, which has a bucket for each key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLimitRule {
    /// Name of the limit in the log, the counters and the store; unique.
    name: String,
    count: CountedUnit,
    by: BucketBy,
    /// Number of tokens refilled per period `per`.
    max: u32,
    /// The period of `max`; refill is continuous.
    #[serde(deserialize_with = "settings::duration")]
    per: Duration,
    /// Bucket size: how many are permitted at once; `None` means `max`.
    burst: Option<u32>,
    #[serde(default)]
    action: LimitAction,
    /// Maximum delay of a reply.
    #[serde(default = "ten_seconds", deserialize_with = "settings::duration")]
    max_delay: Duration,
    #[serde(default)]
    clients: LimitedClients,
}

/// How much may go on at once.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConcurrencyRule {
    /// Name of the limit in the log and the counters; unique among all limits.
    name: String,
    by: CountedParty,
    max: u32,
    #[serde(default)]
    clients: LimitedClients,
}

/// Whose sessions are counted.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CountedParty {
    All,
    Address,
    Network,
    /// Who has authenticated. That is known from MAIL on, so the messages are counted that are being sent.
    Identity,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CountedUnit {
    Connections,
    Messages,
    Recipients,
}

/// What each bucket stands for.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum BucketBy {
    /// One bucket for all clients.
    All,
    Address,
    /// The client's network: a /24 of IPv4, a /64 of IPv6.
    Network,
    Identity,
    Sender,
    SenderDomain,
    Recipient,
    RecipientDomain,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LimitAction {
    #[default]
    Slow,
    Defer,
}

/// The clients that a limit applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LimitedClients {
    #[default]
    Any,
    /// Neither trusted nor authenticated.
    Strangers,
    /// Trusted or authenticated.
    Ours,
}

impl Plugin for RateLimit {
    const ID: &'static str = "pintle.rate-limit";
    const WANTS: &'static [&'static str] = &["kv"];
    const CONFIG_SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));

    fn check(&mut self) -> Result<(), Vec<ConfigError>> {
        let mut mistakes = Vec::new();
        for (at, limit) in self.limits.iter().enumerate() {
            let mut wrong =
                |key: &str, text: &str| mistakes.push(mistake(format!("/limits/{at}/{key}"), text));
            if self.limits[..at].iter().any(|other| other.name == limit.name) {
                wrong("name", "another limit has this name");
            }
            if limit.max == 0 || limit.burst == Some(0) {
                wrong("max", "0 would block all mail: remove the limit, or refuse elsewhere");
            }
            if limit.per.is_zero() || limit.per > Duration::from_secs(86_400) {
                wrong("per", "not between 1ms and 1d");
            }
            if limit.max_delay > MAX_DELAY {
                wrong("max_delay", "longer than 1m, and clients may give up");
            }
            if !limit.by.is_known_at(limit.count) {
                wrong("by", "not known when this is counted");
            }
        }
        for (at, limit) in self.concurrent.iter().enumerate() {
            let mut wrong =
                |key: &str, text: &str| mistakes.push(mistake(format!("/concurrent/{at}/{key}"), text));
            let others = self.concurrent[..at].iter().map(|other| &other.name);
            if others.chain(self.limits.iter().map(|other| &other.name)).any(|other| *other == limit.name) {
                wrong("name", "another limit has this name");
            }
            if limit.max == 0 {
                wrong("max", "0 would block all mail: remove the limit, or refuse elsewhere");
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    fn conditions(&self) -> Result<(), HostError> {
        calls::not_networks(&["on-connect", "on-mail", "on-rcpt"], &self.exempt_networks)
    }
}

impl RateLimit {
    fn on_connect(&self) -> Result<Verdict, HostError> {
        let keys = KeySource::of_session()?;
        let refusal = self.count(CountedUnit::Connections, &keys)?;
        // A session that is refused is counted until it has been closed.
        let crowded = self.take_leases(&keys, |by| by != CountedParty::Identity)?;
        let Some(text) = refusal.or(crowded) else {
            return Ok(Verdict::Next);
        };
        session::close()?;
        Ok(Verdict::Defer(Some(Reply::new(421, "4.7.0", text))))
    }

    fn on_mail(&self) -> Result<Verdict, HostError> {
        let keys = KeySource::of_session()?.with_sender(transaction::info()?.sender);
        let refusal = self.count(CountedUnit::Messages, &keys)?;
        let crowded = self.take_leases(&keys, |by| by == CountedParty::Identity)?;
        Ok(deferred(refusal.or(crowded)))
    }

    fn on_rcpt(&self, rcpt: &Recipient) -> Result<Verdict, HostError> {
        let mut keys = KeySource::of_session()?.with_sender(transaction::info()?.sender);
        keys.recipient = Some(rcpt.address.clone());
        Ok(deferred(self.count(CountedUnit::Recipients, &keys)?))
    }

    /// Takes one token from every bucket for this unit. Delays the reply for limits that slow, and returns the reply
    /// text if a limit defers.
    fn count(&self, unit: CountedUnit, keys: &KeySource) -> Result<Option<String>, HostError> {
        if self.exempt_networks.iter().any(|network| network.contains(&keys.session.client)) {
            return Ok(None);
        }
        let mut refusal = None;
        let concerned = |limit: &&RateLimitRule| limit.count == unit && limit.clients.include(&keys.session);
        for limit in self.limits.iter().filter(concerned) {
            let Some(key) = keys.of(limit.by) else { continue };
            match limit.take(&key) {
                Ok(None) => {}
                Ok(Some(wait)) if limit.slows(&keys.session) => slow(limit, &key, wait)?,
                Ok(Some(wait)) => refusal = Some(refuse(limit, &key, wait)),
                Err(fault) => warn!(limit = limit.name; "the store failed, so nothing is limited: {fault}"),
            }
        }
        Ok(refusal)
    }
}

impl RateLimit {
    /// Counts the session or the message under every concurrency limit for these parties. Delays the reply to trusted
    /// clients beyond a limit, and returns the reply text for others.
    fn take_leases(
        &self,
        keys: &KeySource,
        counted: impl Fn(CountedParty) -> bool,
    ) -> Result<Option<String>, HostError> {
        if self.exempt_networks.iter().any(|network| network.contains(&keys.session.client)) {
            return Ok(None);
        }
        let mut refusal = None;
        let concerned = |limit: &&ConcurrencyRule| counted(limit.by) && limit.clients.include(&keys.session);
        for limit in self.concurrent.iter().filter(concerned) {
            let Some(key) = keys.of(limit.by.bucket()) else { continue };
            match leases::take(&format!("{} {key}", limit.name), limit.max) {
                Ok(Some(_)) => {}
                Ok(None) if keys.session.trusted => wait_for_a_lease(limit, &key)?,
                Ok(None) => refusal = Some(refuse_for_now(limit, &key)),
                Err(fault) => {
                    warn!(limit = limit.name; "nothing can be counted, so nothing is limited: {fault}")
                }
            }
        }
        Ok(refusal)
    }
}

fn wait_for_a_lease(limit: &ConcurrencyRule, key: &str) -> Result<(), HostError> {
    metrics::count("slowed", 1, &[("limit", &limit.name)]);
    info!(limit = limit.name, key = key; "too many at once: the reply waits");
    session::delay_reply(10_000)
}

fn refuse_for_now(limit: &ConcurrencyRule, key: &str) -> String {
    metrics::count("deferred", 1, &[("limit", &limit.name)]);
    info!(limit = limit.name, key = key; "too many at once: asked to retry");
    format!("Too many {} at once (limit {}): please try again later", limit.by.name(), limit.name)
}

/// The longest delay before a reply that the plugin contract permits.
const MAX_DELAY: Duration = Duration::from_secs(60);

impl RateLimitRule {
    /// Takes a token; if none is left, returns how long to wait for one.
    fn take(&self, key: &str) -> Result<Option<Duration>, HostError> {
        let taken = kv::take(&format!("{} {key}", self.name), 1, self.bucket())?;
        Ok((!taken.allowed).then(|| Duration::from_millis(taken.retry_after_ms.into())))
    }

    fn bucket(&self) -> Bucket {
        Bucket {
            capacity: self.burst.unwrap_or(self.max),
            refill_per_minute: f64::from(self.max) * 60.0 / self.per.as_secs_f64(),
        }
    }

    fn slows(&self, session: &session::Snapshot) -> bool {
        session.trusted || self.action == LimitAction::Slow
    }
}

fn slow(limit: &RateLimitRule, key: &str, wait: Duration) -> Result<(), HostError> {
    let wait = wait.min(limit.max_delay);
    metrics::count("slowed", 1, &[("limit", &limit.name)]);
    info!(limit = limit.name, key = key; "too fast: the reply waits {} ms", wait.as_millis());
    session::delay_reply(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX))
}

fn refuse(limit: &RateLimitRule, key: &str, wait: Duration) -> String {
    let seconds = wait.as_secs() + 1;
    metrics::count("deferred", 1, &[("limit", &limit.name)]);
    info!(limit = limit.name, key = key; "too fast: asked to retry in {seconds} s");
    format!("Too many {} (limit {}): please try again in {seconds} seconds", limit.count.name(), limit.name)
}

fn deferred(refusal: Option<String>) -> Verdict {
    refusal.map_or(Verdict::Next, |text| defer("4.7.0", text))
}

impl CountedUnit {
    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Messages => "messages",
            Self::Recipients => "recipients",
        }
    }
}

impl CountedParty {
    fn name(self) -> &'static str {
        match self {
            Self::Identity => "messages",
            _ => "sessions",
        }
    }

    fn bucket(self) -> BucketBy {
        match self {
            Self::All => BucketBy::All,
            Self::Address => BucketBy::Address,
            Self::Network => BucketBy::Network,
            Self::Identity => BucketBy::Identity,
        }
    }
}

impl BucketBy {
    fn is_known_at(self, unit: CountedUnit) -> bool {
        match self {
            Self::All | Self::Address | Self::Network => true,
            Self::Identity | Self::Sender | Self::SenderDomain => unit != CountedUnit::Connections,
            Self::Recipient | Self::RecipientDomain => unit == CountedUnit::Recipients,
        }
    }
}

impl LimitedClients {
    fn include(self, session: &session::Snapshot) -> bool {
        match self {
            Self::Any => true,
            Self::Strangers => !session.known,
            Self::Ours => session.known,
        }
    }
}

/// The values from which bucket keys are made.
struct KeySource {
    session: session::Snapshot,
    /// `None` also for the null reverse-path, so that all bounces do not share one bucket.
    sender: Option<Address>,
    recipient: Option<Address>,
}

impl KeySource {
    fn of_session() -> Result<Self, HostError> {
        Ok(Self { session: session::info()?, sender: None, recipient: None })
    }

    fn with_sender(mut self, sender: Address) -> Self {
        self.sender = Some(sender).filter(|sender| !sender.is_null());
        self
    }

    /// The bucket's key; `None` if the value to count by is not available.
    fn of(&self, by: BucketBy) -> Option<String> {
        // A domain has one bucket, in whichever form it was sent.
        let whole = |address: &Address| format!("{}@{}", address.local.to_lowercase(), address.domain);
        let domain = |address: &Address| address.domain.clone();
        match by {
            BucketBy::All => Some("all".to_owned()),
            BucketBy::Address => Some(self.session.client.text.clone()),
            BucketBy::Network => Some(network_of(&self.session.client, 24, 64)),
            BucketBy::Identity => self.session.identity.clone(),
            BucketBy::Sender => self.sender.as_ref().map(whole),
            BucketBy::SenderDomain => self.sender.as_ref().map(domain),
            BucketBy::Recipient => self.recipient.as_ref().map(whole),
            BucketBy::RecipientDomain => self.recipient.as_ref().map(domain),
        }
    }
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

pintle_plugin_sdk::export!(RateLimit: on_connect, on_mail, on_rcpt);

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_plugin_sdk::IpAddress;

    fn limit(count: CountedUnit, by: BucketBy) -> RateLimitRule {
        RateLimitRule {
            name: "l".to_owned(),
            count,
            by,
            max: 30,
            per: Duration::from_secs(3_600),
            burst: Some(5),
            action: LimitAction::Defer,
            max_delay: ten_seconds(),
            clients: LimitedClients::Any,
        }
    }

    fn concurrent(name: &str) -> ConcurrencyRule {
        let clients = LimitedClients::Any;
        ConcurrencyRule { name: name.to_owned(), by: CountedParty::Address, max: 1, clients }
    }

    fn keys(sender: &str) -> KeySource {
        let address = |text: &str| IpAddress { text: text.to_owned(), octets: vec![192, 0, 2, 7] };
        let session = session::Snapshot {
            id: String::new(),
            listener: "mx".to_owned(),
            client: address("192.0.2.7"),
            client_port: 1,
            local: address("192.0.2.7"),
            local_port: 25,
            hello: None,
            esmtp: true,
            tls: false,
            identity: None,
            trusted: false,
            known: false,
            age_ms: 0,
        };
        let domain = if sender.is_empty() { "" } else { "x.example" };
        KeySource { session, sender: None, recipient: None }.with_sender(Address::new(sender, domain))
    }

    #[test]
    fn a_bucket_holds_the_burst_and_refills_at_the_rate() {
        let bucket = limit(CountedUnit::Messages, BucketBy::Address).bucket();
        assert_eq!(bucket.capacity, 5);
        assert!((bucket.refill_per_minute - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_there_has_no_bucket() {
        assert_eq!(keys("").of(BucketBy::Sender), None, "bounces");
        assert_eq!(keys("Ann").of(BucketBy::Sender).as_deref(), Some("ann@x.example"));
        assert_eq!(keys("ann").of(BucketBy::Identity), None);
        assert_eq!(keys("ann").of(BucketBy::Network).as_deref(), Some("192.0.2.0/24"));
    }

    #[test]
    fn a_trusted_client_is_slowed_and_never_deferred() {
        let mut keys = keys("ann");
        let limit = limit(CountedUnit::Messages, BucketBy::Address);
        assert!(!limit.slows(&keys.session));
        (keys.session.trusted, keys.session.known) = (true, true);
        assert!(limit.slows(&keys.session));
        assert!(
            LimitedClients::Ours.include(&keys.session) && !LimitedClients::Strangers.include(&keys.session)
        );
    }

    #[test]
    fn what_cannot_work_is_named_with_its_place() {
        let mut nothing = limit(CountedUnit::Connections, BucketBy::Sender);
        nothing.max = 0;
        nothing.per = Duration::ZERO;
        let mut plugin = RateLimit {
            limits: vec![limit(CountedUnit::Messages, BucketBy::Sender), nothing],
            concurrent: ["l", "c", "c"].map(concurrent).into(),
            exempt_networks: vec![],
        };
        plugin.concurrent[1].max = 0;
        let places: Vec<_> = plugin.check().unwrap_err().into_iter().map(|mistake| mistake.at).collect();
        let limits = ["/limits/1/name", "/limits/1/max", "/limits/1/per", "/limits/1/by"];
        let concurrent = ["/concurrent/0/name", "/concurrent/1/max", "/concurrent/2/name"];
        assert_eq!(places, [&limits[..], &concurrent[..]].concat());
    }
}
