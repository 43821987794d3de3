//! The chain of judges: asks them in order and makes one decision of their verdicts.
//!
//! Judges are asked in their order. Each sees the view with the edits of those before it, and the strictest verdict
//! decides: a refusal before a discard, a discard before a quarantine, a quarantine before an acceptance; among equals
//! the first one.
//!
//! Only two verdicts end the chain. A refusal ends it for all judges, since nothing is left to decide. An acceptance
//! ends it for all but the mandatory judges, whose objection still counts: an allow-list may spare a sender the
//! scoring, but never the virus scan. Holding and dropping end nothing: a held message may be released later and must
//! then have the edits of all judges (above all those of a firewall of header fields), and a later refusal is the
//! stronger verdict.

use std::sync::Arc;
use std::time::Duration;

use crate::{
    AuthRuling, AuthVerdict, Call, Credentials, DeliveryOutcome, FaultKind, Hook, Judge, JudgeFault, Ruling,
    Verdict, View,
};

/// Judges in the order in which they are asked.
#[derive(Clone, Default)]
pub struct Chain {
    judges: Vec<Arc<dyn Judge>>,
}

/// The result of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The verdict; [`Verdict::Next`] when no judge had an opinion.
    pub verdict: Verdict,
    /// The judge that decided; none for [`Verdict::Next`].
    pub by: Option<Arc<str>>,
    /// How long to wait before the reply.
    pub delay: Duration,
    /// Each judge that was asked, in order, with its verdict.
    pub steps: Vec<JudgeStep>,
}

/// One judge's part in a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeStep {
    /// The judge's name, as [`Judge::name`] returns it.
    pub judge: Arc<str>,
    /// The name of its verdict.
    pub verdict: &'static str,
    /// The judge's fault, if it had one.
    pub fault: Option<JudgeFault>,
}

impl Chain {
    /// A chain that asks these judges in this order.
    #[must_use]
    pub fn new(judges: Vec<Arc<dyn Judge>>) -> Self {
        Self { judges }
    }

    /// Whether any judge wants this hook. If none does, the caller need not make a view.
    #[must_use]
    pub fn wants(&self, hook: Hook) -> bool {
        self.judges.iter().any(|judge| judge.hooks().has(hook))
    }

    /// Asks the judges at a stage. Their edits are made in the view.
    pub async fn judge(&self, call: &Call, view: &mut View) -> Decision {
        let mut decision = Decision::none();
        let mut accepted = false;
        for judge in self.wanting(call.hook()) {
            if accepted && !judge.mandatory() {
                continue;
            }
            let ruling = judge.judge(call.clone(), view.clone()).await;
            accepted |= decision.take(judge.name(), ruling, view) == Strictness::Accepts;
            if decision.verdict.refuses() {
                break;
            }
        }
        decision
    }

    /// Asks the judges about credentials; the first with an opinion decides.
    pub async fn authenticate(&self, credentials: &Arc<Credentials>, view: &mut View) -> AuthRuling {
        for judge in self.wanting(Hook::Auth) {
            let mut ruling = judge.authenticate(Arc::clone(credentials), view.clone()).await;
            if let Err(error) = view.apply(judge.name(), std::mem::take(&mut ruling.edits)) {
                ruling.verdict = AuthVerdict::Unavailable(None);
                ruling.fault = Some(bad_answer(&error));
            }
            if ruling.verdict != AuthVerdict::Next {
                return ruling;
            }
        }
        AuthVerdict::Next.into()
    }

    /// Informs the judges of the result of a delivery attempt. Their edits are made in the view.
    pub async fn delivery_result(
        &self,
        outcomes: &Arc<[DeliveryOutcome]>,
        view: &mut View,
    ) -> Vec<JudgeStep> {
        let mut decision = Decision::none();
        for judge in self.wanting(Hook::DeliveryResult) {
            let ruling = judge.delivery_result(Arc::clone(outcomes), view.clone()).await;
            decision.take(judge.name(), Ruling { verdict: Verdict::Next, ..ruling }, view);
        }
        decision.steps
    }

    /// Informs the judges that the session has ended.
    pub async fn disconnect(&self, view: &View) {
        for judge in self.wanting(Hook::Disconnect) {
            judge.disconnect(view.clone()).await;
        }
    }

