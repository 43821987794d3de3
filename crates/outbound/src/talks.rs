//! Who is asked in one attempt: a session that rests, a new one in its place, and the next exchanger after one that puts
//! recipients off.
//!
//! What is wrong with a session is no word about a message. A session that was used before may have ended while it rested,
//! may be at the end of what the next hop lets it carry, or may have become confused; the message then goes over a new one
//! at once, once, and no attempt is counted. What a fresh session says is meant.
//!
//! RFC 5321 section 5.1 has a client try the exchangers in their order until one takes the message. So after a deferral the
//! next one is asked, but only one more in an attempt: whoever has put us off may have meant all. The better exchanger's
//! word counts: another one's yes delivers, while its no may only say that it is a bad stand-in (it has no list of users,
//! or does not know the domain any more), and must not return mail that the better one wants later.

#![expect(clippy::vec_box, reason = "a session is moved from owner to owner as its box")]

use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{EnhancedCode, Reply};
use pintle_record::PeerMembers;
use pintle_smtp::client::{
    Closed, Delivery, DialogueStep, DsnRelay, Protocol, ProtocolFault, RecipientOutcome, ReplyOutcome,
    Speaker, Transfer, demands_tls,
};

use crate::connect::{self, ConnectFailure};
use crate::connection::{ClientConnection, Sent};
use crate::exchange::{ExchangeReplies, Word};
use crate::plan::Plan;
use crate::session_pool::{Quirk, SessionPermit};
use crate::settle::SuccessReporter;
use crate::shared::OutboundShared;
use crate::{Config, resolve};

/// Hosts of a next hop that one attempt speaks to about a message.
const MOST_ASKED: usize = 2;
/// How long a host that failed at an extension is spoken to without it: longer than an attempt waits for the next one.
const WITHOUT: Duration = Duration::from_secs(24 * 3600);

/// The talks of one attempt.
pub(crate) struct Talks<'a> {
    shared: &'a OutboundShared,
    config: &'a Arc<Config>,
    plan: &'a Plan,
    /// What was said so far.
    words: Vec<Word>,
    /// Recipients that somebody is still to be asked about.
    open: Vec<u32>,
    /// Hosts that have had their say.
    asked: Vec<Asked>,
    /// A session was given up for its own faults; a second time it is taken for the next hop's.
    renewed: bool,
    overflow: bool,
    /// Sessions that are not over, in the order of their exchangers.
    links: Vec<Box<ClientConnection>>,
}

/// A host, known by its name and its port: a relay may list several at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

impl Asked {
    fn of(peer: &PeerMembers) -> Self {
        let host = peer.host.clone().unwrap_or_default();
        Self { host, port: peer.address.map(|address| address.port()) }
    }
}

/// Whether a session has carried messages before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    Used,
}

impl<'a> Talks<'a> {
    pub(crate) fn new(shared: &'a OutboundShared, config: &'a Arc<Config>, plan: &'a Plan) -> Self {
        Self {
            shared,
            config,
            plan,
            words: Vec::new(),
            open: plan.envelope.recipients.iter().map(|recipient| recipient.id).collect(),
            asked: Vec::new(),
            renewed: false,
            overflow: false,
            links: Vec::new(),
        }
    }

    /// Asks until nobody is left to be asked. The trouble means that nobody has said anything.
    pub(crate) async fn run(
        mut self,
        slot: SessionPermit,
        rested: Option<Box<ClientConnection>>,
    ) -> Result<ExchangeReplies, ConnectFailure> {
        if let Some(link) = rested {
            self.talk(link, Age::Used).await;
        }
        while !self.open.is_empty() && self.asked.len() < MOST_ASKED {
            // Boxed, since sessions are seldom opened and every attempt would carry the room for it.
            match Box::pin(connect::open(self.shared, self.config, self.plan, &self.asked)).await {
                Ok(link) => self.talk(link, Age::New).await,
                Err(trouble) if self.words.is_empty() => {
                    slot.fail(&trouble);
                    return Err(trouble);
                }
                Err(trouble) => {
                    self.nobody(&trouble);
                    break;
                }
            }
        }
        Ok(self.close(slot).await)
    }

