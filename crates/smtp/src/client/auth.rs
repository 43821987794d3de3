//! Client side of AUTH (RFC 4954): SASL PLAIN (RFC 4616) and LOGIN, for smart hosts that require authentication.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pintle_mail::{Reply, Severity};

use super::config::{Channel, Credentials};
use super::core::Core;
use super::idle::Idle;
use super::outcome::{Closed, DialogueStep, Lack, ProtocolFault};
use super::state::{ClientState, SessionStop, Turn};

/// Which step of the SASL exchange the next reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Auth {
    /// `AUTH PLAIN` was sent without an initial response: 334 asks for it.
    PlainChallenge,
    /// `AUTH LOGIN` was sent: 334 asks for the user name.
    LoginUser,
    /// The user name was sent: 334 asks for the password.
    LoginPassword,
    /// The last of the credentials was sent: 235, or a refusal.
    Verdict,
}

/// The longest command line in octets, with its CRLF (RFC 5321 section 4.5.3.1.4).
const MAX_LINE: usize = 512;

/// Starts authentication if there are credentials; otherwise the session is ready.
pub(super) fn begin(core: &mut Core, now: Instant) -> Turn {
    let Some(credentials) = &core.config.credentials else {
        return Ok(Idle::fresh(core));
    };
    // RFC 4954 section 4: these mechanisms need TLS; section 9: the client verifies the server's identity first.
    if core.channel < credentials.over {
        let lack = if core.channel == Channel::Plain { Lack::AuthWithoutTls } else { Lack::AuthUnverified };
        return Err(SessionStop::new(Closed::Lacking(lack)));
    }
    let offered = |name: &str| core.offers().mechanisms().iter().any(|mechanism| mechanism == name);
    let (line, auth) = if offered("PLAIN") {
        plain_line(credentials)
    } else if offered("LOGIN") {
        ("AUTH LOGIN".to_owned(), Auth::LoginUser)
    } else {
        return Err(SessionStop::new(Closed::Lacking(Lack::Auth)));
    };
    core.command(&line, core.config.timeouts.command, now);
    Ok(ClientState::Auth(auth))
}

fn plain_line(credentials: &Credentials) -> (String, Auth) {
    let line = format!("AUTH PLAIN {}", plain_response(credentials));
    // RFC 4954 section 4: an initial response that would make the line too long is sent after the challenge instead.
    if line.len() + 2 > MAX_LINE {
        ("AUTH PLAIN".to_owned(), Auth::PlainChallenge)
    } else {
        (line, Auth::Verdict)
    }
}

fn plain_response(credentials: &Credentials) -> String {
    STANDARD.encode(format!("\0{}\0{}", credentials.user, credentials.password))
}

impl Auth {
    pub(super) fn on_reply(self, reply: Reply, core: &mut Core, now: Instant) -> Turn {
        match reply.severity() {
            // RFC 4954 section 4 lists 235 and 334; the first digit is enough to decide.
            Severity::Positive => Ok(Idle::fresh(core)),
            Severity::Intermediate => self.respond(core, now),
            Severity::Transient | Severity::Permanent => {
                Err(SessionStop::new(Closed::Refused { step: DialogueStep::Auth, reply }))
            }
        }
    }

    fn respond(self, core: &mut Core, now: Instant) -> Turn {
        let (response, next) = match (self, &core.config.credentials) {
            (Self::PlainChallenge, Some(credentials)) => (plain_response(credentials), Self::Verdict),
            // The texts of LOGIN's challenges vary between servers; only their order matters.
            (Self::LoginUser, Some(credentials)) => (STANDARD.encode(&credentials.user), Self::LoginPassword),
            (Self::LoginPassword, Some(credentials)) => {
                (STANDARD.encode(&credentials.password), Self::Verdict)
            }
            _ => {
                return Err(SessionStop::new(Closed::Fault {
                    step: DialogueStep::Auth,
                    fault: ProtocolFault::Challenge,
                }));
            }
        };
        core.command(&response, core.config.timeouts.command, now);
        Ok(ClientState::Auth(next))
    }
}
