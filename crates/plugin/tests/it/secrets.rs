//! Keys that a plugin uses and never sees: codes, random octets, grants by name, reloads.

use std::sync::Arc;

use pintle_plugin::{Config, Gateway, Grant, PluginConfig, Plugins, SecretKey};
use pintle_policy::{Call, View};
use serde_json::{Value, json};

use crate::support::{Zone, keeper, session};

fn config(settings: Value, grants: &[&str], secret: &[u8]) -> Config {
    let grants = grants.iter().map(|grant| grant.parse::<Grant>().unwrap()).collect();
    let secrets = [("one".to_owned(), SecretKey::new(secret)), ("two".to_owned(), SecretKey::new(b"other"))];
    let gateway = Gateway { secrets: secrets.into(), ..Gateway::default() };
    Config { plugins: vec![PluginConfig { grants, ..keeper(settings) }], gateway, ..Config::default() }
}

/// What the plugin gets at a connection.
async fn at_connection(plugins: &Plugins) -> String {
    let judge = plugins.judges().remove(0);
    let mut view: View = session([192, 0, 2, 1]);
    let ruling = judge.judge(Call::Connect, view.clone()).await;
    assert_eq!(ruling.fault, None);
    view.apply(judge.name(), ruling.edits).unwrap();
    view.session.facts["keeper.got"].clone()
}

async fn got(what: &str, grants: &[&str]) -> String {
    let config = config(json!({"connect": what}), grants, b"Jefe");
    let plugins = Plugins::open(config, Arc::new(Zone)).await.unwrap();
    let got = at_connection(&plugins).await;
    plugins.shutdown().await;
    got
}

/// RFC 2202 section 3 and RFC 4231 section 4.3: test case 2 of each, with the key "Jefe".
#[tokio::test]
async fn codes_are_those_of_the_standards() {
    let all = &["kv", "secrets"];
    assert_eq!(got("hmac one sha1", all).await, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    let sha256 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(got("hmac one sha256", all).await, sha256);
    assert!(got("hmac one md5", all).await.contains("Unavailable"));
    assert!(got("hmac three sha1", all).await.contains("Invalid"));
    assert_eq!(got("hmac-of one 1048576", all).await.len(), 64);
    assert!(got("hmac-of one 1048577", all).await.contains("Limit"));
}

#[tokio::test]
async fn random_octets_differ_and_are_bounded() {
    let all = &["kv", "secrets"];
    let (one, other) = (got("random 1024", all).await, got("random 1024", all).await);
    assert!(one.len() == 2_048 && other.len() == 2_048 && one != other);
    assert_eq!(got("random 0", all).await, "");
    assert!(got("random 1025", all).await.contains("Limit"));
}

#[tokio::test]
async fn a_grant_with_a_name_is_for_that_key_alone() {
    let named = &["kv", "secrets:two"];
    assert_eq!(got("hmac two sha1", named).await.len(), 40);
    let denied = got("hmac one sha1", named).await;
    assert!(denied.contains("Denied(\"secrets:one\")"), "{denied}");
    assert_eq!(got("random 2", named).await.len(), 4);
    let without = config(json!({}), &["kv"], b"Jefe");
    let error = Plugins::open(without, Arc::new(Zone)).await.err().unwrap().to_string();
    assert!(error.contains("`pintle:plugin/secrets@0.1.0`, which needs the grant `secrets`"), "{error}");
}

#[tokio::test]
async fn in_configure_there_are_no_keys() {
    let config = config(json!({"configure": "hmac one sha1"}), &["kv", "secrets"], b"Jefe");
    let error = Plugins::open(config, Arc::new(Zone)).await.err().unwrap().to_string();
    assert!(error.contains("Unavailable"), "{error}");
}

#[tokio::test]
async fn a_reload_replaces_keys() {
    let of = |secret| config(json!({"connect": "hmac one sha1"}), &["kv", "secrets"], secret);
    let plugins = Plugins::open(of(b"Jefe"), Arc::new(Zone)).await.unwrap();
    let before = at_connection(&plugins).await;
    let prepared = plugins.prepare(of(b"another")).await.unwrap();
    assert_eq!(at_connection(&plugins).await, before, "until it is applied");
    plugins.apply(prepared);
    assert_ne!(at_connection(&plugins).await, before);
    plugins.shutdown().await;
}

#[test]
fn a_key_is_never_printed() {
    let shown = format!("{:?}", config(json!({}), &["secrets"], b"very secret words").gateway);
    assert!(shown.contains("one") && !shown.contains("very secret words"), "{shown}");
    assert!(!shown.contains("118, 101"), "nor as numbers: {shown}");
}
