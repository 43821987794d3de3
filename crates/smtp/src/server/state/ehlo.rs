//! EHLO and HELO, and the extensions that the reply to EHLO offers (RFC 5321 section 3.2).

use pintle_mail::Reply;

use super::{Commanded, Negotiated, Ready, SessionState, common, misuse};
use crate::extension::{Extension, Extensions};
use crate::server::command::Command;
use crate::server::event::{Hello, HelloVerb, Question};
use crate::server::fault::{Sequence, SessionFault};
use crate::server::offers::Offers;
use crate::server::replies;
use crate::server::ruling::AnswerKind;
use crate::server::shared::Core;

/// The greeting has been sent; EHLO or HELO must come next.
#[derive(Debug)]
pub(crate) struct ExpectHello;

impl Commanded for ExpectHello {
    fn command(self, command: Command<'_>, core: &mut Core) -> SessionState {
        match command {
            Command::Hello(verb, name) => hello(verb, name, Before::ExpectHello, core),
            _ => common(self, command, core, SessionFault::Sequence(Sequence::HelloFirst)),
        }
    }
}

/// The state to return to when EHLO or HELO is refused.
#[derive(Debug)]
pub(crate) enum Before {
    ExpectHello,
    Negotiated(Negotiated),
}

impl From<Before> for SessionState {
    fn from(before: Before) -> Self {
        match before {
            Before::ExpectHello => ExpectHello.into(),
            Before::Negotiated(negotiated) => Ready::new(negotiated).into(),
        }
    }
}

/// Handles EHLO or HELO. RFC 5321 section 4.1.4: it may come at any time, and resets the transaction.
pub(crate) fn hello(verb: HelloVerb, name: &str, before: Before, core: &mut Core) -> SessionState {
    if core.is_idle_too_long() {
        return core.fail(SessionFault::TooManyIdleCommands);
    }
    core.reset();
    let offers = match verb {
        HelloVerb::Ehlo => offers(core),
        HelloVerb::Helo => Offers::none(),
    };
    core.ask(Question::Hello(Hello { verb, name: name.to_owned(), offers: offers.clone() }));
    HelloAsked { verb, offers, before }.into()
}

/// Returns the extensions to offer in this session.
fn offers(core: &Core) -> Offers {
    let mut offers =
        Offers::new(core.config.extensions, core.config.limits.message, core.config.auth.mechanisms);
    offers.restrict(possible(core));
    offers
}

/// Returns the extensions that can be served now, no matter if the configuration or the host offers them.
fn possible(core: &Core) -> Extensions {
    let mut possible = Extension::ALL.into_iter().fold(Extensions::NONE, Extensions::with);
    let configured = core.config.extensions;
    // RFC 3207 section 4.2: STARTTLS is not offered within TLS.
    if core.tls || !configured.has(Extension::StartTls) {
        possible = possible.without(Extension::StartTls);
    }
    if !configured.has(Extension::Auth) || !(core.tls || core.config.auth.without_tls) {
        possible = possible.without(Extension::Auth);
    }
    // RFC 8689 section 2: REQUIRETLS is offered only within TLS.
    if !core.tls {
        possible = possible.without(Extension::RequireTls);
    }
    possible
}

/// The host decides on EHLO or HELO.
#[derive(Debug)]
pub(crate) struct HelloAsked {
    verb: HelloVerb,
    offers: Offers,
    before: Before,
}

impl HelloAsked {
    pub(crate) fn ruled(self, ruling: AnswerKind, core: &mut Core) -> SessionState {
        match ruling {
            AnswerKind::Accept(wish) => greet_back(self.verb, self.offers, wish, core),
            AnswerKind::Offer(mut offers) if self.verb == HelloVerb::Ehlo => {
                offers.restrict(possible(core));
                offers.cap_size(core.config.limits.message);
                greet_back(self.verb, offers, None, core)
            }
            AnswerKind::Offer(_) => greet_back(self.verb, self.offers, None, core),
            AnswerKind::Refuse(wish) => core.refuse_with(wish, &replies::REFUSED, self.before),
            AnswerKind::Close(wish) => core.close_with(wish),
            _ => misuse(core, self.before),
        }
    }
}

fn greet_back(verb: HelloVerb, offers: Offers, wish: Option<Reply>, core: &mut Core) -> SessionState {
    let mut text = core.config.hostname.clone();
    if let Some(reply) = wish.filter(|reply| reply.code == 250) {
        text.push(' ');
        text.extend(reply.text.chars().map(|c| if c == '\n' { ' ' } else { c }));
    }
    // RFC 5321 section 4.1.1.1: one keyword per line after the greeting.
    offers.append_lines(&mut text);
    core.reply(&Reply::plain(250, text));
    let esmtp = verb == HelloVerb::Ehlo;
    Ready::new(Negotiated { offers: if esmtp { offers } else { unasked(core) }, esmtp }).into()
}

/// Returns the MAIL parameters that are accepted after HELO, where nothing was offered: those that cannot mislead the
/// client.
fn unasked(core: &Core) -> Offers {
    let mut offers = offers(core);
    offers.restrict(Extensions::NONE.with(Extension::Size).with(Extension::EightBitMime));
    offers
}
