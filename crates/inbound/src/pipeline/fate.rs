//! Sorts the recipients of an accepted message by what becomes of them: delivered, held, refused or dropped.
//!
//! Plugins request fates at any stage; they are applied when the whole message has been accepted. Recipients with
//! different fates get copies of their own, each under its own queue id.
//!
//! A refusal reaches the client in one of three ways: as the reply for the message, if the client has named no one else; as
//! the reply for one recipient (PRDR); or not at all, and then the operator's setting decides. A recipient that a plugin has
//! added is no RCPT of the client, so no reply can be about it.

use std::sync::Arc;

use pintle_mail::{EnhancedCode, Recipient, Reply, Severity};
use pintle_policy::{Decision, Fate, Hook, RequestedFate, Transaction, Verdict};
use pintle_smtp::server::HostAnswer;
use pintle_spool::{Quarantine, Receipt};

use crate::config::RefusedRecipients;
use crate::{ids, receive};

/// The answer to the SMTP session at a stage.
pub(super) type StageAnswer = HostAnswer<Receipt>;

/// The quarantine for recipients that were refused after the client could no longer be told.
const REFUSED: &str = "refused";
/// The longest reason of a hold for refused recipients, in octets.
const MAX_REASON: usize = 512;

/// The recipients of an accepted message, by what becomes of them.
#[derive(Debug, Default)]
pub(super) struct SortedRecipients {
    /// They receive the message.
    pub(super) delivered: Vec<Recipient>,
    /// They are held, a copy for each quarantine.
    pub(super) held: Vec<HeldRecipients>,
    /// They are refused.
    pub(super) refused: Vec<RefusedRecipient>,
    /// Their copies are dropped.
    pub(super) dropped: Vec<DroppedRecipients>,
}

/// Recipients whose copy is held.
#[derive(Debug)]
pub(super) struct HeldRecipients {
    pub(super) quarantine: Quarantine,
    pub(super) recipients: Vec<Recipient>,
}

/// A recipient that plugins refuse although others receive the message.
#[derive(Debug)]
pub(super) struct RefusedRecipient {
    pub(super) recipient: Recipient,
    pub(super) reply: Reply,
    pub(super) by: Arc<str>,
    stage: Hook,
}

/// Recipients whose copies are dropped by the same judge at the same stage.
#[derive(Debug)]
pub(super) struct DroppedRecipients {
    pub(super) recipients: Vec<Recipient>,
    pub(super) by: Arc<str>,
    pub(super) stage: Hook,
}

impl SortedRecipients {
    /// Sorts the recipients by the fates that were requested for them.
    pub(super) fn of(transaction: &Transaction) -> Self {
        let mut sorted = Self::default();
        for recipient in transaction.envelope.recipients.iter().cloned() {
            match transaction.fates.of(recipient.id) {
                None => sorted.delivered.push(recipient),
                Some(requested) => sorted.set_aside(recipient, requested),
            }
        }
        sorted
    }

    fn set_aside(&mut self, recipient: Recipient, requested: &RequestedFate) {
        let RequestedFate { fate, by, hook } = requested;
        match fate {
            Fate::Refuse(reply) => self.refused.push(RefusedRecipient {
                recipient,
                reply: reply.clone(),
                by: Arc::clone(by),
                stage: *hook,
            }),
            Fate::Quarantine { name, reason } => self.hold(recipient, name, reason, (by, *hook)),
            Fate::Discard => self.drop(recipient, by, *hook),
        }
    }

    fn hold(&mut self, recipient: Recipient, name: &str, reason: &str, (by, stage): (&Arc<str>, Hook)) {
        if let Some(held) = self.held.iter_mut().find(|held| held.quarantine.name == name) {
            held.recipients.push(recipient);
            return;
        }
        let quarantine = Quarantine {
            by: Some(by.to_string()),
            stage: Some(stage.name().to_owned()),
            reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
            ..Quarantine::new(name, ids::now())
        };
        self.held.push(HeldRecipients { quarantine, recipients: vec![recipient] });
    }

    fn drop(&mut self, recipient: Recipient, by: &Arc<str>, stage: Hook) {
        match self.dropped.iter_mut().find(|dropped| dropped.by == *by && dropped.stage == stage) {
            Some(dropped) => dropped.recipients.push(recipient),
            None => self.dropped.push(DroppedRecipients {
                recipients: vec![recipient],
                by: Arc::clone(by),
                stage,
            }),
        }
    }

    /// Whether some recipients receive the message or have a copy held.
    pub(super) fn has_copies(&self) -> bool {
        !self.delivered.is_empty() || !self.held.is_empty()
    }

