//! The pipeline of one session, without sockets: the SMTP machine's questions, put to the policy chain and to the core's
//! own laws, and the answers.
//!
//! Here a session's view is kept: what plugins see, and what they leave. A question is answered from the chain's
//! decision, then from what the core insists on whatever plugins say: relaying is closed to strangers (law 7), a looping
//! message is refused, and only a durable commit is a yes to a message (law 1). Each SMTP command has a file of its own.
//!
//! A listener's connections drive it, and so does a dry run: neither can know anything of a decision that the other does
//! not.

mod auth;
mod data;
mod ehlo;
mod fate;
mod mail;
mod rcpt;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{Bytes, EnhancedCode, QueueId, Recipient, Reply, SessionId};
use pintle_policy::{Call, Decision, Hook, Session, TlsFacts, View};
use pintle_smtp::server::Question;
use pintle_spool::SpoolError;

use self::fate::{MessageFate, StageAnswer, refusal};
use crate::config::ListenerConfig;
use crate::receive::IncomingDraft;
use crate::services::Services;
use crate::strangers::{MessagesTaken, StrangerLimits};
use crate::{client_log, ids, records};

/// The longest that plugins can delay a reply: clients wait five minutes (RFC 5321 section 4.5.3.2).
const MAX_DELAY: Duration = Duration::from_secs(120);

/// Looks on at the decisions of one session.
pub(crate) trait Observer: Send + Sync {
    /// The chain has decided; what the core itself makes of that comes after. The view is as plugins have left it.
    fn decided(&self, call: &Call, decision: &Decision, view: &View);
}

/// One session's decisions.
pub(crate) struct Pipeline {
    services: Arc<Services>,
    observer: Option<Arc<dyn Observer>>,
    view: View,
    /// The message that is coming in.
    incoming: Option<IncomingDraft>,
    fate: MessageFate,
    /// Senders and recipients refused so far in the session.
    refusals: u32,
    strangers: StrangerLimits,
    taken: MessagesTaken,
    completes_header: bool,
}

impl Pipeline {
    pub(crate) fn new(
        services: Arc<Services>,
        listener: &ListenerConfig,
        client: SocketAddr,
        local: SocketAddr,
    ) -> Self {
        let session = Session {
            trusted: listener.trusts(client.ip()),
            ..Session::new(ids::session_id(), listener.name.clone(), client, local, ids::now())
        };
        Self {
            services,
            observer: None,
            view: View::of(session),
            incoming: None,
            fate: MessageFate::default(),
            refusals: 0,
            strangers: listener.strangers,
            taken: MessagesTaken::default(),
            completes_header: listener.completes_header,
        }
    }

    /// The same, with somebody who looks on, and with what is assumed of the session.
    pub(crate) fn observed(mut self, observer: Arc<dyn Observer>, assume: impl FnOnce(&mut Session)) -> Self {
        self.observer = Some(observer);
        assume(Arc::make_mut(&mut self.view.session));
        self
    }

    /// Whether nobody vouches for this client: it is not trusted, and has not authenticated.
    pub(crate) fn is_stranger(&self) -> bool {
        self.view.session.is_stranger()
    }

