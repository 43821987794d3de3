//! What is refused at load, in which words, and what a plugin that is not loaded answers.

use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::time::Duration;

use pintle_plugin::{
    ComponentSource, Config, FailurePolicy, Grants, LoadError, Places, PluginCheck, PluginConfig, Plugins,
    PluginsError, check,
};
use pintle_policy::{AuthVerdict, Call, Credentials, FaultKind, Hook, Judge, Verdict};
use serde_json::json;

use crate::support::{Zone, component, limits, one, open, session, transaction, unruly};

fn of_bytes(bytes: Vec<u8>) -> PluginConfig {
    let name = "test".into();
    PluginConfig::new("p", ComponentSource::Bytes { name, bytes: bytes.into() })
}

async fn report(plugin: PluginConfig) -> PluginCheck {
    let config = Config { plugins: vec![plugin], ..Config::default() };
    check(config).await.unwrap().remove(0)
}

async fn errors(plugin: PluginConfig) -> Vec<String> {
    report(plugin).await.errors.iter().map(ToString::to_string).collect()
}

/// A component in which one text stands for another of the same length.
fn patched(guest: &str, from: &str, to: &str) -> Vec<u8> {
    let mut bytes = component(guest).to_vec();
    let found: Vec<_> = memchr::memmem::find_iter(&bytes, from).collect();
    assert!(!found.is_empty() && from.len() == to.len());
    for at in found {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[tokio::test]
async fn a_sound_plugin_is_reported_with_its_manifest_and_hooks() {
    let report = report(of_bytes(component("example").to_vec())).await;
    assert_eq!(report.errors, []);
    let manifest = report.manifest.unwrap();
    assert_eq!(manifest.id, "pintle.example");
    assert_eq!(manifest.wants, ["edit-headers"]);
    assert!(report.hooks.contains(&Hook::Rcpt) && !report.hooks.contains(&Hook::Timer));
}

#[tokio::test]
async fn missing_grants_are_named_all_of_them() {
    let mut plugin = unruly(json!({}));
    plugin.grants = Grants::default();
    assert_eq!(
        errors(plugin).await,
        [
            "the component exports `pintle:plugin/on-auth-password`, which needs the grant `auth`: add \"auth\" to the plugin's \
             `grants` if it may have it",
            "the component imports `pintle:plugin/dns@0.1.0`, which needs the grant `dns`: add \"dns\" to the \
             plugin's `grants` if it may have it",
            "the component imports `pintle:plugin/kv@0.1.0`, which needs the grant `kv`: add \"kv\" to the \
             plugin's `grants` if it may have it",
            "the component imports `pintle:plugin/sender-auth@0.1.0`, which needs the grant `sender-auth`: add \
             \"sender-auth\" to the plugin's `grants` if it may have it",
        ]
    );
}

#[tokio::test]
async fn other_versions_and_strangers_are_named() {
    let newer = errors(of_bytes(patched("example", "@0.1.0", "@0.7.0"))).await;
    let expected = "the component uses `pintle:plugin/session@0.7.0`, but this release offers version 0.1.0 of the \
                    contract: build it against wit/ of this release";
    assert!(newer.iter().any(|error| error == expected), "{newer:#?}");
    let stranger = errors(of_bytes(patched("example", "plugin/delivery", "plugin/elsewhat"))).await;
    assert_eq!(
        stranger,
        [
            "the component uses the interface `pintle:plugin/elsewhat@0.1.0`, which is no part of version 0.1.0 of the \
             contract: build it against wit/ of this release"
        ]
    );
}

#[tokio::test]
async fn what_is_no_plugin_is_refused() {
    let empty_component = b"\0asm\x0d\0\x01\0".to_vec();
    let said = errors(of_bytes(empty_component)).await;
    assert!(said[0].contains("does not export `pintle:plugin/plugin`"), "{said:#?}");
    assert!(said[1].contains("exports no hook"), "{said:#?}");
    let empty_module = b"\0asm\x01\0\0\0".to_vec();
    for junk in [empty_module, b"#!/bin/sh".to_vec(), Vec::new()] {
        let said = errors(of_bytes(junk)).await;
        assert!(said[0].starts_with("not a WASI 0.2 component"), "{said:#?}");
    }
    let absent = PluginConfig::new("p", ComponentSource::File("/nowhere/at/all.wasm".into()));
    assert!(errors(absent).await[0].starts_with("cannot read /nowhere/at/all.wasm"));
}

#[tokio::test]
async fn mistakes_in_the_settings_come_as_a_list_with_pointers() {
    let said = errors(unruly(json!({"configure": "refuse"}))).await;
    assert_eq!(said, ["the plugin refuses its configuration: /configure: no; not at all"]);
    let said = errors(unruly(json!({"nonsense": 1}))).await;
    assert!(said[0].contains("nonsense"), "{said:#?}");
}

#[tokio::test]
async fn the_schema_refuses_before_the_plugin_does_and_names_lines() {
    let mut plugin = of_bytes(component("example").to_vec());
    plugin.settings = json!({"tga": "x", "header": 5});
    let lines = [("", 1), ("/tga", 9), ("/header", 3)].map(|(at, line)| (at.to_owned(), line));
    plugin.places = Places { file: "a.toml".into(), lines: lines.into() };
    let report = report(plugin).await;
    let [LoadError::Config(mistakes)] = report.errors.as_slice() else { panic!("{:?}", report.errors) };
    let lines: Vec<_> = mistakes.iter().map(|mistake| mistake.place.as_ref().unwrap().line).collect();
    assert_eq!(lines, [3, 9], "{mistakes:?}");
    assert!(report.manifest.is_some());
}

#[tokio::test]
async fn a_schema_that_cannot_be_used_is_the_plugins_own_fault() {
    let said = errors(of_bytes(patched("example", "draft/2020-12", "draft/2019-09"))).await;
    let expected = "the plugin's own schema for its configuration cannot be used, which its author must correct: its \
                    `$schema` is \"";
    assert!(said[0].starts_with(expected), "{said:#?}");
}

#[tokio::test]
async fn a_start_that_goes_wrong_is_a_fault() {
    let mut looping = unruly(json!({"configure": "spin"}));
    looping.limits.start = Duration::from_millis(300);
    assert!(errors(looping).await[0].contains("cannot be started: it"));
    let said = errors(unruly(json!({"configure": "trap"}))).await;
    assert!(said[0].contains("as told"), "{said:#?}");
    let said = errors(unruly(json!({"configure": "kv"}))).await;
    assert!(said[0].contains("not available in `configure`"), "{said:#?}");
    let mut small = unruly(json!({}));
    small.limits.memory = 64 << 10;
    assert!(errors(small).await[0].contains("octets of memory from the start"));
}

#[tokio::test]
async fn required_plugins_keep_the_host_from_starting() {
    let config = Config {
        plugins: vec![of_bytes(Vec::new()), unruly(json!({"configure": "refuse"}))],
        ..Config::default()
    };
    let error = Plugins::open(config, Arc::new(Zone)).await.err().unwrap();
    let PluginsError::Plugins(problems) = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 2, "{error}");
    assert!(error.to_string().starts_with("plugin \"p\": not a WASI 0.2 component"));
}

#[tokio::test]
async fn names_are_unique() {
    let twice = vec![of_bytes(Vec::new()), of_bytes(Vec::new())];
    let error = check(Config { plugins: twice, ..Config::default() }).await.err().unwrap();
    assert_eq!(error.to_string(), "two plugins are called \"p\": give each a name of its own");
}

#[tokio::test]
async fn a_plugin_that_is_not_loaded_answers_by_policy_and_opens_nothing() {
    for (policy, verdict, auth) in [
        (FailurePolicy::Defer, Verdict::Defer(None), AuthVerdict::Unavailable(None)),
        (FailurePolicy::Reject, Verdict::Reject(None), AuthVerdict::Denied(None)),
        (FailurePolicy::Accept, Verdict::Accept, AuthVerdict::Next),
        (FailurePolicy::Skip, Verdict::Next, AuthVerdict::Next),
    ] {
        let mut broken = of_bytes(Vec::new());
        broken.required = false;
        broken.failure = policy.into();
        let (plugins, judge) = one(broken).await;
        assert!(judge.hooks().has(Hook::Mail) && judge.hooks().has(Hook::AuthPassword));
        let ruling = judge.judge(Call::Rcpt(0), transaction(&["bob"])).await;
        assert_eq!((ruling.verdict, ruling.edits), (verdict, vec![]));
        assert_eq!(ruling.fault.unwrap().kind, FaultKind::NotLoaded);
        let credentials = Credentials {
            mechanism: "PLAIN".into(),
            authorization_id: None,
            username: "ann".into(),
            password: "right".into(),
        };
        let ruling = judge.authenticate(Arc::new(credentials), session([192, 0, 2, 1])).await;
        assert_eq!(ruling.verdict, auth);
        let status = plugins.status().remove(0);
        assert_eq!(status.generation, 0);
        assert!(status.last_error.unwrap().contains("not a WASI 0.2 component"));
        plugins.shutdown().await;
    }
}

#[tokio::test]
async fn compiled_code_is_kept_and_used_again() {
    let folder = tempfile::tempdir().unwrap();
    // A check makes no folder, and uses none that others may look into.
    std::fs::DirBuilder::new().mode(0o700).create(folder.path().join("compiled")).unwrap();
    let config = || Config {
        plugins: vec![of_bytes(component("example").to_vec())],
        cache: Some(folder.path().join("compiled")),
        ..Config::default()
    };
    let files = || -> Vec<_> {
        let entries = std::fs::read_dir(folder.path().join("compiled")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    check(config()).await.unwrap();
    let [file] = &files()[..] else { panic!("{:?}", files()) };
    let written = std::fs::metadata(file).unwrap().modified().unwrap();
    assert_eq!(check(config()).await.unwrap()[0].errors, []);
    assert_eq!(std::fs::metadata(&files()[0]).unwrap().modified().unwrap(), written, "not written again");
    std::fs::write(file, b"not compiled code").unwrap();
    assert_eq!(check(config()).await.unwrap()[0].errors, [], "compiled anew");
}

#[tokio::test]
async fn timers_tick_and_status_tells_how_a_plugin_fares() {
    let mut plugin = unruly(json!({"timer": "count"}));
    plugin.timer = Duration::from_millis(5);
    plugin.limits = limits();
    let plugins = open(vec![plugin]).await;
    let ticks = async {
        while plugins.status()[0].calls < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ticks).await.unwrap();
    let status = plugins.status().remove(0);
    assert_eq!((status.name.as_str(), status.generation, status.faults), ("unruly", 1, 0));
    assert_eq!(status.manifest.unwrap().id, "test.unruly");
    plugins.shutdown().await;
    let after = plugins.status()[0].calls;
    tokio::task::yield_now().await;
    assert_eq!(plugins.status()[0].calls, after, "nothing runs after the end");
    let judge: Arc<dyn Judge> = plugins.judges().remove(0);
    let ruling = judge.judge(Call::Mail, transaction(&["bob"])).await;
    assert_eq!(ruling.fault.unwrap().kind, FaultKind::NotLoaded);
}

#[tokio::test]
async fn a_timer_has_no_session() {
    let mut plugin = unruly(json!({"timer": "session"}));
    plugin.timer = Duration::from_millis(5);
    let plugins = open(vec![plugin]).await;
    let ticks = async {
        while plugins.status()[0].faults == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ticks).await.unwrap();
    let error = plugins.status().remove(0).last_error.unwrap();
    assert!(error.contains("on-timer") && error.contains("the session is not available"), "{error}");
    plugins.shutdown().await;
}

#[tokio::test]
async fn spare_instances_are_made_beside_the_mail() {
    let mut plugin = unruly(json!({"rcpt": "by-recipient"}));
    plugin.limits.min_idle = 3;
    let (plugins, judge) = one(plugin).await;
    let ready = async |wanted: usize| {
        let reached = async {
            while plugins.status()[0].idle != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), reached).await.unwrap();
    };
    ready(3).await;
    let ruling = judge.judge(Call::Rcpt(0), transaction(&["trap"])).await;
    assert_eq!(ruling.fault.unwrap().kind, FaultKind::Trap);
    ready(3).await;
    plugins.shutdown().await;
    assert_eq!(plugins.status()[0].idle, 0);
}
