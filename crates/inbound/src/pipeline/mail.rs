//! MAIL: checks the sender and whether the spool accepts messages, and begins a transaction.

use std::sync::Arc;

use pintle_mail::Envelope;
use pintle_policy::{Call, Hook, Transaction};
use pintle_smtp::server::Sender;

use super::Pipeline;
use super::fate::StageAnswer;
use crate::{client_log, ids};

impl Pipeline {
    pub(super) async fn sender(&mut self, sender: Sender) -> StageAnswer {
        self.reset();
        let limits = self.is_stranger().then_some(&self.strangers);
        if let Some(reply) = self.taken.transaction(limits) {
            client_log::dismissed(&self.view.session, &reply);
            return StageAnswer::Close(reply);
        }
        // The client is refused before it sends a message that could not be stored.
        if let Err(trouble) = self.services.spool_accepts() {
            return self.refuse(Hook::Mail, trouble.reply(), None);
        }
        let envelope = Envelope { sender: sender.path, params: sender.params, recipients: Vec::new() };
        self.view.transaction = Some(Arc::new(Transaction::new(ids::queue_id(), envelope)));
        let decision = self.judge(Call::Mail).await;
        if let Some(refusal) = self.refused(Hook::Mail, &decision) {
            self.view.transaction = None;
            return refusal;
        }
        StageAnswer::Accept(None)
    }
}
