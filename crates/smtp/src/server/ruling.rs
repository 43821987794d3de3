//! The host's answer without its receipt: the only place where a receipt becomes a positive reply.
//!
//! States are not generic; they get an [`AnswerKind`]. A [`Durable`] can only be made from [`HostAnswer::Accepted`]
//! and [`HostAnswer::AcceptedExcept`], so that no state can send 250 for a message that was not committed (the first
//! law).

use std::fmt;

use pintle_mail::{EnhancedCode, Reply};

use super::event::HostAnswer;
use super::offers::Offers;
use super::replies;

/// An answer of the host, with the receipt turned into a reply.
#[derive(Debug)]
pub(crate) enum AnswerKind {
    Accept(Option<Reply>),
    Offer(Offers),
    Durable(Durable),
    /// Durable for all recipients but these, which get replies of their own.
    DurableExcept(Durable, Vec<(u32, Reply)>),
    Discard(Option<Reply>),
    /// Dropped for all recipients but these, which get replies of their own.
    DiscardExcept(Vec<(u32, Reply)>),
    Granted(String),
    Denied(Option<Reply>),
    Unavailable(Option<Reply>),
    Refuse(Reply),
    Close(Reply),
}

/// The 250 reply to a message that is on disk.
#[derive(Debug)]
pub(crate) struct Durable(Reply);

impl Durable {
    fn new(receipt: impl fmt::Display, wish: Option<Reply>) -> Self {
        let usual = Reply::new(250, EnhancedCode(2, 0, 0), format!("Queued as {receipt}"));
        Self(replies::positive(wish, &[250], &usual))
    }

    pub(crate) fn into_reply(self) -> Reply {
        self.0
    }
}

impl<R: fmt::Display> From<HostAnswer<R>> for AnswerKind {
    fn from(answer: HostAnswer<R>) -> Self {
        match answer {
            HostAnswer::Accept(reply) => Self::Accept(reply),
            HostAnswer::Offer(offers) => Self::Offer(offers),
            HostAnswer::Accepted { receipt, reply } => Self::Durable(Durable::new(receipt, reply)),
            HostAnswer::AcceptedExcept { receipt, refused } => {
                Self::DurableExcept(Durable::new(receipt, None), refused)
            }
            HostAnswer::Discard(reply) => Self::Discard(reply),
            HostAnswer::DiscardExcept { refused } => Self::DiscardExcept(refused),
            HostAnswer::Granted { identity } => Self::Granted(identity),
            HostAnswer::Denied(reply) => Self::Denied(reply),
            HostAnswer::Unavailable(reply) => Self::Unavailable(reply),
            HostAnswer::Refuse(reply) => Self::Refuse(reply),
            HostAnswer::Close(reply) => Self::Close(reply),
        }
    }
}
