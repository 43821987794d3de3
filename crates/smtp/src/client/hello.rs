//! EHLO, with HELO as a fallback for old servers, or LHLO for LMTP; then STARTTLS or AUTH, depending on what is
//! offered.

use std::time::Instant;

use pintle_mail::{Reply, Severity, TlsPolicy};

use super::auth;
use super::config::{Channel, Protocol};
use super::core::Core;
use super::outcome::{Closed, DialogueStep, Lack};
use super::start_tls::StartTls;
use super::state::{ClientState, SessionStop, Turn};
use crate::extension::{Extension, Offered};

/// Which of EHLO, HELO and LHLO was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HelloState {
    Ehlo,
    Helo,
    Lhlo,
}

impl HelloState {
    pub(super) fn begin(core: &mut Core, now: Instant) -> ClientState {
        let hello = match core.config.protocol {
            Protocol::Smtp => Self::Ehlo,
            Protocol::Lmtp => Self::Lhlo,
        };
        hello.say(core, now)
    }

    fn say(self, core: &mut Core, now: Instant) -> ClientState {
        // RFC 3207 section 4.2: offers from before this command no longer count.
        core.peer.offered = Offered::default();
        let verb = match self {
            Self::Ehlo => "EHLO",
            Self::Helo => "HELO",
            Self::Lhlo => "LHLO",
        };
        let line = format!("{verb} {}", core.config.hello_name);
        core.command(&line, core.config.timeouts.command, now);
        ClientState::Hello(self)
    }

    pub(super) fn on_reply(self, reply: Reply, core: &mut Core, now: Instant) -> Turn {
        match reply.severity() {
            Severity::Positive => {
                if self != Self::Helo {
                    core.peer.offered = Offered::parse(&reply.text);
                }
                secure(core, now)
            }
            // RFC 5321 section 3.2: a client whose EHLO is refused should try HELO. 521 and 554 refuse service itself
            // (RFC 7504), so the client does not ask again.
            Severity::Permanent if self == Self::Ehlo && !matches!(reply.code, 521 | 554) => {
                Ok(Self::Helo.say(core, now))
            }
            Severity::Transient | Severity::Permanent => {
                Err(SessionStop::new(Closed::Refused { step: DialogueStep::Hello, reply }))
            }
            Severity::Intermediate => Err(SessionStop::unexpected(DialogueStep::Hello, &reply)),
        }
    }
}

/// After the hello: starts TLS if the policy requires it or the next hop offers it, else continues with AUTH.
fn secure(core: &mut Core, now: Instant) -> Turn {
    let offered = core.offers().has(Extension::StartTls);
    match (core.channel, core.config.tls) {
        (Channel::Tls | Channel::VerifiedTls, _) | (_, TlsPolicy::None) => auth::begin(core, now),
        (Channel::Plain, _) if offered => Ok(StartTls::begin(core, now)),
        (Channel::Plain, TlsPolicy::Opportunistic) => auth::begin(core, now),
        (Channel::Plain, TlsPolicy::Required | TlsPolicy::Verified) => {
            Err(SessionStop::new(Closed::Lacking(Lack::StartTls)))
        }
    }
}
