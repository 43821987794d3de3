//! The resolver trait that all of Pintle uses, its answer and its errors.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};

use crate::{DnsRecord, DnsRecordKind};

/// Answers DNS queries: the real resolver, or a map in a test.
///
/// The trait has only one method, so that a test double has one thing to imitate and cannot get the rules of RFC 5321
/// wrong. The lookups of mail are free functions on top of it.
pub trait Resolver: Send + Sync + 'static {
    /// All records of one kind at `name`, aliases (CNAME) already followed.
    ///
    /// `name` is fully qualified, with or without its final dot; U-labels are converted. An answer has at least one
    /// record: a name without a record of this kind gives [`DnsError::NoData`].
    fn lookup(&self, name: &str, kind: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>>;
}

impl<R: Resolver + ?Sized> Resolver for Arc<R> {
    fn lookup(&self, name: &str, kind: DnsRecordKind) -> BoxFuture<'_, Result<DnsAnswer, DnsError>> {
        (**self).lookup(name, kind)
    }
}

/// Sends all queries at once; the results are in the order of the queries.
///
/// The caller limits their number: each one is a query on the wire unless the answer is cached.
pub async fn lookup_many(
    resolver: &dyn Resolver,
    questions: &[(String, DnsRecordKind)],
) -> Vec<Result<DnsAnswer, DnsError>> {
    join_all(questions.iter().map(|(name, kind)| resolver.lookup(name, *kind))).await
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsAnswer {
    /// The records of the requested kind, in the order of the server; never empty.
    pub records: Vec<DnsRecord>,
    /// How long the answer may be cached: the shortest TTL of its records.
    pub ttl: Duration,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DnsError {
    /// The name does not exist, for any kind of record (RFC 2308 section 2.1).
    NxDomain,
    /// The name exists, or something below it does, but it has no record of this kind (RFC 2308 section 2.2).
    NoData,
    /// The server could not resolve the name: usually the domain's own servers fail or give unusable answers.
    ServFail,
    /// The answer contradicts DNSSEC. Only a resolver that validates reports it.
    Bogus,
    /// No server answered in time.
    Timeout,
    /// The server refuses to answer us.
    Refused,
    /// No server could be reached.
    Unreachable,
    /// The name is not a domain name: a label over 63 bytes, a name over 255, an empty label.
    InvalidName,
}

impl DnsError {
    /// The error's name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NxDomain => "nxdomain",
            Self::NoData => "nodata",
            Self::ServFail => "servfail",
            Self::Bogus => "bogus",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::InvalidName => "invalid_name",
        }
    }

    /// Whether the same query may succeed later. A permanent error is an answer by itself.
    pub fn is_temporary(self) -> bool {
        match self {
            Self::NxDomain | Self::NoData | Self::InvalidName => false,
            Self::ServFail | Self::Bogus | Self::Timeout | Self::Refused | Self::Unreachable => true,
        }
    }
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NxDomain => "the name does not exist",
            Self::NoData => "the name has no such record",
            Self::ServFail => "the name servers failed to answer",
            Self::Bogus => "the answer fails its DNSSEC check",
            Self::Timeout => "no answer in time",
            Self::Refused => "the name server refuses to answer us",
            Self::Unreachable => "no name server can be reached",
            Self::InvalidName => "not a valid domain name",
        })
    }
}

impl std::error::Error for DnsError {}
