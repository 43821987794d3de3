//! What a plugin may do only by leave of the operator, beyond the interfaces that are granted whole.

use std::sync::Arc;

use pintle_mail::{Bytes, HeaderBlock, Param};
use pintle_plugin::{ComponentSource, Config, Gateway, GrantKind, PluginConfig, Plugins, check};
use pintle_policy::{Call, Chain, Fate, FaultKind, Ruling, Verdict, View};
use serde_json::json;

use crate::support::{Zone, component, delivery, message, one, open, session, transaction, unruly};

/// What `act` at EHLO or MAIL comes to with these grants alone.
async fn act(act: &str, grants: &[GrantKind]) -> (Ruling, View) {
    let mut config = unruly(json!({"hello": act, "mail": act}));
    config.grants = [GrantKind::Kv, GrantKind::Dns, GrantKind::Auth, GrantKind::SenderAuth].into();
    config.grants.extend(grants.iter().copied());
    let (plugins, judge) = one(config).await;
    let mut view = transaction(&["bob"]);
    let call = if !matches!(act, "withhold" | "offer") {
        Call::Mail
    } else {
        view = session([192, 0, 2, 1]);
        let starttls = Param { name: "STARTTLS".into(), value: None };
        Arc::make_mut(&mut view.session).extensions = vec![starttls];
        Call::Hello("client.example".into())
    };
    let ruling = judge.judge(call, view.clone()).await;
    let applied = view.apply(judge.name(), ruling.edits.clone());
    assert!(applied.is_ok());
    plugins.shutdown().await;
    (ruling, view)
}

#[tokio::test]
async fn what_is_said_in_the_gateways_name_and_what_changes_its_offers_needs_a_grant() {
    for (what, grant) in [
        ("results", GrantKind::AuthResults),
        ("forge", GrantKind::AuthResults),
        ("withhold", GrantKind::EditExtensions),
        ("offer", GrantKind::EditExtensions),
    ] {
        let (ruling, _) = act(what, &[]).await;
        let fault = ruling.fault.unwrap();
        assert!(fault.kind == FaultKind::Trap && fault.text.contains(grant.name()), "{what}: {}", fault.text);
        assert_eq!((ruling.verdict, ruling.edits), (Verdict::Defer(None), vec![]), "{what}");
        let (ruling, view) = act(what, &[grant]).await;
        assert_eq!((ruling.fault, ruling.edits.is_empty()), (None, false), "{what}");
        match what {
            "withhold" => assert!(view.session.extensions.is_empty()),
            "offer" => assert_eq!(view.session.extensions.len(), 2),
            "forge" => {
                assert_eq!(view.transaction.as_ref().unwrap().dmarc.as_ref().unwrap().disposition, "reject");
            }
            _ => assert_eq!(view.transaction.unwrap().auth_results[0].method, "spf"),
        }
    }
}

/// Before a delivery nobody takes out any more what is said falsely, so it must not be written.
#[tokio::test]
async fn who_edits_headers_speaks_in_the_gateways_name_by_leave_alone() {
    for (act, may, said) in [
        ("say", false, false),
        ("say-again", false, false),
        ("quote", false, true),
        ("rename", false, false),
        ("rename-else", false, true),
        ("say", true, true),
        ("say-again", true, true),
        ("rename", true, true),
    ] {
        let mut plugin = unruly(json!({"deliver": act}));
        plugin.grants.insert(GrantKind::EditHeaders);
        if !may {
            plugin.grants.remove(GrantKind::AuthResults);
        }
        let gateway = Gateway { hostname: "gate.example".to_owned(), ..Gateway::default() };
        let config = Config { plugins: vec![plugin], gateway, ..Config::default() };
        let plugins = Plugins::open(config, Arc::new(Zone)).await.unwrap();
        let mut view = delivery();
        let header =
            b"Authentication-Results: elsewhere.example; spf=pass\r\nX-Foo: gate.example; spf=pass\r\n";
        Arc::make_mut(view.message.as_mut().unwrap()).header = HeaderBlock::parse(Bytes::from_static(header));
        let ruling = plugins.judges()[0].judge(Call::Deliver, view).await;
        assert_eq!(!ruling.edits.is_empty(), said, "{act}: {:?}", ruling.fault);
        assert!(said || ruling.fault.unwrap().text.contains("auth-results"), "{act}");
        plugins.shutdown().await;
    }
}

