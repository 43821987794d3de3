//! What is stored: the message as sent, the Received field, completed headers, recipients.

use pintle_inbound::{ListenerConfig, TlsMode};
use pintle_policy::{Hook, Ruling, Verdict};
use pintle_spool::Spool;

use crate::gate::*;

#[tokio::test]
async fn a_message_is_kept_as_sent_beneath_our_trace_field() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    let reply = client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    let (stored, head, body) = gate.only().await.unwrap();
    assert!(reply.text().contains(&stored.id.to_string()), "{reply:?}");
    let (trace, rest) = head.split_at(head.find("Subject").unwrap());
    assert!(trace.starts_with("Received: from client.example ([127.0.0.1])"), "{trace}");
    assert!(
        trace.contains("by gate.example with ESMTP") && trace.contains("for <b@ours.example>"),
        "{trace}"
    );
    assert_eq!(rest, "Subject: one\r\nX-Keep: as  it\r\n  was\r\n\r\n");
    assert_eq!(body, "first\r\n..dots\r\n");
    assert_eq!(stored.entry.envelope.sender.as_str(), "a@x.example");
    assert_eq!(gate.events(), ["reception"]);
}

/// RFC 6409 section 8, for submissions only.
#[tokio::test]
async fn a_submission_leaves_with_date_and_message_id_and_without_bcc() {
    const BARE: &[u8] = b"Return-Path: <a@x.example>\r\nBcc: c@x.example\r\nSubject: one\r\n\r\ntext\r\n";
    for trusted in [Vec::new(), vec!["127.0.0.0/8".parse().unwrap()]] {
        let is_trusted = !trusted.is_empty();
        let completes = ListenerConfig { completes_header: true, trusted, ..listener(TlsMode::None) };
        let seen_date = says(Hook::Headers, |_, view| {
            let header = &view.message.as_ref().unwrap().header;
            let is_dated = header.named("Date").next().is_some();
            let edits = if is_dated { Vec::new() } else { vec![hold(Hook::Headers, &[], "bare")] };
            Ruling { verdict: Verdict::Next, edits, fault: None }
        });
        let gate = gate(completes, vec![seen_date]);
        let mut client = gate.client().await;
        client.hello("client.example").await;
        client.deliver("a@x.example", &["b@ours.example"], BARE).await;
        let waiting = gate.spool.claim(None, 10).await.unwrap();
        let stored = gate.spool.load(waiting[0].id).await.unwrap();
        let head = String::from_utf8(stored.head.to_vec()).unwrap();
        let has = |field: &str| head.contains(&format!("\r\n{field}: "));
        assert_eq!((has("Date"), has("Message-ID")), (is_trusted, is_trusted), "{head}");
        assert_eq!((has("Bcc"), has("Return-Path")), (!is_trusted, !is_trusted), "{head}");
        assert_eq!(stored.entry.hold.is_none(), is_trusted, "plugins see the header as it will be");
    }
}

/// RFC 6531 section 3.2: only an address without a form in US-ASCII needs SMTPUTF8 at the next hop.
#[tokio::test]
async fn a_domain_in_unicode_alone_does_not_need_smtputf8() {
    for (sender, recipient, needs) in [
        ("a@b\u{fc}cher.example", "info@ours.example", false),
        ("a@x.example", "info@b\u{fc}cher.ours.example", false),
        ("gr\u{fc}n@x.example", "info@ours.example", true),
    ] {
        let gate = gate(listener(TlsMode::None), Vec::new());
        let mut client = gate.client().await;
        client.hello("client.example").await;
        client.ask(&format!("MAIL FROM:<{sender}> SMTPUTF8"), 250).await;
        client.ask(&format!("RCPT TO:<{recipient}>"), 250).await;
        client.ask("DATA", 354).await;
        client.ask("Subject: one\r\n\r\ntext\r\n.", 250).await;
        let (stored, head, _) = gate.only().await.unwrap();
        assert_eq!(stored.entry.needs_smtputf8, needs, "{sender} {recipient}");
        assert!(head.is_ascii(), "{head}");
    }
}

#[tokio::test]
async fn a_recipient_named_twice_gets_one_copy() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    for to in [
        "<b@ours.example> NOTIFY=NEVER",
        "<b@OURS.example> NOTIFY=FAILURE",
        "<c@ours.example> NOTIFY=NEVER",
        "<\"b\"@ours.example> NOTIFY=SUCCESS",
        "<B@ours.example>",
    ] {
        client.ask(&format!("RCPT TO:{to}"), 250).await;
    }
    client.ask("DATA", 354).await;
    client.ask("Subject: one\r\n\r\ntext\r\n.", 250).await;
    let (stored, ..) = gate.only().await.unwrap();
    let recipients = &stored.entry.envelope.recipients;
    let addresses: Vec<_> = recipients.iter().map(|recipient| recipient.address.as_str()).collect();
    assert_eq!(addresses, ["b@ours.example", "c@ours.example", "B@ours.example"]);
    let notify = recipients[0].params.notify.unwrap();
    assert!(notify.success && notify.failure && !notify.delay);
}
