//! SPF, DKIM, DMARC and ARC as guests see them: of the mail as received, and asked for once.

use std::collections::BTreeMap;
use std::sync::Arc;

use pintle_dns::{DnsRecord, DnsRecordKind};
use pintle_mail::{Bytes, Charset, Domains, HeaderBlock, ReversePath};
use pintle_plugin::{Config, Gateway, GrantKind, PluginConfig, Plugins, SigningKeyName};
use pintle_policy::{Call, Chain, Edit, Judge, Message, Transaction, Verdict, View};
use pintle_testkit::StaticResolver;
use serde_json::json;

use crate::support::{delivery, one, open_with, transaction, unruly};

const SIGNED: &str = include_str!("../../../sender-auth/tests/messages/rsa-relaxed-relaxed.eml");
const KEYS: &str = include_str!("../../../sender-auth/tests/messages/keys.zone");

fn zone() -> StaticResolver {
    let text = |text: &str| DnsRecord::Txt(text.as_bytes().to_vec());
    let resolver = StaticResolver::new()
        .with("signer.example", text("v=spf1 ip4:192.0.2.1 -all"))
        .with("client.example", text("v=spf1 -all"))
        .with("_dmarc.signer.example", text("v=DMARC1; p=reject"));
    for line in KEYS.lines() {
        let (name, key) = line.split_once(" TXT ").unwrap();
        resolver.add(name, text(key));
    }
    resolver
}

/// The signed message, from 192.0.2.1 and ann@signer.example.
fn signed() -> View {
    let mut view = transaction(&["bob", "carol"]);
    let mut envelope = view.transaction.as_ref().unwrap().envelope.clone();
    envelope.sender = ReversePath::parse("ann@signer.example", Charset::Ascii).unwrap();
    let id = view.transaction.as_ref().unwrap().id;
    view.transaction = Some(Arc::new(Transaction::new(id, envelope)));
    let (header, body) = SIGNED.split_once("\r\n\r\n").unwrap();
    let header = HeaderBlock::parse(Bytes::from(format!("{header}\r\n")));
    let body = Arc::new(Bytes::from_static(body.as_bytes()));
    view.message = Some(Arc::new(Message::new(header, Some(body))));
    view
}

fn named(name: &str, mut config: PluginConfig) -> PluginConfig {
    config.name = name.to_owned();
    config.mandatory = true;
    config
}

#[tokio::test]
async fn plugins_share_results_about_the_mail_as_received() {
    let mut editor = named("editor", unruly(json!({"message": "edit-all"})));
    editor.grants.extend([
        GrantKind::EditHeaders,
        GrantKind::EditBody,
        GrantKind::EditEnvelope,
        GrantKind::Relay,
    ]);
    let first = named("first", unruly(json!({"rcpt": "spf", "message": "sender"})));
    let second = named("second", unruly(json!({"rcpt": "spf", "message": "sender"})));
    let resolver = zone();
    let plugins = open_with(vec![editor, first, second], Arc::new(resolver.clone())).await;
    let chain = Chain::new(plugins.judges());
    let mut view = signed();
    let recipient = view.transaction.as_ref().unwrap().envelope.recipients[0].id;
    let decision = chain.judge(&Call::Rcpt(recipient), &mut view).await;
    assert_eq!(decision.verdict, Verdict::Next, "{:?}", decision.steps);
    let decision = chain.judge(&Call::Message, &mut view).await;
    assert_eq!(decision.verdict, Verdict::Accept, "{:?}", decision.steps);
    let after = view.transaction.as_ref().unwrap();
    assert!(after.envelope.sender.is_null(), "the editor did its work");
    assert_eq!(after.facts["second.spf"], "fail client.example false, pass signer.example true");
    assert_eq!(after.facts["second.dkim"], "pass signer.example r");
    assert_eq!(after.facts["second.dmarc"], "pass signer.example reject (true, true)");
    assert_eq!(after.facts["second.arc"], "none");
    for name in ["signer.example", "r._domainkey.signer.example", "_dmarc.signer.example"] {
        let question = (name.to_owned(), DnsRecordKind::Txt);
        let asked = resolver.asked().iter().filter(|asked| **asked == question).count();
        assert_eq!(asked, 1, "{name}");
    }
    plugins.shutdown().await;
}

#[tokio::test]
async fn callers_at_once_wait_for_one_computation() {
    let resolver = zone();
    let config = unruly(json!({"rcpt": "spf"}));
    let plugins = open_with(vec![config], Arc::new(resolver.clone())).await;
    let judge = plugins.judges().remove(0);
    let view = signed();
    let ask = || judge.judge(Call::Rcpt(0), view.clone());
    let rulings = futures_util::future::join_all([ask(), ask(), ask()]).await;
    assert!(rulings.iter().all(|ruling| ruling.fault.is_none() && !ruling.edits.is_empty()), "{rulings:?}");
    let question = ("signer.example".to_owned(), DnsRecordKind::Txt);
    assert_eq!(resolver.asked().iter().filter(|asked| **asked == question).count(), 1);
    plugins.shutdown().await;
}

