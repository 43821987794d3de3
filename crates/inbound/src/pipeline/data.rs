//! DATA and BDAT: the header, then the complete message, up to the commit.

use std::sync::Arc;

use pintle_mail::{EnhancedCode, HeaderBlock, Reply};
use pintle_policy::{Call, Hook, Message, Transaction};
use pintle_smtp::server::{self, Headers};
use pintle_spool::{HoldReason, Quarantine};

use super::Pipeline;
use super::fate::StageAnswer;
use super::fate::local_error;
use crate::quarantines::Reservation;
use crate::receive::{self, Accepted, CompleteMessage, IncomingDraft};
use crate::sign::Signing;
use crate::{ids, records, relay, score, submission};

/// The name of the deciding judge when a quarantine is full.
const QUOTA: &str = "quota";

impl Pipeline {
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
        self.fate.take(Hook::Headers, decision);
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
        let points = self.view.transaction.as_ref().map_or(0.0, |transaction| transaction.score());
        score::weigh(&self.services.rules.load(), points, &mut decision);
        records::dmarc(&*self.services.records, &self.view);
        if let Some(refusal) = self.refused(Hook::Message, &decision) {
            return refusal;
        }
        self.fate.take(Hook::Message, decision);
        self.finish(received, counted).await
    }

    /// Commits an accepted message, or drops it if no recipients are left.
    async fn finish(&mut self, received: CompleteMessage, counted: server::MessageCounts) -> StageAnswer {
        self.with_recipients(receive::unite);
        let (Some(transaction), Some(message)) = (self.view.transaction.clone(), self.view.message.clone())
        else {
            return self.refuse(Hook::Message, local_error(), None);
        };
        if self.fate.discard.is_some() || transaction.envelope.recipients.is_empty() {
            let (stage, by) = self.fate.discard.take().unwrap_or((Hook::Message, None));
            self.discard(stage, None, by.as_deref());
            return StageAnswer::Discard(None);
        }
        if let Some(reply) = self.may_all_pass(&transaction) {
            return self.refuse(Hook::Message, reply, None);
        }
        let quarantine = self.fate.quarantine.take();
        let size = counted.header_size + counted.body_size;
        // Held until the message is stored and counted, so that a burst of messages cannot use the same space twice.
        let _place = match self.place(quarantine.as_ref(), size).await {
            Ok(place) => place,
            Err(reply) => return self.refuse(Hook::Message, reply, Some(QUOTA)),
        };
        self.commit(received, &transaction, &message, quarantine, size).await
    }

    /// Signs the message and makes it durable. This is the commit point of the receiving side.
    async fn commit(
        &self,
        received: CompleteMessage,
        transaction: &Transaction,
        message: &Message,
        quarantine: Option<Quarantine>,
        size: u64,
    ) -> StageAnswer {
        let services = &self.services;
        let hostname = &services.hostname;
        let header = receive::without_forgeries(&message.header, &self.view.session, hostname);
        let rules = services.rules.load_full();
        let signing = Signing { keys: &rules.keys, hostname, message, transaction, now: ids::now() };
        let signatures = match signing.fields(&header).await {
            Ok(signatures) => signatures,
            Err(reply) => return self.refuse(Hook::Message, reply, None),
        };
        let accepted = Accepted {
            session: &self.view.session,
            transaction,
            message,
            header: &header,
            hostname,
            hold: quarantine.clone().map(HoldReason::Quarantine),
            signatures,
        };
        match received.commit(accepted, services.spool.as_ref()).await {
            Ok(receipt) => {
                let records = &*services.records;
                records::reception(records, &self.view, transaction, size, quarantine.as_ref());
                metrics::counter!("pintle_messages_accepted_total").increment(1);
                StageAnswer::Accepted { receipt, reply: None }
            }
            Err(error) => self.spool_trouble(Hook::Message, &error),
        }
    }

    /// Reserves space in the quarantine that the message goes to, if any.
    async fn place(&self, quarantine: Option<&Quarantine>, size: u64) -> Result<Option<Reservation>, Reply> {
        match quarantine {
            Some(quarantine) => self.services.quarantines.room(&quarantine.name, size).await.map(Some),
            None => Ok(None),
        }
    }

    /// Applies law 7 again: plugins with a grant for the envelope may have added recipients that were not in any RCPT.
    fn may_all_pass(&self, transaction: &Transaction) -> Option<Reply> {
        let rules = self.services.rules.load();
        let check = |recipient| relay::check(&self.view.session, recipient, &rules.domains);
        transaction.envelope.recipients.iter().find_map(|recipient| check(recipient).err())
    }
}
