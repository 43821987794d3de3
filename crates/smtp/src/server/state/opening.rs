//! From the connection to the hello: greeting, EHLO and HELO, STARTTLS (RFC 5321 sections 3.1 and 3.2, RFC 3207).

use bytes::BytesMut;
use pintle_mail::Reply;

use super::{Commanded, Greeted, Ready, State, common, misuse};
use crate::server::command::Command;
use crate::server::config::EarlyTalk;
use crate::server::event::{Closed, Event, Hello, HelloVerb, Question};
use crate::server::fault::{Fault, Misuse, Sequence};
use crate::server::offers::{Extension, Extensions, Offers};
use crate::server::replies;
use crate::server::ruling::Ruling;
use crate::server::shared::Core;

/// The host judges the connection.
#[derive(Debug, Default)]
pub(crate) struct Connecting {
    talked: bool,
}

impl Connecting {
    /// Bytes came before the greeting.
    pub(crate) fn early_talk(&mut self, core: &mut Core) {
        if !std::mem::replace(&mut self.talked, true) {
            core.event(Event::Fault(Fault::EarlyTalk));
        }
    }

    pub(crate) fn ruled(self, ruling: Ruling, core: &mut Core) -> State {
        if let Some(over) = core.drained() {
            return over;
        }
        match ruling {
            Ruling::Accept(_) if self.talked && core.config.leniency.early_talk == EarlyTalk::Refuse => {
                core.close(Some(Fault::EarlyTalk.reply()), Closed::Fault(Fault::EarlyTalk))
            }
            Ruling::Accept(wish) => greet(wish, core),
            Ruling::Refuse(wish) => turn_away(replies::negative(wish, &replies::REFUSED_CONNECTION), core),
            Ruling::Close(wish) => core.close_as_told(wish),
            _ => core.fail(Fault::HostMisuse(Misuse::WrongAnswer)),
        }
    }
}

fn greet(wish: Option<Reply>, core: &mut Core) -> State {
    let text = match wish.filter(|reply| reply.code == 220) {
        Some(reply) => reply.text,
        None => core.config.banner.clone().into(),
    };
    // RFC 5321 section 4.2: the greeting begins with our name.
    let greeting = Reply::plain(220, format!("{} {text}", core.config.hostname));
    core.reply(&greeting);
    Fresh.into()
}

/// RFC 5321 section 3.1: 554 instead of 220, then wait for QUIT. A refusal for now can only be 421, which closes.
fn turn_away(reply: Reply, core: &mut Core) -> State {
    if reply.code < 500 {
        let reply = Reply { code: 421, ..reply };
        return core.close(Some(reply), Closed::Host);
    }
    core.refuse(Reply { code: 554, ..reply });
    TurnedAway.into()
}

/// The greeting was a refusal.
#[derive(Debug)]
pub(crate) struct TurnedAway;

impl Commanded for TurnedAway {
    fn command(self, command: Command<'_>, core: &mut Core) -> State {
        let fault = Fault::Sequence(Sequence::TurnedAway);
        match command {
            Command::Bdat { .. } => common(self, command, core, fault),
            _ => core.fault(fault, self),
        }
    }
}

/// Greeted by us, not yet by the client.
#[derive(Debug)]
pub(crate) struct Fresh;

impl Commanded for Fresh {
    fn command(self, command: Command<'_>, core: &mut Core) -> State {
        match command {
            Command::Hello(verb, name) => hello(verb, name, Before::Fresh, core),
            _ => common(self, command, core, Fault::Sequence(Sequence::HelloFirst)),
        }
    }
}

/// Where a refused hello leads back to.
#[derive(Debug)]
pub(crate) enum Before {
    Fresh,
    Greeted(Greeted),
}

impl From<Before> for State {
    fn from(before: Before) -> Self {
        match before {
            Before::Fresh => Fresh.into(),
            Before::Greeted(greeted) => Ready::new(greeted).into(),
        }
    }
}

/// RFC 5321 section 4.1.4: a hello at any time, and it resets the transaction.
pub(crate) fn hello(verb: HelloVerb, name: &str, before: Before, core: &mut Core) -> State {
    if core.is_idle_too_long() {
        return core.fail(Fault::TooManyIdleCommands);
    }
    core.reset();
    let offers = match verb {
        HelloVerb::Ehlo => offers(core),
        HelloVerb::Helo => Offers::none(),
    };
    core.ask(Question::Hello(Hello { verb, name: name.to_owned(), offers: offers.clone() }));
    Helloing { verb, offers, before }.into()
}

