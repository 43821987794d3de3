//! What plugins request beside their verdict: fates of recipients, groups, closing the session; and the conditions under
//! which they are called.

use std::sync::Arc;

use pintle_plugin::{GrantKind, PluginConfig};
use pintle_policy::{Call, Chain, Decision, Edit, Fate, FaultKind, Hook, Verdict, View};
use serde_json::json;

use crate::support::{delivery, message, one, open, session, transaction, unruly};

async fn judged(plugin: PluginConfig, call: Call, mut view: View) -> (Decision, View) {
    let plugins = open(vec![plugin]).await;
    let decision = Chain::new(plugins.judges()).judge(&call, &mut view).await;
    plugins.shutdown().await;
    (decision, view)
}

fn fate(view: &View, recipient: u32) -> Option<&'static str> {
    view.transaction.as_ref()?.fates.of(recipient).map(|requested| requested.fate.name())
}

#[tokio::test]
async fn recipients_have_fates_of_their_own() {
    for (act, grant, expected) in [
        ("quarantine-first", false, [Some("quarantine"), None]),
        ("discard-first", true, [Some("discard"), None]),
        ("refuse-first", false, [Some("refuse"), None]),
        ("refuse-all", false, [Some("refuse"), Some("refuse")]),
        ("quarantine", false, [Some("quarantine"), Some("quarantine")]),
    ] {
        let mut config = unruly(json!({"message": act}));
        if grant {
            let (decision, view) = judged(config.clone(), Call::Message, two()).await;
            let fault = decision.steps[0].fault.as_ref().unwrap();
            assert!(fault.text.contains("drop-mail") && fate(&view, 0).is_none(), "{act}: {}", fault.text);
            config.grants.insert(GrantKind::DropMail);
        }
        let (decision, view) = judged(config, Call::Message, two()).await;
        assert_eq!((decision.verdict, decision.steps[0].fault.as_ref()), (Verdict::Next, None), "{act}");
        assert_eq!([fate(&view, 0), fate(&view, 1)], expected, "{act}");
        assert_eq!(decision.steps[0].verdict, expected[0].unwrap());
    }
}