    /// The session as it is now.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.view.session)
    }

    pub(crate) fn id(&self) -> SessionId {
        self.view.session.id
    }

    /// The session is encrypted from now on; what was said before does not count (RFC 3207 section 4.2).
    pub(crate) fn encrypted(&mut self, facts: pintle_tls::TlsFacts) {
        let session = Arc::make_mut(&mut self.view.session);
        session.hello = None;
        session.identity = None;
        session.tls = Some(TlsFacts {
            version: facts.version,
            cipher: facts.cipher,
            server_name: facts.server_name,
            client_certificate_sha256: facts.client_certificate_sha256,
            client_certificate_subject: None,
            client_certificate_verified: facts.client_certificate_verified,
        });
    }

    /// The transaction is over without a decision on a message.
    pub(crate) fn reset(&mut self) {
        self.view.transaction = None;
        self.view.message = None;
        self.incoming = None;
        self.fate = MessageFate::default();
    }

    pub(crate) async fn body(&mut self, chunk: Bytes) {
        self.taken.octets(chunk.len());
        if let Some(incoming) = &mut self.incoming {
            incoming.append(chunk).await;
        }
    }

    /// The session has ended.
    pub(crate) async fn end(&mut self) {
        self.reset();
        let chain = self.services.chain.load_full();
        if chain.wants(Hook::Disconnect) {
            chain.disconnect(&self.view).await;
        }
    }

    pub(crate) async fn answer(&mut self, question: Question) -> StageAnswer {
        match question {
            Question::Connect => self.connect().await,
            Question::Hello(hello) => self.hello(hello).await,
            Question::Auth(given) => auth::answer(&self.services, &mut self.view, given).await,
            Question::Sender(sender) => {
                let answer = self.sender(sender).await;
                self.limit_refusals(answer)
            }
            Question::Recipient(recipient) => {
                let answer = self.recipient(recipient).await;
                self.limit_refusals(answer)
            }
            Question::Headers(headers) => self.headers(headers).await,
            Question::Message(message) => {
                let answer = self.message(message).await;
                self.reset();
                answer
            }
        }
    }

    async fn connect(&mut self) -> StageAnswer {
        let decision = self.judge(Call::Connect).await;
        self.refused(Hook::Connect, &decision).unwrap_or(StageAnswer::Accept(None))
    }

    /// Asks the chain at a stage, and waits as long as plugins want the client to wait.
    async fn judge(&mut self, call: Call) -> Decision {
        let chain = self.services.chain.load_full();
        let hook = call.hook();
        let decision = if chain.wants(hook) {
            let decision = chain.judge(&call, &mut self.view).await;
            records::verdicts(&*self.services.records, &self.view, hook, &decision);
            decision
        } else {
            Decision::none()
        };
        if let Some(observer) = &self.observer {
            observer.decided(&call, &decision, &self.view);
        }
        if decision.delay > Duration::ZERO {
            tokio::time::sleep(decision.delay.min(MAX_DELAY)).await;
        }
        decision
    }

    fn with_recipients(&mut self, change: impl FnOnce(&mut Vec<Recipient>)) {
        if let Some(transaction) = &mut self.view.transaction {
            change(&mut Arc::make_mut(transaction).envelope.recipients);
        }
    }

    /// Drops one recipient, or all, and writes the record that law 1 asks for.
    fn discard(&mut self, stage: Hook, id: Option<u32>, by: Option<&str>) {
        let Some(transaction) = &mut self.view.transaction else {
            return;
        };
        let transaction = Arc::make_mut(transaction);
        let everybody = std::mem::take(&mut transaction.envelope.recipients);
        let (gone, left) = everybody.into_iter().partition::<Vec<_>, _>(|r| id.is_none_or(|id| r.id == id));
        transaction.envelope.recipients = left;
        // A message whose recipients plugins have taken out one by one is dropped as well, and must not go without a word.
        if !gone.is_empty() || !std::mem::replace(&mut self.fate.discard_recorded, true) {
            self.fate.discard_recorded = true;
            records::discard(&*self.services.records, transaction, stage, &gone, by);
        }
    }

    /// Ends the session of a stranger who has been refused too often: whoever tries address after address is looking for
    /// those that exist.
    fn limit_refusals(&mut self, answer: StageAnswer) -> StageAnswer {
        if !matches!(answer, StageAnswer::Refuse(_)) || !self.is_stranger() {
            return answer;
        }
        self.refusals += 1;
        if self.refusals < self.services.rules.load().max_refusals {
            return answer;
        }
        let text = "Too many refusals in one session; closing";
        let reply = Reply::new(421, EnhancedCode(4, 7, 0), text);
        client_log::dismissed(&self.view.session, &reply);
        StageAnswer::Close(reply)
    }

    /// The refusal that a decision amounts to, recorded.
    fn refused(&self, stage: Hook, decision: &Decision) -> Option<StageAnswer> {
        let refusal = refusal(&decision.verdict)?;
        self.record_refusal(stage, None, &refusal, decision.by.as_deref());
        Some(refusal)
    }

    /// A refusal of the core's own, recorded; `by` is the part of the core that refuses, where it has a name.
    fn refuse(&self, stage: Hook, reply: Reply, by: Option<&str>) -> StageAnswer {
        let refusal = StageAnswer::Refuse(reply);
        self.record_refusal(stage, None, &refusal, by);
        refusal
    }

    fn record_refusal(
        &self,
        stage: Hook,
        recipient: Option<&Recipient>,
        answer: &StageAnswer,
        by: Option<&str>,
    ) {
        if let StageAnswer::Refuse(reply) | StageAnswer::Close(reply) = answer {
            records::rejection(&*self.services.records, &self.view, stage, recipient, reply, by);
        }
    }

    /// For lines of the log, from MAIL on.
    fn queue_id(&self) -> Option<tracing::field::DisplayValue<QueueId>> {
        self.view.transaction.as_ref().map(|transaction| tracing::field::display(transaction.id))
    }

    fn spool_trouble(&self, stage: Hook, error: &SpoolError) -> StageAnswer {
        let (client, queue_id) = (self.view.session.client.ip().to_canonical(), self.queue_id());
        tracing::error!(%client, session = %self.id(), queue_id, %error, "a message could not be stored");
        self.refuse(stage, error.reply(), None)
    }
}
