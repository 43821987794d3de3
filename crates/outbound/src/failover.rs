//! Failover within one attempt: a new session after a broken one, and the next mail exchanger after a deferral.
//!
//! A broken session says nothing about the message. A session that was used before may have ended while it was idle,
//! may have reached the next hop's limit of messages, or may be out of step; the message then goes over a new session
//! at once, one time, and no attempt is counted. The replies of the new session are final.
//!
//! RFC 5321 section 5.1 requires a client to try the exchangers in their order until one accepts the message. So after
//! a deferral the next one is asked, but only one more in each attempt: a deferral may be meant for all of them. The
//! better exchanger's reply counts: if another one accepts, the recipient is delivered, but its refusal may only mean
//! that it is misconfigured as a backup (it has no list of users, or does not know the domain any more), and must not
//! bounce mail that the better one accepts later.

#![expect(clippy::vec_box, reason = "a session is moved from owner to owner as its box")]

use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{EnhancedCode, Reply};
use pintle_record::PeerMembers;
use pintle_smtp::client::{
    Closed, Delivery, DialogueStep, DsnRelay, Protocol, ProtocolFault, RecipientOutcome, ReplyOutcome,
    Speaker, Transfer, demands_tls,
};

use crate::connect_failure::ConnectFailure;
use crate::connection::{ClientConnection, SendResult};
use crate::host_defects::HostDefect;
use crate::parts::OutboundShared;
use crate::plan::DeliveryPlan;
use crate::recipient_result::SuccessReporter;
use crate::replies::{ExchangeReplies, RecipientReply};
use crate::resolve::HostId;
use crate::session_pool::SessionPermit;
use crate::{Config, connect, resolve};

/// The most hosts of a next hop that one attempt asks about a message.
const MAX_ASKED: usize = 2;
/// How long an extension at which a host failed is not used with it: longer than an attempt waits for the next one.
const DEFECT_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// The state of one attempt: one message, tried at one host after the other.
pub(crate) struct Failover<'a> {
    shared: &'a OutboundShared,
    config: &'a Arc<Config>,
    plan: &'a DeliveryPlan,
    /// The replies so far.
    replies: Vec<RecipientReply>,
    /// Recipients about which a host is still to be asked.
    open: Vec<u32>,
    /// Hosts that have replied.
    asked: Vec<HostId>,
    /// Whether a session has been replaced for a fault of its own. The next fault is attributed to the next hop.
    renewed: bool,
    overflow: bool,
    /// Sessions that are not over, in the order of their exchangers.
    connections: Vec<Box<ClientConnection>>,
}

/// Whether a session has carried messages before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SessionAge {
    New,
    Used,
}

impl<'a> Failover<'a> {
    pub(crate) fn new(shared: &'a OutboundShared, config: &'a Arc<Config>, plan: &'a DeliveryPlan) -> Self {
        Self {
            shared,
            config,
            plan,
            replies: Vec::new(),
            open: plan.envelope.recipients.iter().map(|recipient| recipient.id).collect(),
            asked: Vec::new(),
            renewed: false,
            overflow: false,
            connections: Vec::new(),
        }
    }

    /// Asks one host after the other until none is left to be asked.
    ///
    /// # Errors
    /// No host has replied.
    pub(crate) async fn run(
        mut self,
        permit: SessionPermit,
        idle: Option<Box<ClientConnection>>,
    ) -> Result<ExchangeReplies, ConnectFailure> {
        if let Some(connection) = idle {
            self.exchange_over(connection, SessionAge::Used).await;
        }
        while !self.open.is_empty() && self.asked.len() < MAX_ASKED {
            // Boxed, since sessions are seldom opened, and the future would enlarge every attempt.
            match Box::pin(connect::open(self.shared, self.config, self.plan, &self.asked)).await {
                Ok(connection) => self.exchange_over(connection, SessionAge::New).await,
                Err(failure) if self.replies.is_empty() => {
                    permit.fail(&failure);
                    return Err(failure);
                }
                Err(failure) => {
                    self.end_with(&failure);
                    break;
                }
            }
        }
        Ok(self.close(permit).await)
    }

    /// No other host can be asked: the replies so far count, or the failure if there are none.
    fn end_with(&mut self, failure: &ConnectFailure) {
        for id in std::mem::take(&mut self.open) {
            if !self.replies.iter().any(|reply| reply.outcome.id == id) {
                self.replies.push(RecipientReply::no_session(id, failure));
            }
        }
    }