fn two() -> View {
    View { transaction: transaction(&["bob", "carl"]).transaction, ..message() }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told() {
    for (act, call, text) in [
        ("quarantine-nowhere", Call::Message, "names no quarantine"),
        ("refuse-none", Call::Message, "no recipient is named"),
        ("refuse-first", Call::Rcpt(0), "not available in this hook"),
    ] {
        let config = unruly(json!({"message": act, "rcpt": act}));
        let (decision, view) = judged(config, call, two()).await;
        let fault = decision.steps[0].fault.as_ref().unwrap();
        assert!(fault.kind == FaultKind::Trap && fault.text.contains(text), "{act}: {}", fault.text);
        assert!(view.transaction.unwrap().fates.is_empty());
    }
}

#[tokio::test]
async fn at_rcpt_a_request_concerns_this_recipient_and_groups_belong_to_the_plugin() {
    let (_, view) = judged(unruly(json!({"rcpt": "quarantine-this"})), Call::Rcpt(1), two()).await;
    assert_eq!([fate(&view, 0), fate(&view, 1)], [None, Some("quarantine")]);
    let (_, view) = judged(unruly(json!({"rcpt": "group"})), Call::Rcpt(1), two()).await;
    let recipients = &view.transaction.unwrap().envelope.recipients;
    assert!(recipients[0].groups.is_empty());
    assert_eq!(recipients[1].groups["unruly"], "carl");
}

#[tokio::test]
async fn a_delivery_drops_only_its_own_recipients() {
    let mut config = unruly(json!({"deliver": "discard-first"}));
    config.grants.insert(GrantKind::DropMail);
    let mut view = delivery();
    let transaction = Arc::make_mut(view.transaction.as_mut().unwrap());
    // The first recipient of the message is in another delivery.
    let other = pintle_mail::Recipient::new(77, transaction.envelope.recipients[0].address.clone());
    transaction.envelope.recipients.insert(0, other);
    let (decision, view) = judged(config, Call::Deliver, view).await;
    let fault = decision.steps[0].fault.as_ref().unwrap();
    assert!(fault.text.contains("there is no recipient 77"), "{}", fault.text);
    assert!(view.transaction.unwrap().fates.is_empty());
}

#[tokio::test]
async fn the_session_closes_with_any_verdict() {
    for (act, refuses) in [("close", false), ("close-reject", true)] {
        let (decision, _) =
            judged(unruly(json!({"connect": act})), Call::Connect, session([192, 0, 2, 1])).await;
        assert_eq!((decision.close, decision.verdict.refuses()), (true, refuses), "{act}");
    }
}

#[tokio::test]
async fn a_hook_is_not_called_where_its_conditions_do_not_hold() {
    for (condition, asked) in [
        (json!({"hook": "on-mail", "only": "strangers"}), true),
        (json!({"hook": "on-mail", "only": "known"}), false),
        (json!({"hook": "on-rcpt", "only": "known"}), true),
        (json!({"hook": "on-mail", "only": "listeners", "values": ["elsewhere"]}), false),
        (json!({"hook": "on-mail", "only": "senders", "values": ["example.com"]}), true),
        (json!({"hook": "on-mail", "only": "senders", "values": [""]}), false),
        (json!({"hook": "on-mail", "only": "not-networks", "values": ["192.0.2.0/24"]}), false),
    ] {
        let config = unruly(json!({"mail": "reject", "conditions": [condition.clone()]}));
        let (decision, _) = judged(config, Call::Mail, transaction(&["bob"])).await;
        assert_eq!(decision.steps.len(), usize::from(asked), "{condition}");
    }
}

#[tokio::test]
async fn a_condition_that_cannot_be_evaluated_keeps_the_plugin_from_loading() {
    for condition in [
        json!({"hook": "on-mail", "only": "recipients", "values": ["example.com"]}),
        json!({"hook": "on-lunch", "only": "known"}),
        json!({"hook": "on-mail", "only": "senders", "values": ["a@"]}),
        json!({"hook": "on-mail", "only": "friends"}),
    ] {
        let config = unruly(json!({"conditions": [condition.clone()]}));
        let config = pintle_plugin::Config { plugins: vec![config], ..pintle_plugin::Config::default() };
        let report = pintle_plugin::check(config).await.unwrap().remove(0);
        assert!(!report.errors.is_empty(), "{condition}");
    }
}

/// An id that is used again would give a new recipient what was decided about another.
#[tokio::test]
async fn ids_of_added_recipients_are_never_used_again() {
    let mut config = unruly(json!({"rcpt": "nobody-else", "message": "nobody-else"}));
    config.grants.extend([GrantKind::EditEnvelope, GrantKind::DropMail]);
    let (plugins, judge) = one(config).await;
    let mut view = transaction(&["bob"]);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let recipient = view.transaction.as_ref().unwrap().envelope.recipients[0].id;
        let ruling = judge.judge(Call::Rcpt(recipient), view.clone()).await;
        ids.extend(ruling.edits.iter().find_map(|edit| match edit {
            Edit::AddRecipient(id, _) => Some(*id),
            _ => None,
        }));
        view.apply(judge.name(), ruling.edits).unwrap();
    }
    assert_eq!(ids, [1 << 31, (1 << 31) + 1]);
    plugins.shutdown().await;
}

#[tokio::test]
async fn what_was_requested_for_a_removed_recipient_goes_with_it() {
    let mut view = two();
    let fate = Fate::Quarantine { name: "x".into(), reason: String::new() };
    let hold = Edit::Fate { recipients: vec![1], fate, hook: Hook::Rcpt };
    view.apply(&"judge".into(), vec![hold, Edit::RemoveRecipient(1)]).unwrap();
    assert!(view.transaction.unwrap().fates.is_empty());
}