/// What the configuration offers in this session.
fn offers(core: &Core) -> Offers {
    let mut offers =
        Offers::new(core.config.extensions, core.config.limits.message, core.config.auth.mechanisms);
    offers.restrict(possible(core));
    offers
}

/// What can be served now, whoever offers it.
fn possible(core: &Core) -> Extensions {
    let mut possible = Extension::ALL.into_iter().fold(Extensions::NONE, Extensions::with);
    let configured = core.config.extensions;
    // RFC 3207 section 4.2: not within TLS.
    if core.tls || !configured.has(Extension::StartTls) {
        possible = possible.without(Extension::StartTls);
    }
    if !configured.has(Extension::Auth) || !(core.tls || core.config.auth.without_tls) {
        possible = possible.without(Extension::Auth);
    }
    // RFC 8689 section 2: only within TLS.
    if !core.tls {
        possible = possible.without(Extension::RequireTls);
    }
    possible
}

/// The host judges the hello.
#[derive(Debug)]
pub(crate) struct Helloing {
    verb: HelloVerb,
    offers: Offers,
    before: Before,
}

impl Helloing {
    pub(crate) fn ruled(self, ruling: Ruling, core: &mut Core) -> State {
        match ruling {
            Ruling::Accept(wish) => greet_back(self.verb, self.offers, wish, core),
            Ruling::Offer(mut offers) if self.verb == HelloVerb::Ehlo => {
                offers.restrict(possible(core));
                offers.cap_size(core.config.limits.message);
                greet_back(self.verb, offers, None, core)
            }
            Ruling::Offer(_) => greet_back(self.verb, self.offers, None, core),
            Ruling::Refuse(wish) => core.refuse_as_told(wish, &replies::REFUSED, self.before),
            Ruling::Close(wish) => core.close_as_told(wish),
            _ => misuse(core, self.before),
        }
    }
}

fn greet_back(verb: HelloVerb, offers: Offers, wish: Option<Reply>, core: &mut Core) -> State {
    let mut text = core.config.hostname.clone();
    if let Some(reply) = wish.filter(|reply| reply.code == 250) {
        text.push(' ');
        text.extend(reply.text.chars().map(|c| if c == '\n' { ' ' } else { c }));
    }
    // RFC 5321 section 4.1.1.1: one keyword a line behind the greeting.
    offers.append_lines(&mut text);
    core.reply(&Reply::plain(250, text));
    let esmtp = verb == HelloVerb::Ehlo;
    Ready::new(Greeted { offers: if esmtp { offers } else { unasked(core) }, esmtp }).into()
}

/// What is taken from a client that said HELO and was offered nothing: parameters of MAIL that cannot mislead it.
fn unasked(core: &Core) -> Offers {
    let mut offers = offers(core);
    offers.restrict(Extensions::NONE.with(Extension::Size).with(Extension::EightBitMime));
    offers
}

/// The 220 to STARTTLS is out; what comes now is not for us to read.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    ignored: bool,
}

impl Handshake {
    /// RFC 3207 section 4.2 and CVE-2011-0411: what came in the clear behind STARTTLS must never be taken for something
    /// that came within TLS.
    pub(crate) fn ignore_input(mut self, core: &mut Core) -> State {
        if !core.input.is_empty() {
            core.input = BytesMut::new();
            if !std::mem::replace(&mut self.ignored, true) {
                core.event(Event::Fault(Fault::PlaintextBehindStartTls));
            }
        }
        self.into()
    }

    /// RFC 3207 section 4.2: what was learned in the clear is forgotten, the hello and the login included.
    pub(crate) fn succeeded(self, core: &mut Core) -> State {
        core.tls = true;
        core.identity = None;
        Fresh.into()
    }

    /// There is no way back to plain text: the peer may be in the middle of a record.
    pub(crate) fn failed(self, core: &mut Core) -> State {
        core.event(Event::Fault(Fault::TlsFailed));
        core.close(None, Closed::Fault(Fault::TlsFailed))
    }
}