    fn wanting(&self, hook: Hook) -> impl Iterator<Item = &Arc<dyn Judge>> {
        self.judges.iter().filter(move |judge| judge.hooks().has(hook))
    }
}

impl Decision {
    /// The decision when no judge has an opinion.
    #[must_use]
    pub fn none() -> Self {
        Self { verdict: Verdict::Next, by: None, delay: Duration::ZERO, steps: Vec::new() }
    }

    /// Adds one judge's ruling. Returns the strictness of the result, once its edits are made or dropped.
    fn take(&mut self, judge: &Arc<str>, ruling: Ruling, view: &mut View) -> Strictness {
        let Ruling { mut verdict, edits, mut fault } = ruling;
        match view.apply(judge, edits) {
            Ok(delay) => self.delay += delay,
            Err(error) => {
                // Edits and verdict apply together or not at all (law 5), and a dropped ruling must not count as
                // consent.
                verdict = Verdict::Defer(None);
                fault = Some(bad_answer(&error));
            }
        }
        self.steps.push(JudgeStep { judge: Arc::clone(judge), verdict: verdict.name(), fault });
        let strictness = Strictness::of(&verdict);
        if strictness > Strictness::of(&self.verdict) {
            self.verdict = verdict;
            self.by = Some(Arc::clone(judge));
        }
        strictness
    }
}

/// The strictness of a verdict, the least strict first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strictness {
    Nothing,
    Accepts,
    Holds,
    Drops,
    Refuses,
}

impl Strictness {
    fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Next => Self::Nothing,
            Verdict::Accept => Self::Accepts,
            Verdict::Quarantine(_) => Self::Holds,
            Verdict::Discard => Self::Drops,
            Verdict::Reject(_) | Verdict::Defer(_) | Verdict::Close(_) => Self::Refuses,
        }
    }
}

