//! EHLO or HELO has been answered and no transaction is open: MAIL, AUTH and STARTTLS are accepted here.

use super::ehlo::{Before, hello};
use super::{Commanded, Handshake, Negotiated, Responding, SenderAsked, SessionState, common};
use crate::extension::Extension;
use crate::server::command::Command;
use crate::server::event::{Event, Question, Sender};
use crate::server::fault::{Sequence, SessionFault};
use crate::server::offers::SaslMechanism;
use crate::server::params::parse_mail;
use crate::server::replies;
use crate::server::shared::Core;

/// Ready for a transaction.
#[derive(Debug)]
pub(crate) struct Ready {
    negotiated: Negotiated,
}

impl Commanded for Ready {
    fn command(self, command: Command<'_>, core: &mut Core) -> SessionState {
        match command {
            Command::Hello(verb, name) => hello(verb, name, Before::Negotiated(self.negotiated), core),
            Command::Mail(argument) => self.mail(argument, core),
            Command::StartTls => self.start_tls(core),
            Command::Auth { mechanism, initial } => self.auth(mechanism, initial, core),
            _ => common(self, command, core, SessionFault::Sequence(Sequence::MailFirst)),
        }
    }
}

impl Ready {
    pub(crate) fn new(negotiated: Negotiated) -> Self {
        Self { negotiated }
    }

    fn mail(self, argument: &str, core: &mut Core) -> SessionState {
        match self.sender(argument, core) {
            Ok(_) if !core.has_message_left() => core.fail(SessionFault::TooManyMessages),
            Ok(sender) => {
                let asked = SenderAsked::new(self.negotiated, &sender.params);
                core.ask(Question::Sender(sender));
                asked.into()
            }
            Err(fault) => {
                core.expect_consequences();
                core.fault(fault, self)
            }
        }
    }

    fn sender(&self, argument: &str, core: &Core) -> Result<Sender, SessionFault> {
        if core.config.require_tls && !core.tls {
            return Err(SessionFault::TlsRequired);
        }
        if core.config.require_auth && core.identity.is_none() {
            return Err(SessionFault::AuthRequired);
        }
        let (path, params) = parse_mail(argument, &self.negotiated.offers, &core.config)?;
        let limit = self.negotiated.message_limit(core);
        // RFC 1870 section 6.1: a declared size above the limit is refused here.
        if params.size.is_some_and(|size| size > limit) {
            return Err(SessionFault::MessageTooBig);
        }
        Ok(Sender { path, params })
    }

    fn start_tls(self, core: &mut Core) -> SessionState {
        if core.tls {
            core.fault(SessionFault::Sequence(Sequence::TlsAlready), self)
        } else if !self.negotiated.esmtp {
            core.fault(SessionFault::Sequence(Sequence::EhloFirst), self)
        } else if !self.negotiated.offers.has(Extension::StartTls) {
            core.fault(SessionFault::NotImplemented, self)
        } else {
            core.reply(&replies::START_TLS);
            core.event(Event::StartTls);
            Handshake::default().into()
        }
    }

    fn auth(self, mechanism: &str, initial: Option<&str>, core: &mut Core) -> SessionState {
        match self.mechanism(mechanism, core) {
            Ok(mechanism) => Responding::begin(self.negotiated, mechanism, initial, core),
            Err(fault) => core.fault(fault, self),
        }
    }

    fn mechanism(&self, name: &str, core: &Core) -> Result<SaslMechanism, SessionFault> {
        // RFC 4954 section 4: AUTH only once a session, and only after EHLO.
        if core.identity.is_some() {
            return Err(SessionFault::Sequence(Sequence::AuthAlready));
        }
        if !self.negotiated.esmtp {
            return Err(SessionFault::Sequence(Sequence::EhloFirst));
        }
        if !self.negotiated.offers.has(Extension::Auth) {
            let needs_tls = core.config.extensions.has(Extension::Auth) && !core.tls;
            return Err(if needs_tls { SessionFault::AuthNeedsTls } else { SessionFault::NotImplemented });
        }
        SaslMechanism::named(name)
            .filter(|mechanism| self.negotiated.offers.mechanisms().has(*mechanism))
            .ok_or(SessionFault::UnknownMechanism)
    }
}

impl Negotiated {
    /// Returns the largest message of this session in octets; 0 is no limit.
    pub(crate) fn message_limit(&self, core: &Core) -> u64 {
        let limit = self.offers.size().unwrap_or(core.config.limits.message);
        if limit == 0 { u64::MAX } else { limit }
    }
}