    async fn exchange_over(&mut self, mut connection: Box<ClientConnection>, age: SessionAge) {
        let place = connection.place();
        let defects = &self.shared.host_defects;
        let no_chunking = defects.knows(HostDefect::NoChunking, &place);
        let transfer = if no_chunking { Transfer::Data } else { self.config.transfer };
        if defects.knows(HostDefect::NoPipelining, &place) {
            connection.disable_pipelining();
        }
        let sent = connection.send(self.plan, &self.open, transfer).await;
        let peer = Arc::new(connection.peer());
        let mut delivery = match sent {
            SendResult::Done(delivery) => delivery,
            SendResult::Closed(why) => unsent(&self.open, why, transfer),
        };
        if connection.is_stand_in() {
            delivery.recipients.iter_mut().for_each(defer_for_the_better);
        }
        let workaround = self.note_defects(&delivery, &connection, &peer);
        let again = !self.renewed && (workaround || is_worth_a_new_session(&delivery, age));
        self.renewed |= again;
        if !again {
            self.asked.push(HostId::of(&peer));
        }
        self.take_replies(delivery, &peer, again);
        // One that is over ends now: its host may allow no second session beside it.
        if !connection.is_over() {
            self.connections.push(connection);
        }
    }

    /// Remembers the defect that the host has shown. Returns whether a new session with the workaround may succeed.
    fn note_defects(&self, delivery: &Delivery, connection: &ClientConnection, peer: &PeerMembers) -> bool {
        let (defects, place) = (&self.shared.host_defects, connection.place());
        if failed_in_chunks(delivery) {
            defects.remember(HostDefect::NoChunking, &place, DEFECT_MEMORY);
        }
        let lost = connection.offers_pipelining() && lost_commands(delivery);
        if lost {
            defects.remember(HostDefect::NoPipelining, &place, DEFECT_MEMORY);
        }
        let named = connect::under_its_name(peer.host.as_deref().unwrap_or_default(), &place);
        let tls_again = wants_tls(delivery) && defects.forget(HostDefect::NoTls, &named);
        tls_again || (lost && is_out_of_step(delivery))
    }

    /// Merges the replies of one host into those so far, and decides which recipients the next one is asked about.
    fn take_replies(&mut self, delivery: Delivery, peer: &Arc<PeerMembers>, again: bool) {
        // A recipient that waits for the next transaction has not been deferred.
        let overflow = delivery.has_overflow();
        self.overflow |= overflow;
        self.open.clear();
        let first = self.replies.is_empty();
        for outcome in delivery.recipients {
            let anew = again && outcome.cut;
            if anew || (!overflow && may_ask_elsewhere(&outcome, delivery.ended.as_ref())) {
                self.open.push(outcome.id);
            }
            let reply =
                RecipientReply { outcome, peer: Arc::clone(peer), success: self.success(delivery.dsn) };
            match reply {
                _ if anew => {}
                reply if first => self.replies.push(reply),
                reply => self.merge(reply),
            }
        }
    }

    /// Keeps the better exchanger's reply, unless it did not reply about the recipient, or this one accepts the
    /// message.
    fn merge(&mut self, reply: RecipientReply) {
        let Some(before) = self.replies.iter_mut().find(|before| before.outcome.id == reply.outcome.id)
        else {
            return self.replies.push(reply);
        };
        let delivered = matches!(reply.outcome.outcome, ReplyOutcome::Delivered(_));
        let better = before.outcome.cut && (!before.is_from_next_hop() || reply.is_from_next_hop());
        let unasked = is_unasked(&reply.outcome);
        if delivered || (!unasked && (better || is_unasked(&before.outcome))) {
            *before = reply;
        }
    }

    fn success(&self, dsn: DsnRelay) -> SuccessReporter {
        match dsn {
            // An LMTP server is the last hop of mail transport, so no host after it reports a success.
            _ if resolve::protocol_of(&self.plan.target.next_hop, self.config) == Protocol::Lmtp => {
                SuccessReporter::Delivered
            }
            DsnRelay::HandedOn => SuccessReporter::NextHop,
            DsnRelay::NotOffered => SuccessReporter::Relayed,
        }
    }

    /// Puts the session with the best exchanger back into the pool; the others were opened for this message alone.
    async fn close(self, permit: SessionPermit) -> ExchangeReplies {
        let (mut permit, mut retired) = (Some(permit), Vec::new());
        for connection in self.connections {
            let enough = connection.used() >= self.config.sessions.messages.max(1);
            let best = self.asked.first().is_none_or(|first| *first == HostId::of(&connection.peer()));
            let Some(connection) = connection.into_idle().await else { continue };
            match permit.take_if(|_| best && !enough) {
                Some(permit) => retired.extend(permit.give_back(connection)),
                None => retired.push(connection),
            }
        }
        ExchangeReplies { replies: self.replies, overflow: self.overflow, retired }
    }
}

