//! The sections about receiving mail: listeners, TLS, accepted domains, users.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use pintle_inbound::{AuthOffer, RefusedRecipients, TlsMode};
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
        about: "A set of addresses where clients connect. A change needs a restart.",
        keys: &[
            required::<String>(
                "name",
                "The name in logs, metrics and plugins. Every listener needs its own.",
            ),
            required::<NonEmpty<SocketAddr>>("addresses", "The addresses and ports to listen on."),
            key::<ListenerKind>(
                "kind",
                "\"mx\"",
                "The purpose of the listener; it sets the defaults of `auth` and `require_tls`. `mx`: mail from \
                 strangers for our domains. `submission`: mail from users, who authenticate over TLS. `relay`: mail \
                 from our own servers and devices, known by network or by password.",
            ),
            optional::<TlsMode>(
                "tls",
                "How TLS begins. Default: `starttls` when `[tls]` has a certificate, else `none`.",
            ),
            optional::<bool>(
                "require_tls",
                "Refuse mail before TLS. Default: true for `submission`, else false.",
            ),
            optional::<AuthOffer>(
                "auth",
                "Whether clients authenticate. Default: `required` for `submission`; `offered` for `relay` when \
                 there is TLS and a user or plugin to ask; `off` for `mx`.",
            ),
            key::<Vec<SaslMechanism>>(
                "mechanisms",
                "[\"PLAIN\", \"LOGIN\"]",
                "The SASL mechanisms that are offered. Exchange supports only LOGIN.",
            ),
            key::<bool>(
                "plain_without_tls",
                "false",
                "Allow passwords without TLS, in the clear. For old devices in closed networks.",
            ),
            key::<Vec<IpNet>>(
                "trusted",
                "[]",
                "Networks whose clients may relay on this listener, in addition to those of `[relay]`; the checks \
                 meant for strangers do not apply to them.",
            ),
            key::<BareLf>(
                "bare_lf",
                "\"normalise\"",
                "What to do with a LF without CR in DATA: make it CRLF, or refuse the message. It never ends a \
                 message.",
            ),
            optional::<BareCr>(
                "bare_cr",
                "What to do with a CR without LF in a message: replace it by a space, and take `CR CR LF` for one \
                 line end; or refuse the message. Default: `refuse` for `mx`, else `normalise`.",
            ),
            optional::<Domain>(
                "default_domain",
                "The domain for senders and recipients that have none (`<scanner>`). Default: they are refused.",
            ),
            optional::<bool>(
                "complete_header",
                "Add Date and Message-ID where they are missing, and remove Bcc and Return-Path (RFC 6409 section \
                 8), in messages from clients that are trusted or have authenticated. Default: false for `mx`, else \
                 true.",
            ),
            key::<EarlyTalk>(
                "early_talk",
                "\"tolerate\"",
                "What to do with a client that sends before the greeting.",
            ),
            key::<String>("banner", "\"ESMTP Pintle\"", "The text after the hostname in the greeting."),
            key::<Vec<Extension>>(
                "withhold",
                "[]",
                "ESMTP extensions not to offer on this listener, such as `CHUNKING`.",
            ),
            key::<Positive<usize>>(
                "max_sessions",
                "10000",
                "Maximum number of sessions at once, on all addresses of the listener together. Default: lowered \
                 where the limit of open files is too small for it.",
            ),
            optional::<usize>(
                "kept_for_trusted",
                "How many of `max_sessions` are reserved for clients in trusted networks. Default: a tenth where \
                 there are such networks, else none.",
            ),
            key::<Positive<usize>>(
                "max_per_address",
                "40",
                "Maximum number of sessions at once from one address (one /64 of IPv6).",
            ),
            key::<Positive<usize>>(
                "max_per_network",
                "160",
                "Maximum number of sessions at once from one site (a /24, or a /48 of IPv6). Trusted clients are \
                 counted by address only.",
            ),
            key::<Positive<usize>>(
                "max_per_trusted_address",
                "400",
                "Maximum number of sessions at once from one address in a trusted network. Several Exchange servers \
                 behind one address open 20 sessions each.",
            ),
            key::<Positive<u32>>(
                "max_recipients",
                "1000",
                "Maximum number of recipients of one message. RFC 5321 requires at least 100.",
            ),
            key::<Size>(
                "max_message_size",
                "\"50MiB\"",
                "Maximum size of a message, announced as SIZE. Exchange sends up to 36 MiB by default.",
            ),
            key::<Size>(
                "max_header_size",
                "\"256KiB\"",
                "Maximum size of a message's header, which is held in memory.",
            ),
            key::<Positive<u32>>(
                "max_bad_commands",
                "20",
                "Number of refused commands after which the session is closed.",
            ),
            key::<Positive<u32>>(
                "max_auth_failures",
                "3",
                "Number of failed logins after which the session is closed.",
            ),
            optional::<Positive<u32>>(
                "max_messages",
                "Maximum number of messages in one session. Default: no limit.",
            ),
            key::<Duration>(
                "max_stranger_time",
                "\"30m\"",
                "Maximum duration of a session whose client is neither trusted nor authenticated. After it the \
                 client gets 421 as soon as no transaction is open, and `message_timeout` later in any case.",
            ),
            key::<Positive<u32>>(
                "max_stranger_transactions",
                "1000",
                "Maximum number of transactions in such a session, accepted or not. The next MAIL gets 421.",
            ),
            key::<Size>(
                "max_stranger_size",
                "\"1GiB\"",
                "Maximum size of all messages in such a session together, accepted or not. The next MAIL gets 421.",
            ),
            key::<Duration>(
                "command_timeout",
                "\"5m\"",
                "How long to wait for a command. RFC 5321 requires at least 5 minutes.",
            ),
            key::<Duration>("data_timeout", "\"5m\"", "How long to wait for the next octets of a message."),
            key::<Duration>("message_timeout", "\"1h\"", "How long a whole message may take."),
            key::<Duration>("handshake_timeout", "\"30s\"", "How long a TLS handshake may take."),
        ],
    },
    SectionDefinition {
        name: "tls",
        shape: SectionShape::One,
        about: "TLS on listeners and towards next hops: versions 1.2 and 1.3, with forward secrecy. Certificates \
                are read again when their files change.",
        keys: &[
            key::<ClientCertificates>(
                "client_certificates",
                "\"ignore\"",
                "Whether to ask clients for a certificate, which plugins then see. The certificate is not verified.",
            ),
            optional::<PathBuf>(
                "roots",
                "PEM file with the root certificates that next hops are verified against. Default: those of the \
                 system.",
            ),
        ],
    },
    SectionDefinition {
        name: "tls.certificate",
        shape: SectionShape::Many,
        about: "A certificate with its key. A client that names a host gets the certificate for that host, other \
                clients get the first.",
        keys: &[
            required::<PathBuf>("chain", "PEM file with the certificate, followed by its issuers."),
            required::<PathBuf>("key", "PEM file with the private key, not encrypted."),
        ],
    },
    SectionDefinition {
        name: "domains",
        shape: SectionShape::One,
        about: "Our domains: mail for them is accepted from anybody. Mail for other domains is refused unless the \
                client is trusted or has authenticated, or a plugin grants it.",
        keys: &[key::<Vec<DomainPattern>>(
            "accepted",
            "[]",
            "A domain alone, or, with a leading dot, all domains below it.",
        )],
    },
    SectionDefinition {
        name: "relay",
        shape: SectionShape::One,
        about: "Clients that may send mail to domains that are not ours without authenticating.",
        keys: &[key::<Vec<IpNet>>(
            "networks",
            "[]",
            "The networks of our own servers and devices. They apply to every listener.",
        )],
    },
    SectionDefinition {
        name: "user",
        shape: SectionShape::Many,
        about: "An account that may authenticate and then send mail anywhere. Used when no plugin knows the users.",
        keys: &[
            required::<String>("name", "The user name."),
            optional::<SecretText>("password", "The password itself."),
            optional::<String>(
                "password_hash",
                "The Argon2 hash of the password in PHC form, `$argon2id$...`, as `pintle hash-password` prints it. \
                 At most 128 MiB of memory, 512 MiB in all passes together, 16 lanes.",
            ),
        ],
    },
    SectionDefinition {
        name: "authentication",
        shape: SectionShape::One,
        about: "Limits for password guessing across sessions. Clients in trusted networks are not counted.",
        keys: &[
            key::<Positive<u32>>(
                "max_failures",
                "10",
                "Number of failed logins from one address (one /64 of IPv6) within the window after which further \
                 attempts get 421 without being checked. For its /24 (/48) the limit is five times as high.",
            ),
            key::<Duration>(
                "failure_window",
                "\"15m\"",
                "The time in which that many failures expire, evenly.",
            ),
            key::<OrZero>(
                "failure_delay",
                "\"1s\"",
                "How long the reply to a failed login is delayed for each failure of its network that has not \
                 expired; at most 10 seconds in all.",
            ),
            key::<Vec<IpNet>>(
                "exempt",
                "[]",
                "Networks whose failures are not counted, such as an office with many people behind one address.",
            ),
        ],
    },
    SectionDefinition {
        name: "limits",
        shape: SectionShape::One,
        about: "Limits for every message and session.",
        keys: &[
            key::<Positive<usize>>(
                "max_hops",
                "30",
                "Number of Received fields from which a message is considered to loop.",
            ),
            key::<Positive<u32>>(
                "max_refusals",
                "100",
                "Number of refused senders and recipients after which a stranger's session is closed.",
            ),
        ],
    },
    SectionDefinition {
        name: "score",
        shape: SectionShape::One,
        about: "What the sum of the scores that plugins give means for a message that no plugin has accepted. A \
                refusal by score takes precedence over a plugin's verdict to hold or discard the message.",
        keys: &[
            optional::<f64>("reject", "The score from which the message is refused."),
            optional::<f64>(
                "quarantine",
                "The score from which the message is held in the quarantine `score`.",
            ),
        ],
    },
    SectionDefinition {
        name: "recipients",
        shape: SectionShape::One,
        about: "Recipients of one message that plugins treat differently.",
        keys: &[
            key::<RefusedRecipients>(
                "refused",
                "\"quarantine\"",
                "What becomes of recipients that a plugin refuses at the end of the data although others receive the \
                 message, if the client does not take a reply for each recipient (PRDR): their copy is held in the \
                 quarantine `refused`, reported to the sender as undeliverable, or dropped. A report goes to trusted \
                 and authenticated clients; mail of strangers, and bounces, are held.",
            ),
            key::<bool>(
                "one_group_per_transaction",
                "false",
                "Take only recipients with the same groups in one transaction. A recipient whose groups differ from \
                 those of the first one gets 452, and the client sends it the message in another transaction. \
                 Recipients that plugins add are exempt.",
            ),
        ],
    },
];
