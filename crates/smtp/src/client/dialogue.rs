//! MAIL, RCPT and DATA with pipelining (RFC 2920): commands are sent ahead of their replies, and replies are matched to
//! commands in order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pintle_mail::{BodyType, Reply, Severity};

use super::body::SendingBody;
use super::commands;
use super::config::{Channel, Protocol, Transfer};
use super::core::Core;
use super::end::Drain;
use super::idle::{Idle, Slate};
use super::ledger::Ledger;
use super::outcome::{
    Closed, DialogueStep, DsnRelay, ProtocolFault, ReplyOutcome, Transaction, demands_tls,
    is_too_many_recipients,
};
use super::state::{ClientState, SessionStop, Turn, unexpected};
use crate::extension::Extension;

/// A transaction until the 354 (or the first BDAT) for its body.
#[derive(Debug)]
pub(super) struct Dialogue {
    pub(super) ledger: Ledger,
    transaction: Transaction,
    todo: VecDeque<PipelinedCommand>,
    /// Commands that are sent and not answered yet.
    sent: VecDeque<PipelinedCommand>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PipelinedCommand {
    Rset,
    Mail,
    /// The recipient's index in the envelope.
    Rcpt(usize),
    Data,
}

impl PipelinedCommand {
    fn step(self) -> DialogueStep {
        match self {
            Self::Rset | Self::Mail => DialogueStep::Mail,
            Self::Rcpt(_) => DialogueStep::Rcpt,
            Self::Data => DialogueStep::Data,
        }
    }
}

impl Dialogue {
    /// Begins a transaction. If it cannot succeed with this next hop, it ends here, before MAIL.
    pub(super) fn begin(
        transaction: Transaction,
        slate: Slate,
        core: &mut Core,
        now: Instant,
    ) -> ClientState {
        let dsn = if core.offers().has(Extension::Dsn) { DsnRelay::HandedOn } else { DsnRelay::NotOffered };
        let ids = transaction.envelope.recipients.iter().map(|recipient| recipient.id);
        let transfer = transfer(&transaction, core);
        let mut ledger = Ledger::new(ids, dsn, transfer);
        commands::settle_hopeless(&transaction, core, &mut ledger);
        if ledger.is_settled() {
            return Idle::after(ledger, slate, core);
        }
        core.transactions = core.transactions.saturating_add(1);
        let mut dialogue = Self { todo: VecDeque::new(), sent: VecDeque::new(), transaction, ledger };
        dialogue.plan(slate);
        dialogue.pump(core, now);
        ClientState::Dialogue(Box::new(dialogue))
    }

    fn plan(&mut self, slate: Slate) {
        if slate == Slate::NeedsReset {
            self.todo.push_back(PipelinedCommand::Rset);
        }
        self.todo.push_back(PipelinedCommand::Mail);
        self.todo.extend(self.ledger.open().map(PipelinedCommand::Rcpt));
        if self.ledger.transfer() == Transfer::Data {
            self.todo.push_back(PipelinedCommand::Data);
        }
    }

    pub(super) fn step(&self) -> DialogueStep {
        self.sent.front().map_or(DialogueStep::Mail, |command| command.step())
    }

    pub(super) fn on_reply(mut self: Box<Self>, reply: Reply, core: &mut Core, now: Instant) -> Turn {
        let Some(command) = self.sent.pop_front() else {
            let why =
                Closed::Fault { step: DialogueStep::Mail, fault: ProtocolFault::Unsolicited(reply.code) };
            return Err(SessionStop::during(self.ledger, why));
        };
        // 3xx has a meaning only after DATA, as 354, and only 354 or a refusal may follow DATA.
        let go_ahead = command == PipelinedCommand::Data && reply.severity() == Severity::Intermediate;
        let meaningless = match reply.severity() {
            Severity::Intermediate => !go_ahead,
            Severity::Positive => command == PipelinedCommand::Data,
            Severity::Transient | Severity::Permanent => false,
        };
        if meaningless {
            return Err(SessionStop::during(self.ledger, unexpected(command.step(), &reply)));
        }
        if go_ahead {
            return self.go_ahead(&reply, core, now);
        }
        if !reply.is_positive() {
            if self.is_about_the_session(command, &reply, core) {
                let step = command.step();
                return Err(SessionStop::during(self.ledger, Closed::Refused { step, reply }));
            }
            self.refuse(command, reply);
        }
        Ok(self.go_on(core, now))
    }

    /// Whether a refusal concerns the session and not the message, so that another session may deliver it.
    fn is_about_the_session(&self, command: PipelinedCommand, reply: &Reply, core: &Core) -> bool {
        if command == PipelinedCommand::Rset {
            return true;
        }
        // If all recipients are refused, the commands that were sent ahead really are out of sequence.
        if self.ledger.is_settled() {
            return false;
        }
        // RFC 5321 section 4.2.3: 503, bad sequence of commands. Our sequence was correct, so the next hop has lost a
        // command, or still has an earlier transaction open. As a reply to the first RCPT, many servers use it for
        // "relaying denied".
        let out_of_step =
            reply.code == 503 && (!matches!(command, PipelinedCommand::Rcpt(_)) || core.transactions > 1);
        let to_be_secured =
            core.channel == Channel::Plain && core.offers().has(Extension::StartTls) && demands_tls(reply);
        out_of_step || to_be_secured
    }

