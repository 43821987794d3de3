//! Leases: counts that end with what they count, however it ends.

use std::sync::Arc;
use std::time::Duration;

use pintle_plugin::{ComponentSource, GrantKind, PluginConfig, Plugins};
use pintle_policy::{Call, Chain, FaultKind, Judge, Verdict, View};
use serde_json::{Value, json};

use crate::support::{component, delivery, keeper, limits, message, open, session, transaction};

/// The host with the plugin `keeper`, and its judge. Every take is of the key "k", up to 2.
async fn host(settings: Value) -> (Plugins, Arc<dyn Judge>) {
    let plugins = open(vec![keeper(settings)]).await;
    let judge = plugins.judges().remove(0);
    (plugins, judge)
}

/// Asks the plugin, and makes its edits in the view. Returns what it got.
async fn ask(judge: &Arc<dyn Judge>, call: Call, view: &mut View) -> String {
    let decision = Chain::new(vec![Arc::clone(judge)]).judge(&call, view).await;
    assert_eq!(decision.steps[0].fault, None);
    view.session.facts["keeper.got"].clone()
}

async fn take(judge: &Arc<dyn Judge>, call: Call, view: &View) -> (String, View) {
    let mut view = view.clone();
    let got = ask(judge, call, &mut view).await;
    (got, view)
}

