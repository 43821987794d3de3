//! Waiting for the next hop's 220 greeting (RFC 5321 section 3.1).

use std::time::Instant;

use pintle_mail::{Reply, Severity};

use super::core::Core;
use super::hello::HelloState;
use super::outcome::{Closed, DialogueStep};
use super::state::{ClientState, SessionStop, Turn};

#[derive(Debug)]
pub(super) struct Greeting;

impl Greeting {
    pub(super) fn begin(core: &mut Core, now: Instant) -> ClientState {
        core.expect(core.config.timeouts.greeting, now);
        ClientState::Greeting(Self)
    }

    pub(super) fn on_reply(self, reply: Reply, core: &mut Core, now: Instant) -> Turn {
        match reply.severity() {
            // RFC 5321 section 4.3.2 lists only 220; any 2xx is taken as a greeting.
            Severity::Positive => {
                core.peer.greeting = reply.text.into_owned();
                Ok(HelloState::begin(core, now))
            }
            Severity::Transient | Severity::Permanent => {
                Err(SessionStop::new(Closed::Refused { step: DialogueStep::Greeting, reply }))
            }
            Severity::Intermediate => Err(SessionStop::unexpected(DialogueStep::Greeting, &reply)),
        }
    }
}