#[tokio::test]
async fn results_are_not_there_before_the_mail_is() {
    let (plugins, judge) = one(unruly(json!({"mail": "spf", "rcpt": "sender", "deliver": "spf"}))).await;
    let mut view = signed();
    view.message = None;
    let early = judge.judge(Call::Rcpt(0), view).await;
    assert!(early.fault.unwrap().text.contains("not available"), "DKIM needs the message");
    let late = judge.judge(Call::Deliver, delivery()).await;
    assert!(format!("{:?}", late.edits).contains("not available"), "{late:?}");
    plugins.shutdown().await;
}

/// A host that tells of a gateway with one key, and one plugin in it.
async fn with_key(plugin: PluginConfig) -> (Plugins, Arc<dyn Judge>) {
    let key = SigningKeyName { name: "key".to_owned(), selector: "s1".to_owned() };
    let gateway = Gateway {
        hostname: "gw.example".to_owned(),
        domains: Domains::new(["ours.example", ".below.example"]),
        keys: BTreeMap::from([("ours.example".to_owned(), vec![key])]),
        ..Gateway::default()
    };
    let config = Config { plugins: vec![plugin], gateway, ..Config::default() };
    let plugins = Plugins::open(config, Arc::new(zone())).await.unwrap();
    let judge = plugins.judges().remove(0);
    (plugins, judge)
}

#[tokio::test]
async fn signing_needs_the_grant_a_key_and_a_message() {
    let signs = |hook: &str, how: &str, granted: bool| {
        let mut config = unruly(json!({hook: how}));
        if granted {
            config.grants.insert(GrantKind::Sign);
        }
        config
    };
    let told = async |config, call, view| {
        let (plugins, judge) = with_key(config).await;
        let ruling = judge.judge(call, view).await;
        plugins.shutdown().await;
        ruling.fault.map_or_else(|| format!("{:?}", ruling.edits), |fault| fault.text)
    };
    let denied = told(signs("message", "sign", false), Call::Message, signed()).await;
    assert!(denied.contains("denied") || denied.contains("sign"), "{denied}");
    assert!(!denied.contains("Sign("), "{denied}");
    assert_eq!(told(signs("message", "sign", true), Call::Message, signed()).await, "[Sign(\"key\")]");
    assert_eq!(told(signs("message", "seal", true), Call::Message, signed()).await, "[Seal(\"key\")]");
    assert_eq!(told(signs("deliver", "sign", true), Call::Deliver, delivery()).await, "[Sign(\"key\")]");
    for (hook, how, call) in [("rcpt", "sign", Call::Rcpt(0)), ("deliver", "seal", Call::Deliver)] {
        let view = if hook == "rcpt" { signed() } else { delivery() };
        let refused = told(signs(hook, how, true), call, view).await;
        assert!(refused.contains("not available"), "{refused}");
    }
    let (plugins, judge) = one(signs("message", "sign", true)).await;
    let unknown = judge.judge(Call::Message, signed()).await.fault.unwrap().text;
    assert!(unknown.contains("there is no key \\\"key\\\""), "{unknown}");
    plugins.shutdown().await;
}

#[tokio::test]
async fn the_gateway_tells_of_itself_and_of_what_others_found() {
    let mut config = unruly(json!({"mail": "gateway", "rcpt": "results"}));
    config.grants.insert(GrantKind::Sign);
    let (plugins, judge) = with_key(config.clone()).await;
    let told = judge.judge(Call::Mail, signed()).await;
    let key = r#"SigningKey { name: "key", domain: "ours.example", selector: "s1" }"#;
    let expected =
        format!(r#"gw.example ["ours.example", ".below.example"] [true, false, true, false] [{key}]"#);
    assert_eq!(told.edits, [Edit::SessionFact("unruly.gateway".into(), expected)]);
    let results = judge.judge(Call::Rcpt(0), signed()).await;
    let results = format!("{:?}", results.edits[1]);
    assert!(results.contains("smtp.helo") && results.contains("pass"), "{results}");
    let changed = Gateway { hostname: "new.example".to_owned(), ..Gateway::default() };
    let config = Config { plugins: vec![config], gateway: changed, ..Config::default() };
    let prepared = plugins.prepare(config).await.unwrap();
    plugins.apply(prepared);
    let told = format!("{:?}", judge.judge(Call::Mail, signed()).await.edits);
    assert!(told.contains("new.example"), "a reload tells plugins without loading them again: {told}");
    plugins.shutdown().await;
}

#[tokio::test]
async fn without_the_grant_the_plugin_does_not_load() {
    let mut config = unruly(json!({}));
    config.grants.remove(GrantKind::SenderAuth);
    config.required = true;
    let config = Config { plugins: vec![config], ..Config::default() };
    let error = Plugins::open(config, Arc::new(zone())).await.err().unwrap().to_string();
    assert!(error.contains("sender-auth") && error.contains("grant"), "{error}");
}