#[tokio::test]
async fn a_lease_ends_with_the_session_the_transaction_or_the_attempt() {
    let settings = json!({"connect": "lease", "rcpt": "lease", "message": "lease", "deliver": "lease"});
    let (plugins, judge) = host(settings).await;
    for (call, view) in [
        (Call::Connect, session([192, 0, 2, 1])),
        (Call::Rcpt(0), transaction(&["bob"])),
        (Call::Message, message()),
        (Call::Deliver, delivery()),
    ] {
        let (one, first) = take(&judge, call.clone(), &view).await;
        let (two, second) = take(&judge, call.clone(), &view).await;
        assert_eq!((one.as_str(), two.as_str()), ("Ok(Some(1))", "Ok(Some(2))"), "{call:?}");
        assert_eq!(take(&judge, call.clone(), &view).await.0, "Ok(None)", "{call:?}: it is full");
        drop(first);
        assert_eq!(take(&judge, call.clone(), &view).await.0, "Ok(Some(2))", "{call:?}: one has ended");
        drop(second);
    }
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_lease_of_a_transaction_ends_with_it_and_not_with_the_session() {
    let (plugins, judge) = host(json!({"connect": "lease", "message": "lease"})).await;
    let mut view = message();
    let transaction = view.transaction.take();
    assert_eq!(ask(&judge, Call::Connect, &mut view).await, "Ok(Some(1))");
    view.transaction = transaction;
    assert_eq!(ask(&judge, Call::Message, &mut view).await, "Ok(Some(2))");
    view.transaction = None;
    assert_eq!(take(&judge, Call::Connect, &session([192, 0, 2, 2])).await.0, "Ok(Some(2))");
    drop(view);
    assert_eq!(take(&judge, Call::Connect, &session([192, 0, 2, 2])).await.0, "Ok(Some(1))");
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_session_counts_once_for_a_key() {
    let (plugins, judge) = host(json!({"connect": "lease-twice"})).await;
    let mut view = session([192, 0, 2, 1]);
    assert_eq!(ask(&judge, Call::Connect, &mut view).await, "Ok(Some(1)) Ok(Some(1))");
    assert_eq!(ask(&judge, Call::Connect, &mut view).await, "Ok(Some(1)) Ok(Some(1))", "in a later call too");
    let (got, _other) = take(&judge, Call::Connect, &session([192, 0, 2, 2])).await;
    assert_eq!(got, "Ok(Some(2)) Ok(Some(2))");
    plugins.shutdown().await;
}

#[tokio::test]
async fn leases_are_bounded_and_need_something_to_count() {
    for (what, got) in [
        ("lease-many", "Some(HostError::Limit(\"a plugin has at most 64 leases in one place\"))"),
        ("lease-key 256", "Ok(Some(1))"),
        ("lease-key 257", "Err(HostError::Limit(\"a lease's key has at most 256 octets\"))"),
        ("lease-key 0", "Err(HostError::Invalid(\"a lease's key is empty\"))"),
    ] {
        let (plugins, judge) = host(json!({"connect": what})).await;
        assert_eq!(take(&judge, Call::Connect, &session([192, 0, 2, 1])).await.0, got);
        plugins.shutdown().await;
    }
    let refused = Plugins::open(
        pintle_plugin::Config {
            plugins: vec![keeper(json!({"configure": "lease"}))],
            ..pintle_plugin::Config::default()
        },
        Arc::new(crate::support::Zone),
    );
    let error = refused.await.err().unwrap().to_string();
    assert!(error.contains("a lease is not available in this hook"), "{error}");
}

/// The trap and the timeout come after the lease was taken.
#[tokio::test]
async fn a_call_that_fails_takes_nothing() {
    for (what, kind) in [("lease-trap", FaultKind::Trap), ("lease-sleep", FaultKind::Timeout)] {
        let mut config = keeper(json!({"connect": what, "rcpt": "lease"}));
        config.limits.wall = Duration::from_millis(300);
        let plugins = open(vec![config]).await;
        let judge = plugins.judges().remove(0);
        for _ in 0..3 {
            let ruling = judge.judge(Call::Connect, session([192, 0, 2, 1])).await;
            assert_eq!(ruling.fault.unwrap().kind, kind);
        }
        assert_eq!(take(&judge, Call::Rcpt(0), &transaction(&["bob"])).await.0, "Ok(Some(1))", "{what}");
        plugins.shutdown().await;
    }
}

#[tokio::test]
async fn a_cancelled_call_takes_nothing() {
    let (plugins, judge) = host(json!({"connect": "lease-sleep", "rcpt": "lease"})).await;
    let call = judge.judge(Call::Connect, session([192, 0, 2, 1]));
    assert!(tokio::time::timeout(Duration::from_millis(300), call).await.is_err());
    assert_eq!(take(&judge, Call::Rcpt(0), &transaction(&["bob"])).await.0, "Ok(Some(1))");
    plugins.shutdown().await;
}

/// A refused recipient leaves no trace, as the pipeline restores the transaction.
#[tokio::test]
async fn edits_that_are_dropped_take_nothing() {
    let (plugins, judge) = host(json!({"rcpt": "lease-reject", "message": "lease"})).await;
    let ruling = judge.judge(Call::Rcpt(0), transaction(&["bob"])).await;
    assert!(matches!(ruling.verdict, Verdict::Reject(_)) && !ruling.edits.is_empty());
    drop(ruling);
    assert_eq!(take(&judge, Call::Message, &message()).await.0, "Ok(Some(1))");
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_lease_outlives_a_reload() {
    let (plugins, judge) = host(json!({"connect": "lease"})).await;
    let (_, held) = take(&judge, Call::Connect, &session([192, 0, 2, 1])).await;
    let config = pintle_plugin::Config {
        plugins: vec![keeper(json!({"connect": "lease", "rcpt": "lease"}))],
        ..pintle_plugin::Config::default()
    };
    let prepared = plugins.prepare(config).await.unwrap();
    plugins.apply(prepared);
    assert_eq!(take(&judge, Call::Connect, &session([192, 0, 2, 2])).await.0, "Ok(Some(2))");
    drop(held);
    assert_eq!(take(&judge, Call::Connect, &session([192, 0, 2, 2])).await.0, "Ok(Some(1))");
    plugins.shutdown().await;
}

/// The stock plugin: sessions of an address, messages under way of an identity.
#[tokio::test]
async fn rate_limit_bounds_what_goes_on_at_once() {
    let source = ComponentSource::Bytes { name: "rate-limit".into(), bytes: component("rate-limit") };
    let mut config = PluginConfig::new("rate-limit", source);
    config.grants = [GrantKind::Kv].into();
    config.limits = limits();
    config.settings = json!({"concurrent": [
        {"name": "clients", "by": "address", "max": 1},
        {"name": "users", "by": "identity", "max": 1},
    ]});
    let plugins = open(vec![config]).await;
    let chain = Chain::new(plugins.judges());
    let (mut first, mut second) = (session([192, 0, 2, 1]), session([192, 0, 2, 1]));
    assert_eq!(chain.judge(&Call::Connect, &mut first).await.verdict, Verdict::Next);
    let refused = chain.judge(&Call::Connect, &mut second).await;
    assert!(matches!(&refused.verdict, Verdict::Defer(Some(reply)) if reply.code == 421) && refused.close);
    let mut trusted = session([192, 0, 2, 1]);
    Arc::make_mut(&mut trusted.session).trusted = true;
    let slowed = chain.judge(&Call::Connect, &mut trusted).await;
    assert!(slowed.verdict == Verdict::Next && slowed.delay > Duration::ZERO, "one of ours only waits");
    drop(first);
    assert_eq!(chain.judge(&Call::Connect, &mut second).await.verdict, Verdict::Next, "the first has gone");
    let user = |name: &str| {
        let mut view = transaction(&[]);
        Arc::make_mut(&mut view.session).identity = Some(name.to_owned());
        view
    };
    let mut views = [user("ann"), user("ann"), user("bob"), transaction(&[])];
    let mut verdicts = Vec::new();
    for view in &mut views {
        verdicts.push(chain.judge(&Call::Mail, view).await.verdict.name());
    }
    assert_eq!(verdicts, ["next", "defer", "next", "next"]);
    views[0].transaction = None;
    assert_eq!(chain.judge(&Call::Mail, &mut user("ann")).await.verdict, Verdict::Next);
    plugins.shutdown().await;
}