    /// The reply for the whole message if it is refused: all recipients are, or all of the `named` ones that the client
    /// has given in RCPT. In the second case plugins have added recipients who would receive it. They do not, because after
    /// a commit for them there is no reply that is right: after a refusal with 4xx the client sends the message again, and
    /// they get it twice. Nothing is lost, since the sender hears of the refusal.
    ///
    /// A temporary refusal precedes a permanent one, so that the client tries again for those who may still get the
    /// message; of equals the first one counts.
    pub(super) fn refusal_of_all(&self, named: usize) -> Option<(&Reply, &str)> {
        let of_client: Vec<_> = self.refused.iter().filter(|refused| refused.is_of_client()).collect();
        let refused = if of_client.len() == named {
            of_client
        } else if self.has_copies() || !self.dropped.is_empty() {
            return None;
        } else {
            self.refused.iter().collect()
        };
        let temporary = refused.iter().find(|refused| refused.reply.severity() == Severity::Transient);
        temporary.or(refused.first()).map(|refused| (&refused.reply, &*refused.by))
    }

    /// Applies the operator's setting to refused recipients whose client cannot be told. `told` says whether it can be
    /// told of single recipients: those that it has named then stay refused.
    pub(super) fn settle_refused(&mut self, setting: RefusedRecipients, told: bool) {
        let refused = std::mem::take(&mut self.refused).into_iter();
        let (told, untold) = refused.partition(|refused| told && refused.is_of_client());
        self.refused = told;
        let reason = joined_replies(&untold);
        for RefusedRecipient { recipient, reply, by, stage } in untold {
            match setting {
                RefusedRecipients::Quarantine => self.hold(recipient, REFUSED, &reason, (&by, stage)),
                RefusedRecipients::Report => {
                    self.delivered.push(Recipient { refused: Some(reply), ..recipient });
                }
                RefusedRecipients::Discard => self.drop(recipient, &by, stage),
            }
        }
    }

    /// Merges recipients with the same mailbox and the same treatment, so that no one gets two copies.
    pub(super) fn unite(&mut self) {
        receive::unite(&mut self.delivered);
        self.held.iter_mut().for_each(|held| receive::unite(&mut held.recipients));
    }

    /// All recipients who receive the message or have a copy held.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Recipient> {
        self.delivered.iter().chain(self.held.iter().flat_map(|held| &held.recipients))
    }
}

impl RefusedRecipient {
    /// Whether the client has named the recipient in RCPT, so that a reply can be about it.
    fn is_of_client(&self) -> bool {
        ids::is_of_client(self.recipient.id)
    }
}

/// Returns the different replies of these recipients in one line of at most [`MAX_REASON`] octets. Replies of plugins may
/// contain anything, and operators read the reason in a terminal.
fn joined_replies(refused: &[RefusedRecipient]) -> String {
    let (mut joined, mut seen) = (String::new(), Vec::new());
    for reply in refused.iter().map(|refused| &refused.reply) {
        if joined.len() >= MAX_REASON {
            break;
        }
        if seen.contains(&reply) {
            continue;
        }
        if !seen.is_empty() {
            joined.push_str("; ");
        }
        let replaced = |c| if pintle_mail::acts_on_terminal(c) { char::REPLACEMENT_CHARACTER } else { c };
        joined.extend(reply.to_string().chars().take(MAX_REASON).map(replaced));
        seen.push(reply);
    }
    joined.truncate(joined.floor_char_boundary(MAX_REASON));
    joined
}

/// Returns the refusal that a decision stands for, if it is one, with a default text if the judge gave none.
pub(super) fn refusal(decision: &Decision) -> Option<StageAnswer> {
    let reply = match &decision.verdict {
        Verdict::Reject(reply) => {
            let usual = || Reply::new(550, EnhancedCode(5, 7, 1), "Refused by policy");
            reply.clone().unwrap_or_else(usual)
        }
        Verdict::Defer(reply) => {
            let usual = || Reply::new(451, EnhancedCode(4, 7, 1), "Cannot be decided now; try again later");
            reply.clone().unwrap_or_else(usual)
        }
        Verdict::Next | Verdict::Accept => return None,
    };
    Some(if decision.close { StageAnswer::Close(reply) } else { StageAnswer::Refuse(reply) })
}

/// The reply that closes the session after the reply of a stage, because a plugin requested it.
pub(super) fn closing() -> Reply {
    Reply::new(421, EnhancedCode(4, 7, 0), "Closing the session by policy")
}

pub(super) fn local_error() -> Reply {
    Reply::new(451, EnhancedCode(4, 3, 0), "Local error in processing; try again later")
}

#[cfg(test)]
mod tests {
    use pintle_mail::{Address, Charset, Envelope, MailParams, QueueId, ReversePath, UnixTime};

    use super::*;

