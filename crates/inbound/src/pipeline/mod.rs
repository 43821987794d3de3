//! The pipeline of one session, without sockets: takes the SMTP session's questions, asks the policy chain, applies the
//! core's own rules, and returns the answers.
//!
//! It keeps the session's view: what plugins see, and what they change. An answer follows from the chain's decision,
//! then from what the core enforces whatever plugins decide: no open relay (law 7), no mail loops, and a 250 for a
//! message only after a durable commit (law 1). Each SMTP command has a file of its own.
//!
//! The connections of a listener use it, and so does a dry run, so that both decide alike.

mod auth;
mod data;
mod ehlo;
mod fate;
mod mail;
mod queued;
mod rcpt;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{Bytes, EnhancedCode, QueueId, Recipient, Reply, SessionId};
use pintle_policy::{Call, Decision, Hook, Session, TlsFacts, View};
use pintle_smtp::server::Question;
use pintle_spool::SpoolError;

use self::fate::{StageAnswer, refusal};
use self::queued::QueuedNotices;
use crate::config::ListenerConfig;
use crate::receive::IncomingDraft;
use crate::services::Services;
use crate::strangers::{MessagesTaken, StrangerLimits};
use crate::{client_log, ids, records};

/// The longest time that plugins can delay a reply (tarpit): clients wait five minutes (RFC 5321 section 4.5.3.2).
const MAX_DELAY: Duration = Duration::from_secs(120);

/// Observes the decisions of one session.
pub(crate) trait Observer: Send + Sync {
    /// Called when the chain has decided, before the core applies its own rules. The view is as plugins have left it.
    fn decided(&self, call: &Call, decision: &Decision, view: &View);
}

/// The decisions of one session, and their state.
pub(crate) struct Pipeline {
    services: Arc<Services>,
    observer: Option<Arc<dyn Observer>>,
    view: View,
    /// The message that is being received.
    incoming: Option<IncomingDraft>,
    /// Whether the client is sending a message: DATA or BDAT has been accepted, and its end has not come.
    in_data: bool,
    /// Committed copies for which on-queued has not been called yet.
    queued: QueuedNotices,
    /// Whether a plugin has requested that the session be closed after the reply of its stage.
    closing: bool,
    /// How many senders and recipients have been refused in this session.
    refusals: u32,
    /// How many RCPT commands of this transaction have been accepted.
    named_recipients: usize,
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
            in_data: false,
            queued: QueuedNotices::default(),
            closing: false,
            refusals: 0,
            named_recipients: 0,
            strangers: listener.strangers,
            taken: MessagesTaken::default(),
            completes_header: listener.completes_header,
        }
    }

    /// Adds an observer, and changes the session to what the caller assumes of it.
    pub(crate) fn observed(mut self, observer: Arc<dyn Observer>, assume: impl FnOnce(&mut Session)) -> Self {
        self.observer = Some(observer);
        assume(Arc::make_mut(&mut self.view.session));
        self
    }

    /// Whether the client is untrusted: it is neither in a trusted network nor authenticated.
    pub(crate) fn is_stranger(&self) -> bool {
        self.view.session.is_stranger()
    }

    /// Returns the session's current state.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.view.session)
    }

    pub(crate) fn id(&self) -> SessionId {
        self.view.session.id
    }

    /// Records that the session uses TLS from now on; what was received before does not count (RFC 3207 section 4.2).
    pub(crate) fn encrypted(&mut self, facts: pintle_tls::HandshakeFacts) {
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

    /// Ends the transaction without a decision about a message.
    pub(crate) fn reset(&mut self) {
        self.view.transaction = None;
        self.view.message = None;
        self.incoming = None;
        self.named_recipients = 0;
        self.in_data = false;
    }

    pub(crate) async fn body(&mut self, chunk: Bytes) {
        self.taken.octets(chunk.len());
        if let Some(incoming) = &mut self.incoming {
            incoming.append(chunk).await;
        }
    }

    /// Ends the session.
    pub(crate) async fn end(&mut self) {
        self.reset();
        self.tell_queued().await;
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
            Question::Recipient(recipient) => self.recipient(recipient).await,
            Question::Data => self.data().await,
            Question::Headers(headers) => self.headers(headers).await,
            Question::Message(message) => {
                let answer = self.message(message).await;
                self.reset();
                answer
            }
        }
    }

    /// Whether to close the session now, with this reply: after the answer that was just given, or after the end of a
    /// transaction without one.
    pub(crate) fn closing(&mut self) -> Option<Reply> {
        // While a message is being received, the reply is due only at the end of the data.
        if !self.closing || self.in_data {
            return None;
        }
        self.closing = false;
        let reply = fate::closing();
        client_log::dismissed(&self.view.session, &reply);
        Some(reply)
    }

    async fn connect(&mut self) -> StageAnswer {
        let decision = self.judge(Call::Connect).await;
        self.refused(Hook::Connect, &decision).unwrap_or(StageAnswer::Accept(None))
    }

    /// Asks the chain at a stage, and waits if plugins delay the reply.
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
        self.closing |= decision.close && !decision.verdict.refuses();
        if decision.delay > Duration::ZERO {
            tokio::time::sleep(decision.delay.min(MAX_DELAY)).await;
        }
        decision
    }

    /// Closes the session of an untrusted client after too many refusals: a client that tries many addresses is looking
    /// for those that exist (directory harvest attack).
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

    /// Returns and records the refusal that a decision stands for, if it is one.
    fn refused(&self, stage: Hook, decision: &Decision) -> Option<StageAnswer> {
        let refusal = refusal(decision)?;
        self.record_refusal(stage, None, &refusal, decision.by.as_deref());
        Some(refusal)
    }

    /// Records and returns a refusal of the core; `by` names the part of the core that refuses, if it has a name.
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

    /// Returns the queue id for log lines, from MAIL on.
    fn queue_id(&self) -> Option<tracing::field::DisplayValue<QueueId>> {
        self.view.transaction.as_ref().map(|transaction| tracing::field::display(transaction.id))
    }

    fn spool_trouble(&self, stage: Hook, error: &SpoolError) -> StageAnswer {
        let (client, queue_id) = (self.view.session.client.ip().to_canonical(), self.queue_id());
        tracing::error!(%client, session = %self.id(), queue_id, %error, "a message could not be stored");
        self.refuse(stage, error.reply(), None)
    }
}
