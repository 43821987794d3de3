//! RCPT: checks one recipient, first with the plugins, then against relaying (law 7).

use std::sync::Arc;

use pintle_mail::{Address, EnhancedCode, Recipient, Reply};
use pintle_policy::{Call, Hook, Transaction};

use super::Pipeline;
use super::fate::StageAnswer;
use super::fate::refusal;
use crate::config::Rules;
use crate::{ids, relay};

impl Pipeline {
    pub(super) async fn recipient(&mut self, mut recipient: Recipient) -> StageAnswer {
        let id = recipient.id;
        let rules = self.services.rules.load_full();
        if self.is_our_postmaster(&recipient.address, &rules) {
            if let Some(postmaster) = &rules.postmaster {
                recipient.original = Some(std::mem::replace(&mut recipient.address, postmaster.clone()));
            }
            // RFC 5321 section 4.5.1 requires this mail to be accepted from any client, and the operator has configured
            // where it goes.
            recipient.relay = true;
        }
        if let Some(transaction) = &mut self.view.transaction {
            Arc::make_mut(transaction).envelope.recipients.push(recipient);
        }
        // Taken after the recipient was added, which would copy a shared transaction: a client with a thousand recipients
        // must not make a thousand copies of them. Only an edit by a plugin makes one.
        let before = self.view.transaction.clone();
        let decision = self.judge(Call::Rcpt(id)).await;
        let refusal = refusal(&decision).or_else(|| self.may_pass(id, &rules));
        if let Some(refusal) = refusal {
            self.forget_recipient(before, &refusal, decision.by.as_deref(), id);
            return self.limit_refusals(refusal);
        }
        if let Some(reply) = self.other_group(&rules) {
            let refusal = StageAnswer::Refuse(reply);
            self.forget_recipient(before, &refusal, None, id);
            // Not counted as a refusal: the client has named a recipient that exists, and may send the message to it.
            return refusal;
        }
        self.named_recipients += 1;
        StageAnswer::Accept(None)
    }

    /// Records the refusal of a recipient, and makes the transaction what it was before, without the recipient: what
    /// plugins found out about a recipient that is refused does not concern the message.
    fn forget_recipient(
        &mut self,
        before: Option<Arc<Transaction>>,
        refusal: &StageAnswer,
        by: Option<&str>,
        id: u32,
    ) {
        let refused = std::mem::replace(&mut self.view.transaction, before);
        let recipient = refused.as_deref().and_then(|transaction| transaction.recipient(id));
        self.record_refusal(Hook::Rcpt, recipient, refusal, by);
        let next_added = refused.map_or(0, |transaction| transaction.next_added);
        if let Some(transaction) = &mut self.view.transaction {
            let transaction = Arc::make_mut(transaction);
            transaction.envelope.recipients.pop();
            // The ids of recipients that plugins have added meanwhile are not used again.
            transaction.next_added = transaction.next_added.max(next_added);
        }
    }

    /// Whether this is `<postmaster>`, or postmaster at our host name, which sends reports. If the host name is one of
    /// our domains, it has mailboxes of its own.
    fn is_our_postmaster(&self, address: &Address, rules: &Rules) -> bool {
        let domain = address.domain_ascii();
        let ours = || {
            address.local().eq_ignore_ascii_case("postmaster")
                && domain.eq_ignore_ascii_case(&self.services.hostname)
                && !rules.domains.contains(&domain)
        };
        address.is_bare_postmaster() || ours()
    }

    /// Applies law 7 to the recipient with this id, as plugins have left it. Returns the refusal, if any.
    fn may_pass(&self, id: u32, rules: &Rules) -> Option<StageAnswer> {
        let recipient = self.view.transaction.as_deref()?.recipient(id)?;
        let refused = relay::check(&self.view.session, recipient, &rules.domains).err();
        refused.map(StageAnswer::Refuse)
    }

    /// Refuses a recipient for now if with it the groups of the client's recipients differ, and a transaction may have
    /// recipients of one kind only. RFC 5321 section 4.5.3.1.10: 452 makes a client send the remaining recipients in another
    /// transaction.
    ///
    /// Recipients that plugins have added do not count: the client cannot send to them in another transaction, and those
    /// added before the first RCPT would make it fail each time.
    fn other_group(&self, rules: &Rules) -> Option<Reply> {
        if !rules.one_group_per_transaction {
            return None;
        }
        let recipients = &self.view.transaction.as_deref()?.envelope.recipients;
        let mut named = recipients.iter().filter(|recipient| ids::is_of_client(recipient.id));
        let first = named.next()?;
        named.any(|other| other.groups != first.groups).then(|| {
            let text = "This recipient has settings of its own; send it the message in another transaction";
            Reply::new(452, EnhancedCode(4, 5, 3), text)
        })
    }
}
