//! Generations: a changed component or configuration takes over only when it is sound, and no call notices.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::Bytes;
use pintle_plugin::{
    AppliedPlugins, ComponentSource, Config, FailurePolicy, PluginConfig, PluginStatus, Plugins,
    PluginsError, ReloadError,
};
use pintle_policy::{Call, Judge, Verdict};
use serde_json::json;

use crate::support::{Zone, component, one, open, session, transaction, unruly};

/// The component with an empty custom section after it: another version that does the same.
fn another(bytes: &Bytes) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.extend_from_slice(b"\0\x03\x02hi");
    bytes
}

fn of_file(path: &Path) -> PluginConfig {
    let mut config = unruly(json!({"rcpt": "by-recipient", "connect": "note"}));
    config.component = ComponentSource::File(path.to_owned());
    config
}

async fn generation(plugins: &Plugins, wanted: u64) {
    let reached = async {
        while plugins.status()[0].generation < wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_have_begun_end_on_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    let bytes = component("unruly");
    std::fs::write(&path, &bytes).unwrap();
    let mut config = of_file(&path);
    config.limits.wall = Duration::from_secs(60);
    let (plugins, judge) = one(config).await;
    let ask = |act: &'static str| {
        let judge = Arc::clone(&judge);
        async move { judge.judge(Call::Rcpt(0), transaction(&[act])).await }
    };
    let asleep = tokio::spawn(ask("sleep"));
    while plugins.status()[0].busy == 0 {
        tokio::task::yield_now().await;
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, judge_of_load) = (Arc::clone(&stop), Arc::clone(&judge));
    let load = tokio::spawn(async move {
        let mut calls = 0_u32;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let ruling = judge_of_load.judge(Call::Rcpt(0), transaction(&["accept"])).await;
            assert_eq!(ruling, Verdict::Accept.into());
            calls += 1;
            tokio::task::yield_now().await;
        }
        calls
    });
    // By rename, as a careful operator does, and in place, as a careless one does.
    std::fs::write(folder.path().join("new"), another(&bytes)).unwrap();
    std::fs::rename(folder.path().join("new"), &path).unwrap();
    generation(&plugins, 2).await;
    std::fs::write(&path, &bytes).unwrap();
    generation(&plugins, 3).await;
    assert!(!asleep.is_finished(), "the call that sleeps is still served by the first");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(load.await.unwrap() > 0, "none of them noticed");
    asleep.abort();
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_half_written_file_leaves_the_old_one_serving() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    let bytes = component("unruly");
    std::fs::write(&path, &bytes).unwrap();
    let (plugins, judge) = one(of_file(&path)).await;
    let whole = another(&bytes);
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let told = async {
        while plugins.status()[0].last_error.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    assert_eq!(plugins.status()[0].generation, 1);
    let ruling = judge.judge(Call::Rcpt(0), transaction(&["accept"])).await;
    assert_eq!(ruling, Verdict::Accept.into());
    std::fs::write(&path, &whole).unwrap();
    generation(&plugins, 2).await;
    assert_eq!(plugins.status()[0].last_error, None);
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_comes_late_goes_live() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    let mut config = of_file(&path);
    config.required = false;
    let (plugins, judge) = one(config).await;
    let ask = || judge.judge(Call::Rcpt(0), transaction(&["accept"]));
    assert_eq!(ask().await.verdict, Verdict::Defer(None));
    std::fs::write(&path, component("unruly")).unwrap();
    generation(&plugins, 1).await;
    assert_eq!(ask().await, Verdict::Accept.into());
    plugins.shutdown().await;
}

#[tokio::test]
async fn stored_values_survive_a_reload_by_hand() {
    let (plugins, judge) = one(unruly(json!({"rcpt": "greylist"}))).await;
    let ask = || judge.judge(Call::Rcpt(0), transaction(&["bob"]));
    assert!(matches!(ask().await.verdict, Verdict::Defer(Some(_))));
    assert_eq!(plugins.reload("unruly").await, Ok(2));
    assert_eq!(ask().await.verdict, Verdict::Next, "the first try was remembered");
    let missing = plugins.reload("nobody").await;
    assert_eq!(missing, Err(ReloadError::NoSuchPlugin("nobody".into())));
    plugins.shutdown().await;
    assert_eq!(plugins.reload("unruly").await, Err(ReloadError::Closing));
}

fn config(plugins: Vec<PluginConfig>) -> Config {
    Config { plugins, settle: Duration::from_millis(20), ..Config::default() }
}

fn named(name: &str, connect: &str) -> PluginConfig {
    let mut plugin = unruly(json!({"connect": connect}));
    plugin.name = name.into();
    plugin
}

async fn at_connect(judge: &Arc<dyn Judge>) -> Verdict {
    judge.judge(Call::Connect, session([192, 0, 2, 1])).await.verdict
}

