//! DNS for the whole gateway: names to addresses, addresses to names, mail routes and lists.
//!
//! The rest of Pintle uses [`Resolver`], a trait with one method, and the lookups of mail that are built on it: where a
//! domain receives its mail ([`mail_exchangers`]), the addresses of a host ([`addresses`]), the names of an address
//! ([`reverse_names`]) and the lists that it is on ([`query_lists`]). [`HickoryResolver`] is the only implementation
//! outside tests, and this crate the only one that knows the library behind it. The gateway uses [`WatchedResolver`],
//! which detects servers that answer nothing at all.
//!
//! Guarantees: names are queried as they are given and never completed by a search list; each lookup ends within its
//! configured time limit; positive and negative answers are cached as long as their TTL allows (except denials of SOA
//! records: the library takes the SOA record in a denial for an answer, and does not cache it); an error says whether a
//! later try may succeed.
//!
//! Not done here: deciding whether to connect to an address, when to query again, and what to tell the peer. DNSSEC is
//! not validated.

mod address;
mod hickory;
mod rdata;
mod record;
mod resolver;
mod route;
mod second_look;
mod watch;

pub use address::{
    ReverseNames, address_literal, addresses, query_lists, reverse_names, reverse_zone_name, reversed,
};
pub use hickory::{Config, ConfigError, HickoryResolver, NameServers};
pub use record::{DnsRecord, DnsRecordKind, DnsRecordKindError};
pub use resolver::{DnsAnswer, DnsError, Resolver, lookup_many};
pub use route::{Exchanger, MailRoute, before_ours, mail_exchangers, random_seed};
pub use watch::WatchedResolver;
