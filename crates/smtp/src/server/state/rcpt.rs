//! RCPT: adds recipients to a transaction (RFC 5321 section 3.3).

use std::num::NonZeroU32;

use pintle_mail::Recipient;

use super::mail::{InTransaction, SenderAccepted, in_transaction};
use super::{Commanded, DataAsked, Negotiated, SessionState, common, misuse};
use crate::extension::Extension;
use crate::server::command::Command;
use crate::server::event::Question;
use crate::server::fault::SessionFault;
use crate::server::params::parse_rcpt;
use crate::server::prdr::PrdrRecipients;
use crate::server::replies;
use crate::server::ruling::AnswerKind;
use crate::server::shared::Core;

/// A sender and at least one recipient have been accepted.
#[derive(Debug)]
pub(crate) struct RecipientsAccepted {
    sender: SenderAccepted,
    recipients: NonZeroU32,
}

impl Commanded for RecipientsAccepted {
    fn command(self, command: Command<'_>, core: &mut Core) -> SessionState {
        match command {
            Command::Rcpt(argument) => recipient(self.sender, Some(self.recipients), argument, core),
            Command::Data => DataAsked::data(self, core),
            Command::Bdat { size, last } if self.offers_chunking() => {
                DataAsked::first_chunk(self, size, last, core)
            }
            Command::Bdat { .. } => common(self, command, core, SessionFault::NotImplemented),
            _ => in_transaction(self, command, core),
        }
    }
}

impl RecipientsAccepted {
    pub(crate) fn into_parts(self) -> (Negotiated, Option<PrdrRecipients>) {
        (self.sender.negotiated, self.sender.prdr)
    }

    fn offers_chunking(&self) -> bool {
        self.sender.negotiated.offers.has(Extension::Chunking)
    }
}

impl InTransaction for RecipientsAccepted {
    fn leave(self) -> Negotiated {
        self.sender.negotiated
    }
}

pub(super) fn recipient(
    sender: SenderAccepted,
    accepted: Option<NonZeroU32>,
    argument: &str,
    core: &mut Core,
) -> SessionState {
    let count = accepted.map_or(0, NonZeroU32::get);
    let parsed = if count < core.config.limits.recipients {
        parse_rcpt(argument, &sender.negotiated.offers, &core.config, sender.smtputf8)
    } else {
        Err(SessionFault::TooManyRecipients)
    };
    match parsed {
        Ok((address, params)) => {
            core.ask(Question::Recipient(Recipient { params, ..Recipient::new(sender.next_id, address) }));
            RecipientAsked { sender, accepted }.into()
        }
        Err(fault) => {
            core.expect_consequences();
            let back = back(sender, accepted);
            core.fault(fault, back)
        }
    }
}

/// Returns the state that follows from this number of accepted recipients.
fn back(sender: SenderAccepted, accepted: Option<NonZeroU32>) -> SessionState {
    match accepted {
        Some(recipients) => RecipientsAccepted { sender, recipients }.into(),
        None => sender.into(),
    }
}

/// The host decides on a recipient.
#[derive(Debug)]
pub(crate) struct RecipientAsked {
    sender: SenderAccepted,
    accepted: Option<NonZeroU32>,
}

impl RecipientAsked {
    pub(crate) fn ruled(mut self, ruling: AnswerKind, core: &mut Core) -> SessionState {
        let id = self.sender.next_id;
        self.sender.next_id += 1;
        match ruling {
            AnswerKind::Accept(wish) => {
                if let Some(prdr) = &mut self.sender.prdr {
                    prdr.add(id);
                }
                core.reply(&replies::positive(wish, &[250, 251, 252], &replies::RECIPIENT));
                let recipients = self.accepted.map_or(NonZeroU32::MIN, |count| count.saturating_add(1));
                back(self.sender, Some(recipients))
            }
            AnswerKind::Refuse(wish) => {
                core.expect_consequences();
                core.refuse_with(wish, &replies::REFUSED, back(self.sender, self.accepted))
            }
            AnswerKind::Close(wish) => core.close_with(wish),
            _ => misuse(core, back(self.sender, self.accepted)),
        }
    }
}
