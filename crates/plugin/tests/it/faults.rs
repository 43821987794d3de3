//! Whatever a guest does costs its own call the operator's verdict, and nobody else anything.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use pintle_plugin::{FailurePolicy, GrantKind, PluginConfig};
use pintle_policy::{AuthVerdict, Call, Credentials, FaultKind, Hook, Judge, Ruling, Verdict};
use serde_json::json;

use crate::support::{limits, one, session, transaction, unruly};

/// Asks at RCPT, where the plugin does what the recipient is called.
async fn rcpt(judge: &Arc<dyn Judge>, act: &str) -> Ruling {
    judge.judge(Call::Rcpt(0), transaction(&[act])).await
}

fn by_recipient() -> PluginConfig {
    unruly(json!({"rcpt": "by-recipient"}))
}

/// The act ends in this fault, while calls of the same plugin that run beside it are served as ever.
async fn costs_one_call(config: PluginConfig, act: &str, kind: FaultKind, text: &str) {
    let (plugins, judge) = one(config).await;
    let beside = join_all((0..50).map(|_| rcpt(&judge, "accept")));
    let (bad, good) = tokio::join!(rcpt(&judge, act), beside);
    let fault = bad.fault.unwrap();
    assert_eq!(fault.kind, kind, "{}", fault.text);
    assert!(fault.text.contains(text), "{}", fault.text);
    assert_eq!(bad.verdict, Verdict::Defer(None));
    assert_eq!(bad.edits, []);
    assert!(good.iter().all(|ruling| *ruling == Verdict::Accept.into()));
    assert_eq!(rcpt(&judge, "accept").await, Verdict::Accept.into(), "served again at once");
    assert_eq!(plugins.status()[0].faults, 1);
    plugins.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_is_cut() {
    costs_one_call(by_recipient(), "spin", FaultKind::Timeout, "computed longer than its limit of 1s").await;
}

#[tokio::test]
async fn a_loop_lets_others_run_on_the_same_thread() {
    let (plugins, judge) = one(by_recipient()).await;
    let looping = pin!(rcpt(&judge, "spin"));
    let beside = pin!(join_all((0..50).map(|_| rcpt(&judge, "accept"))));
    let Either::Right((good, looping)) = select(looping, beside).await else {
        panic!("the loop held the thread until it was cut")
    };
    assert!(good.iter().all(|ruling| *ruling == Verdict::Accept.into()));
    assert_eq!(looping.await.fault.unwrap().kind, FaultKind::Timeout);
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_trap_is_told_with_the_panic_message() {
    costs_one_call(by_recipient(), "trap", FaultKind::Trap, "as told").await;
}

#[tokio::test]
async fn an_exit_is_a_trap() {
    costs_one_call(by_recipient(), "exit", FaultKind::Trap, "exit(").await;
}

#[tokio::test]
async fn memory_ends_at_its_limit() {
    costs_one_call(by_recipient(), "eat", FaultKind::Memory, "8388608 octets").await;
}

/// Things of the host's lie in the host's memory, where the limit of the guest's own does not see them.
#[tokio::test]
async fn what_the_host_keeps_for_it_ends_at_its_limit() {
    costs_one_call(by_recipient(), "hoard", FaultKind::Trap, " / 2000 timers").await;
}

#[tokio::test]
async fn sleeping_counts_against_the_wall_alone() {
    let mut config = by_recipient();
    config.limits.wall = Duration::from_millis(300);
    costs_one_call(config, "sleep", FaultKind::Timeout, "took longer than its limit of 300ms").await;
}

#[tokio::test]
async fn waiting_is_no_computing() {
    let mut config = by_recipient();
    config.limits.cpu = Duration::from_millis(400);
    let (plugins, judge) = one(config).await;
    assert_eq!(rcpt(&judge, "nap").await, Verdict::Next.into());
    plugins.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_requested_at_a_stage_is_refused_by_name() {
    let mut config = unruly(json!({"connect": "discard"}));
    config.grants.insert(GrantKind::DropMail);
    let (plugins, judge) = one(config).await;
    let ruling = judge.judge(Call::Connect, session([192, 0, 2, 1])).await;
    let fault = ruling.fault.unwrap();
    assert!(fault.text.contains("Unavailable") && fault.text.contains("discarding"), "{}", fault.text);
    assert_eq!((ruling.verdict, ruling.edits), (Verdict::Defer(None), vec![]));
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_code_that_contradicts_the_verdict_is_replaced() {
    let (plugins, judge) = one(by_recipient()).await;
    let Verdict::Reject(Some(reply)) = rcpt(&judge, "contradict").await.verdict else { panic!("no reply") };
    assert_eq!(reply.to_string(), "550 5.7.0 fine");
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_dropped_call_costs_one_instance() {
    let mut config = by_recipient();
    config.limits.max_instances = 1;
    let (plugins, judge) = one(config).await;
    let slow = tokio::time::timeout(Duration::from_millis(20), rcpt(&judge, "sleep"));
    assert!(slow.await.is_err());
    assert_eq!(rcpt(&judge, "accept").await, Verdict::Accept.into());
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_busy_plugin_makes_calls_wait_and_then_answers_by_policy() {
    let mut config = by_recipient();
    config.limits.max_instances = 1;
    config.limits.wall = Duration::from_millis(600);
    config.limits.wait = Duration::from_millis(50);
    let (plugins, judge) = one(config).await;
    let (slow, busy) = tokio::join!(rcpt(&judge, "sleep"), rcpt(&judge, "accept"));
    assert_eq!(slow.fault.unwrap().kind, FaultKind::Timeout);
    assert_eq!(busy.fault.unwrap().kind, FaultKind::Busy);
    plugins.shutdown().await;
}

#[tokio::test]
async fn policies_answer_by_hook() {
    let mut config = by_recipient();
    config.failure = FailurePolicy::Reject.into();
    config.failure.hooks.insert(Hook::Connect, FailurePolicy::Skip);
    config.failure.hooks.insert(Hook::Hello, FailurePolicy::Accept);
    config.settings = json!({"connect": "trap", "hello": "trap", "mail": "trap"});
    let (plugins, judge) = one(config).await;
    let view = transaction(&["bob"]);
    let said = |call| judge.judge(call, view.clone());
    assert_eq!(said(Call::Connect).await.verdict, Verdict::Next);
    assert_eq!(said(Call::Hello("x".into())).await.verdict, Verdict::Accept);
    assert_eq!(said(Call::Mail).await.verdict, Verdict::Reject(None));
    plugins.shutdown().await;
}

#[tokio::test]
async fn edits_before_a_trap_are_dropped() {
    let (plugins, judge) = one(by_recipient()).await;
    let ruling = rcpt(&judge, "fact-then-trap").await;
    assert_eq!(ruling.fault.unwrap().kind, FaultKind::Trap);
    assert_eq!(ruling.edits, []);
    plugins.shutdown().await;
}

#[tokio::test]
async fn nobody_is_authenticated_by_a_fault() {
    let credentials = |password: &str| {
        Arc::new(Credentials {
            mechanism: "PLAIN".into(),
            authorization_id: None,
            username: "ann".into(),
            password: password.into(),
        })
    };
    let view = session([192, 0, 2, 1]);
    let (plugins, judge) = one(unruly(json!({}))).await;
    let said = |password| judge.authenticate(credentials(password), view.clone());
    assert_eq!(said("right").await.verdict, AuthVerdict::Granted("ann".into()));
    assert_eq!(said("wrong").await.verdict, AuthVerdict::Denied(None));
    plugins.shutdown().await;
    for policy in [FailurePolicy::Accept, FailurePolicy::Skip] {
        let mut config = unruly(json!({"auth": "trap"}));
        config.failure = policy.into();
        let (plugins, judge) = one(config).await;
        let ruling = judge.authenticate(credentials("right"), view.clone()).await;
        assert_eq!(ruling.verdict, AuthVerdict::Next);
        assert_eq!(ruling.fault.unwrap().kind, FaultKind::Trap);
        plugins.shutdown().await;
    }
}

#[tokio::test]
async fn floods_and_prints_harm_nobody() {
    let mut config = by_recipient();
    config.limits = limits();
    config.limits.cpu = Duration::from_secs(15);
    let (plugins, judge) = one(config).await;
    for act in ["flood", "print", "many-metrics"] {
        assert_eq!(rcpt(&judge, act).await.verdict, Verdict::Next, "{act}");
    }
    plugins.shutdown().await;
}
