//! RCPT: checks one recipient, first with the plugins, then against relaying (law 7).

use std::sync::Arc;

use pintle_mail::{Address, Recipient};
use pintle_policy::{Call, Hook, Verdict};

use super::Pipeline;
use super::fate::StageAnswer;
use super::fate::refusal;
use crate::config::Rules;
use crate::relay;

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
        self.with_recipients(|recipients| recipients.push(recipient));
        let decision = self.judge(Call::Rcpt(id)).await;
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
        StageAnswer::Accept(None)
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
        relay::check(&self.view.session, recipient, &rules.domains).err().map(StageAnswer::Refuse)
    }

    /// Removes a recipient from the transaction.
    fn without_recipient(&mut self, id: u32) -> Option<Recipient> {
        let transaction = Arc::make_mut(self.view.transaction.as_mut()?);
        let recipients = &mut transaction.envelope.recipients;
        let at = recipients.iter().position(|recipient| recipient.id == id)?;
        Some(recipients.remove(at))
    }
}