    fn transaction(fates: &[(&[u32], Fate)]) -> Transaction {
        let recipient =
            |id| Recipient::new(id, Address::parse(&format!("r{id}@a.example"), Charset::Ascii).unwrap());
        let envelope = Envelope {
            sender: ReversePath::Null,
            params: MailParams::default(),
            recipients: (0..4).map(recipient).collect(),
        };
        let mut transaction = Transaction::new(QueueId::new(UnixTime::from_millis(0), 1), envelope);
        for (recipients, fate) in fates {
            let requested = RequestedFate { fate: fate.clone(), by: "judge".into(), hook: Hook::Message };
            transaction.fates.request(recipients, &requested);
        }
        transaction
    }

    fn hold(name: &str) -> Fate {
        Fate::Quarantine { name: name.into(), reason: "why".into() }
    }

    fn refuse() -> Fate {
        Fate::Refuse(Reply::new(550, EnhancedCode(5, 7, 1), "no"))
    }

    #[test]
    fn each_recipient_has_a_fate_of_its_own() {
        let sorted = SortedRecipients::of(&transaction(&[
            (&[0], hold("spam")),
            (&[1], refuse()),
            (&[2], Fate::Discard),
        ]));
        assert_eq!(sorted.delivered[0].id, 3);
        assert_eq!((sorted.held[0].recipients[0].id, sorted.held.len()), (0, 1));
        assert_eq!(sorted.held[0].quarantine.reason.as_deref(), Some("why"));
        assert_eq!(sorted.refused[0].recipient.id, 1);
        assert_eq!(sorted.dropped[0].recipients[0].id, 2);
        assert!(sorted.has_copies() && sorted.refusal_of_all(4).is_none());
    }

    #[test]
    fn quarantines_of_one_name_share_a_copy() {
        let sorted = SortedRecipients::of(&transaction(&[(&[0, 2], hold("spam")), (&[], hold("virus"))]));
        let ids = |held: &HeldRecipients| held.recipients.iter().map(|r| r.id).collect::<Vec<_>>();
        assert_eq!(sorted.held.iter().map(ids).collect::<Vec<_>>(), [vec![0, 2], vec![1, 3]]);
        assert!(sorted.delivered.is_empty());
    }

    #[test]
    fn a_message_is_refused_if_all_recipients_are() {
        let is_refused = |fates: &[(&[u32], Fate)], named| {
            SortedRecipients::of(&transaction(fates)).refusal_of_all(named).is_some()
        };
        assert!(is_refused(&[(&[0, 1, 2, 3], refuse())], 4));
        assert!(is_refused(&[(&[0, 1, 2, 3], refuse())], 5), "a plugin has removed one");
        assert!(!is_refused(&[(&[0, 1, 2], refuse())], 4));
        assert!(is_refused(&[(&[0, 1, 2], refuse())], 3), "the client has not named the other one");
        assert!(!is_refused(&[(&[0], refuse()), (&[], Fate::Discard)], 4));
        assert!(!is_refused(&[], 4));
    }

    #[test]
    fn the_reason_of_a_hold_has_the_different_replies_in_one_short_line() {
        let refuse = |text: &str| Fate::Refuse(Reply::new(550, EnhancedCode(5, 7, 1), text.to_owned()));
        let reason = |fates: &[(&[u32], Fate)]| {
            let mut sorted = SortedRecipients::of(&transaction(fates));
            sorted.settle_refused(RefusedRecipients::Quarantine, false);
            sorted.held.remove(0).quarantine.reason.unwrap()
        };
        let fates = [(&[0, 1][..], refuse("no\u{1b}[31m\r\nx")), (&[2], refuse("never"))];
        assert_eq!(reason(&fates), "550 5.7.1 no\u{fffd}[31m\u{fffd} / x; 550 5.7.1 never");
        let long = reason(&[(&[0], refuse(&"é".repeat(5000))), (&[1], refuse("never"))]);
        assert!(long.len() <= MAX_REASON && long.len() > MAX_REASON - 2, "{}", long.len());
    }

    #[test]
    fn the_operator_decides_where_the_client_cannot_be_told() {
        for (setting, expected) in [
            (RefusedRecipients::Quarantine, (3, 1, 0)),
            (RefusedRecipients::Report, (4, 0, 0)),
            (RefusedRecipients::Discard, (3, 0, 1)),
        ] {
            let mut sorted = SortedRecipients::of(&transaction(&[(&[1], refuse())]));
            sorted.settle_refused(setting, false);
            let counts = (sorted.delivered.len(), sorted.held.len(), sorted.dropped.len());
            assert_eq!(counts, expected, "{setting:?}");
            let reported = sorted.delivered.iter().filter(|recipient| recipient.refused.is_some());
            assert_eq!(reported.count(), usize::from(setting == RefusedRecipients::Report));
        }
    }
}
