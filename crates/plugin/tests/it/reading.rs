//! What the host reads for plugins: mailboxes in header fields, encoded words, registered domains, skeletons.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{Bytes, HeaderBlock};
use pintle_policy::{Call, Chain, Message, Verdict, View};
use serde_json::json;

use crate::support::{message, one, unruly};

/// The facts that the plugin sets about a message with this header.
async fn facts(act: &str, header: &str) -> BTreeMap<String, String> {
    facts_of_each(act, &[header.to_owned()]).await.remove(0)
}

async fn facts_of_each(act: &str, headers: &[String]) -> Vec<BTreeMap<String, String>> {
    let mut config = unruly(json!({"message": act}));
    config.limits.cpu = Duration::from_secs(20);
    let (plugins, judge) = one(config).await;
    let chain = Chain::new(vec![judge]);
    let mut facts = Vec::new();
    for header in headers {
        let header = HeaderBlock::parse(Bytes::from(header.clone()));
        let body = Arc::new(Bytes::from("x\r\n"));
        let mut view = View { message: Some(Arc::new(Message::new(header, Some(body)))), ..message() };
        let decision = chain.judge(&Call::Message, &mut view).await;
        assert_eq!(decision.verdict, Verdict::Next, "{:?}", decision.steps);
        facts.push(view.transaction.unwrap().facts.clone());
    }
    plugins.shutdown().await;
    facts
}

#[tokio::test]
async fn mailboxes_are_given_with_names_and_places() {
    let header = "Subject: s\r\n\
        From: =?utf-8?q?Zo=C3=AB=00?= \"L\\\"ee\" <zoe@B\u{fc}cher.Example>\r\n\
        To: nobody@x.example\r\n\
        Reply-To : a(c)@ x . example. , staff:\r\n <\"b c\"@y.example>;, last:;\r\n";
    let facts = facts("mailboxes", header).await;
    let lines: Vec<&str> = facts["unruly.mailboxes"].lines().collect();
    assert_eq!(
        lines,
        [
            "1 \"Zo\u{eb}  L\\\"ee\" \"=?utf-8?q?Zo=C3=AB=00?= L\\\"ee\" \
             [zoe@B\u{fc}cher.Example|zoe@b\u{fc}cher.example|zoe|xn--bcher-kva.example|b\u{fc}cher.example]",
            "3 \"(c)\" \"(c)\" [a(c)@ x . example.|a@x.example.|a|x.example|x.example.]",
            "3 \"staff\" \"staff\" [\"b c\"@y.example|\"b c\"@y.example|b c|y.example|y.example]",
            "3 \"last\" \"last\"",
        ]
    );
    assert_eq!(
        facts["unruly.text"],
        "0 \"(x)\" \"(x)\" [A@Mail.B\u{fc}cher.Example|A@mail.b\u{fc}cher.example|A|\
         mail.xn--bcher-kva.example|mail.b\u{fc}cher.example]"
    );
    assert_eq!(facts["unruly.decoded"], "[\"a\\0\", \"plain\"]");
}

#[tokio::test]
async fn more_mailboxes_than_the_limit_are_refused() {
    let field = |count: usize| format!("From: {}\r\n", "a@b,".repeat(count));
    let others = format!("{}{}To: {}\r\n", field(4_000), field(6_000), "a@b,".repeat(10_001));
    for facts in facts_of_each("mailbox-count", &[field(10_000), others]).await {
        assert_eq!(facts["unruly.count"], "Ok(10000)", "of the fields that are asked for");
    }
    let more = [field(10_001), format!("{}{}", field(6_000), field(4_001)), "From: a@b\r\n".repeat(10_001)];
    for facts in facts_of_each("mailbox-count", &more).await {
        let count = &facts["unruly.count"];
        assert!(count.starts_with("Err(HostError::Limit(") && count.contains("10000 mailboxes"), "{count}");
    }
    let facts = facts("too-many-texts", "From: a@b\r\n").await;
    let refused: Vec<&str> = facts["unruly.refused"].lines().collect();
    assert_eq!(refused.len(), 5);
    assert!(refused.iter().all(|error| error.starts_with("Some(HostError::Limit(")), "{refused:?}");
}

/// Values of 64 KiB that would take minutes if they were read again and again from each place.
#[tokio::test]
async fn hostile_values_are_read_at_once() {
    let pieces =
        ["<", "(", "\"", "\\\"", "\"(", "@", ":", ",", "=?", "=?utf-8?q?", "=?utf-8?b?4oCu?= ", "\u{ad}"];
    let header = |piece: &&str| format!("From: {}\r\n", piece.repeat((64 << 10) / piece.len()));
    let mut headers: Vec<String> = pieces.iter().map(header).collect();
    headers.push(format!("From: {}\r\n", format!("a@{}\u{fc}.example,", "xn--".repeat(200)).repeat(75)));
    for (facts, header) in facts_of_each("mailbox-count", &headers).await.iter().zip(&headers) {
        let count = &facts["unruly.count"];
        assert!(count.starts_with("Ok("), "{:?}: {count}", header.chars().take(20).collect::<String>());
    }
}

#[tokio::test]
async fn names_are_read_as_people_read_them() {
    let facts = facts("domains", "From: a@b\r\n").await;
    let registered = "[Some(\"example.co.uk\"), None, None, Some(\"xn--bcher-kva.example\"), None]";
    assert_eq!(facts["unruly.registered"], registered);
    assert_eq!(facts["unruly.unicode"], "[\"b\u{fc}cher.example\", \"evil\u{ff20}ours\"]");
    assert_eq!(facts["unruly.alike"], "(true, false)");
}

/// Without a message only its fields are unavailable.
#[tokio::test]
async fn texts_are_read_at_every_stage() {
    let config = unruly(json!({"configure": "domains-in-configure", "connect": "no-header"}));
    let (plugins, judge) = one(config).await;
    let mut view = View { transaction: None, message: None, ..message() };
    Chain::new(vec![judge]).judge(&Call::Connect, &mut view).await;
    let header = &view.session.facts["unruly.header"];
    assert!(header.starts_with("Err(HostError::Unavailable("), "{header}");
    plugins.shutdown().await;
}
