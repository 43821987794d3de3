//! AUTH: the exchange of a SASL mechanism, then the host's judgement (RFC 4954).

use pintle_mail::Reply;

use super::{Negotiated, Ready, State, Step, misuse};
use crate::server::event::Question;
use crate::server::fault::{Fault, Syntax};
use crate::server::offers::Mechanism;
use crate::server::replies;
use crate::server::ruling::Ruling;
use crate::server::sasl::{Exchange, Progress};
use crate::server::shared::{Core, Line};

/// The client owes a response.
#[derive(Debug)]
pub(crate) struct Responding {
    negotiated: Negotiated,
    exchange: Exchange,
}

impl Responding {
    pub(crate) fn begin(
        negotiated: Negotiated,
        mechanism: Mechanism,
        initial: Option<&str>,
        core: &mut Core,
    ) -> State {
        let exchange = Exchange::begin(mechanism);
        match initial {
            Some(response) => proceed(negotiated, exchange.initial(response), core),
            None => proceed(negotiated, Ok(Progress::Challenge(exchange)), core),
        }
    }

    pub(crate) fn advance(self, core: &mut Core) -> Step {
        let limit = core.config.limits.auth_line;
        let fault = match core.line(|_| limit) {
            Line::Partial => return Step::Wait(self.into()),
            Line::Whole(line) => {
                let response = std::str::from_utf8(&line).map_err(|_| Fault::BadAuthResponse);
                let progress = response.and_then(|response| self.exchange.respond(response));
                return Step::Again(proceed(self.negotiated, progress, core));
            }
            Line::TooLong => Fault::AuthLineTooLong,
            Line::BareLf => Fault::Syntax(Syntax::LineEnd),
        };
        Step::Again(core.fault(fault, Ready::new(self.negotiated)))
    }
}

fn proceed(negotiated: Negotiated, progress: Result<Progress, Fault>, core: &mut Core) -> State {
    match progress {
        Ok(Progress::Challenge(exchange)) => {
            // curl and others wait for the space of an empty challenge (RFC 4954 section 4).
            core.reply(&Reply::plain(334, exchange.challenge()));
            Responding { negotiated, exchange }.into()
        }
        Ok(Progress::Done(credentials)) => {
            core.ask(Question::Auth(credentials));
            LoginAsked { negotiated }.into()
        }
        Err(fault) => core.fault(fault, Ready::new(negotiated)),
    }
}

/// The host judges the credentials.
#[derive(Debug)]
pub(crate) struct LoginAsked {
    negotiated: Negotiated,
}

impl LoginAsked {
    pub(crate) fn ruled(self, ruling: Ruling, core: &mut Core) -> State {
        let ready = Ready::new(self.negotiated);
        match ruling {
            Ruling::Granted(identity) => {
                core.identity = Some(identity);
                core.reply(&replies::AUTHENTICATED);
                ready.into()
            }
            Ruling::Unavailable(wish) => {
                let wish = wish.filter(|reply| (400..500).contains(&reply.code));
                core.refuse_as_told(wish.unwrap_or(replies::UNAVAILABLE), &replies::UNAVAILABLE, ready)
            }
            Ruling::Denied(wish) => deny(wish.unwrap_or(replies::DENIED), ready, core),
            Ruling::Refuse(wish) => deny(wish, ready, core),
            Ruling::Close(wish) => core.close_as_told(wish),
            _ => misuse(core, ready),
        }
    }
}

/// Guessing must not be cheap: the connection ends with the last guess allowed.
fn deny(wish: Reply, ready: Ready, core: &mut Core) -> State {
    if core.is_last_login() {
        core.fail(Fault::TooManyAuthFailures)
    } else {
        core.refuse_as_told(wish, &replies::DENIED, ready)
    }
}
