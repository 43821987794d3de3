//! DATA and BDAT: the header, then the complete message, up to the commit.

use std::sync::Arc;

use pintle_mail::{EnhancedCode, HeaderBlock, Recipient, Reply};
use pintle_policy::{Call, Hook, Message, Transaction};
use pintle_smtp::server::{self, Headers};
use pintle_spool::{HoldReason, Quarantine, Receipt};

use super::Pipeline;
use super::fate::{DroppedRecipients, RefusedRecipient, SortedRecipients, StageAnswer, local_error};
use crate::config::RefusedRecipients;
use crate::receive::{self, Accepted, CompleteMessage, IncomingDraft};
use crate::sign::Signing;
use crate::{ids, records, relay, score, submission};

/// The name of the deciding judge when a quarantine is full.
const QUOTA: &str = "quota";

impl Pipeline {
    /// DATA or the first BDAT: all recipients are known. The gateway has no rule of its own here, so that without a plugin
    /// that wants this hook there is nothing to ask, to wait for or to show in a dry run.
    pub(super) async fn data(&mut self) -> StageAnswer {
        if self.services.chain.load().wants(Hook::Data) {
            let decision = self.judge(Call::Data).await;
            if let Some(refusal) = self.refused(Hook::Data, &decision) {
                return refusal;
            }
        }
        self.in_data = true;
        StageAnswer::Accept(None)
    }

    pub(super) async fn headers(&mut self, headers: Headers) -> StageAnswer {
        self.taken.octets(headers.header.len());
        let block = HeaderBlock::parse(headers.header);
        if receive::loops(&block, self.services.rules.load().max_hops) {
            let reply = Reply::new(554, EnhancedCode(5, 4, 6), "Too many hops: this message seems to loop");
            return self.refuse(Hook::Headers, reply, None);
        }
        let block = if self.completes_header && !self.is_stranger() { self.completed(block) } else { block };
        let mut message = Message::new(block, None);
        message.has_8bit = !message.header.as_bytes().is_ascii();
        self.view.message = Some(Arc::new(message));
        let decision = self.judge(Call::Headers).await;
        if let Some(refusal) = self.refused(Hook::Headers, &decision) {
            return refusal;
        }
        match IncomingDraft::begin(self.services.spool.as_ref(), headers.separated) {
            Ok(incoming) => {
                self.incoming = Some(incoming);
                StageAnswer::Accept(None)
            }
            Err(error) => self.spool_trouble(Hook::Headers, &error),
        }
    }

    fn completed(&self, header: HeaderBlock) -> HeaderBlock {
        match &self.view.transaction {
            Some(transaction) => {
                submission::completed(header, transaction.id, &self.services.hostname, ids::now())
            }
            None => header,
        }
    }

    pub(super) async fn message(&mut self, counted: server::MessageCounts) -> StageAnswer {
        let Some(incoming) = self.incoming.take() else {
            return self.refuse(Hook::Message, local_error(), None);
        };
        let received = match incoming.finish().await {
            Ok(received) => received,
            Err(error) => return self.spool_trouble(Hook::Message, &error),
        };
        if let Some(message) = &mut self.view.message {
            let message = Arc::make_mut(message);
            message.has_8bit = counted.has_8bit;
            message.body = Some(received.body());
        }
        let mut decision = self.judge(Call::Message).await;
        if let Some(transaction) = &mut self.view.transaction {
            score::weigh(&self.services.rules.load(), Arc::make_mut(transaction), &mut decision);
        }
        records::dmarc(&*self.services.records, &self.view);
        if let Some(refusal) = self.refused(Hook::Message, &decision) {
            return refusal;
        }
        let size = counted.header_size + counted.body_size;
        self.finish(received, size).await.unwrap_or_else(|refusal| refusal)
    }

