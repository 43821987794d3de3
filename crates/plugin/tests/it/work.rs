//! What a plugin may have the host do, and what a message may have both do: bounded, whatever they ask for.

use std::sync::Arc;

use pintle_mail::{Bytes, HeaderBlock};
use pintle_plugin::{FailurePolicy, GrantKind};
use pintle_policy::{Call, Chain, Decision, FaultKind, Message, Verdict, View};
use serde_json::json;

use crate::support::{message, one, unruly};

/// What came of a message with the plugin told so, and the view behind it.
async fn told(act: &str, policy: FailurePolicy, mut view: View) -> (Decision, View) {
    let mut config = unruly(json!({"message": act}));
    config.grants.extend([GrantKind::EditBody, GrantKind::EditHeaders]);
    config.failure = policy.into();
    config.limits.cpu = std::time::Duration::from_secs(60);
    config.limits.wall = std::time::Duration::from_secs(60);
    let (plugins, judge) = one(config).await;
    let decision = Chain::new(vec![judge]).judge(&Call::Message, &mut view).await;
    plugins.shutdown().await;
    (decision, view)
}

fn with(header: &str, body: String) -> View {
    let header = HeaderBlock::parse(Bytes::from(header.to_owned()));
    View { message: Some(Arc::new(Message::new(header, Some(Arc::new(Bytes::from(body)))))), ..message() }
}

/// Sixty thousand levels overflowed the stack of the whole process.
#[tokio::test]
async fn a_message_in_a_message_in_a_message_is_a_tree_of_bounded_depth() {
    let rfc822 = "Content-Type: message/rfc822\r\n";
    let (decision, view) =
        told("parts", FailurePolicy::Defer, with(rfc822, format!("{rfc822}\r\n").repeat(60_000))).await;
    assert_eq!(decision.verdict, Verdict::Next, "{:?}", decision.steps);
    let facts = &view.transaction.unwrap().facts;
    assert_eq!(facts["unruly.parts"], "101");
    assert_eq!(facts["unruly.flaws"], "[] [\"depth\"]");
    assert_eq!(facts["pintle.mime-truncated"], "depth", "for plugins that do not look, and for the operator");
}

#[tokio::test]
async fn what_breaks_the_rules_of_mime_is_a_fact() {
    let header = "Content-Type: multipart/mixed; boundary=b\r\nContent-Type: text/plain\r\n";
    let (_, view) = told("parts", FailurePolicy::Defer, with(header, "--b\r\n\r\nx\r\n".into())).await;
    let facts = &view.transaction.unwrap().facts;
    assert_eq!(facts["pintle.mime-malformed"], "not-closed repeated");
    assert!(!facts.contains_key("pintle.mime-truncated"));
    let (_, view) = told("parts", FailurePolicy::Defer, message()).await;
    assert!(!view.transaction.unwrap().facts.contains_key("pintle.mime-malformed"));
}

#[tokio::test]
async fn a_call_that_has_spent_its_budget_is_a_fault_that_says_so() {
    let (header, body) = (format!("Subject: {}\r\n", "word ".repeat(50_000)), "x".repeat(1 << 20));
    for act in [
        "work-read",
        "work-find",
        "work-headers",
        "work-mailboxes",
        "work-words",
        "work-domains",
        "work-labels",
        "work-skeletons",
    ] {
        let (decision, view) = told(act, FailurePolicy::Skip, with(&header, body.clone())).await;
        let fault = decision.steps[0].fault.as_ref().unwrap();
        assert_eq!(fault.kind, FaultKind::Limit, "{act}: {fault:?}");
        assert!(fault.text.contains("octets in one call"), "{}", fault.text);
        assert_eq!(
            decision.verdict,
            Verdict::Defer(None),
            "its answer was to accept, and its policy to skip"
        );
        assert!(view.session.facts.is_empty());
    }
}

#[tokio::test]
async fn counts_of_a_mail_are_bounded() {
    for (act, words) in [
        ("work-scores", "1000 HostError::Limit"),
        ("work-results", "256 HostError::Limit"),
        ("work-notes", "256 HostError::Limit"),
        ("work-facts", "256 HostError::Limit"),
        ("work-pieces", "HostError::Limit(\"a new body has at most 65536 pieces"),
        ("work-values", "0 HostError::Limit(\"the values of one answer"),
    ] {
        let (decision, view) = told(act, FailurePolicy::Defer, message()).await;
        assert_eq!(decision.verdict, Verdict::Accept, "{act}: {:?}", decision.steps);
        let refused = &view.session.facts["unruly.refused"];
        assert!(refused.contains(words), "{act}: {refused}");
    }
}

/// Trapping on purpose would be the way past every plugin that the operator has told to be skipped.
#[tokio::test]
async fn no_policy_lets_a_message_through_that_made_a_plugin_fail() {
    for (policy, verdict) in [
        (FailurePolicy::Skip, Verdict::Defer(None)),
        (FailurePolicy::Accept, Verdict::Defer(None)),
        (FailurePolicy::Reject, Verdict::Reject(None)),
    ] {
        let (decision, _) = told("trap", policy, message()).await;
        assert_eq!(decision.verdict, verdict, "{policy:?}");
    }
}
