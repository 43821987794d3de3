//! SPF, DKIM, DMARC and ARC as guests see them: of the mail as received, and asked for once.

use std::sync::Arc;

use pintle_dns::{Record, RecordKind};
use pintle_mail::{Bytes, Charset, HeaderBlock, ReversePath};
use pintle_plugin::{Grant, PluginConfig};
use pintle_policy::{Call, Chain, Message, Transaction, Verdict, View};
use pintle_testkit::StaticResolver;
use serde_json::json;

use crate::support::{delivery, one, open_with, transaction, unruly};

const SIGNED: &str = include_str!("../../../sender-auth/tests/messages/rsa-relaxed-relaxed.eml");
const KEYS: &str = include_str!("../../../sender-auth/tests/messages/keys.zone");

fn zone() -> StaticResolver {
    let text = |text: &str| Record::Txt(text.as_bytes().to_vec());
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
    editor.grants.extend([Grant::EditHeaders, Grant::EditBody, Grant::EditEnvelope, Grant::Relay]);
    let first = named("first", unruly(json!({"rcpt": "spf", "message": "sender"})));
    let second = named("second", unruly(json!({"rcpt": "spf", "message": "sender"})));
    let resolver = zone();
    let plugins = open_with(vec![editor, first, second], Arc::new(resolver.clone())).await;
    let chain = Chain::new(plugins.judges());
    let mut view = signed();
    let recipient = view.transaction.as_ref().unwrap().envelope.recipients[0].id;
    let decision = chain.judge(&Call::Recipient(recipient), &mut view).await;
    assert_eq!(decision.verdict, Verdict::Next, "{:?}", decision.steps);
    let decision = chain.judge(&Call::Message, &mut view).await;
    assert_eq!(decision.verdict, Verdict::Accept, "{:?}", decision.steps);
    let after = view.transaction.as_ref().unwrap();
    assert!(after.envelope.sender.is_null(), "the editor did its work");
    assert_eq!(after.facts["spf"], "Outcome::Fail client.example false, Outcome::Pass signer.example true");
    assert_eq!(after.facts["dkim"], "Outcome::Pass signer.example r");
    assert_eq!(after.facts["dmarc"], "Outcome::Pass signer.example DmarcPolicy::Reject (true, true)");
    assert_eq!(after.facts["arc"], "Outcome::None");
    for name in ["signer.example", "r._domainkey.signer.example", "_dmarc.signer.example"] {
        let question = (name.to_owned(), RecordKind::Txt);
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
    let ask = || judge.judge(Call::Recipient(0), view.clone());
    let rulings = futures_util::future::join_all([ask(), ask(), ask()]).await;
    assert!(rulings.iter().all(|ruling| ruling.fault.is_none() && !ruling.edits.is_empty()), "{rulings:?}");
    let question = ("signer.example".to_owned(), RecordKind::Txt);
    assert_eq!(resolver.asked().iter().filter(|asked| **asked == question).count(), 1);
    plugins.shutdown().await;
}

#[tokio::test]
async fn results_are_not_there_before_the_mail_is_nor_signatures_served() {
    let (plugins, judge) =
        one(unruly(json!({"mail": "spf", "rcpt": "sender", "deliver": "spf", "message": "sign"}))).await;
    let mut view = signed();
    view.message = None;
    let early = judge.judge(Call::Recipient(0), view).await;
    assert!(early.fault.unwrap().text.contains("not available"), "DKIM needs the message");
    let late = judge.judge(Call::Deliver, delivery()).await;
    assert!(format!("{:?}", late.edits).contains("not available"), "{late:?}");
    let unsigned = judge.judge(Call::Message, signed()).await;
    assert!(unsigned.fault.unwrap().text.contains("sign"), "the grant is missing");
    plugins.shutdown().await;
    let mut config = unruly(json!({"message": "sign"}));
    config.grants.insert(Grant::Sign);
    let (plugins, judge) = one(config).await;
    let unsigned = judge.judge(Call::Message, signed()).await;
    assert!(unsigned.fault.unwrap().text.contains("does not serve `dkim-sign` yet"));
    plugins.shutdown().await;
}

#[tokio::test]
async fn without_the_grant_the_plugin_does_not_load() {
    let mut config = unruly(json!({}));
    config.grants.remove(&Grant::SenderAuth);
    config.required = true;
    let config = pintle_plugin::Config { plugins: vec![config], ..pintle_plugin::Config::default() };
    let error = pintle_plugin::Plugins::open(config, Arc::new(zone())).await.err().unwrap().to_string();
    assert!(error.contains("sender-auth") && error.contains("grant"), "{error}");
}