#[tokio::test]
async fn no_plugin_writes_facts_in_the_name_of_another() {
    let (ruling, view) = act("forge-spf", &[GrantKind::AuthResults]).await;
    assert_eq!(ruling.fault, None);
    let facts = &view.transaction.unwrap().facts;
    assert_eq!(facts.iter().collect::<Vec<_>>(), [(&"unruly.spf".to_owned(), &"pass".to_owned())]);
    let (ruling, view) = act("forge-name", &[GrantKind::AuthResults]).await;
    assert_eq!(ruling.fault, None);
    let facts = &view.session.facts;
    assert_eq!(facts["unruly.pintle.client-name"], "trusted.example", "it is no fact of the gateway");
    assert!(!facts.contains_key("pintle.client-name"));
    // Not even one whose name the operator has chosen so.
    let mut dmarc = unruly(json!({"mail": "forge"}));
    dmarc.name = "dmarc".to_owned();
    dmarc.grants.remove(GrantKind::AuthResults);
    let (plugins, judge) = one(dmarc).await;
    let ruling = judge.judge(Call::Mail, transaction(&["bob"])).await;
    assert!(ruling.fault.unwrap().text.contains("auth-results"));
    plugins.shutdown().await;
    let named = |name: &str| PluginConfig { name: name.to_owned(), ..unruly(json!({})) };
    let config = Config { plugins: vec![named("dmarc.strict"), named("dmarc")], ..Config::default() };
    let error = check(config).await.unwrap_err().to_string();
    assert!(error.contains("\"dmarc.strict\"") && error.contains("without the dot"), "{error}");
}

#[tokio::test]
async fn who_may_not_accept_spares_nobody_the_rest() {
    let second = |config: PluginConfig| PluginConfig {
        name: "second".to_owned(),
        settings: json!({"rcpt": "reject"}),
        ..config
    };
    for (may, verdict) in [(true, "accept"), (false, "reject")] {
        let mut first = unruly(json!({"rcpt": "accept"}));
        if !may {
            first.grants.remove(GrantKind::Accept);
        }
        let plugins = open(vec![first.clone(), second(first)]).await;
        let decision = Chain::new(plugins.judges()).judge(&Call::Rcpt(0), &mut transaction(&["bob"])).await;
        assert_eq!(decision.verdict.name(), verdict);
        assert_eq!(decision.steps[0].fault, None, "it is no fault");
        let told = plugins.status()[0].last_error.clone();
        assert_eq!(told.is_some_and(|told| told.contains("without the grant `accept`")), !may);
        plugins.shutdown().await;
    }
}

#[tokio::test]
async fn reverse_lookups_need_their_own_grant_or_that_for_all_dns() {
    for (grant, may) in [
        (Some(GrantKind::Dns), true),
        (Some(GrantKind::ReverseDns), true),
        (Some(GrantKind::SenderAuth), false),
        (None, false),
    ] {
        let source = ComponentSource::Bytes { name: "asker".into(), bytes: component("asker") };
        let mut config = PluginConfig::new("asker", source);
        config.grants = grant.into_iter().collect();
        let (plugins, judge) = one(config).await;
        let mut view = transaction(&["bob"]);
        let ruling = judge.judge(Call::Mail, view.clone()).await;
        plugins.shutdown().await;
        if may {
            assert_eq!(ruling.fault, None, "{grant:?}");
            view.apply(judge.name(), ruling.edits).unwrap();
            assert_eq!(view.session.facts["asker.names"], "client.example");
        } else {
            let fault = ruling.fault.unwrap();
            assert!(
                fault.text.contains("reverse-dns") && ruling.edits.is_empty(),
                "{grant:?}: {}",
                fault.text
            );
        }
    }
}

#[tokio::test]
async fn a_check_names_the_functions_that_would_be_denied() {
    let mut config = unruly(json!({}));
    config.grants.remove(GrantKind::AuthResults);
    let config = Config { plugins: vec![config], ..Config::default() };
    let report = check(config).await.unwrap().remove(0);
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    let denied = |grant| report.denied.get(&grant).cloned().unwrap_or_default();
    assert_eq!(
        denied(GrantKind::AuthResults),
        ["transaction.add-auth-result", "sender-auth.report-disposition"]
    );
    assert!(denied(GrantKind::EditExtensions).contains(&"session.withhold-extension".to_owned()));
    assert!(denied(GrantKind::ReverseDns).is_empty(), "it has the grant `dns`: {:?}", report.denied);
    let mut config = unruly(json!({}));
    config.grants.remove(GrantKind::Dns);
    let report = check(Config { plugins: vec![config], ..Config::default() }).await.unwrap().remove(0);
    assert_eq!(report.denied[&GrantKind::ReverseDns], ["session.reverse-names"]);
}

#[tokio::test]
async fn what_one_plugin_holds_the_next_still_edits() {
    let holder = unruly(json!({"message": "quarantine"}));
    let mut editor = unruly(json!({"message": "edit-all"}));
    editor.name = "editor".to_owned();
    editor.grants.extend([
        GrantKind::EditHeaders,
        GrantKind::EditBody,
        GrantKind::EditEnvelope,
        GrantKind::Relay,
    ]);
    let plugins = open(vec![holder, editor]).await;
    let mut view = message();
    let decision = Chain::new(plugins.judges()).judge(&Call::Message, &mut view).await;
    // The editor accepts, which changes nothing of what was requested before.
    assert_eq!(decision.steps[0].verdict, "quarantine", "{:?}", decision.steps);
    assert_eq!(decision.verdict, Verdict::Accept);
    let fates = &view.transaction.as_ref().unwrap().fates;
    assert!(matches!(&fates.of(0).unwrap().fate, Fate::Quarantine { name, .. } if name == "unruly"));
    assert!(
        view.message.unwrap().header.named("X-Old").next().is_none(),
        "the field is gone from what is held"
    );
    plugins.shutdown().await;
}