    /// Nobody else can be asked: the words that there are stand.
    fn nobody(&mut self, trouble: &ConnectFailure) {
        for id in std::mem::take(&mut self.open) {
            if !self.words.iter().any(|word| word.outcome.id == id) {
                self.words.push(Word::trouble(id, trouble));
            }
        }
    }

    async fn talk(&mut self, mut link: Box<ClientConnection>, age: Age) {
        let place = link.place();
        let chunks = !self.shared.pool.knows(Quirk::NoChunks, &place);
        let transfer = if chunks { self.config.transfer } else { Transfer::Data };
        if self.shared.pool.knows(Quirk::NoPipelining, &place) {
            link.keep_in_step();
        }
        let sent = link.send(self.plan, &self.open, transfer).await;
        let peer = Arc::new(link.peer());
        let mut delivery = match sent {
            Sent::Done(delivery) => delivery,
            Sent::Closed(why) => unsent(&self.open, why, transfer),
        };
        if link.is_stand_in() {
            delivery.recipients.iter_mut().for_each(wait_for_the_better);
        }
        if failed_in_chunks(&delivery) {
            self.shared.pool.remember(Quirk::NoChunks, &place, WITHOUT);
        }
        let confused = link.offers_pipelining() && lost_commands(&delivery);
        if confused {
            self.shared.pool.remember(Quirk::NoPipelining, &place, WITHOUT);
        }
        let named = connect::under_its_name(peer.host.as_deref().unwrap_or_default(), &place);
        let secured = wants_tls(&delivery) && self.shared.pool.forget(Quirk::NoTls, &named);
        let better = secured || (confused && is_out_of_step(&delivery));
        let again = !self.renewed && (better || is_worth_a_new_session(&delivery, age));
        self.renewed |= again;
        if !again {
            self.asked.push(Asked::of(&peer));
        }
        self.hear(delivery, &peer, again);
        // One that is over ends now: its host may take no second one beside it.
        if !link.is_over() {
            self.links.push(link);
        }
    }

    /// Takes down what was said, and who is still to be asked about.
    fn hear(&mut self, delivery: Delivery, peer: &Arc<PeerMembers>, again: bool) {
        // Whoever is only waiting for the next transaction is not put off.
        let overflow = delivery.has_overflow();
        self.overflow |= overflow;
        self.open.clear();
        let first = self.words.is_empty();
        for outcome in delivery.recipients {
            let anew = again && outcome.cut;
            if anew || (!overflow && may_ask_elsewhere(&outcome, delivery.ended.as_ref())) {
                self.open.push(outcome.id);
            }
            let word = Word { outcome, peer: Arc::clone(peer), success: self.success(delivery.dsn) };
            match word {
                _ if anew => {}
                word if first => self.words.push(word),
                word => self.note(word),
            }
        }
    }

    /// The better exchanger's word stands, unless it was none about the recipient, or another one takes the message.
    fn note(&mut self, word: Word) {
        let Some(before) = self.words.iter_mut().find(|before| before.outcome.id == word.outcome.id) else {
            return self.words.push(word);
        };
        let delivered = matches!(word.outcome.outcome, ReplyOutcome::Delivered(_));
        let better = before.outcome.cut && (!before.is_heard() || word.is_heard());
        let unasked = is_unasked(&word.outcome);
        if delivered || (!unasked && (better || is_unasked(&before.outcome))) {
            *before = word;
        }
    }

    fn success(&self, dsn: DsnRelay) -> SuccessReporter {
        match dsn {
            // Whoever took the message is its last stop as far as mail transport goes, so that nobody further on reports.
            _ if resolve::speaks(&self.plan.target.next_hop, self.config) == Protocol::Lmtp => {
                SuccessReporter::Delivered
            }
            DsnRelay::HandedOn => SuccessReporter::NextHop,
            DsnRelay::NotOffered => SuccessReporter::Relayed,
        }
    }

    /// Lets the session with the best exchanger rest; those that come after it were opened for this message alone.
    async fn close(self, slot: SessionPermit) -> ExchangeReplies {
        let (mut slot, mut retired) = (Some(slot), Vec::new());
        for link in self.links {
            let enough = link.used() >= self.config.sessions.messages.max(1);
            let best = self.asked.first().is_none_or(|first| *first == Asked::of(&link.peer()));
            let Some(link) = link.rest().await else { continue };
            match slot.take_if(|_| best && !enough) {
                Some(slot) => retired.extend(slot.give_back(link)),
                None => retired.push(link),
            }
        }
        ExchangeReplies { words: self.words, overflow: self.overflow, retired }
    }
}