fn bad_answer(error: &impl ToString) -> JudgeFault {
    JudgeFault { kind: FaultKind::BadAnswer, text: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use pintle_mail::{SessionId, UnixTime};

    use super::*;
    use crate::{Edit, Hooks, Session};

    struct Fixed {
        name: Arc<str>,
        mandatory: bool,
        ruling: Ruling,
        seen: Mutex<Vec<View>>,
    }

    impl Judge for Fixed {
        fn name(&self) -> &Arc<str> {
            &self.name
        }

        fn hooks(&self) -> Hooks {
            Hooks::NONE.with(Hook::Connect)
        }

        fn mandatory(&self) -> bool {
            self.mandatory
        }

        fn judge(&self, _: Call, view: View) -> BoxFuture<'_, Ruling> {
            self.seen.lock().unwrap().push(view);
            Box::pin(std::future::ready(self.ruling.clone()))
        }
    }

    fn fixed(name: &str, verdict: Verdict, edits: Vec<Edit>) -> Fixed {
        let ruling = Ruling { verdict, edits, fault: None };
        Fixed { name: name.into(), mandatory: false, ruling, seen: Mutex::default() }
    }

    fn view() -> View {
        View::of(Session::new(
            SessionId::new(UnixTime::from_millis(0), 1),
            "mx".into(),
            ([192, 0, 2, 1], 1).into(),
            ([192, 0, 2, 2], 25).into(),
            UnixTime::from_millis(0),
        ))
    }

    fn run(judges: &[Arc<Fixed>], view: &mut View) -> Decision {
        let chain = Chain::new(judges.iter().map(|judge| Arc::clone(judge) as Arc<dyn Judge>).collect());
        chain.judge(&Call::Connect, view).now_or_never().unwrap()
    }

    fn fact(key: &str) -> Edit {
        Edit::SessionFact(key.into(), "yes".into())
    }

    #[test]
    fn a_refusal_ends_the_stage() {
        let judges = [
            Arc::new(fixed("a", Verdict::Next, vec![fact("a")])),
            Arc::new(fixed("b", Verdict::Reject(None), vec![])),
            Arc::new(fixed("c", Verdict::Accept, vec![])),
        ];
        let decision = run(&judges, &mut view());
        assert_eq!(decision.verdict, Verdict::Reject(None));
        assert_eq!(decision.by.as_deref(), Some("b"));
        assert!(
            judges[1].seen.lock().unwrap()[0].session.facts.contains_key("a"),
            "edits reach the next judge"
        );
        assert!(judges[2].seen.lock().unwrap().is_empty());
    }

    #[test]
    fn acceptance_skips_all_but_the_mandatory() {
        let mut last = fixed("c", Verdict::Defer(None), vec![]);
        last.mandatory = true;
        let judges = [
            Arc::new(fixed("a", Verdict::Accept, vec![])),
            Arc::new(fixed("b", Verdict::Reject(None), vec![])),
            Arc::new(last),
        ];
        let decision = run(&judges, &mut view());
        assert_eq!(decision.verdict, Verdict::Defer(None));
        assert!(judges[1].seen.lock().unwrap().is_empty());
    }

    #[test]
    fn an_acceptance_does_not_spare_what_a_mandatory_judge_holds_or_drops() {
        for objection in [Verdict::Quarantine("virus".into()), Verdict::Discard] {
            let mut last = fixed("scan", objection.clone(), vec![]);
            last.mandatory = true;
            let judges = [Arc::new(fixed("allow", Verdict::Accept, vec![])), Arc::new(last)];
            let decision = run(&judges, &mut view());
            assert_eq!(decision.verdict, objection);
            assert_eq!(decision.by.as_deref(), Some("scan"));
        }
    }

    #[test]
    fn what_is_held_or_dropped_is_still_shown_to_those_who_come_after() {
        for verdict in [Verdict::Quarantine("spam".into()), Verdict::Discard] {
            let judges = [
                Arc::new(fixed("scan", verdict.clone(), vec![])),
                Arc::new(fixed("firewall", Verdict::Next, vec![fact("stripped")])),
            ];
            let mut view = view();
            let decision = run(&judges, &mut view);
            assert_eq!(decision.verdict, verdict);
            assert_eq!(decision.by.as_deref(), Some("scan"));
            assert!(view.session.facts.contains_key("stripped"), "its edits are made");
        }
    }

    #[test]
    fn the_strictest_verdict_decides_and_the_first_of_equals() {
        let hold = |name: &str| Verdict::Quarantine(name.into());
        let reject = Verdict::Reject(None);
        for (verdicts, decides) in [
            ([hold("a"), hold("b"), Verdict::Next], 0),
            ([hold("a"), Verdict::Discard, hold("b")], 1),
            ([Verdict::Discard, hold("a"), Verdict::Next], 0),
            ([hold("a"), Verdict::Next, reject.clone()], 2),
            ([Verdict::Discard, Verdict::Defer(None), reject], 1),
            ([hold("a"), Verdict::Accept, Verdict::Next], 0),
        ] {
            let judges: Vec<_> = verdicts.iter().map(|v| Arc::new(fixed("j", v.clone(), vec![]))).collect();
            assert_eq!(run(&judges, &mut view()).verdict, verdicts[decides], "{verdicts:?}");
        }
    }

    #[test]
    fn an_acceptance_spares_the_rest_also_what_was_held_before() {
        let judges = [
            Arc::new(fixed("scan", Verdict::Quarantine("spam".into()), vec![])),
            Arc::new(fixed("allow", Verdict::Accept, vec![])),
            Arc::new(fixed("late", Verdict::Reject(None), vec![])),
        ];
        assert_eq!(run(&judges, &mut view()).verdict, Verdict::Quarantine("spam".into()));
        assert!(judges[2].seen.lock().unwrap().is_empty());
    }

    #[test]
    fn edits_fall_together_and_the_verdict_with_them() {
        let edits = vec![fact("kept?"), Edit::GrantRelay(7)];
        let judges = [Arc::new(fixed("a", Verdict::Accept, edits))];
        let mut view = view();
        let decision = run(&judges, &mut view);
        assert_eq!(decision.verdict, Verdict::Defer(None));
        assert_eq!(decision.steps[0].fault.as_ref().unwrap().kind, FaultKind::BadAnswer);
        assert!(view.session.facts.is_empty());
    }

    #[test]
    fn nobody_asked_means_next() {
        assert_eq!(run(&[], &mut view()), Decision::none());
    }
}