#[tokio::test]
async fn a_new_configuration_takes_over_whole_or_not_at_all() {
    let plugins = open(vec![named("a", "accept"), named("b", "reject"), named("d", "note")]).await;
    let mut broken = unruly(json!({"connect": 5}));
    broken.name = "b".into();
    assert!(plugins.prepare(config(vec![named("a", "reject"), broken])).await.is_err());
    assert_eq!(at_connect(&plugins.judges()[0]).await, Verdict::Accept, "a is as it was");
    let old_b = plugins.judges().remove(1);
    let sound = config(vec![named("c", "accept"), named("a", "reject"), named("d", "note")]);
    let prepared = plugins.prepare(sound).await.unwrap();
    assert_eq!(at_connect(&plugins.judges()[0]).await, Verdict::Accept, "a is as it was until then");
    let applied = plugins.apply(prepared);
    let expected = AppliedPlugins {
        added: vec!["c".into()],
        removed: vec!["b".into()],
        reconfigured: vec!["a".into()],
        ..AppliedPlugins::default()
    };
    assert_eq!(applied, expected);
    let names: Vec<_> = plugins.status().into_iter().map(|status| (status.name, status.generation)).collect();
    assert_eq!(names, [("c".into(), 1), ("a".into(), 2), ("d".into(), 1)]);
    assert_eq!(at_connect(&plugins.judges()[0]).await, Verdict::Accept);
    assert!(matches!(at_connect(&plugins.judges()[1]).await, Verdict::Reject(Some(_))));
    assert!(matches!(at_connect(&old_b).await, Verdict::Reject(Some(_))), "chains that hold it still may");
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_prepared_configuration_that_is_dropped_leaves_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let mut gone = named("gone", "accept");
    gone.required = false;
    gone.component = ComponentSource::File(folder.path().join("gone.wasm"));
    let with_state = |plugins| Config { state: Some(state.clone()), ..config(plugins) };
    let first = with_state(vec![named("a", "accept"), gone.clone()]);
    let plugins = Plugins::open(first, Arc::new(Zone)).await.unwrap();
    // The store of a plugin that is added: nobody may touch it before that.
    std::fs::write(state.join("new.kv"), "damaged").unwrap();
    // Timers count as calls.
    let status =
        || plugins.status().into_iter().map(|status| PluginStatus { calls: 0, ..status }).collect::<Vec<_>>();
    let before = status();
    gone.settings = json!({"connect": "reject"});
    gone.component = ComponentSource::File(folder.path().join("elsewhere.wasm"));
    let other = with_state(vec![named("new", "note"), gone, named("a", "reject")]);
    drop(plugins.prepare(other.clone()).await.unwrap());
    assert_eq!(status(), before);
    assert_eq!(std::fs::read(state.join("new.kv")).unwrap(), b"damaged");
    assert_eq!(plugins.reload("a").await, Ok(2), "nothing is held any more");
    let prepared = plugins.prepare(other).await.unwrap();
    let applied = plugins.apply(prepared);
    assert_eq!(applied.missing.len(), 1, "{applied:?}");
    assert!(!state.join("new.kv").exists() && state.join("new.damaged").exists());
    assert!(plugins.status()[1].last_error.as_ref().unwrap().contains("elsewhere.wasm"));
    plugins.shutdown().await;
}

/// What was loaded with an older configuration, or from an older file, must not take the place of the newer.
#[tokio::test]
async fn a_reload_waits_until_what_is_prepared_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.wasm");
    std::fs::write(&path, component("unruly")).unwrap();
    let (plugins, _) = one(of_file(&path)).await;
    std::fs::write(&path, another(&component("unruly"))).unwrap();
    let prepared = plugins.prepare(config(vec![of_file(&path)])).await.unwrap();
    let before = plugins.status()[0].generation;
    let mut reload = Box::pin(plugins.reload("unruly"));
    assert!(futures_util::poll!(&mut reload).is_pending());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(plugins.status()[0].generation, before, "the watch waits too");
    let applied = plugins.apply(prepared);
    assert_eq!(applied.reloaded.len() + usize::try_from(before).unwrap(), 2, "{applied:?}");
    assert!(reload.await.unwrap() > before);
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_is_missing_answers_by_the_failure_policy_of_today() {
    let folder = tempfile::tempdir().unwrap();
    let mut missing = of_file(&folder.path().join("p.wasm"));
    missing.required = false;
    let (plugins, judge) = one(missing.clone()).await;
    assert_eq!(at_connect(&judge).await, Verdict::Defer(None));
    missing.failure = FailurePolicy::Skip.into();
    let prepared = plugins.prepare(config(vec![missing.clone()])).await.unwrap();
    let applied = plugins.apply(prepared);
    assert_eq!((applied.missing.len(), applied.reconfigured.len()), (1, 1));
    assert_eq!(at_connect(&judge).await, Verdict::Next);
    missing.required = true;
    let refused = plugins.prepare(config(vec![missing])).await.err().unwrap();
    assert!(matches!(refused, PluginsError::Plugins(_)), "{refused}");
    plugins.shutdown().await;
    assert!(matches!(plugins.prepare(config(Vec::new())).await, Err(PluginsError::Closing)));
}