/// The session was over before it took up the message.
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

/// Whether the session ended for reasons that a new one may not have. The message has not been taken: its end has not
/// been sent.
fn is_worth_a_new_session(delivery: &Delivery, age: Age) -> bool {
    let Some(why) = &delivery.ended else {
        return false;
    };
    match (why, why.step()) {
        (Closed::Abandoned(_), _) | (_, DialogueStep::End) => false,
        _ if refuses_chunks(delivery) => true,
        _ if age == Age::New => false,
        // A session that a router has forgotten is silent from the first command on. Later silence is the next hop's.
        (Closed::TimedOut(_), step) => matches!(step, DialogueStep::Idle | DialogueStep::Mail),
        _ => true,
    }
}

/// Whether the next exchanger may know better. After the end of the message silence may mean that it was taken.
fn may_ask_elsewhere(recipient: &RecipientOutcome, ended: Option<&Closed>) -> bool {
    // RFC 8689 section 4.2.1 has the others asked. How large a message may be the best exchanger says for the domain.
    if is_unasked(recipient) {
        return !is_too_large(recipient.outcome.reply());
    }
    let deferred = matches!(recipient.outcome, ReplyOutcome::Deferred(_));
    let in_doubt = recipient.step == DialogueStep::End && recipient.speaker == Speaker::Us;
    let ours = recipient.cut && matches!(ended, Some(Closed::Abandoned(_)));
    deferred && !in_doubt && !ours
}

/// A host that does not offer what the message needs was not asked about it, and has said nothing of it.
fn is_unasked(recipient: &RecipientOutcome) -> bool {
    matches!(recipient.outcome, ReplyOutcome::Failed(_)) && recipient.speaker == Speaker::Us
}

/// RFC 3463 section 3.4: X.3.4, message too big for system.
fn is_too_large(reply: &Reply) -> bool {
    matches!(reply.enhanced, Some(EnhancedCode(_, 3, 4)))
}

/// What a stand-in does not offer, the better exchanger may, which could not be reached.
fn wait_for_the_better(recipient: &mut RecipientOutcome) {
    if is_unasked(recipient) {
        recipient.outcome = ReplyOutcome::Deferred(recipient.outcome.reply().clone());
    }
}

/// Whether the next hop wants TLS before it takes mail.
fn wants_tls(delivery: &Delivery) -> bool {
    matches!(&delivery.ended, Some(Closed::Refused { reply, .. }) if demands_tls(reply))
}

/// Whether the session may have ended over commands that were sent ahead. A proxy may let PIPELINING through and know nothing
/// of it.
fn lost_commands(delivery: &Delivery) -> bool {
    let waited = matches!(&delivery.ended, Some(Closed::TimedOut(DialogueStep::Rcpt | DialogueStep::Data)));
    waited || is_out_of_step(delivery)
}

/// Whether the session ended over a reply that does not fit the command.
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

/// Whether the session ended over BDAT, as some do for ever.
fn failed_in_chunks(delivery: &Delivery) -> bool {
    let failed = |why: &Closed| {
        matches!(why, Closed::TimedOut(_) | Closed::Lost(_) | Closed::Fault { .. })
            && matches!(why.step(), DialogueStep::Body | DialogueStep::End)
    };
    delivery.transfer == Transfer::Chunking && delivery.ended.as_ref().is_some_and(failed)
}

/// Whether the next hop does not know BDAT, whatever it offers.
fn refuses_chunks(delivery: &Delivery) -> bool {
    let unknown = Closed::Fault { step: DialogueStep::Body, fault: ProtocolFault::Unexpected(500) };
    let not_there = Closed::Fault { step: DialogueStep::Body, fault: ProtocolFault::Unexpected(502) };
    let ended = delivery.ended.as_ref();
    delivery.transfer == Transfer::Chunking && (ended == Some(&unknown) || ended == Some(&not_there))
}
