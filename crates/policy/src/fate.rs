//! What becomes of accepted mail, for each recipient: judges request it beside their verdict.
//!
//! A request concerns single recipients or all of them, including those still to come. One for a single recipient takes
//! precedence over one for all. Among requests for the same recipients a refusal precedes a quarantine, and a
//! quarantine precedes a discard, since held mail can still be dropped and dropped mail is lost; among equals the first
//! one counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use pintle_mail::Reply;

use crate::Hook;

/// The most quarantines that judges can name for one message: each holds a copy of its own.
pub const MAX_QUARANTINES: usize = 8;

/// What becomes of a recipient's copy of an accepted message, other than a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The recipient is refused with this reply, although other recipients receive the message.
    Refuse(Reply),
    /// The copy is held.
    Quarantine {
        /// The name of the quarantine.
        name: String,
        /// The reason, for people; may be empty.
        reason: String,
    },
    /// The copy is dropped.
    Discard,
}

impl Fate {
    /// The name in logs, metrics and event records.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Refuse(_) => "refuse",
            Self::Quarantine { .. } => "quarantine",
            Self::Discard => "discard",
        }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Discard => 0,
            Self::Quarantine { .. } => 1,
            Self::Refuse(_) => 2,
        }
    }
}

/// A fate, with the judge that requested it and the stage of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedFate {
    /// What the judge requests.
    pub fate: Fate,
    /// The name of the judge.
    pub by: Arc<str>,
    /// The hook in which it was requested.
    pub hook: Hook,
}

/// Judges have named more quarantines for one message than [`MAX_QUARANTINES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyQuarantines;

impl fmt::Display for TooManyQuarantines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a message can be held in {MAX_QUARANTINES} quarantines at most")
    }
}

impl std::error::Error for TooManyQuarantines {}

/// The requests of all judges for one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fates {
    of_all: Option<Arc<RequestedFate>>,
    /// Shared, since one request may concern thousands of recipients, with a reply of two thousand octets.
    of_one: BTreeMap<u32, Arc<RequestedFate>>,
    /// The quarantines that were named so far, also by requests that others precede.
    quarantines: BTreeSet<String>,
}

impl Fates {
    /// Checks that requests for these fates, with those before, name few enough quarantines.
    ///
    /// # Errors
    /// They name more than [`MAX_QUARANTINES`]. The judge that requests these fates is at fault.
    pub fn check_quarantines<'a>(
        &self,
        fates: impl Iterator<Item = &'a Fate>,
    ) -> Result<(), TooManyQuarantines> {
        let mut more = BTreeSet::new();
        for fate in fates {
            if let Fate::Quarantine { name, .. } = fate
                && !self.quarantines.contains(name)
                && more.insert(name)
                && self.quarantines.len() + more.len() > MAX_QUARANTINES
            {
                return Err(TooManyQuarantines);
            }
        }
        Ok(())
    }

    /// Adds a request for the recipients of these ids, or for all recipients if there are none.
    pub fn request(&mut self, recipients: &[u32], requested: &RequestedFate) {
        if let Fate::Quarantine { name, .. } = &requested.fate
            && !self.quarantines.contains(name)
        {
            self.quarantines.insert(name.clone());
        }
        let requested = Arc::new(requested.clone());
        if recipients.is_empty() {
            match &mut self.of_all {
                Some(before) => strengthen(before, &requested),
                none => *none = Some(Arc::clone(&requested)),
            }
        }
        for id in recipients {
            let before = self.of_one.entry(*id).or_insert_with(|| Arc::clone(&requested));
            strengthen(before, &requested);
        }
    }

    /// Sets the fate of all recipients for which no judge has requested one.
    pub fn request_for_rest(&mut self, requested: RequestedFate) {
        self.of_all.get_or_insert_with(|| Arc::new(requested));
    }

    /// Forgets what was requested for this recipient, which is removed.
    pub(crate) fn forget(&mut self, recipient: u32) {
        self.of_one.remove(&recipient);
    }

    /// The fate of this recipient; none if it receives the message.
    #[must_use]
    pub fn of(&self, recipient: u32) -> Option<&RequestedFate> {
        self.of_one.get(&recipient).or(self.of_all.as_ref()).map(|requested| &**requested)
    }

    /// Whether there are no requests.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of_all.is_none() && self.of_one.is_empty()
    }
}

/// Replaces a request by another one that precedes it.
fn strengthen(before: &mut Arc<RequestedFate>, requested: &Arc<RequestedFate>) {
    if requested.fate.rank() > before.fate.rank() {
        *before = Arc::clone(requested);
    }
}

#[cfg(test)]
mod tests {
    use pintle_mail::EnhancedCode;

    use super::*;

    fn hold(name: &str) -> Fate {
        Fate::Quarantine { name: name.into(), reason: String::new() }
    }

    fn fates(requests: &[(&[u32], Fate)]) -> Fates {
        let mut fates = Fates::default();
        for (recipients, fate) in requests {
            fates.request(
                recipients,
                &RequestedFate { fate: fate.clone(), by: "judge".into(), hook: Hook::Message },
            );
        }
        fates
    }

    #[test]
    fn a_refusal_precedes_a_quarantine_and_that_a_discard() {
        let refuse = Fate::Refuse(Reply::new(550, EnhancedCode(5, 7, 1), "no"));
        let of = |requests: &[(&[u32], Fate)]| fates(requests).of(1).map(|found| found.fate.clone());
        assert_eq!(of(&[(&[], Fate::Discard), (&[], hold("a"))]), Some(hold("a")));
        assert_eq!(of(&[(&[1], hold("a")), (&[1], Fate::Discard), (&[1], hold("b"))]), Some(hold("a")));
        assert_eq!(of(&[(&[1, 2], hold("a")), (&[1], refuse.clone())]), Some(refuse));
        assert_eq!(of(&[(&[2], Fate::Discard)]), None);
    }

    #[test]
    fn a_request_for_one_recipient_precedes_one_for_all() {
        let mut found = fates(&[(&[1], Fate::Discard), (&[], hold("a"))]);
        assert_eq!(found.of(1).unwrap().fate, Fate::Discard);
        assert_eq!(found.of(2).unwrap().fate, hold("a"));
        let threshold = RequestedFate { fate: hold("score"), by: "score".into(), hook: Hook::Message };
        found.request_for_rest(threshold.clone());
        assert_eq!(found.of(2).unwrap().fate, hold("a"), "a judge has decided");
        let mut found = fates(&[(&[1], Fate::Discard)]);
        found.request_for_rest(threshold);
        assert_eq!(found.of(2).unwrap().fate, hold("score"));
        assert!(Fates::default().is_empty() && !found.is_empty());
    }
}
