//! What verdicts and edits of judges mean for the client and for the stored message.

use std::sync::Arc;
use std::time::Duration;

use pintle_inbound::TlsMode;
use pintle_mail::{FieldPosition, HeaderEdit, Reply};
use pintle_policy::{AuthResult, Edit, Hook, Piece, Ruling, Verdict};

use crate::gate::*;

#[tokio::test]
async fn edits_change_what_is_stored_and_nothing_else() {
    let header =
        HeaderEdit::Add { at: FieldPosition::Bottom, name: "X-New".to_owned(), value: "yes".to_owned() };
    let body = vec![Piece::Copy { offset: 0, len: 7 }, Piece::Bytes("footer\r\n".into())];
    let judge = edits(Hook::Message, vec![Edit::Headers(vec![header]), Edit::Body(body)]);
    let gate = gate(listener(TlsMode::None), vec![judge]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    let (_, head, body) = gate.only().await.unwrap();
    assert!(head.ends_with("Subject: one\r\nX-Keep: as  it\r\n  was\r\nX-New: yes\r\n\r\n"), "{head}");
    assert_eq!(body, "first\r\nfooter\r\n");
}

#[tokio::test]
async fn one_field_reports_who_sent_and_none_is_believed_that_claims_our_name() {
    let found = AuthResult {
        method: "spf".to_owned(),
        outcome: "fail".to_owned(),
        reason: None,
        properties: vec![("smtp.mailfrom".to_owned(), "x.example".to_owned())],
    };
    let judge = edits(Hook::Message, vec![Edit::AuthResult(found)]);
    let gate = gate(listener(TlsMode::None), vec![judge]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    let message = "Authentication-Results: GATE.example; spf=pass\r\nAuthentication-Results: other.example; \
        spf=pass\r\nSubject: one\r\n\r\nfirst\r\n";
    client.deliver("a@x.example", &["b@ours.example"], message.as_bytes()).await;
    let (_, head, _) = gate.only().await.unwrap();
    let ours = "Authentication-Results: gate.example; spf=fail smtp.mailfrom=x.example\r\nReceived: ";
    assert!(head.starts_with(ours), "{head}");
    let rest = "\r\nAuthentication-Results: other.example; spf=pass\r\nSubject: one\r\n\r\n";
    assert!(head.ends_with(rest), "{head}");
    assert!(!head.contains("GATE"), "{head}");
}

#[tokio::test]
async fn each_verdict_has_its_reply() {
    let custom = Reply::new(450, pintle_mail::EnhancedCode(4, 7, 1), "come back later");
    for (hook, said, code, words) in [
        (Hook::Mail, Verdict::Reject(None), 550, "5.7.1"),
        (Hook::Mail, Verdict::Defer(Some(custom)), 450, "come back later"),
    ] {
        let gate = gate(listener(TlsMode::None), vec![verdict(hook, said.clone())]);
        let mut client = gate.client().await;
        client.hello("client.example").await;
        let reply = client.ask("MAIL FROM:<a@x.example>", code).await;
        assert!(reply.text().contains(words), "{said:?}: {reply:?}");
        assert_eq!(gate.events(), ["plugin-verdict", "rejection"]);
    }
}

#[tokio::test]
async fn a_session_is_closed_after_the_reply_of_the_stage() {
    for (verdict, code) in [(Verdict::Next, 250), (Verdict::Reject(None), 550)] {
        let ruling = Ruling { verdict, edits: vec![Edit::Close], fault: None };
        let gate = gate(listener(TlsMode::None), vec![says(Hook::Mail, move |_, _| ruling.clone())]);
        let mut client = gate.client().await;
        client.hello("client.example").await;
        client.ask("MAIL FROM:<a@x.example>", code).await;
        if code == 250 {
            client.expect(421).await;
        }
        client.expect_closed().await;
    }
}

/// The stage of the header has no reply of its own.
#[tokio::test]
async fn a_session_closed_in_the_header_ends_after_the_message() {
    let gate = gate(listener(TlsMode::None), vec![edits(Hook::Headers, vec![Edit::Close])]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    client.expect(421).await;
    assert!(gate.only().await.is_some());
}

/// A client whose connection breaks in the data does not read the refusal, and tries again for days.
#[tokio::test]
async fn a_refusal_of_the_header_that_closes_the_session_comes_after_the_data() {
    let ruling = Ruling { verdict: Verdict::Reject(None), edits: vec![Edit::Close], fault: None };
    let gate = gate(listener(TlsMode::None), vec![says(Hook::Headers, move |_, _| ruling.clone())]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.envelope("a@x.example", &["b@ours.example"]).await;
    client.send_raw(b"Subject: one\r\n\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(100), client.reply()).await;
    assert!(early.is_err(), "{early:?}");
    client.send_raw(b"body\r\n.\r\n").await;
    client.expect(550).await;
    client.expect_closed().await;
}

#[tokio::test]
async fn a_session_closed_in_the_header_ends_after_a_message_that_is_too_big() {
    let mut listener = listener(TlsMode::None);
    Arc::make_mut(&mut listener.smtp).limits.message = 100;
    let gate = gate(listener, vec![edits(Hook::Headers, vec![Edit::Close])]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.envelope("a@x.example", &["b@ours.example"]).await;
    // In one piece, the message would be refused before the header is shown to plugins.
    client.send_raw(b"Subject: one\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.send_data(&b"text\r\n".repeat(50)).await;
    client.expect(552).await;
    client.expect(421).await;
    client.expect_closed().await;
}

#[tokio::test]
async fn discarded_mail_is_answered_with_yes_and_recorded() {
    let gate = gate(listener(TlsMode::None), vec![edits(Hook::Message, vec![discard(&[])])]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    assert!(gate.only().await.is_none());
    assert_eq!(gate.events(), ["plugin-verdict", "discard"]);
}

#[tokio::test]
async fn mail_whose_recipients_a_plugin_took_away_does_not_go_without_a_record() {
    let gate = gate(listener(TlsMode::None), vec![edits(Hook::Message, vec![Edit::RemoveRecipient(0)])]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    assert!(gate.only().await.is_none());
    assert_eq!(gate.events(), ["plugin-verdict", "discard"]);
}