    /// Commits an accepted message for the recipients who keep it, each copy with its own fate.
    async fn finish(&mut self, received: CompleteMessage, size: u64) -> Result<StageAnswer, StageAnswer> {
        let (Some(transaction), Some(message)) = (self.view.transaction.clone(), self.view.message.clone())
        else {
            return Err(self.refuse(Hook::Message, local_error(), None));
        };
        let mut sorted = SortedRecipients::of(&transaction);
        if let Some((reply, by)) = sorted.refusal_of_all(self.named_recipients) {
            return Err(self.refuse(Hook::Message, reply.clone(), Some(by)));
        }
        // Before the commit, so that the answer after it fits: a client that heard 451 then would send the message again.
        let told = transaction.envelope.params.prdr;
        sorted.settle_refused(self.setting_for_refused(&transaction), told);
        if let Some(reply) = self.may_all_pass(&sorted) {
            return Err(self.refuse(Hook::Message, reply, None));
        }
        sorted.unite();
        let mut places = Vec::new();
        for held in &sorted.held {
            let place = self.services.quarantines.room(&held.quarantine.name, size).await;
            // Held until the message is stored and counted, so that a burst of messages cannot use the same space twice.
            places.push(place.map_err(|reply| self.refuse(Hook::Message, reply, Some(QUOTA)))?);
        }
        if sorted.has_copies() {
            let receipt = self.commit(received, &transaction, &message, &sorted, size).await?;
            self.record_dropped(&transaction, &sorted);
            metrics::counter!("pintle_messages_accepted_total").increment(1);
            let refused = self.record_refused(sorted.refused);
            return Ok(if refused.is_empty() {
                StageAnswer::Accepted { receipt, reply: None }
            } else {
                StageAnswer::AcceptedExcept { receipt, refused }
            });
        }
        self.record_dropped(&transaction, &sorted);
        if sorted.dropped.is_empty() {
            // Plugins have removed all recipients one by one.
            records::discard(&*self.services.records, &transaction, Hook::Message, &[], None);
        }
        let refused = self.record_refused(sorted.refused);
        Ok(if refused.is_empty() {
            StageAnswer::Discard(None)
        } else {
            StageAnswer::DiscardExcept { refused }
        })
    }

    /// Records the recipients whose refusal the client is told. Returns the reply for each by its id.
    fn record_refused(&self, refused: Vec<RefusedRecipient>) -> Vec<(u32, Reply)> {
        let record = |RefusedRecipient { recipient, reply, by, .. }: RefusedRecipient| {
            let records = &*self.services.records;
            records::rejection(records, &self.view, Hook::Message, Some(&recipient), &reply, Some(&by));
            (recipient.id, reply)
        };
        refused.into_iter().map(record).collect()
    }

    fn record_dropped(&self, transaction: &Transaction, sorted: &SortedRecipients) {
        for DroppedRecipients { recipients, by, stage } in &sorted.dropped {
            records::discard(&*self.services.records, transaction, *stage, recipients, Some(by));
        }
    }

    /// The operator's setting for refused recipients, as far as it can be followed: a report goes to senders whom the
    /// gateway knows, since strangers may have forged their sender, and the null reverse-path gets none.
    fn setting_for_refused(&self, transaction: &Transaction) -> RefusedRecipients {
        let setting = self.services.rules.load().refused_recipients;
        let reportable = !self.is_stranger() && !transaction.envelope.sender.is_null();
        match setting {
            RefusedRecipients::Report if !reportable => RefusedRecipients::Quarantine,
            setting => setting,
        }
    }

