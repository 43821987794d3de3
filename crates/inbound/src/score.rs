//! Score thresholds: refuses or quarantines a message according to the sum of the plugins' points.

use pintle_mail::{EnhancedCode, Reply};
use pintle_policy::{Decision, Fate, Hook, RequestedFate, Transaction, Verdict};

use crate::Rules;

/// The name of the deciding judge, and of the quarantine, when a threshold is reached.
const SCORE: &str = "score";

/// Applies the operator's score thresholds to the chain's decision about a message.
///
/// From `reject_score` on, a message is refused, even if a judge would only have held or dropped it. From
/// `quarantine_score` on, it is held for all recipients for which no judge requested anything else. An accept verdict
/// overrides both.
pub(crate) fn weigh(rules: &Rules, transaction: &mut Transaction, decision: &mut Decision) {
    if decision.verdict == Verdict::Accept || decision.verdict.refuses() {
        return;
    }
    let points = transaction.score();
    let reached = |limit: f64| points >= limit;
    if rules.reject_score.is_some_and(reached) {
        let text = format!("Refused: the message scored {points:.1}");
        decision.verdict = Verdict::Reject(Some(Reply::new(550, EnhancedCode(5, 7, 1), text)));
        decision.by = Some(SCORE.into());
    } else if rules.quarantine_score.is_some_and(reached) {
        let fate = Fate::Quarantine { name: SCORE.to_owned(), reason: format!("it scored {points:.1}") };
        transaction.fates.request_for_rest(RequestedFate { fate, by: SCORE.into(), hook: Hook::Message });
    }
}

#[cfg(test)]
mod tests {
    use pintle_mail::{Envelope, MailParams, QueueId, ReversePath, UnixTime};
    use pintle_policy::Score;

    use super::*;

    /// The verdict, and the fate of a recipient, of a message that a judge has perhaps decided about.
    fn weighed(verdict: Verdict, fate: Option<Fate>, points: f64) -> (Verdict, Option<Fate>) {
        let rules = Rules { quarantine_score: Some(5.0), reject_score: Some(10.0), ..Rules::default() };
        let envelope =
            Envelope { sender: ReversePath::Null, params: MailParams::default(), recipients: Vec::new() };
        let mut transaction = Transaction::new(QueueId::new(UnixTime::from_millis(0), 1), envelope);
        transaction.scores.push(Score { judge: "a".into(), rule: "b".into(), points });
        if let Some(fate) = fate {
            transaction.fates.request(&[], &RequestedFate { fate, by: "a".into(), hook: Hook::Message });
        }
        let mut decision = Decision { verdict, ..Decision::none() };
        weigh(&rules, &mut transaction, &mut decision);
        (decision.verdict, transaction.fates.of(0).map(|requested| requested.fate.clone()))
    }

    #[test]
    fn a_score_refuses_what_is_held_and_holds_what_nothing_was_said_of() {
        let hold = |name: &str| Fate::Quarantine { name: name.into(), reason: String::new() };
        let name = |fate: Option<Fate>| match fate {
            Some(Fate::Quarantine { name, .. }) => Some(name),
            _ => None,
        };
        assert_eq!(weighed(Verdict::Next, None, 4.9), (Verdict::Next, None));
        assert_eq!(name(weighed(Verdict::Next, None, 5.0).1).as_deref(), Some("score"));
        assert_eq!(name(weighed(Verdict::Next, Some(hold("virus")), 5.0).1).as_deref(), Some("virus"));
        assert_eq!(weighed(Verdict::Next, Some(Fate::Discard), 5.0).1, Some(Fate::Discard));
        for fate in [None, Some(hold("virus")), Some(Fate::Discard)] {
            assert!(matches!(weighed(Verdict::Next, fate, 10.0).0, Verdict::Reject(Some(_))));
        }
        assert_eq!(weighed(Verdict::Accept, None, 99.0), (Verdict::Accept, None));
        assert_eq!(weighed(Verdict::Defer(None), None, 99.0).0, Verdict::Defer(None));
    }
}
