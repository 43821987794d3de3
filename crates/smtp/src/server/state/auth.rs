//! AUTH (RFC 4954): the exchange of a SASL mechanism, then the host's check of the credentials.

use pintle_mail::Reply;

use super::{Advance, Negotiated, Ready, SessionState, misuse};
use crate::server::event::Question;
use crate::server::fault::{SessionFault, Syntax};
use crate::server::offers::SaslMechanism;
use crate::server::replies;
use crate::server::ruling::AnswerKind;
use crate::server::sasl::{SaslExchange, SaslProgress};
use crate::server::shared::{Core, LineInput};

/// The client must send a response.
#[derive(Debug)]
pub(crate) struct Responding {
    negotiated: Negotiated,
    exchange: SaslExchange,
}

impl Responding {
    pub(crate) fn begin(
        negotiated: Negotiated,
        mechanism: SaslMechanism,
        initial: Option<&str>,
        core: &mut Core,
    ) -> SessionState {
        let exchange = SaslExchange::begin(mechanism);
        match initial {
            Some(response) => proceed(negotiated, exchange.initial(response), core),
            None => proceed(negotiated, Ok(SaslProgress::Challenge(exchange)), core),
        }
    }

    pub(crate) fn advance(self, core: &mut Core) -> Advance {
        let limit = core.config.limits.auth_line;
        let fault = match core.line(|_| limit) {
            LineInput::Partial => return Advance::Wait(self.into()),
            LineInput::Whole(line) => {
                let response = std::str::from_utf8(&line).map_err(|_| SessionFault::BadAuthResponse);
                let progress = response.and_then(|response| self.exchange.respond(response));
                return Advance::Again(proceed(self.negotiated, progress, core));
            }
            LineInput::TooLong => SessionFault::AuthLineTooLong,
            LineInput::BareLf => SessionFault::Syntax(Syntax::LineEnd),
        };
        Advance::Again(core.fault(fault, Ready::new(self.negotiated)))
    }
}

fn proceed(
    negotiated: Negotiated,
    progress: Result<SaslProgress, SessionFault>,
    core: &mut Core,
) -> SessionState {
    match progress {
        Ok(SaslProgress::Challenge(exchange)) => {
            // RFC 4954 section 4: an empty challenge has a space after 334; curl and others wait for it.
            core.reply(&Reply::plain(334, exchange.challenge()));
            Responding { negotiated, exchange }.into()
        }
        Ok(SaslProgress::Done(credentials)) => {
            core.ask(Question::Auth(credentials));
            LoginAsked { negotiated }.into()
        }
        Err(fault) => core.fault(fault, Ready::new(negotiated)),
    }
}

/// The host checks the credentials.
#[derive(Debug)]
pub(crate) struct LoginAsked {
    negotiated: Negotiated,
}

impl LoginAsked {
    pub(crate) fn ruled(self, ruling: AnswerKind, core: &mut Core) -> SessionState {
        let ready = Ready::new(self.negotiated);
        match ruling {
            AnswerKind::Granted(identity) => {
                core.identity = Some(identity);
                core.reply(&replies::AUTHENTICATED);
                ready.into()
            }
            AnswerKind::Unavailable(wish) => {
                let wish = wish.filter(|reply| (400..500).contains(&reply.code));
                core.refuse_with(wish.unwrap_or(replies::UNAVAILABLE), &replies::UNAVAILABLE, ready)
            }
            AnswerKind::Denied(wish) => deny(wish.unwrap_or(replies::DENIED), ready, core),
            AnswerKind::Refuse(wish) => deny(wish, ready, core),
            AnswerKind::Close(wish) => core.close_with(wish),
            _ => misuse(core, ready),
        }
    }
}

/// Refuses a login. After the last attempt that is allowed the connection is closed, which makes guessing passwords
/// slow.
fn deny(wish: Reply, ready: Ready, core: &mut Core) -> SessionState {
    if core.is_last_login() {
        core.fail(SessionFault::TooManyAuthFailures)
    } else {
        core.refuse_with(wish, &replies::DENIED, ready)
    }
}
