//! How mail goes out: routes, relays, the queue.

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
        about: "Which way mail for some domains goes. The most special pattern wins, whatever the order. Without any \
                route, mail goes by MX.",
        keys: &[
            required::<NonEmpty<RoutePattern>>("domain", "The recipients' domains."),
            required::<String>(
                "via",
                "`mx` for the domain's own mail exchangers, `discard` to log and drop, or the NAME of a `[relays.NAME]`.",
            ),
        ],
    },
    SectionDefinition {
        name: "relays",
        shape: SectionShape::Named,
        about: "A next hop by name: a smart host, an inner server, an LMTP store.",
        keys: &[
            required::<NonEmpty<RelayHost>>(
                "hosts",
                "Tried in this order. Without a port: 25, 465 with implicit TLS, 24 for LMTP.",
            ),
            key::<Protocol>("protocol", "\"smtp\"", "What is spoken to it."),
            key::<TlsPolicy>(
                "tls",
                "\"opportunistic\"",
                "How much TLS it takes; `verified` checks chain, dates and name.",
            ),
            key::<bool>("implicit_tls", "false", "TLS with the first octet instead of STARTTLS."),
            optional::<String>("username", "With whom to authenticate."),
            optional::<SecretText>(
                "password",
                "With what. It is said only to a verified host: `tls = \"verified\"`.",
            ),
            key::<bool>("plain_without_tls", "false", "The password may be sent in the clear."),
            key::<bool>(
                "credentials_without_verified_tls",
                "false",
                "The password may be sent over TLS with a host whose certificate was not verified: whoever stands in between \
                 can then read it.",
            ),
            optional::<Positive<usize>>(
                "max_sessions",
                "Sessions at once, in place of `max_per_hop` of `[delivery]`.",
            ),
        ],
    },
    SectionDefinition {
        name: "credentials",
        shape: SectionShape::Named,
        about: "Credentials that a plugin with the grant `route` may choose by name. It never sees them, and they are said to \
                the relays that they belong to and to no other host.",
        keys: &[
            required::<NonEmpty<String>>(
                "relays",
                "To whom they belong: the names of one or more `[relays.NAME]`.",
            ),
            required::<String>("username", "With whom to authenticate."),
            required::<SecretText>(
                "password",
                "With what. It is said only to a verified host: `tls = \"verified\"`.",
            ),
            key::<bool>("plain_without_tls", "false", "The password may be sent in the clear."),
            key::<bool>(
                "credentials_without_verified_tls",
                "false",
                "The password may be sent over TLS with a host whose certificate was not verified: whoever stands in between \
                 can then read it.",
            ),
        ],
    },
    SectionDefinition {
        name: "dkim_keys",
        shape: SectionShape::Named,
        about: "A key that mail is signed with (DKIM, RFC 6376) or sealed with (ARC, RFC 8617) when a plugin with the grant \
                `sign` asks for it by NAME, as the stock plugin `dkim` does. `pintle dkim keygen` makes one. No plugin sees \
                the key itself.",
        keys: &[
            required::<Domain>("domain", "For whom it signs: the domain in From, or a parent of it."),
            required::<String>(
                "selector",
                "Under which name its public half is published: `SELECTOR._domainkey.DOMAIN`.",
            ),
            required::<SecretText>(
                "key",
                "The private key, in PEM form: Ed25519, or RSA of at least 2,048 bits. Several keys of a domain all sign.",
            ),
            optional::<Vec<String>>(
                "headers",
                "Which fields are signed where they are there. Left out: those that RFC 6376 section 5.4.1 recommends.",
            ),
            optional::<Vec<String>>(
                "oversign",
                "Which of them are signed once more than they are there, so that nobody can add one. Left out: those that \
                 readers are shown or that say how to read the body.",
            ),
            key::<OrNever>("expires", "\"14d\"", "How long a signature is good, or `never` for no end."),
            key::<Canonicalization>(
                "header_form",
                "\"relaxed\"",
                "The canonical form of the header: `simple` breaks when a next hop folds lines anew.",
            ),
            key::<Canonicalization>("body_form", "\"relaxed\"", "The canonical form of the body."),
        ],
    },
    SectionDefinition {
        name: "delivery",
        shape: SectionShape::One,
        about: "How next hops are spoken to.",
        keys: &[
            key::<TlsPolicy>("mx_tls", "\"opportunistic\"", "How much TLS delivery by MX takes."),
            key::<Positive<u16>>("mx_port", "25", "The port of mail exchangers."),
            key::<Positive<usize>>(
                "mx_addresses",
                "5",
                "How many addresses of a domain's exchangers one attempt tries.",
            ),
            key::<Vec<IpNet>>(
                "mx_networks",
                "[]",
                "Networks that mail exchangers may be in although they are not public: private ones, loopback. Elsewhere such \
                 an exchanger is not connected to, since whoever owns a domain says where its exchangers are.",
            ),
            key::<Vec<Nat64>>(
                "nat64_prefixes",
                "[]",
                "Prefixes under which a translator of your own has IPv4 hosts, besides 64:ff9b::/96. Exchangers below them are \
                 judged by their IPv4 addresses: without this, whoever owns a domain could have mail sent to hosts inside.",
            ),
            optional::<Ipv4Addr>("source_v4", "The address to send from towards IPv4."),
            optional::<Ipv6Addr>("source_v6", "The address to send from towards IPv6."),
            key::<Vec<IpAddr>>(
                "own_addresses",
                "[]",
                "Other addresses of this gateway, such as the one that a firewall translates; mail is never delivered \
                 to them by MX. Those of the listeners are known, and all of this machine where one listens on a wildcard address.",
            ),
            key::<Vec<Domain>>(
                "own_names",
                "[]",
                "Other names of this gateway; mail is never delivered to them by MX.",
            ),
            key::<Positive<usize>>(
                "max_per_hop",
                "15",
                "Sessions at once for one next hop; Exchange takes 20 from one address.",
            ),
            key::<Positive<usize>>("max_total", "1000", "Deliveries under way in all."),
            key::<Positive<u32>>(
                "messages_per_session",
                "1000",
                "Messages over one session before a new one is opened.",
            ),
            key::<OrZero>(
                "idle_timeout",
                "\"10s\"",
                "How long an idle session is kept for the next message.",
            ),
            key::<Duration>("connect_timeout", "\"30s\"", "For a TCP connection."),
            key::<Duration>("command_timeout", "\"5m\"", "For the greeting and the reply to a command."),
            key::<Duration>("data_timeout", "\"2m\"", "For the reply to DATA."),
            key::<Duration>("block_timeout", "\"3m\"", "For a piece of a message to be written."),
            key::<Duration>(
                "final_timeout",
                "\"10m\"",
                "For the reply to a whole message. Exchange holds it up to 30 seconds.",
            ),
            key::<OrZero>(
                "plain_memory",
                "\"1h\"",
                "How long a host whose TLS failed is spoken to in the clear, where TLS is opportunistic.",
            ),
            key::<EightBit>("eight_bit", "\"send-anyway\"", "8-bit content for a next hop without 8BITMIME."),
            key::<Transfer>(
                "transfer",
                "\"data\"",
                "DATA, or BDAT where it is offered, which some servers stall on.",
            ),
        ],
    },
    SectionDefinition {
        name: "queue",
        shape: SectionShape::One,
        about: "When to try again, to warn and to give up.",
        keys: &[
            key::<NonEmpty<Duration>>(
                "retry_intervals",
                "[\"1m\", \"5m\", \"15m\", \"30m\", \"1h\", \"2h\", \"3h\"]",
                "The wait after the first, second, … deferral of a message; the last one repeats.",
            ),
            key::<NonEmpty<Duration>>(
                "hop_intervals",
                "[\"1m\", \"2m\", \"5m\", \"10m\", \"15m\"]",
                "The wait after a next hop has failed as a whole once, twice, …; the last one repeats.",
            ),
            key::<u8>("jitter_percent", "20", "By how much chance lengthens a wait, at most."),
            key::<Duration>(
                "max_age",
                "\"5d\"",
                "The age at which a message expires and its sender gets a bounce.",
            ),
            key::<OrNever>("warn_after", "\"4h\"", "The age at which its sender is warned once."),
        ],
    },
    SectionDefinition {
        name: "reports",
        shape: SectionShape::One,
        about: "Bounces and warnings (RFC 3464).",
        keys: &[
            optional::<Address>(
                "from",
                "The address in their From field; left out: `postmaster@` and the hostname.",
            ),
            key::<String>("from_name", "\"Mail Delivery System\"", "The name in their From field."),
            key::<Size>(
                "return_limit",
                "\"64KiB\"",
                "Up to this size a message comes back whole, of larger ones only the header.",
            ),
        ],
    },
    SectionDefinition {
        name: "quarantine",
        shape: SectionShape::One,
        about: "Messages that a verdict has put aside for somebody to look at. See operations.md.",
        keys: &[
            key::<ByQuarantine<Duration>>(
                "keep",
                "\"30d\"",
                "How long they stay; then they are dropped, and their senders hear nothing. In a table, each quarantine can \
                 have its own time: `{ default = \"30d\", score = \"7d\" }`.",
            ),
            key::<ByQuarantine<Size>>("max_size", "\"1GiB\"", "How much lies in one quarantine at most."),
            key::<ByQuarantine<Positive<u64>>>(
                "max_messages",
                "10000",
                "How many messages lie in one quarantine at most.",
            ),
            key::<WhenFull>(
                "when_full",
                "\"refuse\"",
                "What happens to a message for a full quarantine: it is refused for now (452), or the oldest there are dropped \
                 to make room, which cannot be undone.",
            ),
            key::<Percent>(
                "max_disk_percent",
                "50",
                "How much of the disk all held mail may take: of what it takes and what is free. Beyond that a message that \
                 would be put aside is refused for now, and nothing is dropped.",
            ),
        ],
    },
    SectionDefinition {
        name: "dns",
        shape: SectionShape::One,
        about: "Whom to ask for names.",
        keys: &[
            key::<Vec<NameServer>>("servers", "[]", "Name servers; none means those of /etc/resolv.conf."),
            key::<Duration>("timeout", "\"3s\"", "For one try at one server."),
            key::<Positive<usize>>("attempts", "3", "Tries of each question."),
            key::<Duration>("deadline", "\"20s\"", "For a whole lookup, all tries and aliases together."),
            key::<u64>("cache_entries", "32768", "Answers that are kept; 0 keeps none."),
            key::<OrZero>("max_ttl", "\"1d\"", "Answers are kept no longer than this."),
            key::<OrZero>("max_negative_ttl", "\"15m\"", "\"No such name\" is kept no longer than this."),
            key::<bool>("hosts_file", "true", "Whether /etc/hosts is asked first."),
        ],
    },
];
