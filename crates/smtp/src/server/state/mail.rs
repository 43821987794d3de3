//! MAIL: begins a transaction with a sender (RFC 5321 section 3.3).

use pintle_mail::MailParams;

use super::ehlo::{Before, hello};
use super::rcpt::recipient;
use super::{Commanded, Negotiated, Ready, SessionState, common, misuse};
use crate::server::command::Command;
use crate::server::fault::{Sequence, SessionFault};
use crate::server::prdr::PrdrRecipients;
use crate::server::replies;
use crate::server::ruling::AnswerKind;
use crate::server::shared::Core;

/// The host decides on the sender.
#[derive(Debug)]
pub(crate) struct SenderAsked {
    negotiated: Negotiated,
    smtputf8: bool,
    prdr: Option<PrdrRecipients>,
}

impl SenderAsked {
    pub(crate) fn new(negotiated: Negotiated, params: &MailParams) -> Self {
        let prdr = params.prdr.then(PrdrRecipients::default);
        Self { negotiated, smtputf8: params.smtputf8, prdr }
    }

    pub(crate) fn ruled(self, ruling: AnswerKind, core: &mut Core) -> SessionState {
        match ruling {
            AnswerKind::Accept(wish) => {
                core.begin_transaction();
                core.reply(&replies::positive(wish, &[250], &replies::SENDER));
                let Self { negotiated, smtputf8, prdr } = self;
                SenderAccepted { negotiated, smtputf8, prdr, next_id: 0 }.into()
            }
            AnswerKind::Refuse(wish) => {
                core.expect_consequences();
                core.refuse_with(wish, &replies::REFUSED, Ready::new(self.negotiated))
            }
            AnswerKind::Close(wish) => core.close_with(wish),
            _ => misuse(core, Ready::new(self.negotiated)),
        }
    }
}

/// The sender has been accepted; there is no recipient yet.
#[derive(Debug)]
pub(crate) struct SenderAccepted {
    pub(super) negotiated: Negotiated,
    pub(super) smtputf8: bool,
    /// The accepted recipients, if the client requested a reply for each at the end of data.
    pub(super) prdr: Option<PrdrRecipients>,
    pub(super) next_id: u32,
}

impl Commanded for SenderAccepted {
    fn command(self, command: Command<'_>, core: &mut Core) -> SessionState {
        match command {
            Command::Rcpt(argument) => recipient(self, None, argument, core),
            Command::Data => core.fault(SessionFault::Sequence(Sequence::NoRecipients), self),
            Command::Bdat { .. } => {
                common(self, command, core, SessionFault::Sequence(Sequence::RecipientFirst))
            }
            _ => in_transaction(self, command, core),
        }
    }
}

/// A state within a transaction.
pub(super) trait InTransaction: Commanded {
    fn leave(self) -> Negotiated;
}

impl InTransaction for SenderAccepted {
    fn leave(self) -> Negotiated {
        self.negotiated
    }
}

/// Handles the commands whose meaning changes after MAIL, with or without recipients.
pub(super) fn in_transaction<S: InTransaction>(
    state: S,
    command: Command<'_>,
    core: &mut Core,
) -> SessionState {
    match command {
        Command::Hello(verb, name) => hello(verb, name, Before::Negotiated(state.leave()), core),
        // RFC 5321 section 4.1.1.5.
        Command::Rset => {
            core.reset();
            core.idle(&replies::RESET, Ready::new(state.leave()))
        }
        _ => common(state, command, core, SessionFault::Sequence(Sequence::InTransaction)),
    }
}
