//! EHLO, with HELO for those who do not know it; LHLO for LMTP; and what follows from what is offered.

use std::time::Instant;

use pintle_mail::{Reply, Severity, TlsPolicy};

use super::auth;
use super::config::{Channel, Protocol};
use super::core::Core;
use super::outcome::{Closed, DialogueStep, Lack};
use super::start_tls::StartTls;
use super::state::{ClientState, SessionStop, Turn};
use crate::extension::{Extension, Offered};

/// Which greeting was said.
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
        // Nothing that was offered before counts any more (RFC 3207 section 4.2).
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
            // RFC 5321 section 3.2: a client whose EHLO is refused should go on with HELO. 521 and 554 refuse service
            // itself (RFC 7504), and asking again in other words would be rude.
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

/// After a greeting: TLS where policy and offer want it, else on to AUTH.
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
