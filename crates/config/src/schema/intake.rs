//! How mail comes in: listeners, TLS, who may send what.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use pintle_inbound::{AuthOffer, TlsMode};
use pintle_smtp::Extension;
use pintle_smtp::server::SaslMechanism;
use pintle_smtp::server::config::{BareCr, BareLf, EarlyTalk};
use pintle_tls::ClientCertificates;

use super::{key, optional, required};
use crate::definition::{SectionDefinition, SectionShape};
use crate::values::{Domain, DomainPattern, ListenerKind, NonEmpty, OrZero, Positive, SecretText, Size};

pub(super) const SECTIONS: &[SectionDefinition] = &[
    SectionDefinition {
        name: "listener",
        shape: SectionShape::Many,
        about: "A place where clients connect. A change needs a restart.",
        keys: &[
            required::<String>("name", "Its name in logs, metrics and plugins. Each listener has its own."),
            required::<NonEmpty<SocketAddr>>("addresses", "Where it listens."),
            key::<ListenerKind>(
                "kind",
                "\"mx\"",
                "What it is for, which decides the defaults of `auth` and `require_tls`. `mx`: mail from \
                 strangers for our domains. `submission`: mail from users, who authenticate over TLS. `relay`: mail \
                 from our own servers and devices, known by network or by password.",
            ),
            optional::<TlsMode>(
                "tls",
                "How TLS begins. Left out: `starttls` when `[tls]` has a certificate, else `none`.",
            ),
            optional::<bool>(
                "require_tls",
                "No mail before TLS. Left out: true for `submission`, else false.",
            ),
            optional::<AuthOffer>(
                "auth",
                "Whether clients authenticate. Left out: `required` for `submission`, `offered` for `relay` when \
                 there is TLS and a user or plugin to ask, `off` for `mx`.",
            ),
            key::<Vec<SaslMechanism>>(
                "mechanisms",
                "[\"PLAIN\", \"LOGIN\"]",
                "How clients may authenticate. Exchange knows LOGIN alone.",
            ),
            key::<bool>(
                "plain_without_tls",
                "false",
                "Passwords may cross the network in the clear. For old devices in closed networks.",
            ),
            key::<Vec<IpNet>>(
                "trusted",
                "[]",
                "Networks whose clients may relay here, besides those of `[relay]`, and are spared the checks meant \
                 for strangers.",
            ),
            key::<BareLf>(
                "bare_lf",
                "\"normalise\"",
                "A LF without CR in DATA: made CRLF, or refused. It never ends a message.",
            ),
            optional::<BareCr>(
                "bare_cr",
                "A CR without LF in a message: a blank is put for it, and `CR CR LF` is one line end; or it is refused. \
                 Left out: `refuse` for `mx`, else `normalise`.",
            ),
            optional::<Domain>(
                "default_domain",
                "The domain of senders and recipients who come without one (`<scanner>`). Left out: they are refused.",
            ),
            optional::<bool>(
                "complete_header",
                "A message of a client that is trusted or has authenticated gets Date and Message-ID if it lacks them, \
                 and loses Bcc and Return-Path (RFC 6409 section 8). Left out: false for `mx`, else true.",
            ),
            key::<EarlyTalk>("early_talk", "\"tolerate\"", "A client that speaks before the greeting."),
            key::<String>("banner", "\"ESMTP Pintle\"", "What follows the hostname in the greeting."),
            key::<Vec<Extension>>(
                "withhold",
                "[]",
                "ESMTP extensions that are not offered here, like `CHUNKING`.",
            ),
            key::<Positive<usize>>(
                "max_sessions",
                "10000",
                "Sessions at once, on all its addresses together. Left out: fewer, where open files do not allow so many.",
            ),
            optional::<usize>(
                "kept_for_trusted",
                "Of `max_sessions`, so many that only clients of trusted networks get. Left out: a tenth where there are such \
                 networks, else none.",
            ),
            key::<Positive<usize>>(
                "max_per_address",
                "40",
                "Sessions at once from one address (one /64 of IPv6).",
            ),
            key::<Positive<usize>>(
                "max_per_network",
                "160",
                "Sessions at once from one site: a /24, or a /48 of IPv6. Trusted clients are counted by address alone.",
            ),
            key::<Positive<usize>>(
                "max_per_trusted_address",
                "400",
                "The same for trusted networks: several Exchange servers behind one address open 20 each.",
            ),
            key::<Positive<u32>>(
                "max_recipients",
                "1000",
                "Recipients of one message; RFC 5321 asks for at least 100.",
            ),
            key::<Size>(
                "max_message_size",
                "\"50MiB\"",
                "The value of SIZE. Exchange sends up to 36 MiB by default.",
            ),
            key::<Size>("max_header_size", "\"256KiB\"", "A message's header, which is held in memory."),
            key::<Positive<u32>>("max_bad_commands", "20", "Refused commands before the session is closed."),
            key::<Positive<u32>>("max_auth_failures", "3", "Failed logins before the session is closed."),
            optional::<Positive<u32>>("max_messages", "Messages in one session; no limit when left out."),
            key::<Duration>(
                "max_stranger_time",
                "\"30m\"",
                "How long a session may last whose client is neither trusted nor authenticated. Then it gets 421 as soon as \
                 no transaction is open, and `message_timeout` later in any case.",
            ),
            key::<Positive<u32>>(
                "max_stranger_transactions",
                "1000",
                "Transactions in such a session, accepted or not; the next MAIL gets 421.",
            ),
            key::<Size>(
                "max_stranger_size",
                "\"1GiB\"",
                "All messages in such a session together, accepted or not; the next MAIL gets 421.",
            ),
            key::<Duration>(
                "command_timeout",
                "\"5m\"",
                "For a command. RFC 5321 asks for at least 5 minutes.",
            ),
            key::<Duration>("data_timeout", "\"5m\"", "For the next octets of a message."),
            key::<Duration>("message_timeout", "\"1h\"", "For a whole message."),
            key::<Duration>("handshake_timeout", "\"30s\"", "For a TLS handshake."),
        ],
    },
    SectionDefinition {
        name: "tls",
        shape: SectionShape::One,
        about: "TLS on listeners and towards next hops: versions 1.2 and 1.3, with forward secrecy. Certificates are \
                read again when their files change.",
        keys: &[
            key::<ClientCertificates>(
                "client_certificates",
                "\"ignore\"",
                "Whether clients are asked for a certificate, which plugins then see. Nothing is verified.",
            ),
            optional::<PathBuf>(
                "roots",
                "A PEM file of root certificates that next hops are verified against; left out: the system's.",
            ),
        ],
    },
    SectionDefinition {
        name: "tls.certificate",
        shape: SectionShape::Many,
        about: "A certificate with its key. Clients that name a host get the one that fits, others the first.",
        keys: &[
            required::<PathBuf>("chain", "A PEM file: the certificate, then its issuers."),
            required::<PathBuf>("key", "A PEM file: the private key, not encrypted."),
        ],
    },
    SectionDefinition {
        name: "domains",
        shape: SectionShape::One,
        about: "The domains that are ours: mail for them is taken from anybody. Mail for all others is refused unless \
                the client is trusted or has authenticated, or a plugin grants it.",
        keys: &[key::<Vec<DomainPattern>>(
            "accepted",
            "[]",
            "The domain alone, or with a leading dot all below it.",
        )],
    },
    SectionDefinition {
        name: "relay",
        shape: SectionShape::One,
        about: "Who may send mail to domains that are not ours, without authenticating.",
        keys: &[key::<Vec<IpNet>>(
            "networks",
            "[]",
            "The networks of our own servers and devices; they hold for every listener.",
        )],
    },
    SectionDefinition {
        name: "user",
        shape: SectionShape::Many,
        about: "Somebody who may authenticate and then send mail anywhere, where no plugin knows the users.",
        keys: &[
            required::<String>("name", "The user name."),
            optional::<SecretText>("password", "The password itself."),
            optional::<String>(
                "password_hash",
                "Its Argon2 hash in PHC form, `$argon2id$...`, as `pintle hash-password` prints it. At most 128 MiB of memory, 512 MiB in all passes together, \
                 16 lanes.",
            ),
        ],
    },
    SectionDefinition {
        name: "authentication",
        shape: SectionShape::One,
        about: "Who guesses passwords, in however many sessions. Clients of trusted networks are not counted.",
        keys: &[
            key::<Positive<u32>>(
                "max_failures",
                "10",
                "Failed logins from one address (one /64 of IPv6) within the window before further ones get 421, unheard; \
                 from its /24 (/48) five times as many.",
            ),
            key::<Duration>("failure_window", "\"15m\"", "In this time so many failures wear off, evenly."),
            key::<OrZero>(
                "failure_delay",
                "\"1s\"",
                "The reply to a failed login waits so long for each failure of its network that has not worn off, 10 \
                 seconds at most.",
            ),
            key::<Vec<IpNet>>(
                "exempt",
                "[]",
                "Networks whose failures are not counted either, like an office with many people behind one address.",
            ),
        ],
    },
    SectionDefinition {
        name: "limits",
        shape: SectionShape::One,
        about: "What holds for every message.",
        keys: &[
            key::<Positive<usize>>("max_hops", "30", "Received fields at which a message is taken to loop."),
            key::<Positive<u32>>(
                "max_refusals",
                "100",
                "Refused senders and recipients that end a stranger's session.",
            ),
        ],
    },
    SectionDefinition {
        name: "score",
        shape: SectionShape::One,
        about: "What the sum of the points that plugins give means for a message that none of them has accepted. To refuse it is a stronger word than a plugin's that holds or drops it.",
        keys: &[
            optional::<f64>("reject", "Refused from this score on."),
            optional::<f64>("quarantine", "Held in the quarantine `score` from this score on."),
        ],
    },
];