    fn refuse(&mut self, command: PipelinedCommand, reply: Reply) {
        // A server that refuses the only recipient with a permanent code other than 552 does not mean "too many".
        let several =
            reply.code / 100 == 4 || reply.code == 552 || self.transaction.envelope.recipients.len() > 1;
        match command {
            // RFC 5321 section 4.5.3.1.10: 552 for too many recipients is to be taken as 452.
            PipelinedCommand::Rcpt(at) if several && is_too_many_recipients(&reply) => {
                self.ledger.settle(at, &ReplyOutcome::Deferred(reply), DialogueStep::Rcpt);
            }
            PipelinedCommand::Rcpt(at) => {
                self.ledger.settle(at, &ReplyOutcome::refused(reply), DialogueStep::Rcpt)
            }
            PipelinedCommand::Mail | PipelinedCommand::Data | PipelinedCommand::Rset => {
                self.ledger.settle_rest(&ReplyOutcome::refused(reply), command.step());
                self.todo.clear();
            }
        }
    }

    /// Handles 354. If all recipients were refused it should not come, but a pipelining client must be ready for it.
    fn go_ahead(self: Box<Self>, reply: &Reply, core: &mut Core, now: Instant) -> Turn {
        if !self.ledger.is_settled() {
            return Ok(SendingBody::begin_data(self.ledger, core, now));
        }
        // RFC 2033 section 4.2: an LMTP server must answer DATA with 503 here; how many replies would follow an empty
        // message is undefined.
        if core.config.protocol == Protocol::Lmtp {
            return Err(SessionStop::during(self.ledger, unexpected(DialogueStep::Data, reply)));
        }
        // RFC 2920 section 3.1: send an empty message; the reply to it is ignored.
        core.command(".", core.config.timeouts.end, now);
        Ok(ClientState::Drain(Drain::new(self.ledger, 1)))
    }

    fn go_on(mut self: Box<Self>, core: &mut Core, now: Instant) -> ClientState {
        let asked_all = !self
            .todo
            .iter()
            .any(|command| matches!(command, PipelinedCommand::Mail | PipelinedCommand::Rcpt(_)));
        if asked_all && self.ledger.is_settled() {
            self.todo.clear();
        }
        if !self.sent.is_empty() || !self.todo.is_empty() {
            self.pump(core, now);
            return ClientState::Dialogue(self);
        }
        if self.ledger.is_settled() {
            Idle::after(self.ledger, Slate::NeedsReset, core)
        } else {
            SendingBody::begin_chunks(self.ledger, core, now)
        }
    }

    /// Sends as many commands as the pipelining window allows, and sets the timeout for the oldest unanswered one.
    fn pump(&mut self, core: &mut Core, now: Instant) {
        let pipelining = core.offers().has(Extension::Pipelining);
        let window = if pipelining { core.config.limits.pipeline.max(1) } else { 1 };
        while self.sent.len() < window {
            let Some(command) = self.todo.pop_front() else {
                break;
            };
            let line = self.line(command, core);
            core.line(&line);
            self.sent.push_back(command);
        }
        if let Some(command) = self.sent.front() {
            core.expect(patience(*command, core), now);
        }
    }

    fn line(&self, command: PipelinedCommand, core: &Core) -> String {
        match command {
            PipelinedCommand::Rset => "RSET".to_owned(),
            PipelinedCommand::Mail => commands::mail(&self.transaction, core.offers()),
            PipelinedCommand::Rcpt(at) => self.transaction.envelope.recipients.get(at).map_or_else(
                // The index always comes from this list. If it did not, NOOP would keep the number of replies right.
                || "NOOP".to_owned(),
                |recipient| commands::rcpt(recipient, &self.transaction, core.offers()),
            ),
            PipelinedCommand::Data => "DATA".to_owned(),
        }
    }
}

fn patience(command: PipelinedCommand, core: &Core) -> Duration {
    let timeouts = &core.config.timeouts;
    match command {
        PipelinedCommand::Rset => timeouts.command,
        PipelinedCommand::Mail => timeouts.mail,
        PipelinedCommand::Rcpt(_) => timeouts.rcpt,
        PipelinedCommand::Data => timeouts.data,
    }
}

/// Returns BDAT if it is offered, and either configured or needed for binary content; else DATA.
fn transfer(transaction: &Transaction, core: &Core) -> Transfer {
    let binary = transaction.envelope.params.body == BodyType::BinaryMime;
    if core.offers().has(Extension::Chunking) && (binary || core.config.transfer == Transfer::Chunking) {
        Transfer::Chunking
    } else {
        Transfer::Data
    }
}
