//! Score thresholds: refuses or quarantines a message according to the sum of the plugins' points.

use pintle_mail::{EnhancedCode, Reply};
use pintle_policy::{Decision, Verdict};

use crate::Rules;

/// The name of the deciding judge, and of the quarantine, when a threshold is reached.
const SCORE: &str = "score";

/// Applies the operator's score thresholds to the chain's decision about a message.
///
/// As among judges, the strictest verdict wins. From `reject_score` on, a message is refused, even if a judge would
/// only have quarantined or discarded it; from `quarantine_score` on, it is held if no judge had an opinion. An accept
/// verdict overrides both.
pub(crate) fn weigh(rules: &Rules, points: f64, decision: &mut Decision) {
    if decision.verdict == Verdict::Accept || decision.verdict.refuses() {
        return;
    }
    let reached = |limit: f64| points >= limit;
    if rules.reject_score.is_some_and(reached) {
        let text = format!("Refused: the message scored {points:.1}");
        decision.verdict = Verdict::Reject(Some(Reply::new(550, EnhancedCode(5, 7, 1), text)));
        decision.by = Some(SCORE.into());
    } else if rules.quarantine_score.is_some_and(reached) && decision.verdict == Verdict::Next {
        decision.verdict = Verdict::Quarantine(SCORE.to_owned());
        decision.by = Some(SCORE.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_word_counts_and_an_acceptance_spares() {
        let rules = Rules { quarantine_score: Some(5.0), reject_score: Some(10.0), ..Rules::default() };
        let held = || Verdict::Quarantine("virus".into());
        let name = |verdict: Verdict, points| {
            let mut decision = Decision { verdict, ..Decision::none() };
            weigh(&rules, points, &mut decision);
            decision.verdict
        };
        assert_eq!(name(Verdict::Next, 4.9), Verdict::Next);
        assert_eq!(name(Verdict::Next, 5.0), Verdict::Quarantine("score".into()));
        assert_eq!(name(held(), 5.0), held());
        assert_eq!(name(Verdict::Discard, 5.0), Verdict::Discard);
        for verdict in [Verdict::Next, held(), Verdict::Discard] {
            assert!(matches!(name(verdict, 10.0), Verdict::Reject(Some(_))));
        }
        assert_eq!(name(Verdict::Accept, 99.0), Verdict::Accept);
        assert_eq!(name(Verdict::Defer(None), 99.0), Verdict::Defer(None));
    }
}
