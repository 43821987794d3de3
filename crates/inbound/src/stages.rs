//! The machine's questions, put to the policy chain and to the core's own laws, and the answers.
//!
//! Here a session's view is kept: what plugins see, and what they leave. A question is answered from the chain's
//! decision, then from what the core insists on whatever plugins say: relaying is closed to strangers (law 7), a looping
//! message is refused, and only a durable commit is a yes to a message (law 1).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pintle_mail::{Address, Bytes, EnhancedCode, Envelope, HeaderBlock, Recipient, Reply, SessionId};
use pintle_policy::{Call, Decision, Hook, Message, Notes, Session, TlsFacts, Transaction, Verdict, View};
use pintle_smtp::server::{self, Headers, Hello, HelloVerb, Question, Sender};
use pintle_spool::{Health, Hold, Quarantine, Receipt, SpoolError};

use crate::config::{ListenerConfig, Rules};
use crate::listener::Shared;
use crate::quarantines::Place;
use crate::receive::{self, Accepted, Intake};
use crate::ruling::{Fate, edited, local_error, refusal};
use crate::sign::Signing;
use crate::strangers::{StrangerLimits, Taken};
use crate::{ids, login, records, relay, score, submission, told};

type Answer = server::Answer<Receipt>;

/// The longest that plugins can delay a reply: clients wait five minutes (RFC 5321 section 4.5.3.2).
const MAX_DELAY: Duration = Duration::from_secs(120);
/// Who decides when a quarantine is full.
const QUOTA: &str = "quota";

/// One session's decisions.
pub(crate) struct Stages {
    shared: Arc<Shared>,
    view: View,
    /// The message that is coming in.
    intake: Option<Intake>,
    fate: Fate,
    /// Senders and recipients refused so far in the session.
    refusals: u32,
    strangers: StrangerLimits,
    taken: Taken,
    completes_header: bool,
}

impl Stages {
    pub(crate) fn new(
        shared: Arc<Shared>,
        listener: &ListenerConfig,
        client: SocketAddr,
        local: SocketAddr,
    ) -> Self {
        let session = Session {
            id: ids::session_id(),
            listener: listener.name.clone(),
            client,
            local,
            started: ids::now(),
            hello: None,
            esmtp: false,
            tls: None,
            identity: None,
            trusted: listener.trusts(client.ip()),
            extensions: Vec::new(),
            notes: Notes::default(),
            facts: BTreeMap::new(),
        };
        Self {
            shared,
            view: View::of(session),
            intake: None,
            fate: Fate::default(),
            refusals: 0,
            strangers: listener.strangers,
            taken: Taken::default(),
            completes_header: listener.completes_header,
        }
    }

    /// Whether nobody vouches for this client: it is not trusted, and has not authenticated.
    pub(crate) fn is_stranger(&self) -> bool {
        !self.view.session.trusted && self.view.session.identity.is_none()
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
        self.intake = None;
        self.fate = Fate::default();
    }

    pub(crate) async fn body(&mut self, chunk: Bytes) {
        self.taken.octets(chunk.len());
        if let Some(intake) = &mut self.intake {
            intake.append(chunk).await;
        }
    }

    /// The session has ended.
    pub(crate) async fn end(&mut self) {
        self.reset();
        let chain = self.shared.chain.load_full();
        if chain.wants(Hook::Disconnect) {
            chain.disconnect(&self.view).await;
        }
    }