    /// Signs the message and makes each copy durable, and records it at once. This is the commit point of the receiving
    /// side. If a later copy cannot be stored, the client hears of a failure and sends the message again, and those before
    /// it stay: they are held, so that no one receives the message twice, and an operator finds them in the records.
    async fn commit(
        &mut self,
        received: CompleteMessage,
        transaction: &Transaction,
        message: &Message,
        sorted: &SortedRecipients,
        size: u64,
    ) -> Result<Receipt, StageAnswer> {
        let services = &self.services;
        let hostname = &services.hostname;
        let header = receive::without_forgeries(&message.header, &self.view.session, hostname);
        let rules = services.rules.load_full();
        let signing = Signing { keys: &rules.keys, hostname, message, transaction, now: ids::now() };
        let signed = signing.fields(&header).await;
        let signatures = signed.map_err(|reply| self.refuse(Hook::Message, reply, None))?;
        let mut copies = copies_of(transaction, sorted);
        let last = copies.pop().ok_or_else(|| self.refuse(Hook::Message, local_error(), None))?;
        let accepted = |copy: &MessageCopy| Accepted {
            session: &self.view.session,
            transaction: copy.transaction.clone(),
            message,
            header: &header,
            hostname,
            hold: copy.quarantine.clone().map(HoldReason::Quarantine),
            signatures: &signatures,
        };
        let spool = services.spool.as_ref();
        for copy in &copies {
            let committed = received.commit_copy(&accepted(copy), spool).await;
            committed.map_err(|error| self.spool_trouble(Hook::Message, &error))?;
            self.record_copy(copy, transaction, size);
        }
        let committed = received.commit(&accepted(&last), spool).await;
        let receipt = committed.map_err(|error| self.spool_trouble(Hook::Message, &error))?;
        self.record_copy(&last, transaction, size);
        copies.push(last);
        self.note_queued(copies.into_iter().map(|copy| copy.transaction));
        Ok(receipt)
    }

    /// Records a copy that is durable, and logs its queue id if that is not the one of the transaction (law 3).
    fn record_copy(&self, copy: &MessageCopy, of: &Transaction, size: u64) {
        let MessageCopy { transaction, quarantine } = copy;
        records::reception(&*self.services.records, &self.view, transaction, size, quarantine.as_ref());
        if transaction.id != of.id {
            let (session, queue_id, copy) = (self.id(), of.id, transaction.id);
            let quarantine = quarantine.as_ref().map(|quarantine| quarantine.name.as_str());
            tracing::info!(%session, %queue_id, %copy, quarantine, "a copy is held under a queue id of its own");
        }
    }

    /// Applies law 7 again: plugins with a grant for the envelope may have added recipients that were not in any RCPT.
    fn may_all_pass(&self, sorted: &SortedRecipients) -> Option<Reply> {
        let rules = self.services.rules.load();
        let check = |recipient| relay::check(&self.view.session, recipient, &rules.domains);
        sorted.kept().find_map(|recipient| check(recipient).err())
    }
}

/// A copy of a message for the recipients with the same fate.
struct MessageCopy {
    /// The transaction with the recipients and the queue id of the copy.
    transaction: Transaction,
    quarantine: Option<Quarantine>,
}

/// The copies of a message in the order in which they are committed: those that are held, then the one that is delivered.
/// The last one has the transaction's queue id, which the client is told. A client that hears of a failure and sends the
/// message again causes no second delivery that way, only a second held copy.
fn copies_of(transaction: &Transaction, sorted: &SortedRecipients) -> Vec<MessageCopy> {
    let held = sorted.held.iter().map(|held| (&held.recipients, Some(&held.quarantine)));
    let delivered = (!sorted.delivered.is_empty()).then_some((&sorted.delivered, None));
    let copies: Vec<_> = held.chain(delivered).collect();
    let last = copies.len().saturating_sub(1);
    let copy = |(at, (recipients, quarantine)): (usize, (&Vec<Recipient>, Option<&Quarantine>))| {
        let mut transaction = transaction.clone();
        transaction.envelope.recipients.clone_from(recipients);
        if at < last {
            transaction.id = ids::queue_id();
        }
        MessageCopy { transaction, quarantine: quarantine.cloned() }
    };
    copies.into_iter().enumerate().map(copy).collect()
}
