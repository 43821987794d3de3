//! Hooks without a verdict, and on-data: what plugins get there, and what they may change.

use std::sync::Arc;

use pintle_policy::{Call, Chain, LoginOutcome, LoginResult, Verdict};
use serde_json::json;

use crate::support::{one, session, transaction, unruly};

fn login(username: &str, outcome: LoginOutcome) -> Arc<LoginResult> {
    Arc::new(LoginResult { mechanism: "PLAIN".to_owned(), username: username.to_owned(), outcome })
}

#[tokio::test]
async fn on_auth_result_sets_facts_and_decides_nothing() {
    let (plugins, judge) = one(unruly(json!({"auth_result": "tell"}))).await;
    let chain = Chain::new(vec![judge]);
    let mut view = session([192, 0, 2, 1]);
    for (outcome, word) in [
        (LoginOutcome::Denied, "denied"),
        (LoginOutcome::Refused, "refused"),
        (LoginOutcome::Unavailable, "unavailable"),
        (LoginOutcome::Granted, "granted"),
    ] {
        chain.auth_result(&login("ann", outcome), &mut view).await;
        assert_eq!(view.session.facts["unruly.login"], format!("PLAIN ann {word}"));
    }
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_fault_in_a_hook_without_a_verdict_changes_nothing_and_is_counted() {
    let (plugins, judge) = one(unruly(json!({"auth_result": "fact-then-trap", "queued": "trap"}))).await;
    let chain = Chain::new(vec![judge]);
    let mut view = transaction(&["bob"]);
    chain.auth_result(&login("ann", LoginOutcome::Granted), &mut view).await;
    assert!(view.session.facts.is_empty());
    chain.queued(&view).await;
    let status = plugins.status().remove(0);
    assert_eq!(status.faults, 2);
    assert!(status.last_error.unwrap().starts_with("on-queued: "));
    plugins.shutdown().await;
}

#[tokio::test]
async fn on_queued_knows_the_queue_id_and_its_changes_do_not_count() {
    let (plugins, judge) = one(unruly(json!({"queued": "tell"}))).await;
    let chain = Chain::new(vec![judge]);
    chain.queued(&transaction(&["bob"])).await;
    let status = plugins.status().remove(0);
    assert!(status.calls > 0);
    assert_eq!((status.faults, status.last_error), (0, None));
    plugins.shutdown().await;
    for (act, refused) in [
        ("quarantine", "a quarantine"),
        ("forge-spf", "changing the transaction"),
        ("note", "changing the session"),
    ] {
        let (plugins, judge) = one(unruly(json!({"queued": act}))).await;
        judge.queued(transaction(&["bob"])).await;
        let error = plugins.status().remove(0).last_error.unwrap();
        assert!(error.contains(&format!("{refused} is not available in this hook")), "{error}");
        plugins.shutdown().await;
    }
}

#[tokio::test]
async fn on_data_sees_all_recipients_and_no_message() {
    let (plugins, judge) = one(unruly(json!({"data": "count"}))).await;
    let ruling = judge.judge(Call::Data, transaction(&["bob", "carol"])).await;
    let Verdict::Reject(Some(reply)) = ruling.verdict else { panic!("{ruling:?}") };
    assert_eq!(reply.text, "2 recipients");
    plugins.shutdown().await;
    for (act, edits) in [("quarantine", 1), ("close", 1)] {
        let (plugins, judge) = one(unruly(json!({"data": act}))).await;
        let ruling = judge.judge(Call::Data, transaction(&["bob"])).await;
        assert_eq!((ruling.verdict, ruling.edits.len(), ruling.fault), (Verdict::Next, edits, None), "{act}");
        plugins.shutdown().await;
    }
    let (plugins, judge) = one(unruly(json!({"data": "refuse-first"}))).await;
    let ruling = judge.judge(Call::Data, transaction(&["bob"])).await;
    assert!(ruling.fault.unwrap().text.contains("refusing single recipients"));
    plugins.shutdown().await;
}
