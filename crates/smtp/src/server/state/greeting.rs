//! A new connection and the 220 greeting (RFC 5321 section 3.1); early talkers.

use pintle_mail::Reply;

use super::ehlo::ExpectHello;
use super::{Commanded, SessionState, common};
use crate::server::command::Command;
use crate::server::config::EarlyTalk;
use crate::server::event::{Closed, Event};
use crate::server::fault::{Misuse, Sequence, SessionFault};
use crate::server::replies;
use crate::server::ruling::AnswerKind;
use crate::server::shared::Core;

/// The host decides on the connection.
#[derive(Debug, Default)]
pub(crate) struct Connecting {
    talked: bool,
}

impl Connecting {
    /// Records that bytes came before the greeting.
    pub(crate) fn early_talk(&mut self, core: &mut Core) {
        if !std::mem::replace(&mut self.talked, true) {
            core.event(Event::Fault(SessionFault::EarlyTalk));
        }
    }

    pub(crate) fn ruled(self, ruling: AnswerKind, core: &mut Core) -> SessionState {
        if let Some(over) = core.drained() {
            return over;
        }
        match ruling {
            AnswerKind::Accept(_) if self.talked && core.config.leniency.early_talk == EarlyTalk::Refuse => {
                core.close(Some(SessionFault::EarlyTalk.reply()), Closed::Fault(SessionFault::EarlyTalk))
            }
            AnswerKind::Accept(wish) => greet(wish, core),
            AnswerKind::Refuse(wish) => {
                turn_away(replies::negative(wish, &replies::REFUSED_CONNECTION), core)
            }
            AnswerKind::Close(wish) => core.close_with(wish),
            _ => core.fail(SessionFault::HostMisuse(Misuse::WrongAnswer)),
        }
    }
}

fn greet(wish: Option<Reply>, core: &mut Core) -> SessionState {
    let text = match wish.filter(|reply| reply.code == 220) {
        Some(reply) => reply.text,
        None => core.config.banner.clone().into(),
    };
    // RFC 5321 section 4.2: the greeting begins with the server's name.
    let greeting = Reply::plain(220, format!("{} {text}", core.config.hostname));
    core.reply(&greeting);
    ExpectHello.into()
}

/// RFC 5321 section 3.1: sends 554 instead of 220, then waits for QUIT. A temporary refusal can only be 421, which
/// closes the session.
fn turn_away(reply: Reply, core: &mut Core) -> SessionState {
    if reply.code < 500 {
        let reply = Reply { code: 421, ..reply };
        return core.close(Some(reply), Closed::Host);
    }
    core.refuse(Reply { code: 554, ..reply });
    TurnedAway.into()
}

/// The greeting was a refusal; only QUIT is allowed.
#[derive(Debug)]
pub(crate) struct TurnedAway;

impl Commanded for TurnedAway {
    fn command(self, command: Command<'_>, core: &mut Core) -> SessionState {
        let fault = SessionFault::Sequence(Sequence::TurnedAway);
        match command {
            Command::Bdat { .. } => common(self, command, core, fault),
            _ => core.fault(fault, self),
        }
    }
}
