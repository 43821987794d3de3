//! The chain of judges: asks them in order and makes one decision of their verdicts.
//!
//! Judges are asked in their order. Each sees the view with the edits of those before it. A refusal ends the stage,
//! since nothing is left to decide.
//!
//! After an acceptance the other judges are asked all the same, and their edits are made: mail that is let through must
//! still pass a firewall of header fields, and be signed. But they can no longer object, by a refusal or by requesting
//! another fate for the mail, unless they are mandatory: an allow-list may spare a sender the scoring, but never the
//! virus scan. Holding and dropping mail end nothing either, for the same reason: held mail may be released later.

use std::sync::Arc;
use std::time::Duration;

use crate::{
    AuthRuling, AuthVerdict, Call, Credentials, DeliveryOutcome, DmarcDisposition, Edit, FaultKind, Hook,
    Judge, JudgeFault, LoginResult, ReplyEffects, Ruling, Verdict, View,
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
    /// Whether to close the session after the reply.
    pub close: bool,
    /// Each judge that was asked, in order, with its verdict.
    pub steps: Vec<JudgeStep>,
}

/// One judge's part in a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeStep {
    /// The judge's name, as [`Judge::name`] returns it.
    pub judge: Arc<str>,
    /// The name of its verdict, or, if that has no objection, of the fate that it requested.
    pub verdict: &'static str,
    /// Whether it objected in vain, since another judge had accepted.
    pub overruled: bool,
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
        let hook = call.hook();
        let mut decision = Decision::none();
        for judge in self.wanting(hook) {
            if !judge.is_concerned(hook, call.recipient(), view) {
                continue;
            }
            let ruling = judge.judge(call.clone(), view.clone()).await;
            decision.take(judge.as_ref(), hook, ruling, view);
            if decision.verdict.refuses() {
                break;
            }
        }
        decision
    }

    /// Asks the judges about credentials; the first with an opinion decides.
    pub async fn authenticate(&self, credentials: &Arc<Credentials>, view: &mut View) -> AuthRuling {
        let hook = Hook::AuthPassword;
        for judge in self.wanting(hook) {
            if !judge.is_concerned(hook, None, view) {
                continue;
            }
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

    /// Informs the judges of the result of AUTH. Their edits are made in the view.
    pub async fn auth_result(&self, result: &Arc<LoginResult>, view: &mut View) {
        let (hook, mut decision) = (Hook::AuthResult, Decision::none());
        for judge in self.wanting(hook) {
            if judge.is_concerned(hook, None, view) {
                let ruling = judge.auth_result(Arc::clone(result), view.clone()).await;
                decision.take(judge.as_ref(), hook, Ruling { verdict: Verdict::Next, ..ruling }, view);
            }
        }
    }

    /// Informs the judges that a copy of a message has been committed.
    pub async fn queued(&self, view: &View) {
        let hook = Hook::Queued;
        for judge in self.wanting(hook).filter(|judge| judge.is_concerned(hook, None, view)) {
            judge.queued(view.clone()).await;
        }
    }

    /// Informs the judges of the result of a delivery attempt. Their edits are made in the view. Returns also those edits
    /// that are to be stored with the message, by the name of the judge.
    pub async fn delivery_result(
        &self,
        outcomes: &Arc<[DeliveryOutcome]>,
        view: &mut View,
    ) -> (Vec<JudgeStep>, Vec<(Arc<str>, Vec<Edit>)>) {
        let hook = Hook::DeliveryResult;
        let (mut decision, mut stored) = (Decision::none(), Vec::new());
        for judge in self.wanting(hook) {
            if !judge.is_concerned(hook, None, view) {
                continue;
            }
            let ruling = judge.delivery_result(Arc::clone(outcomes), view.clone()).await;
            let lasting: Vec<Edit> = ruling.edits.iter().filter(|edit| edit.is_lasting()).cloned().collect();
            decision.take(judge.as_ref(), hook, Ruling { verdict: Verdict::Next, ..ruling }, view);
            let made = decision.steps.last().is_some_and(|step| step.fault.is_none());
            if made && !lasting.is_empty() {
                stored.push((Arc::clone(judge.name()), lasting));
            }
        }
        (decision.steps, stored)
    }

    /// Informs the judges that the session has ended.
    pub async fn disconnect(&self, view: &View) {
        let hook = Hook::Disconnect;
        for judge in self.wanting(hook).filter(|judge| judge.is_concerned(hook, None, view)) {
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
        Self { verdict: Verdict::Next, by: None, delay: Duration::ZERO, close: false, steps: Vec::new() }
    }

    /// What was decided, and by which judge: the verdict, or the first fate that a judge requested if none refused.
    #[must_use]
    pub fn summary(&self) -> (&'static str, Option<&Arc<str>>) {
        if self.verdict == Verdict::Next {
            let requests = self.steps.iter().filter(|step| !step.overruled);
            if let Some(step) = requests.into_iter().find(|step| step.verdict != Verdict::Next.name()) {
                return (step.verdict, Some(&step.judge));
            }
        }
        (self.verdict.name(), self.by.as_ref())
    }

    /// Adds one judge's ruling, and makes its edits in the view.
    fn take(&mut self, judge: &dyn Judge, hook: Hook, ruling: Ruling, view: &mut View) {
        let mut shown = ruling.name();
        let spared = self.verdict == Verdict::Accept && !judge.mandatory();
        let mut overruled = spared && ruling.objects();
        let Ruling { mut verdict, mut edits, mut fault } = ruling;
        if overruled {
            verdict = Verdict::Next;
            edits.retain(|edit| !edit.objects());
            edits.iter_mut().for_each(report_as_overruled);
        }
        match apply(view, judge, edits) {
            Ok(effects) => {
                self.delay += effects.delay;
                self.close |= effects.close;
            }
            Err(conflict) => {
                // Edits and verdict apply together or not at all (law 5): the operator's policy for faults decides.
                verdict = judge.after_conflict(hook);
                overruled = spared && verdict.refuses();
                shown = verdict.name();
                fault = Some(conflict);
                if overruled {
                    verdict = Verdict::Next;
                }
            }
        }
        self.steps.push(JudgeStep { judge: Arc::clone(judge.name()), verdict: shown, overruled, fault });
        if verdict.refuses() || self.verdict == Verdict::Next && verdict != Verdict::Next {
            self.verdict = verdict;
            self.by = Some(Arc::clone(judge.name()));
        }
    }
}

/// Makes all edits of a ruling in the view, or none.
fn apply(view: &mut View, judge: &dyn Judge, edits: Vec<Edit>) -> Result<ReplyEffects, JudgeFault> {
    if let Some(transaction) = &view.transaction {
        let fates = edits.iter().filter_map(|edit| match edit {
            Edit::Fate { fate, .. } => Some(fate),
            _ => None,
        });
        transaction.fates.check_quarantines(fates).map_err(|error| bad_answer(&error))?;
    }
    view.apply(judge.name(), edits).map_err(|error| bad_answer(&error))
}

/// Corrects what an overruled judge reports to have done because of a DMARC policy: its objection has no effect, and the
/// domain's owner must not read in a report that it had.
fn report_as_overruled(edit: &mut Edit) {
    if let Edit::Dmarc(done) = edit
        && done.disposition != "none"
    {
        let override_reason = Some("local_policy".to_owned());
        *done = DmarcDisposition { disposition: "none".to_owned(), override_reason };
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
    use pintle_mail::{QueueId, SessionId, UnixTime};

    use super::*;
    use crate::{Edit, Fate, Hooks, MAX_QUARANTINES, Session};

    struct Fixed {
        name: Arc<str>,
        mandatory: bool,
        concerned: bool,
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

        fn is_concerned(&self, _: Hook, _: Option<u32>, _: &View) -> bool {
            self.concerned
        }

        fn after_conflict(&self, _: Hook) -> Verdict {
            Verdict::Reject(None)
        }

        fn judge(&self, _: Call, view: View) -> BoxFuture<'_, Ruling> {
            self.seen.lock().unwrap().push(view);
            Box::pin(std::future::ready(self.ruling.clone()))
        }
    }

    fn fixed(name: &str, verdict: Verdict, edits: Vec<Edit>) -> Fixed {
        let ruling = Ruling { verdict, edits, fault: None };
        Fixed { name: name.into(), mandatory: false, concerned: true, ruling, seen: Mutex::default() }
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

    fn hold(name: &str) -> Edit {
        let fate = Fate::Quarantine { name: name.into(), reason: String::new() };
        Edit::Fate { recipients: Vec::new(), fate, hook: Hook::Connect }
    }

    fn mail_view() -> View {
        let envelope = pintle_mail::Envelope {
            sender: pintle_mail::ReversePath::Null,
            params: pintle_mail::MailParams::default(),
            recipients: Vec::new(),
        };
        let transaction = crate::Transaction::new(QueueId::new(UnixTime::from_millis(0), 1), envelope);
        View { transaction: Some(Arc::new(transaction)), ..view() }
    }

    #[test]
    fn after_an_acceptance_all_are_asked_and_only_the_mandatory_object() {
        for mandatory in [false, true] {
            for (verdict, edits) in [
                (Verdict::Defer(None), vec![fact("seen")]),
                (Verdict::Next, vec![hold("virus"), fact("seen")]),
            ] {
                let mut last = fixed("scan", verdict.clone(), edits);
                last.mandatory = mandatory;
                let judges = [Arc::new(fixed("allow", Verdict::Accept, vec![])), Arc::new(last)];
                let mut view = mail_view();
                let decision = run(&judges, &mut view);
                assert!(view.session.facts.contains_key("seen"), "its other edits are made");
                assert_eq!(decision.steps[1].overruled, !mandatory);
                let fate = view.transaction.unwrap().fates.of(0).map(|found| found.by.to_string());
                let objected = decision.verdict.refuses() || fate.is_some_and(|by| by == "scan");
                assert_eq!(objected, mandatory, "{verdict:?}");
            }
        }
    }

    /// A report to the domain's owner must not say that a policy was applied when an allow-list has prevented it.
    #[test]
    fn an_overruled_judge_has_done_nothing_because_of_a_dmarc_policy() {
        let done = |disposition: &str, reason: Option<&str>| DmarcDisposition {
            disposition: disposition.to_owned(),
            override_reason: reason.map(str::to_owned),
        };
        let forwarded = done("none", Some("trusted_forwarder"));
        for (verdict, mandatory, said, reported) in [
            (Verdict::Reject(None), false, done("reject", None), done("none", Some("local_policy"))),
            (Verdict::Reject(None), true, done("reject", None), done("reject", None)),
            (Verdict::Reject(None), false, forwarded.clone(), forwarded),
            (Verdict::Next, false, done("quarantine", None), done("quarantine", None)),
        ] {
            let mut judge = fixed("dmarc", verdict, vec![Edit::Dmarc(said)]);
            judge.mandatory = mandatory;
            let judges = [Arc::new(fixed("allow", Verdict::Accept, vec![])), Arc::new(judge)];
            let mut view = mail_view();
            run(&judges, &mut view);
            assert_eq!(view.transaction.unwrap().dmarc, Some(reported));
        }
    }

    #[test]
    fn one_message_is_held_in_few_quarantines() {
        let name = |n: usize| format!("q{n}");
        let holds = |names: std::ops::Range<usize>| names.map(|n| hold(&name(n))).collect::<Vec<_>>();
        let judges = [
            Arc::new(fixed("a", Verdict::Next, holds(0..MAX_QUARANTINES - 1))),
            Arc::new(fixed("b", Verdict::Next, holds(0..MAX_QUARANTINES))),
            Arc::new(fixed("c", Verdict::Next, [vec![fact("c")], holds(5..MAX_QUARANTINES + 1)].concat())),
        ];
        let mut view = mail_view();
        let decision = run(&judges, &mut view);
        let faults: Vec<_> =
            decision.steps.iter().map(|step| step.fault.as_ref().map(|fault| fault.kind)).collect();
        assert_eq!(faults, [None, None, Some(FaultKind::BadAnswer)]);
        assert_eq!(decision.verdict, Verdict::Reject(None), "as the operator's policy for faults says");
        assert!(view.session.facts.is_empty(), "the ruling has no effect");
    }

    #[test]
    fn what_is_held_is_still_shown_to_those_who_come_after() {
        let judges = [
            Arc::new(fixed("scan", Verdict::Next, vec![hold("spam")])),
            Arc::new(fixed("allow", Verdict::Accept, vec![])),
            Arc::new(fixed("firewall", Verdict::Next, vec![fact("stripped")])),
        ];
        let mut view = mail_view();
        let decision = run(&judges, &mut view);
        assert_eq!((decision.verdict, decision.by.as_deref()), (Verdict::Accept, Some("allow")));
        assert_eq!(decision.steps[0].verdict, "quarantine");
        assert!(view.session.facts.contains_key("stripped"));
        assert_eq!(view.transaction.unwrap().fates.of(0).unwrap().by.as_ref(), "scan", "it objected before");
    }

    #[test]
    fn a_refusal_after_a_hold_refuses() {
        let judges = [
            Arc::new(fixed("scan", Verdict::Next, vec![hold("spam")])),
            Arc::new(fixed("late", Verdict::Reject(None), vec![Edit::Close])),
            Arc::new(fixed("last", Verdict::Accept, vec![])),
        ];
        let decision = run(&judges, &mut mail_view());
        assert_eq!((decision.verdict, decision.by.as_deref()), (Verdict::Reject(None), Some("late")));
        assert!(decision.close && decision.steps.len() == 2);
    }

    #[test]
    fn a_judge_that_is_not_concerned_is_not_asked() {
        let mut judge = fixed("a", Verdict::Reject(None), vec![]);
        judge.concerned = false;
        let judges = [Arc::new(judge)];
        assert_eq!(run(&judges, &mut view()), Decision::none());
        assert!(judges[0].seen.lock().unwrap().is_empty());
    }

    #[test]
    fn edits_fall_together_and_the_verdict_with_them() {
        let edits = vec![fact("kept?"), Edit::GrantRelay(7)];
        let judges = [Arc::new(fixed("a", Verdict::Accept, edits))];
        let mut view = view();
        let decision = run(&judges, &mut view);
        assert_eq!(decision.verdict, Verdict::Reject(None), "as the operator's policy for faults says");
        assert_eq!(decision.steps[0].fault.as_ref().unwrap().kind, FaultKind::BadAnswer);
        assert!(view.session.facts.is_empty());
    }

    #[test]
    fn nobody_asked_means_next() {
        assert_eq!(run(&[], &mut view()), Decision::none());
    }
}