/// The delivery of a session that ended before the transaction began.
fn unsent(ids: &[u32], why: Closed, transfer: Transfer) -> Delivery {
    let cut = |id: &u32| RecipientOutcome {
        id: *id,
        outcome: ReplyOutcome::Deferred(why.reply()),
        speaker: why.speaker(),
        step: why.step(),
        cut: true,
    };
    Delivery {
        recipients: ids.iter().map(cut).collect(),
        dsn: DsnRelay::NotOffered,
        transfer,
        ended: Some(why),
    }
}

/// Whether the session ended for reasons that a new one may not have. The next hop has not taken the message, since its
/// end was not sent.
fn is_worth_a_new_session(delivery: &Delivery, age: SessionAge) -> bool {
    let Some(why) = &delivery.ended else {
        return false;
    };
    match (why, why.step()) {
        (Closed::Abandoned(_), _) | (_, DialogueStep::End) => false,
        _ if refuses_chunks(delivery) => true,
        _ if age == SessionAge::New => false,
        // A session whose state a router has lost is silent from the first command on. Later silence is the next hop's
        // fault.
        (Closed::TimedOut(_), step) => matches!(step, DialogueStep::Idle | DialogueStep::Mail),
        _ => true,
    }
}

/// Whether the next exchanger may take the recipient. After the end of the message, silence may mean that it was taken.
fn may_ask_elsewhere(recipient: &RecipientOutcome, ended: Option<&Closed>) -> bool {
    // RFC 8689 section 4.2.1: the other exchangers are asked. The size limit of the best exchanger counts for the
    // domain.
    if is_unasked(recipient) {
        return !is_too_large(recipient.outcome.reply());
    }
    let deferred = matches!(recipient.outcome, ReplyOutcome::Deferred(_));
    let in_doubt = recipient.step == DialogueStep::End && recipient.speaker == Speaker::Us;
    let ours = recipient.cut && matches!(ended, Some(Closed::Abandoned(_)));
    deferred && !in_doubt && !ours
}

/// Whether the host was not asked at all, since it does not offer what the message needs.
fn is_unasked(recipient: &RecipientOutcome) -> bool {
    matches!(recipient.outcome, ReplyOutcome::Failed(_)) && recipient.speaker == Speaker::Us
}

/// RFC 3463 section 3.4: X.3.4, message too big for system.
fn is_too_large(reply: &Reply) -> bool {
    matches!(reply.enhanced, Some(EnhancedCode(_, 3, 4)))
}

/// Defers the recipient if this exchanger does not offer what the message needs: the better one, which could not be
/// reached, may offer it.
fn defer_for_the_better(recipient: &mut RecipientOutcome) {
    if is_unasked(recipient) {
        recipient.outcome = ReplyOutcome::Deferred(recipient.outcome.reply().clone());
    }
}

/// Whether the next hop demands TLS before it takes mail.
fn wants_tls(delivery: &Delivery) -> bool {
    matches!(&delivery.ended, Some(Closed::Refused { reply, .. }) if demands_tls(reply))
}

/// Whether the session may have ended over pipelined commands. A proxy may pass the offer of PIPELINING on and not
/// support it.
fn lost_commands(delivery: &Delivery) -> bool {
    let waited = matches!(&delivery.ended, Some(Closed::TimedOut(DialogueStep::Rcpt | DialogueStep::Data)));
    waited || is_out_of_step(delivery)
}

/// Whether the session ended with a reply that does not fit the command.
fn is_out_of_step(delivery: &Delivery) -> bool {
    let Some(why) = &delivery.ended else { return false };
    let misfit = match why {
        Closed::Fault { fault, .. } => {
            matches!(fault, ProtocolFault::Unexpected(_) | ProtocolFault::Unsolicited(_))
        }
        Closed::Refused { reply, .. } => reply.code == 503,
        _ => false,
    };
    misfit && matches!(why.step(), DialogueStep::Mail | DialogueStep::Rcpt | DialogueStep::Data)
}

/// Whether the session ended over BDAT. With some hosts every session does.
fn failed_in_chunks(delivery: &Delivery) -> bool {
    let failed = |why: &Closed| {
        matches!(why, Closed::TimedOut(_) | Closed::Lost(_) | Closed::Fault { .. })
            && matches!(why.step(), DialogueStep::Body | DialogueStep::End)
    };
    delivery.transfer == Transfer::Chunking && delivery.ended.as_ref().is_some_and(failed)
}

/// Whether the next hop does not know BDAT, although it offers it.
fn refuses_chunks(delivery: &Delivery) -> bool {
    let unknown = Closed::Fault { step: DialogueStep::Body, fault: ProtocolFault::Unexpected(500) };
    let not_there = Closed::Fault { step: DialogueStep::Body, fault: ProtocolFault::Unexpected(502) };
    let ended = delivery.ended.as_ref();
    delivery.transfer == Transfer::Chunking && (ended == Some(&unknown) || ended == Some(&not_there))
}
