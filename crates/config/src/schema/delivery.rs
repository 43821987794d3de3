//! The sections about delivery: routes, relays, the queue.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use pintle_mail::{Address, TlsPolicy};
use pintle_outbound::{EightBit, Protocol, Transfer, WhenFull};
use pintle_sender_auth::sign::Canonicalization;

use super::{key, optional, required};
use crate::definition::{SectionDefinition, SectionShape};
use crate::values::{
    ByQuarantine, Domain, NameServer, Nat64, NonEmpty, OrNever, OrZero, Percent, Positive, RelayHost,
    RoutePattern, SecretText, Size,
};

pub(super) const SECTIONS: &[SectionDefinition] = &[
    SectionDefinition {
        name: "route",
        shape: SectionShape::Many,
        about: "Where mail for some domains goes. The most specific pattern wins, in whatever order they stand. \
                Without any route, mail goes by MX.",
        keys: &[
            required::<NonEmpty<RoutePattern>>("domain", "The domains of the recipients."),
            required::<String>(
                "via",
                "`mx` for the domain's own mail exchangers, `discard` to log and drop the mail, or the NAME of a \
                 `[relays.NAME]`.",
            ),
        ],
    },
    SectionDefinition {
        name: "relays",
        shape: SectionShape::Named,
        about: "A named next hop: a smart host, an internal server, an LMTP store.",
        keys: &[
            required::<NonEmpty<RelayHost>>(
                "hosts",
                "The hosts, tried in this order. Default port: 25; 465 with implicit TLS; 24 for LMTP.",
            ),
            key::<Protocol>("protocol", "\"smtp\"", "The protocol to speak."),
            key::<TlsPolicy>(
                "tls",
                "\"opportunistic\"",
                "The TLS policy. `verified` checks the chain, the dates and the name.",
            ),
            key::<bool>("implicit_tls", "false", "Begin TLS with the first octet instead of using STARTTLS."),
            optional::<String>("username", "The user name to authenticate with."),
            optional::<SecretText>(
                "password",
                "The password to authenticate with. It is sent only to a verified host, which `tls = \"verified\"` \
                 requires.",
            ),
            key::<bool>(
                "plain_without_tls",
                "false",
                "Allow the password to be sent without TLS, in the clear.",
            ),
            key::<bool>(
                "credentials_without_verified_tls",
                "false",
                "Allow the password to be sent over TLS to a host whose certificate was not verified. Anyone \
                 between the gateway and that host can then read it.",
            ),
            optional::<Positive<usize>>(
                "max_sessions",
                "Maximum number of sessions at once, instead of `max_per_hop` of `[delivery]`.",
            ),
        ],
    },
    SectionDefinition {
        name: "credentials",
        shape: SectionShape::Named,
        about: "Credentials that a plugin with the grant `route` may choose by name. The plugin never sees them, \
                and they are sent only to the relays that they belong to.",
        keys: &[
            required::<NonEmpty<String>>(
                "relays",
                "The relays that they belong to: the names of one or more `[relays.NAME]`.",
            ),
            required::<String>("username", "The user name to authenticate with."),
            required::<SecretText>(
                "password",
                "The password to authenticate with. It is sent only to a verified host, which `tls = \"verified\"` \
                 requires.",
            ),
            key::<bool>(
                "plain_without_tls",
                "false",
                "Allow the password to be sent without TLS, in the clear.",
            ),
            key::<bool>(
                "credentials_without_verified_tls",
                "false",
                "Allow the password to be sent over TLS to a host whose certificate was not verified. Anyone \
                 between the gateway and that host can then read it.",
            ),
        ],
    },
    SectionDefinition {
        name: "dkim_keys",
        shape: SectionShape::Named,
        about: "A key that signs mail (DKIM, RFC 6376) or seals it (ARC, RFC 8617) when a plugin with the grant \
                `sign` asks for it by NAME, as the stock plugin `dkim` does. `pintle dkim keygen` makes one. \
                Plugins never see the key itself.",
        keys: &[
            required::<Domain>("domain", "The signing domain: the domain in From, or a parent of it."),
            required::<String>(
                "selector",
                "The selector under which the public key is published: `SELECTOR._domainkey.DOMAIN`.",
            ),
            required::<SecretText>(
                "key",
                "The private key in PEM form: Ed25519, or RSA of at least 2,048 bits. If a domain has several keys, \
                 all of them sign.",
            ),
            optional::<Vec<String>>(
                "headers",
                "The header fields to sign where they are present. Default: those that RFC 6376 section 5.4.1 \
                 recommends.",
            ),
            optional::<Vec<String>>(
                "oversign",
                "The fields among them that are signed once more than they occur, so that nobody can add one. \
                 Default: those that mail clients show or that say how to read the body.",
            ),
            key::<OrNever>("expires", "\"14d\"", "How long a signature is valid, or `never` for no end."),
            key::<Canonicalization>(
                "header_form",
                "\"relaxed\"",
                "The canonicalization of the header. `simple` breaks when a next hop folds lines again.",
            ),
            key::<Canonicalization>("body_form", "\"relaxed\"", "The canonicalization of the body."),
        ],
    },
    SectionDefinition {
        name: "delivery",
        shape: SectionShape::One,
        about: "How the gateway talks to next hops.",
        keys: &[
            key::<TlsPolicy>("mx_tls", "\"opportunistic\"", "The TLS policy for delivery by MX."),
            key::<Positive<u16>>("mx_port", "25", "The port of mail exchangers."),
            key::<Positive<usize>>(
                "mx_addresses",
                "5",
                "How many addresses of a domain's exchangers one attempt tries.",
            ),
            key::<Vec<IpNet>>(
                "mx_networks",
                "[]",
                "Networks that are not public, such as private ones or loopback, in which mail exchangers are \
                 allowed. The gateway does not connect to an exchanger in any other such network, since the owner \
                 of a domain chooses the addresses of its exchangers.",
            ),
            key::<Vec<Nat64>>(
                "nat64_prefixes",
                "[]",
                "Prefixes under which your own NAT64 translator maps IPv4 hosts, in addition to 64:ff9b::/96. \
                 Exchangers below them are judged by their IPv4 addresses; without this, the owner of a domain \
                 could have mail sent to internal hosts.",
            ),
            optional::<Ipv4Addr>("source_v4", "The address to send from over IPv4."),
            optional::<Ipv6Addr>("source_v6", "The address to send from over IPv6."),
            key::<Vec<IpAddr>>(
                "own_addresses",
                "[]",
                "Other addresses of this gateway, such as one that a firewall translates. Mail is never delivered \
                 to them by MX. The addresses of the listeners are known, and all addresses of this machine where a \
                 listener uses a wildcard address.",
            ),
            key::<Vec<Domain>>(
                "own_names",
                "[]",
                "Other names of this gateway. Mail is never delivered to them by MX.",
            ),
            key::<Positive<usize>>(
                "max_per_hop",
                "15",
                "Maximum number of sessions at once with one next hop. Exchange accepts 20 from one address.",
            ),
            key::<Positive<usize>>("max_total", "1000", "Maximum number of deliveries at once, in all."),
            key::<Positive<u32>>(
                "messages_per_session",
                "1000",
                "Number of messages over one session after which a new one is opened.",
            ),
            key::<OrZero>(
                "idle_timeout",
                "\"10s\"",
                "How long an idle session is kept in the connection pool for the next message.",
            ),
            key::<Duration>("connect_timeout", "\"30s\"", "How long to wait for a TCP connection."),
            key::<Duration>(
                "command_timeout",
                "\"5m\"",
                "How long to wait for the greeting and for the reply to a command.",
            ),
            key::<Duration>("data_timeout", "\"2m\"", "How long to wait for the reply to DATA."),
            key::<Duration>(
                "block_timeout",
                "\"3m\"",
                "How long to wait until a block of a message is written.",
            ),
            key::<Duration>(
                "final_timeout",
                "\"10m\"",
                "How long to wait for the reply to a whole message. Exchange delays it by up to 30 seconds.",
            ),
            key::<OrZero>(
                "plain_memory",
                "\"1h\"",
                "How long a host whose TLS failed is used without TLS, where TLS is opportunistic.",
            ),
            key::<EightBit>(
                "eight_bit",
                "\"send-anyway\"",
                "What to do with 8-bit content for a next hop without 8BITMIME.",
            ),
            key::<Transfer>(
                "transfer",
                "\"data\"",
                "How bodies are sent: DATA, or BDAT where it is offered. Some servers stall on BDAT.",
            ),
        ],
    },
    SectionDefinition {
        name: "queue",
        shape: SectionShape::One,
        about: "When to retry, to warn and to give up.",
        keys: &[
            key::<NonEmpty<Duration>>(
                "retry_intervals",
                "[\"1m\", \"5m\", \"15m\", \"30m\", \"1h\", \"2h\", \"3h\"]",
                "The back-off of a message: the wait after its first, second, … deferral. The last value repeats.",
            ),
            key::<NonEmpty<Duration>>(
                "hop_intervals",
                "[\"1m\", \"2m\", \"5m\", \"10m\", \"15m\"]",
                "The back-off of a next hop: the wait after it has failed as a whole once, twice, … The last value \
                 repeats.",
            ),
            key::<u8>(
                "jitter_percent",
                "20",
                "The most by which a wait is lengthened at random, in percent.",
            ),
            key::<Duration>(
                "max_age",
                "\"5d\"",
                "The age at which a message expires and its sender gets a bounce.",
            ),
            key::<OrNever>("warn_after", "\"4h\"", "The age at which the sender gets one warning."),
        ],
    },
    SectionDefinition {
        name: "reports",
        shape: SectionShape::One,
        about: "Bounces and delay warnings (RFC 3464).",
        keys: &[
            optional::<Address>(
                "from",
                "The address in their From field. Default: `postmaster@` and the hostname.",
            ),
            key::<String>("from_name", "\"Mail Delivery System\"", "The name in their From field."),
            key::<Size>(
                "return_limit",
                "\"64KiB\"",
                "The size up to which the whole message is returned. For larger messages only the header is returned.",
            ),
        ],
    },
    SectionDefinition {
        name: "quarantine",
        shape: SectionShape::One,
        about: "Messages that a verdict has set aside for review. See operations.md.",
        keys: &[
            key::<ByQuarantine<Duration>>(
                "keep",
                "\"30d\"",
                "How long messages are kept. After that they are deleted without a report to the sender. In a \
                 table, each quarantine can have its own time: `{ default = \"30d\", score = \"7d\" }`.",
            ),
            key::<ByQuarantine<Size>>("max_size", "\"1GiB\"", "Maximum size of one quarantine."),
            key::<ByQuarantine<Positive<u64>>>(
                "max_messages",
                "10000",
                "Maximum number of messages in one quarantine.",
            ),
            key::<WhenFull>(
                "when_full",
                "\"refuse\"",
                "What happens to a message for a full quarantine: it is refused temporarily (452), or the oldest \
                 messages there are deleted to make space, which cannot be undone.",
            ),
            key::<Percent>(
                "max_disk_percent",
                "50",
                "The share of the disk that all held mail may use, as a percentage of what it uses plus what is \
                 free. Above it, a message that would be held is refused temporarily, and nothing is deleted.",
            ),
        ],
    },
    SectionDefinition {
        name: "dns",
        shape: SectionShape::One,
        about: "DNS lookups.",
        keys: &[
            key::<Vec<NameServer>>(
                "servers",
                "[]",
                "The name servers to ask. Default: those of /etc/resolv.conf.",
            ),
            key::<Duration>("timeout", "\"3s\"", "How long to wait for one try at one server."),
            key::<Positive<usize>>("attempts", "3", "How many times each question is tried."),
            key::<Duration>(
                "deadline",
                "\"20s\"",
                "How long a whole lookup may take, with all tries and aliases.",
            ),
            key::<u64>("cache_entries", "32768", "Number of answers to cache; 0 disables the cache."),
            key::<OrZero>("max_ttl", "\"1d\"", "The longest time that an answer is cached."),
            key::<OrZero>("max_negative_ttl", "\"15m\"", "The longest time that \"no such name\" is cached."),
            key::<bool>("hosts_file", "true", "Whether to look in /etc/hosts first."),
        ],
    },
];
