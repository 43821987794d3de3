//! Turns a stage's decision into the message's fate (discard, quarantine) and the reply.

use std::sync::Arc;

use pintle_mail::{EnhancedCode, Reply};
use pintle_policy::{Decision, Hook, Verdict};
use pintle_smtp::server::HostAnswer;
use pintle_spool::{Quarantine, Receipt};

use crate::ids;

/// The answer to the SMTP session at a stage.
pub(super) type StageAnswer = HostAnswer<Receipt>;

/// What stages so far have decided for the message as a whole. If two decide the same, the first counts.
#[derive(Debug, Default)]
pub(super) struct MessageFate {
    /// Drop the message for all recipients: the stage and the judge that decided so. It is done and recorded once
    /// nothing can refuse the message any more.
    pub(super) discard: Option<(Hook, Option<Arc<str>>)>,
    /// Whether a discard has been recorded.
    pub(super) discard_recorded: bool,
    /// Hold the message in this quarantine.
    pub(super) quarantine: Option<Quarantine>,
}

impl MessageFate {
    pub(super) fn take(&mut self, stage: Hook, decision: Decision) {
        match decision.verdict {
            Verdict::Discard => {
                self.discard.get_or_insert((stage, decision.by));
            }
            Verdict::Quarantine(name) => {
                let by = decision.by.map(|by| by.to_string());
                let stage = Some(stage.name().to_owned());
                self.quarantine.get_or_insert(Quarantine { by, stage, ..Quarantine::new(name, ids::now()) });
            }
            _ => {}
        }
    }
}

/// Returns the refusal that a verdict stands for, if it is one, with a default text if the judge gave none.
pub(super) fn refusal(verdict: &Verdict) -> Option<StageAnswer> {
    match verdict {
        Verdict::Reject(reply) => {
            let usual = || Reply::new(550, EnhancedCode(5, 7, 1), "Refused by policy");
            Some(StageAnswer::Refuse(reply.clone().unwrap_or_else(usual)))
        }
        Verdict::Defer(reply) => {
            let usual = || Reply::new(451, EnhancedCode(4, 7, 1), "Cannot be decided now; try again later");
            Some(StageAnswer::Refuse(reply.clone().unwrap_or_else(usual)))
        }
        Verdict::Close(reply) => {
            let usual = || Reply::new(421, EnhancedCode(4, 7, 0), "Closing the session by policy");
            Some(StageAnswer::Close(reply.clone().unwrap_or_else(usual)))
        }
        Verdict::Next | Verdict::Accept | Verdict::Discard | Verdict::Quarantine(_) => None,
    }
}

pub(super) fn local_error() -> Reply {
    Reply::new(451, EnhancedCode(4, 3, 0), "Local error in processing; try again later")
}
