//! What a guest sees and changes, through the chain that makes its edits.

use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{Bytes, HeaderBlock, NextHop, TlsPolicy};
use pintle_plugin::{Config, FailurePolicy, Gateway, GrantKind, PluginConfig, Plugins};
use pintle_policy::{AttemptStatus, Call, Chain, DeliveryOutcome, Edit, FaultKind, Judge, Verdict};
use serde_json::json;

use crate::support::{Zone, delivery, message, one, session, transaction, unruly};

#[tokio::test]
async fn everything_that_is_granted_is_changed_together() {
    let mut config = unruly(json!({"message": "edit-all"}));
    config.grants.extend([
        GrantKind::EditHeaders,
        GrantKind::EditBody,
        GrantKind::EditEnvelope,
        GrantKind::Relay,
    ]);
    let (plugins, judge) = one(config).await;
    let mut view = message();
    let decision = Chain::new(vec![judge]).judge(&Call::Message, &mut view).await;
    assert_eq!(decision.verdict, Verdict::Accept, "{:?}", decision.steps);
    assert_eq!(decision.delay, Duration::from_millis(20));
    let message = view.message.unwrap();
    let header = String::from_utf8(message.header.as_bytes().to_vec()).unwrap();
    assert_eq!(
        header,
        "X-Top: 1\r\nSubject: new subject\r\nX-Before: 2\r\nFrom: ann@example.com\r\n\
         Content-Type: multipart/mixed; boundary=b\r\nX-Bottom: 3\r\n"
    );
    let body = message.body.as_ref().unwrap();
    let bytes = body.read(0, 10_000).await.unwrap();
    assert!(bytes.ends_with(b"--b--\r\n-- \r\nfooter\r\n"));
    let transaction = view.transaction.unwrap();
    assert!(transaction.envelope.sender.is_null());
    let recipients: Vec<_> =
        transaction.envelope.recipients.iter().map(|r| (r.address.as_str(), r.relay)).collect();
    assert_eq!(recipients, [("other@example.net", false), ("more@example.net", true)]);
    assert_eq!(transaction.envelope.recipients[1].id, 1 << 31, "no id that the session may give");
    assert_eq!(transaction.facts["unruly.seen"], "all");
    assert_eq!(transaction.notes.get("unruly", "n"), Some(&b"5"[..]));
    assert!((transaction.score() - 2.0).abs() < 1e-9);
    assert_eq!(transaction.auth_results[0].method, "spf");
    plugins.shutdown().await;
}

#[tokio::test]
async fn what_is_not_granted_is_denied_by_name() {
    let (plugins, judge) = one(unruly(json!({"message": "edit-all", "rcpt": "grant-relay"}))).await;
    for (call, view, grant) in
        [(Call::Message, message(), "edit-headers"), (Call::Rcpt(0), transaction(&["bob"]), "relay")]
    {
        let ruling = judge.judge(call, view).await;
        let fault = ruling.fault.unwrap();
        assert_eq!(fault.kind, FaultKind::Trap);
        assert!(fault.text.contains(grant), "{}", fault.text);
        assert_eq!(ruling.verdict, Verdict::Defer(None), "the relay stays closed");
        assert_eq!(ruling.edits, []);
    }
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_message_is_seen_whole() {
    let (plugins, judge) = one(unruly(json!({"message": "look"}))).await;
    let mut view = message();
    let decision = Chain::new(vec![judge]).judge(&Call::Message, &mut view).await;
    assert_eq!(decision.verdict, Verdict::Next, "{:?}", decision.steps);
    let facts = &view.transaction.unwrap().facts;
    assert_eq!(facts["unruly.body"], crate::support::BODY.len().to_string());
    assert_eq!(facts["unruly.found"], "[33, 81]");
    assert_eq!(facts["unruly.parts"], "multipart/mixed text/plain text/html");
    assert_eq!(facts["unruly.text"], "hello world");
    assert_eq!(facts["unruly.part-header"], "Content-Type");
    assert_eq!(facts["unruly.denied"], "Err(HostError::Denied(\"edit-headers\"))");
    assert_eq!(facts["unruly.digest"].len(), 4);
    plugins.shutdown().await;
}

#[tokio::test]
async fn no_body_can_smuggle() {
    for (act, text) in [("nul", "NUL"), ("bare-cr-at-end", "bare CR")] {
        let mut config = unruly(json!({"message": act}));
        config.grants.insert(GrantKind::EditBody);
        let (plugins, judge) = one(config).await;
        let ruling = judge.judge(Call::Message, message()).await;
        assert!(ruling.fault.unwrap().text.contains(text));
        assert_eq!(ruling.edits, []);
        plugins.shutdown().await;
    }
}

/// Fields with blanks and words of any length, most of them near what a line just holds. `_` and `~` are blanks for the guest.
fn odd_fields() -> String {
    let mut state = 7_u64;
    let mut chance = move |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % most
    };
    let mut fields = String::new();
    for _ in 0..1_500 {
        let name = if chance(4) == 0 { 960 + chance(60) } else { 1 + chance(20) };
        fields.push_str(&format!("{}: ", "n".repeat(name)));
        for _ in 0..chance(5) {
            let blanks = if chance(4) == 0 { 480 + chance(600) } else { chance(4) };
            let word = if chance(4) == 0 { 490 + chance(520) } else { chance(8) };
            fields.extend((0..blanks).map(|_| if chance(9) == 0 { '~' } else { '_' }));
            fields.push_str(&if chance(5) == 0 { "\u{e9}".repeat(word / 2) } else { "w".repeat(word) });
        }
        fields.push_str(&"_".repeat(if chance(3) == 0 { chance(1_000) } else { 0 }));
        fields.push_str("\r\n");
    }
    fields
}

