//! Generations: a changed component or configuration takes over only when it is sound, and no call notices.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::Bytes;
use pintle_plugin::{Config, PluginConfig, Plugins, ReloadError, Source};
use pintle_policy::{Call, Judge, Verdict};
use serde_json::json;

use crate::support::{Zone, component, one, session, transaction, unruly};

/// The component with an empty custom section after it: another version that does the same.
fn another(bytes: &Bytes) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.extend_from_slice(b"\0\x03\x02hi");
    bytes
}

fn of_file(path: &Path) -> PluginConfig {
    let mut config = unruly(json!({"rcpt": "by-recipient", "connect": "note"}));
    config.component = Source::File(path.to_owned());
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

#[tokio::test]
async fn a_new_configuration_takes_over_whole_or_not_at_all() {
    let config = |plugins| Config { plugins, ..Config::default() };
    let told = |act: &str| unruly(json!({"connect": act}));
    let named = |name: &str, mut plugin: PluginConfig| {
        plugin.name = name.into();
        plugin
    };
    let first = config(vec![named("a", told("accept")), named("b", told("reject"))]);
    let plugins = Plugins::open(first, Arc::new(Zone)).await.unwrap();
    let said = |judge: Arc<dyn Judge>| async move {
        judge.judge(Call::Connect, session([192, 0, 2, 1])).await.verdict
    };
    let broken = config(vec![named("a", told("reject")), named("b", unruly(json!({"connect": 5})))]);
    assert!(plugins.reconfigure(broken).await.is_err());
    assert_eq!(said(plugins.judges().remove(0)).await, Verdict::Accept, "a is as it was");
    let old_b = plugins.judges().remove(1);
    let sound = config(vec![named("c", told("accept")), named("a", told("reject"))]);
    plugins.reconfigure(sound).await.unwrap();
    let names: Vec<_> = plugins.status().into_iter().map(|status| (status.name, status.generation)).collect();
    assert_eq!(names, [("c".into(), 1), ("a".into(), 2)]);
    assert_eq!(said(plugins.judges().remove(0)).await, Verdict::Accept);
    assert!(matches!(said(plugins.judges().remove(1)).await, Verdict::Reject(Some(_))));
    assert!(matches!(said(old_b).await, Verdict::Reject(Some(_))), "chains that hold it still may");
    plugins.shutdown().await;
}
