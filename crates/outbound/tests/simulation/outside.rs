//! The network and the name servers of a run.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pintle_dns::{DnsAnswer, DnsError, DnsRecord, DnsRecordKind, Resolver};
use pintle_outbound::{HostAddress, Network, Stream};

use crate::hop::{Mood, serve};
use crate::random::Random;
use crate::world::{World, address};

/// Connections in memory.
pub struct Wires(pub Arc<World>);

impl Network for Wires {
    fn connect(
        &self,
        to: &HostAddress,
        _source: Option<IpAddr>,
    ) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let (world, to) = (Arc::clone(&self.0), to.clone());
        Box::pin(async move {
            let HostAddress::Tcp(address) = &to else { return Err(io::ErrorKind::NotFound.into()) };
            let hop = world.hops.get(&address.ip()).cloned();
            let Some(hop) = hop else { return Err(io::ErrorKind::HostUnreachable.into()) };
            let number = hop.next_connection();
            let mut random = Random::of(world.seed, &format!("connect {} {number}", hop.name));
            let healthy = world.is_healthy();
            let mood = if healthy { Mood::Up } else { hop.mood() };
            world.tell(|| format!("{} {number}: connect, {mood:?}", hop.name));
            tokio::time::sleep(random.millis(0, 40)).await;
            if mood == Mood::Silent || !healthy && random.chance(20) {
                std::future::pending::<()>().await;
            }
            if mood == Mood::Refuses || !healthy && random.chance(20) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let room = usize::try_from(random.between(64, 20_000)).unwrap_or(64);
            let (ours, theirs) = tokio::io::duplex(room);
            tokio::spawn(serve(world, hop, number, theirs));
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}

/// Name servers.
pub struct Names(pub Arc<World>);

impl Resolver for Names {
    fn lookup(&self, name: &str, kind: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        let (name, world) = (name.to_owned(), Arc::clone(&self.0));
        Box::pin(async move {
            let (wait, fault) = world.draw(|random| (random.millis(0, 60), fault(random, &name)));
            let fault = fault.filter(|_| !world.is_healthy());
            let wait = if fault == Some(DnsError::Timeout) { Duration::from_secs(5) } else { wait };
            tokio::time::sleep(wait).await;
            let answer = fault.map_or_else(|| records(&name, kind), Err);
            if kind == DnsRecordKind::Mx && answer.as_ref().is_err_and(|error| !error.is_temporary()) {
                world.ledger(|ledger| ledger.no_mail.insert(name.clone()));
            }
            world.tell(|| format!("names: {name} {kind}: {answer:?}"));
            answer.map(|records| DnsAnswer { records, ttl: Duration::from_secs(60) })
        })
    }
}

fn fault(random: &mut Random, name: &str) -> Option<DnsError> {
    let temporary =
        [DnsError::ServFail, DnsError::Timeout, DnsError::Refused, DnsError::Unreachable, DnsError::Bogus];
    match random.below(100) {
        0..12 => Some(*random.pick(&temporary)),
        12..20 if name == "fickle.example" => Some(DnsError::NxDomain),
        _ => None,
    }
}

fn records(name: &str, kind: DnsRecordKind) -> Result<Vec<DnsRecord>, DnsError> {
    let mx = |preference, exchange: &str| DnsRecord::Mx { preference, exchange: exchange.to_owned() };
    let host = |net, host| match address(net, host) {
        IpAddr::V4(v4) => DnsRecord::A(v4),
        IpAddr::V6(v6) => DnsRecord::Aaaa(v6),
    };
    match (name, kind) {
        ("mx.example", DnsRecordKind::Mx) => Ok(vec![mx(20, "b.mx.example"), mx(10, "a.mx.example")]),
        ("fickle.example", DnsRecordKind::Mx) => Ok(vec![mx(10, "a.fickle.example")]),
        ("a.mx.example", DnsRecordKind::A) => Ok(vec![host(3, 1)]),
        ("b.mx.example", DnsRecordKind::A) => Ok(vec![host(3, 2)]),
        ("a.fickle.example", DnsRecordKind::A) => Ok(vec![host(4, 1)]),
        ("a.mx.example" | "b.mx.example" | "a.fickle.example", _) => Err(DnsError::NoData),
        _ => Err(DnsError::NxDomain),
    }
}