    pub(crate) async fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Connect => self.connect().await,
            Question::Hello(hello) => self.hello(hello).await,
            Question::Auth(given) => login::answer(&self.shared, &mut self.view, given).await,
            Question::Sender(sender) => {
                let answer = self.sender(sender).await;
                self.bear_with(answer)
            }
            Question::Recipient(recipient) => {
                let answer = self.recipient(recipient).await;
                self.bear_with(answer)
            }
            Question::Headers(headers) => self.headers(headers).await,
            Question::Message(message) => {
                let answer = self.message(message).await;
                self.reset();
                answer
            }
        }
    }

    async fn connect(&mut self) -> Answer {
        let decision = self.judge(Call::Connect).await;
        self.refused(Hook::Connect, &decision).unwrap_or(Answer::Accept(None))
    }

    async fn hello(&mut self, hello: Hello) -> Answer {
        let session = Arc::make_mut(&mut self.view.session);
        session.hello = Some(hello.name.clone());
        session.esmtp = hello.verb == HelloVerb::Ehlo;
        if !self.shared.chain.load().wants(Hook::Hello) {
            return Answer::Accept(None);
        }
        let before = hello.offers.params();
        Arc::make_mut(&mut self.view.session).extensions.clone_from(&before);
        let decision = self.judge(Call::Hello(hello.name)).await;
        let after = std::mem::take(&mut Arc::make_mut(&mut self.view.session).extensions);
        self.refused(Hook::Hello, &decision).unwrap_or_else(|| {
            if before == after {
                Answer::Accept(None)
            } else {
                Answer::Offer(edited(hello.offers, &before, &after))
            }
        })
    }

    async fn sender(&mut self, sender: Sender) -> Answer {
        self.reset();
        let limits = self.is_stranger().then_some(&self.strangers);
        if let Some(reply) = self.taken.transaction(limits) {
            told::dismissed(&self.view.session, &reply);
            return Answer::Close(reply);
        }
        // A client is turned away before it sends what could not be kept.
        if let Err(trouble) = self.room() {
            return self.no(Hook::Mail, trouble.reply());
        }
        let envelope = Envelope { sender: sender.path, params: sender.params, recipients: Vec::new() };
        self.view.transaction = Some(Arc::new(Transaction::new(ids::queue_id(), envelope)));
        let decision = self.judge(Call::Mail).await;
        if let Some(refusal) = self.refused(Hook::Mail, &decision) {
            self.view.transaction = None;
            return refusal;
        }
        self.fate.take(Hook::Mail, decision);
        Answer::Accept(None)
    }

    async fn recipient(&mut self, mut recipient: Recipient) -> Answer {
        let id = recipient.id;
        let rules = self.shared.rules.load_full();
        if self.is_our_postmaster(&recipient.address, &rules) {
            if let Some(postmaster) = &rules.postmaster {
                recipient.original = Some(std::mem::replace(&mut recipient.address, postmaster.clone()));
            }
            // RFC 5321 section 4.5.1 wants this mail taken from anybody, and the operator has said where it goes.
            recipient.relay = true;
        }
        self.with_recipients(|recipients| recipients.push(recipient));
        let decision = self.judge(Call::Recipient(id)).await;
        let refusal = refusal(&decision.verdict).or_else(|| self.may_pass(id, &rules));
        if let Some(refusal) = refusal {
            let recipient = self.without_recipient(id);
            self.record_refusal(Hook::Rcpt, recipient.as_ref(), &refusal, decision.by.as_deref());
            return refusal;
        }
        if decision.verdict == Verdict::Discard {
            self.discard(Hook::Rcpt, Some(id), decision.by.as_deref());
        } else {
            self.fate.take(Hook::Rcpt, decision);
        }
        Answer::Accept(None)
    }

    /// Whether this is `<postmaster>`, or the same with our own name behind it, from which reports come. A hostname that is
    /// one of our domains has mailboxes of its own.
    fn is_our_postmaster(&self, address: &Address, rules: &Rules) -> bool {
        let domain = address.domain_ascii();
        let ours = || {
            address.local().eq_ignore_ascii_case("postmaster")
                && domain.eq_ignore_ascii_case(&self.shared.hostname)
                && !rules.domains.contains(&domain)
        };
        address.is_bare_postmaster() || ours()
    }

    /// Law 7 for the recipient of this id, as the plugins have left it.
    fn may_pass(&self, id: u32, rules: &Rules) -> Option<Answer> {
        let recipient = self.view.transaction.as_deref()?.recipient(id)?;
        relay::check(&self.view.session, recipient, &rules.domains).err().map(Answer::Refuse)
    }

    async fn headers(&mut self, headers: Headers) -> Answer {
        self.taken.octets(headers.header.len());
        let block = HeaderBlock::parse(headers.header);
        if receive::loops(&block, self.shared.rules.load().max_hops) {
            let reply = Reply::new(554, EnhancedCode(5, 4, 6), "Too many hops: this message seems to loop");
            return self.no(Hook::Headers, reply);
        }
        let block = if self.completes_header && !self.is_stranger() { self.completed(block) } else { block };
        let mut message = Message::new(block, None);
        message.has_8bit = !message.header.as_bytes().is_ascii();
        self.view.message = Some(Arc::new(message));
        let decision = self.judge(Call::Headers).await;
        if let Some(refusal) = self.refused(Hook::Headers, &decision) {
            return refusal;
        }
        self.fate.take(Hook::Headers, decision);
        match Intake::begin(self.shared.spool.as_ref(), headers.separated) {
            Ok(intake) => {
                self.intake = Some(intake);
                Answer::Accept(None)
            }
            Err(error) => self.spool_trouble(Hook::Headers, &error),
        }
    }

    fn completed(&self, header: HeaderBlock) -> HeaderBlock {
        match &self.view.transaction {
            Some(transaction) => {
                submission::completed(header, transaction.id, &self.shared.hostname, ids::now())
            }
            None => header,
        }
    }

    async fn message(&mut self, counted: server::Message) -> Answer {
        let Some(mut intake) = self.intake.take() else {
            return self.no(Hook::Message, local_error());
        };
        let body = match intake.finish().await {
            Ok(body) => body,
            Err(error) => return self.spool_trouble(Hook::Message, &error),
        };
        if let Some(message) = &mut self.view.message {
            let message = Arc::make_mut(message);
            message.has_8bit = counted.has_8bit;
            message.body = Some(body);
        }
        let mut decision = self.judge(Call::Message).await;
        let points = self.view.transaction.as_ref().map_or(0.0, |transaction| transaction.score());
        score::weigh(&self.shared.rules.load(), points, &mut decision);
        records::dmarc(&*self.shared.records, &self.view);
        if let Some(refusal) = self.refused(Hook::Message, &decision) {
            return refusal;
        }
        self.fate.take(Hook::Message, decision);
        self.take(intake, counted).await
    }

    /// Nobody objects: commits the message, or drops it where nobody is left to get it.
    async fn take(&mut self, intake: Intake, counted: server::Message) -> Answer {
        self.with_recipients(receive::unite);
        let (Some(transaction), Some(message)) = (self.view.transaction.clone(), self.view.message.clone())
        else {
            return self.no(Hook::Message, local_error());
        };
        if self.fate.discard.is_some() || transaction.envelope.recipients.is_empty() {
            let (stage, by) = self.fate.discard.take().unwrap_or((Hook::Message, None));
            self.discard(stage, None, by.as_deref());
            return Answer::Discard(None);
        }
        if let Some(reply) = self.check_all(&transaction) {
            return self.no(Hook::Message, reply);
        }
        let quarantine = self.fate.quarantine.take();
        let size = counted.header_size + counted.body_size;
        // Kept until the message is stored and counted, so that no burst of messages takes one room twice.
        let _place = match self.place(quarantine.as_ref(), size).await {
            Ok(place) => place,
            Err(reply) => return self.no_by(Hook::Message, reply, QUOTA),
        };
        let hostname = &self.shared.hostname;
        let header = receive::without_forgeries(&message.header, &self.view.session, hostname);
        let rules = self.shared.rules.load_full();
        let signing = Signing {
            keys: &rules.keys,
            hostname,
            message: &message,
            transaction: &transaction,
            now: ids::now(),
        };
        let signatures = match signing.fields(&header).await {
            Ok(signatures) => signatures,
            Err(reply) => return self.no(Hook::Message, reply),
        };
        let accepted = Accepted {
            view: &self.view,
            transaction: &transaction,
            header: &header,
            hostname,
            hold: quarantine.clone().map(Hold::Quarantine),
            signatures,
        };
        match intake.commit(accepted, self.shared.spool.as_ref()).await {
            Ok(receipt) => {
                records::reception(
                    &*self.shared.records,
                    &self.view,
                    &transaction,
                    size,
                    quarantine.as_ref(),
                );
                metrics::counter!("pintle_messages_accepted_total").increment(1);
                Answer::Accepted { receipt, reply: None }
            }
            Err(error) => self.spool_trouble(Hook::Message, &error),
        }
    }

    /// A place in the quarantine that the message goes to, if it goes to one.
    async fn place(&self, quarantine: Option<&Quarantine>, size: u64) -> Result<Option<Place>, Reply> {
        match quarantine {
            Some(quarantine) => self.shared.quarantines.room(&quarantine.name, size).await.map(Some),
            None => Ok(None),
        }
    }

    /// Law 7 once more: plugins with a grant for the envelope may have written recipients that no RCPT was asked about.
    fn check_all(&self, transaction: &Transaction) -> Option<Reply> {
        let rules = self.shared.rules.load();
        let check = |recipient| relay::check(&self.view.session, recipient, &rules.domains);
        transaction.envelope.recipients.iter().find_map(|recipient| check(recipient).err())
    }

    async fn judge(&mut self, call: Call) -> Decision {
        let chain = self.shared.chain.load_full();
        let stage = call.stage();
        if !chain.wants(stage.hook()) {
            return Decision::none();
        }
        let decision = chain.judge(&call, &mut self.view).await;
        records::verdicts(&*self.shared.records, &self.view, stage.hook(), &decision);
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

    /// Takes a recipient out of the transaction.
    fn without_recipient(&mut self, id: u32) -> Option<Recipient> {
        let transaction = Arc::make_mut(self.view.transaction.as_mut()?);
        let recipients = &mut transaction.envelope.recipients;
        let at = recipients.iter().position(|recipient| recipient.id == id)?;
        Some(recipients.remove(at))
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
        if !gone.is_empty() || !std::mem::replace(&mut self.fate.told, true) {
            self.fate.told = true;
            records::discard(&*self.shared.records, transaction, stage, &gone, by);
        }
    }

    /// Ends the session of a stranger who has been refused too often: whoever tries address after address is looking for
    /// those that exist.
    fn bear_with(&mut self, answer: Answer) -> Answer {
        if !matches!(answer, Answer::Refuse(_)) || !self.is_stranger() {
            return answer;
        }
        self.refusals += 1;
        if self.refusals < self.shared.rules.load().max_refusals {
            return answer;
        }
        let text = "Too many refusals in one session; closing";
        let reply = Reply::new(421, EnhancedCode(4, 7, 0), text);
        told::dismissed(&self.view.session, &reply);
        Answer::Close(reply)
    }

    /// The refusal that a decision amounts to, recorded.
    fn refused(&self, stage: Hook, decision: &Decision) -> Option<Answer> {
        let refusal = refusal(&decision.verdict)?;
        self.record_refusal(stage, None, &refusal, decision.by.as_deref());
        Some(refusal)
    }

    /// A refusal of the core's own, recorded.
    fn no(&self, stage: Hook, reply: Reply) -> Answer {
        let refusal = Answer::Refuse(reply);
        self.record_refusal(stage, None, &refusal, None);
        refusal
    }

    /// The same of a part of the core that has a name.
    fn no_by(&self, stage: Hook, reply: Reply, by: &str) -> Answer {
        let refusal = Answer::Refuse(reply);
        self.record_refusal(stage, None, &refusal, Some(by));
        refusal
    }

    fn record_refusal(&self, stage: Hook, recipient: Option<&Recipient>, answer: &Answer, by: Option<&str>) {
        if let Answer::Refuse(reply) | Answer::Close(reply) = answer {
            records::rejection(&*self.shared.records, &self.view, stage, recipient, reply, by);
        }
    }

    /// Whether the spool takes mail. The operator hears when that changes, not with each client that is turned away.
    fn room(&self) -> Result<(), SpoolError> {
        let room = match self.shared.spool.health() {
            Health::Accepting => Ok(()),
            Health::Full => Err(SpoolError::Full),
            Health::Behind(why) => Err(SpoolError::Store(why)),
            Health::Broken(why) => Err(SpoolError::Broken(why)),
        };
        let closed = &self.shared.closed;
        // Looking comes first, since writing would make every core fetch it anew with each message.
        if closed.load(Ordering::Relaxed) != room.is_err()
            && closed.swap(room.is_err(), Ordering::Relaxed) != room.is_err()
        {
            match &room {
                Ok(()) => tracing::info!("mail is taken again"),
                Err(trouble) => tracing::error!(%trouble, "no mail is taken"),
            }
        }
        room
    }

    /// For lines of the log, from MAIL on.
    fn queue_id(&self) -> Option<tracing::field::DisplayValue<pintle_mail::QueueId>> {
        self.view.transaction.as_ref().map(|transaction| tracing::field::display(transaction.id))
    }

    fn spool_trouble(&self, stage: Hook, error: &SpoolError) -> Answer {
        let (client, queue_id) = (self.view.session.client.ip().to_canonical(), self.queue_id());
        tracing::error!(%client, session = %self.id(), queue_id, %error, "a message could not be stored");
        self.no(stage, error.reply())
    }
}
