//! MAIL and RCPT: from a sender to a list of recipients (RFC 5321 section 3.3).

use std::num::NonZeroU32;

use pintle_mail::Recipient;

use super::opening::{Before, hello};
use super::{Commanded, Greeted, Ready, Receiving, State, common, misuse};
use crate::server::command::Command;
use crate::server::event::Question;
use crate::server::fault::{Fault, Sequence};
use crate::server::offers::Extension;
use crate::server::params::parse_rcpt;
use crate::server::replies;
use crate::server::ruling::Ruling;
use crate::server::shared::Core;

/// The host judges the sender.
#[derive(Debug)]
pub(crate) struct SenderAsked {
    greeted: Greeted,
    smtputf8: bool,
}

impl SenderAsked {
    pub(crate) fn new(greeted: Greeted, smtputf8: bool) -> Self {
        Self { greeted, smtputf8 }
    }

    pub(crate) fn ruled(self, ruling: Ruling, core: &mut Core) -> State {
        match ruling {
            Ruling::Accept(wish) => {
                core.begin_transaction();
                core.reply(&replies::positive(wish, &[250], &replies::SENDER));
                Sending { greeted: self.greeted, smtputf8: self.smtputf8, next_id: 0 }.into()
            }
            Ruling::Refuse(wish) => {
                core.expect_consequences();
                core.refuse_as_told(wish, &replies::REFUSED, Ready::new(self.greeted))
            }
            Ruling::Close(wish) => core.close_as_told(wish),
            _ => misuse(core, Ready::new(self.greeted)),
        }
    }
}

/// There is a sender, and no recipient yet.
#[derive(Debug)]
pub(crate) struct Sending {
    greeted: Greeted,
    smtputf8: bool,
    next_id: u32,
}

impl Commanded for Sending {
    fn command(self, command: Command<'_>, core: &mut Core) -> State {
        match command {
            Command::Rcpt(argument) => recipient(self, None, argument, core),
            Command::Data => core.fault(Fault::Sequence(Sequence::NoRecipients), self),
            Command::Bdat { .. } => common(self, command, core, Fault::Sequence(Sequence::RecipientFirst)),
            _ => in_transaction(self, command, core),
        }
    }
}

/// There are a sender and recipients.
#[derive(Debug)]
pub(crate) struct Addressed {
    sending: Sending,
    recipients: NonZeroU32,
}

impl Commanded for Addressed {
    fn command(self, command: Command<'_>, core: &mut Core) -> State {
        match command {
            Command::Rcpt(argument) => recipient(self.sending, Some(self.recipients), argument, core),
            Command::Data => Receiving::data(self, core),
            Command::Bdat { size, last } if self.offers_chunking() => {
                Receiving::first_chunk(self, size, last, core)
            }
            Command::Bdat { .. } => common(self, command, core, Fault::NotImplemented),
            _ => in_transaction(self, command, core),
        }
    }
}

impl Addressed {
    pub(crate) fn into_greeted(self) -> Greeted {
        self.sending.greeted
    }

    fn offers_chunking(&self) -> bool {
        self.sending.greeted.offers.has(Extension::Chunking)
    }
}

/// A state within a transaction.
trait InTransaction: Commanded {
    fn leave(self) -> Greeted;
}

impl InTransaction for Sending {
    fn leave(self) -> Greeted {
        self.greeted
    }
}

impl InTransaction for Addressed {
    fn leave(self) -> Greeted {
        self.into_greeted()
    }
}

/// What MAIL has made possible or impossible, with recipients or without.
fn in_transaction<S: InTransaction>(state: S, command: Command<'_>, core: &mut Core) -> State {
    match command {
        Command::Hello(verb, name) => hello(verb, name, Before::Greeted(state.leave()), core),
        // RFC 5321 section 4.1.1.5.
        Command::Rset => {
            core.reset();
            core.idle(&replies::RESET, Ready::new(state.leave()))
        }
        _ => common(state, command, core, Fault::Sequence(Sequence::InTransaction)),
    }
}

fn recipient(sending: Sending, accepted: Option<NonZeroU32>, argument: &str, core: &mut Core) -> State {
    let count = accepted.map_or(0, NonZeroU32::get);
    let parsed = if count < core.config.limits.recipients {
        parse_rcpt(argument, &sending.greeted.offers, &core.config, sending.smtputf8)
    } else {
        Err(Fault::TooManyRecipients)
    };
    match parsed {
        Ok((address, params)) => {
            core.ask(Question::Recipient(Recipient {
                id: sending.next_id,
                address,
                params,
                original: None,
                relay: false,
            }));
            RecipientAsked { sending, accepted }.into()
        }
        Err(fault) => {
            core.expect_consequences();
            let back = back(sending, accepted);
            core.fault(fault, back)
        }
    }
}

/// The state that this many accepted recipients make.
fn back(sending: Sending, accepted: Option<NonZeroU32>) -> State {
    match accepted {
        Some(recipients) => Addressed { sending, recipients }.into(),
        None => sending.into(),
    }
}

/// The host judges a recipient.
#[derive(Debug)]
pub(crate) struct RecipientAsked {
    sending: Sending,
    accepted: Option<NonZeroU32>,
}

impl RecipientAsked {
    pub(crate) fn ruled(mut self, ruling: Ruling, core: &mut Core) -> State {
        self.sending.next_id += 1;
        match ruling {
            Ruling::Accept(wish) => {
                core.reply(&replies::positive(wish, &[250, 251, 252], &replies::RECIPIENT));
                let recipients = self.accepted.map_or(NonZeroU32::MIN, |count| count.saturating_add(1));
                back(self.sending, Some(recipients))
            }
            Ruling::Refuse(wish) => {
                core.expect_consequences();
                core.refuse_as_told(wish, &replies::REFUSED, back(self.sending, self.accepted))
            }
            Ruling::Close(wish) => core.close_as_told(wish),
            _ => misuse(core, back(self.sending, self.accepted)),
        }
    }
}