#[tokio::test]
async fn what_the_kit_says_can_be_written_the_host_writes() {
    let mut config = unruly(json!({"message": "write"}));
    config.grants.insert(GrantKind::EditHeaders);
    let (plugins, judge) = one(config).await;
    let mut view = message();
    // In ASCII the host writes encoded words, of which the kit knows nothing.
    Arc::make_mut(view.transaction.as_mut().unwrap()).envelope.params.smtputf8 = true;
    Arc::make_mut(view.message.as_mut().unwrap()).header = HeaderBlock::parse(Bytes::from(odd_fields()));
    let decision = Chain::new(vec![judge]).judge(&Call::Message, &mut view).await;
    assert_eq!(decision.verdict, Verdict::Next, "{:?}", decision.steps);
    let facts = &view.transaction.unwrap().facts;
    assert_eq!(facts["unruly.other"], "");
    let taken: usize = facts["unruly.taken"].parse().unwrap();
    assert!((300..1_200).contains(&taken), "both kinds are tried: {taken}");
    plugins.shutdown().await;
}

#[tokio::test]
async fn notes_outlive_the_call_and_the_instance() {
    let mut config = unruly(json!({"connect": "note"}));
    config.limits.recycle_after = Some(1);
    let (plugins, judge) = one(config).await;
    let mut view = session([192, 0, 2, 1]);
    let chain = Chain::new(vec![judge]);
    for expected in ["1", "2", "3"] {
        chain.judge(&Call::Connect, &mut view).await;
        assert_eq!(view.session.facts["unruly.count"], expected);
    }
    plugins.shutdown().await;
}

#[tokio::test]
async fn notes_are_bounded() {
    let (plugins, judge) = one(unruly(json!({"connect": "huge-note"}))).await;
    let fault = judge.judge(Call::Connect, session([192, 0, 2, 1])).await.fault.unwrap();
    assert!(fault.text.contains("at most 65536 octets"), "{}", fault.text);
    plugins.shutdown().await;
}

#[tokio::test]
async fn dns_and_stored_values_make_a_greylist() {
    let (plugins, judge) = one(unruly(json!({"rcpt": "greylist"}))).await;
    let ask = |mut view: pintle_policy::View, client: [u8; 4]| {
        Arc::make_mut(&mut view.session).client = (client, 1).into();
        judge.judge(Call::Rcpt(0), view)
    };
    let listed = ask(transaction(&["bob"]), [192, 0, 2, 66]).await.verdict;
    let Verdict::Reject(Some(reply)) = listed else { panic!("{listed:?}") };
    assert_eq!(reply.to_string(), "550 5.7.1 listed by list.example");
    let text = |verdict| match verdict {
        Verdict::Defer(Some(reply)) => pintle_mail::Reply::to_string(&reply),
        other => format!("{other:?}"),
    };
    let mut said = Vec::new();
    for _ in 0..4 {
        said.push(text(ask(transaction(&["bob"]), [192, 0, 2, 1]).await.verdict));
    }
    assert_eq!(said, ["451 4.7.1 come again", "Next", "Next", "451 4.7.0 too fast"]);
    plugins.shutdown().await;
}

