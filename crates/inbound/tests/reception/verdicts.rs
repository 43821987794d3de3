//! What verdicts and edits of judges mean for the client and for the stored message.

use pintle_inbound::TlsMode;
use pintle_mail::{FieldPosition, HeaderEdit, Reply};
use pintle_policy::{AuthResult, Edit, Hook, Piece, Verdict};

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
        (Hook::Mail, Verdict::Close(None), 421, "4.7.0"),
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
async fn discarded_mail_is_answered_with_yes_and_recorded() {
    let gate = gate(listener(TlsMode::None), vec![verdict(Hook::Message, Verdict::Discard)]);
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
