//! STARTTLS (RFC 3207): sent when the next hop offers it, required when the policy says so.

use std::time::Instant;

use pintle_mail::{Reply, Severity, TlsPolicy};

use super::auth;
use super::core::Core;
use super::outcome::{Closed, DialogueStep, Event};
use super::state::{ClientState, SessionStop, Turn};

#[derive(Debug)]
pub(super) struct StartTls;

impl StartTls {
    pub(super) fn begin(core: &mut Core, now: Instant) -> ClientState {
        core.command("STARTTLS", core.config.timeouts.command, now);
        ClientState::StartTls(Self)
    }

    pub(super) fn on_reply(self, reply: Reply, core: &mut Core, now: Instant) -> Turn {
        match reply.severity() {
            Severity::Positive => {
                core.expect(core.config.timeouts.command, now);
                core.event(Event::StartTls);
                Ok(ClientState::Handshake)
            }
            // A server that offers TLS and then refuses it is no reason to hold mail that may travel without TLS.
            Severity::Transient | Severity::Permanent if core.config.tls == TlsPolicy::Opportunistic => {
                auth::begin(core, now)
            }
            Severity::Transient | Severity::Permanent => {
                Err(SessionStop::new(Closed::Refused { step: DialogueStep::StartTls, reply }))
            }
            Severity::Intermediate => Err(SessionStop::unexpected(DialogueStep::StartTls, &reply)),
        }
    }
}