#[tokio::test]
async fn names_of_the_client_are_confirmed() {
    let (plugins, judge) = one(unruly(json!({"connect": "names"}))).await;
    let mut view = session([192, 0, 2, 1]);
    Chain::new(vec![judge]).judge(&Call::Connect, &mut view).await;
    assert_eq!(view.session.facts["unruly.names"], "client.example");
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_delivery_is_routed_and_its_bounce_suppressed() {
    let mut config = unruly(json!({"deliver": "route"}));
    config.grants.extend([GrantKind::Route, GrantKind::DropMail]);
    let (plugins, judge) = with_relay(config).await;
    let chain = Chain::new(vec![judge]);
    let mut view = delivery();
    let decision = chain.judge(&Call::Deliver, &mut view).await;
    assert_eq!(decision.verdict, Verdict::Next, "{:?}", decision.steps);
    let outcomes = Arc::new([DeliveryOutcome {
        recipient: 0,
        next_hop: Some("mx.example.org".into()),
        reply: None,
        status: AttemptStatus::Failed,
        details: Vec::new(),
    }]);
    chain.delivery_result(&(outcomes as Arc<[DeliveryOutcome]>), &mut view).await;
    let delivery = view.delivery.unwrap();
    assert_eq!(delivery.next_hop, NextHop::Relay("inner".into()));
    assert_eq!(delivery.tls, TlsPolicy::Verified);
    assert_eq!(delivery.no_bounce, [0]);
    plugins.shutdown().await;
}

/// A host whose configuration lists one relay, `inner`, and one plugin in it.
async fn with_relay(plugin: PluginConfig) -> (Plugins, Arc<dyn Judge>) {
    let gateway = Gateway { relays: ["inner".to_owned()].into(), ..Gateway::default() };
    let config = Config { plugins: vec![plugin], gateway, ..Config::default() };
    let plugins = Plugins::open(config, Arc::new(Zone)).await.unwrap();
    let judge = plugins.judges().remove(0);
    (plugins, judge)
}

#[tokio::test]
async fn a_delivery_goes_nowhere_with_both_grants_alone() {
    for (grants, missing) in [
        (&[GrantKind::Route][..], "drop-mail"),
        (&[GrantKind::DropMail], "\"route\""),
        (&[GrantKind::Route, GrantKind::RouteAnywhere], "drop-mail"),
    ] {
        let mut config = unruly(json!({"deliver": "to nowhere"}));
        config.grants.extend(grants.iter().copied());
        let (plugins, judge) = one(config).await;
        let ruling = judge.judge(Call::Deliver, delivery()).await;
        let fault = ruling.fault.unwrap().text;
        assert!(ruling.edits.is_empty() && fault.contains(missing), "{grants:?}: {fault}");
        plugins.shutdown().await;
    }
    let mut config = unruly(json!({"deliver": "to nowhere"}));
    config.grants.extend([GrantKind::Route, GrantKind::DropMail]);
    let (plugins, judge) = one(config).await;
    let ruling = judge.judge(Call::Deliver, delivery()).await;
    assert_eq!((ruling.fault, ruling.edits), (None, vec![Edit::NextHop(NextHop::Discard)]));
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_host_that_no_configuration_lists_needs_a_grant_of_its_own() {
    let told = async |hop: &str, grants: &[GrantKind]| {
        let mut config = unruly(json!({"deliver": format!("hop {hop}")}));
        config.grants.extend(grants.iter().copied());
        let (plugins, judge) = with_relay(config).await;
        let ruling = judge.judge(Call::Deliver, delivery()).await;
        plugins.shutdown().await;
        (ruling.edits, ruling.fault.map(|fault| fault.text).unwrap_or_default())
    };
    let relay = |name: &str| NextHop::Relay(name.to_owned());
    let lmtp = |name: &str| NextHop::Lmtp(name.to_owned());
    assert_eq!(told("relay:inner", &[GrantKind::Route]).await.0, [Edit::NextHop(relay("inner"))]);
    assert_eq!(
        told("mx:Bücher.example", &[GrantKind::Route]).await.0,
        [Edit::NextHop(NextHop::Mx("xn--bcher-kva.example".to_owned()))]
    );
    for bad in
        ["relay:other", "smtp:localhost", "smtp:x y:25", "smtp:unix:/x", "lmtp:inner", "mx:", "elsewhere"]
    {
        let (edits, fault) = told(bad, &[GrantKind::Route, GrantKind::RouteAnywhere]).await;
        assert!(edits.is_empty() && fault.contains("Invalid"), "{bad}: {edits:?} {fault}");
    }
    for (hop, chosen) in [
        ("smtp:169.254.169.254:80", relay("169.254.169.254:80")),
        ("smtp:[2001:db8::1]:25", relay("[2001:db8::1]:25")),
        ("lmtp:unix:/run/mysqld/mysqld.sock", lmtp("unix:/run/mysqld/mysqld.sock")),
        ("smtp:inner:25", relay("inner:25")),
    ] {
        let (edits, fault) = told(hop, &[GrantKind::Route]).await;
        assert!(edits.is_empty() && fault.contains("route-anywhere"), "{hop}: {edits:?} {fault}");
        let (edits, fault) = told(hop, &[GrantKind::RouteAnywhere]).await;
        assert!(edits.is_empty() && fault.contains("\"route\""), "{hop}: {edits:?} {fault}");
        let both = [GrantKind::Route, GrantKind::RouteAnywhere];
        assert_eq!(told(hop, &both).await.0, [Edit::UnlistedHop(chosen)]);
    }
}

#[tokio::test]
async fn accepted_mail_is_given_up_with_the_grant_alone() {
    for act in ["reject", "discard"] {
        let mut config = unruly(json!({"deliver": act}));
        config.failure = FailurePolicy::Reject.into();
        let (plugins, judge) = one(config.clone()).await;
        let ruling = judge.judge(Call::Deliver, delivery()).await;
        assert_eq!(
            ruling.verdict,
            Verdict::Defer(None),
            "a fault after the 250 defers, whatever on_fault says"
        );
        let fault = ruling.fault.unwrap();
        assert!(fault.text.contains("drop-mail"), "{}", fault.text);
        plugins.shutdown().await;
        config.grants.insert(GrantKind::DropMail);
        let (plugins, judge) = one(config).await;
        assert_eq!(judge.judge(Call::Deliver, delivery()).await.name(), act);
        plugins.shutdown().await;
    }
}

/// The client hears 250 and deletes its copy, whether a message is dropped by a verdict or has no recipients any more.
#[tokio::test]
async fn mail_is_dropped_before_its_250_with_the_grant_alone() {
    let (rcpt, whole) = ((Call::Rcpt(0), transaction(&["bob"])), (Call::Message, message()));
    let headers = (Call::Headers, message());
    for (act, calls, dropped) in [
        ("discard", vec![rcpt.clone(), headers.clone(), whole.clone()], true),
        ("nobody", vec![rcpt.clone(), headers, whole], true),
        ("nobody-else", vec![rcpt], false),
    ] {
        for (call, view) in calls {
            let mut config = unruly(json!({"rcpt": act, "headers": act, "message": act}));
            config.grants.insert(GrantKind::EditEnvelope);
            let (plugins, judge) = one(config.clone()).await;
            let ruling = judge.judge(call.clone(), view.clone()).await;
            plugins.shutdown().await;
            let fault = ruling.fault.map(|fault| fault.text).unwrap_or_default();
            assert_eq!(fault.contains("drop-mail"), dropped, "{act} at {call:?}: {fault}");
            assert_eq!(ruling.verdict == Verdict::Defer(None), dropped, "{act} at {call:?}");
            assert_eq!(ruling.edits.is_empty(), dropped, "{act} at {call:?}");
            config.grants.insert(GrantKind::DropMail);
            let (plugins, judge) = one(config).await;
            let ruling = judge.judge(call, view).await;
            assert_eq!((ruling.fault, ruling.verdict == Verdict::Defer(None)), (None, false), "{act}");
            plugins.shutdown().await;
        }
    }
}

#[tokio::test]
async fn a_bounce_is_suppressed_with_the_grant_alone() {
    let (plugins, judge) = one(unruly(json!({}))).await;
    let outcomes: Arc<[DeliveryOutcome]> = Arc::new([DeliveryOutcome {
        recipient: 0,
        next_hop: None,
        reply: None,
        status: AttemptStatus::Failed,
        details: Vec::new(),
    }]);
    let ruling = judge.delivery_result(outcomes, delivery()).await;
    assert!(ruling.fault.is_some_and(|fault| fault.text.contains("drop-mail")));
    assert_eq!(ruling.edits, []);
    plugins.shutdown().await;
}

#[tokio::test]
async fn a_delivery_may_come_from_another_sender_and_goes_to_the_same_recipients() {
    let mut config = unruly(json!({"deliver": "sender"}));
    config.grants.insert(GrantKind::EditEnvelope);
    let (plugins, judge) = one(config).await;
    let mut view = delivery();
    let decision = Chain::new(vec![judge]).judge(&Call::Deliver, &mut view).await;
    assert_eq!(decision.verdict, Verdict::Next, "{:?}", decision.steps);
    let envelope = &view.transaction.unwrap().envelope;
    assert_eq!(envelope.sender.as_str(), "bounces@example.com");
    assert_eq!(envelope.recipients[0].address.as_str(), "bob@example.org");
    plugins.shutdown().await;
    let (plugins, judge) = one(unruly(json!({"deliver": "sender"}))).await;
    let fault = judge.judge(Call::Deliver, delivery()).await.fault.unwrap();
    assert!(fault.text.contains("edit-envelope"), "{}", fault.text);
    plugins.shutdown().await;
}
