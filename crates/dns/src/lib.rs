//! Names into addresses, and addresses into names, for everything in the gateway that has to ask.
//!
//! The rest of Pintle sees [`Resolver`], one trait with one method, and the questions of mail that are
//! built on it: where a domain takes its mail ([`mail_exchangers`]), which addresses a host has
//! ([`addresses`]), what an address calls itself ([`reverse_names`]) and which lists it is on
//! ([`query_lists`]). [`HickoryResolver`] is the one implementation outside of tests, and this crate the
//! only one that knows the library behind it. [`Watched`] is what a gateway asks through: it notices servers that answer
//! nothing at all.
//!
//! Promised: names are asked as they are given and never completed by a search list; each lookup ends
//! within its configured limit; positive and negative answers are kept as long as their TTL allows; a
//! failure says whether trying later may help and who has to act.
//!
//! Left to others: whether to connect to an address that was found, when to ask again, and what to tell
//! the peer. DNSSEC is not validated.

mod address;
mod hickory;
mod record;
mod resolver;
mod route;
mod second_look;
mod watch;

pub use address::{
    ReverseNames, address_literal, addresses, query_lists, reverse_names, reverse_zone_name, reversed,
};
pub use hickory::{Config, ConfigError, HickoryResolver, Servers};
pub use record::{Record, RecordKind};
pub use resolver::{DnsAnswer, DnsError, Owner, Resolver, lookup_many};
pub use route::{Exchanger, MailRoute, before_ours, mail_exchangers, random_seed};
pub use watch::Watched;
