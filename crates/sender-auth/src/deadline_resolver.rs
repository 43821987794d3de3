//! A resolver with a deadline, shared by all checks of a message.

use std::net::IpAddr;
use std::time::Instant;

use pintle_dns::{DnsError, DnsRecord, DnsRecordKind, Resolver, reverse_zone_name};

/// A resolver, and the time after which it is no longer queried.
#[derive(Clone, Copy)]
pub struct DeadlineResolver<'a> {
    resolver: &'a dyn Resolver,
    deadline: Instant,
}

impl<'a> DeadlineResolver<'a> {
    /// Uses `resolver` until `deadline`. Every later answer counts as [`DnsError::Timeout`], so a check ends soon after
    /// it, however many queries it still needs.
    #[must_use]
    pub fn new(resolver: &'a dyn Resolver, deadline: Instant) -> Self {
        Self { resolver, deadline }
    }

    pub(crate) async fn records(self, name: &str, kind: DnsRecordKind) -> Result<Vec<DnsRecord>, DnsError> {
        let lookup = self.resolver.lookup(name, kind);
        match tokio::time::timeout_at(self.deadline.into(), lookup).await {
            Ok(answer) => answer.map(|answer| answer.records),
            Err(_elapsed) => Err(DnsError::Timeout),
        }
    }

    /// The strings of each TXT record, joined. The list is empty when there are no such records.
    pub(crate) async fn texts(self, name: &str) -> Result<Vec<Vec<u8>>, DnsError> {
        let text = |record| match record {
            DnsRecord::Txt(text) => Some(text),
            _ => None,
        };
        match self.records(name, DnsRecordKind::Txt).await {
            Ok(records) => Ok(records.into_iter().filter_map(text).collect()),
            Err(error) if error.is_temporary() => Err(error),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The addresses of a host, of the same family as `like`.
    pub(crate) async fn addresses(self, host: &str, like: IpAddr) -> Result<Vec<IpAddr>, DnsError> {
        let kind = if like.is_ipv4() { DnsRecordKind::A } else { DnsRecordKind::Aaaa };
        let address = |record: &DnsRecord| match record {
            DnsRecord::A(v4) => Some(IpAddr::V4(*v4)),
            DnsRecord::Aaaa(v6) => Some(IpAddr::V6(*v6)),
            _ => None,
        };
        let records = self.records(host, kind).await?;
        Ok(records.iter().filter_map(address).collect())
    }

    /// The PTR names of an address, confirmed or not.
    pub(crate) async fn pointers(self, address: IpAddr) -> Result<Vec<String>, DnsError> {
        let name = |record| match record {
            DnsRecord::Ptr(name) => Some(name),
            _ => None,
        };
        let records = self.records(&reverse_zone_name(address), DnsRecordKind::Ptr).await?;
        Ok(records.into_iter().filter_map(name).collect())
    }
}
