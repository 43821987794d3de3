//! The host's answer without its receipt: the one place where a receipt becomes a positive reply.
//!
//! States are not generic; they get a [`Ruling`]. [`Durable`] has no constructor but [`Ruling::from`] an
//! [`Answer::Accepted`], so that no state can say 250 to a message of its own accord (the first law).

use std::fmt;

use pintle_mail::{EnhancedCode, Reply};

use super::event::HostAnswer;
use super::offers::Offers;
use super::replies;

/// An answer.
#[derive(Debug)]
pub(crate) enum AnswerKind {
    Accept(Option<Reply>),
    Offer(Offers),
    Durable(Durable),
    Discard(Option<Reply>),
    Granted(String),
    Denied(Option<Reply>),
    Unavailable(Option<Reply>),
    Refuse(Reply),
    Close(Reply),
}

/// The reply to a message that is on disk.
#[derive(Debug)]
pub(crate) struct Durable(Reply);

impl Durable {
    pub(crate) fn into_reply(self) -> Reply {
        self.0
    }
}

impl<R: fmt::Display> From<HostAnswer<R>> for AnswerKind {
    fn from(answer: HostAnswer<R>) -> Self {
        match answer {
            HostAnswer::Accept(reply) => Self::Accept(reply),
            HostAnswer::Offer(offers) => Self::Offer(offers),
            HostAnswer::Accepted { receipt, reply } => {
                let usual = Reply::new(250, EnhancedCode(2, 0, 0), format!("Queued as {receipt}"));
                Self::Durable(Durable(replies::positive(reply, &[250], &usual)))
            }
            HostAnswer::Discard(reply) => Self::Discard(reply),
            HostAnswer::Granted { identity } => Self::Granted(identity),
            HostAnswer::Denied(reply) => Self::Denied(reply),
            HostAnswer::Unavailable(reply) => Self::Unavailable(reply),
            HostAnswer::Refuse(reply) => Self::Refuse(reply),
            HostAnswer::Close(reply) => Self::Close(reply),
        }
    }
}
