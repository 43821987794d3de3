//! Which clients may relay, and where mail for the postmaster goes.

use pintle_inbound::{Rules, TlsMode};
use pintle_mail::{Address, Charset};
use pintle_policy::{Call, Edit, Hook, Ruling, Verdict};
use pintle_testkit::Client;

use crate::gate::*;

#[tokio::test]
async fn strangers_cannot_relay_whatever_plugins_accept() {
    let gate = gate(listener(TlsMode::None), vec![verdict(Hook::Rcpt, Verdict::Accept)]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    for other in ["b@other.example", "b%other.example@ours.example", "\"b@other.example\"@ours.example"] {
        let reply = client.ask(&format!("RCPT TO:<{other}>"), 550).await;
        assert!(reply.text().contains("5.7.1"), "{reply:?}");
    }
    client.ask("RCPT TO:<postmaster>", 250).await;
}

#[tokio::test]
async fn a_grant_lets_one_recipient_leave() {
    let judge = says(Hook::Rcpt, |call, _| {
        let Call::Rcpt(id) = call else {
            return Verdict::Next.into();
        };
        Ruling { verdict: Verdict::Next, edits: vec![Edit::GrantRelay(*id)], fault: None }
    });
    let gate = gate(listener(TlsMode::None), vec![judge]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@other.example"], MESSAGE).await;
    assert!(gate.only().await.is_some());
}

#[tokio::test]
async fn a_recipient_that_a_plugin_adds_is_judged_like_any_other() {
    let address = Address::parse("spy@other.example", Charset::Ascii).unwrap();
    let gate =
        gate(listener(TlsMode::None), vec![edits(Hook::Message, vec![Edit::AddRecipient(99, address)])]);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.envelope("a@x.example", &["b@ours.example"]).await;
    client.send_data(MESSAGE).await;
    client.expect(550).await;
    assert!(gate.only().await.is_none());
}

#[tokio::test]
async fn who_authenticates_over_tls_may_relay() {
    let gate = gate(listener(TlsMode::StartTls), Vec::new());
    let mut client = gate.client().await;
    let reply = client.hello("client.example").await;
    assert!(!reply.offers("AUTH"), "no password in the clear: {reply:?}");
    let mut client = client.starttls(gate.ca.client_config(), "gate.example").await;
    assert!(client.ask("EHLO client.example", 250).await.offers("AUTH"));
    // "\0ann\0wrong", then "\0ann\0secret".
    client.ask("AUTH PLAIN AGFubgB3cm9uZw==", 535).await;
    client.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", 235).await;
    client.deliver("a@x.example", &["b@other.example"], MESSAGE).await;
    let (_, head, _) = gate.only().await.unwrap();
    assert!(head.contains("with ESMTPSA") && head.contains("(TLSv1.3"), "{head}");
}

#[tokio::test]
async fn implicit_tls_begins_with_the_first_octet() {
    let gate = gate(listener(TlsMode::Implicit), Vec::new());
    let address = gate.inbound.addresses()[0].1;
    let mut client = Client::connect_tls(address, gate.ca.client_config(), "gate.example").await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    assert!(gate.only().await.is_some());
}

/// RFC 5321 section 4.5.1.
#[tokio::test]
async fn every_client_reaches_the_postmaster_wherever_that_mail_goes() {
    let postmaster = Address::parse("ops@elsewhere.example", Charset::Ascii).unwrap();
    let gate = gate(listener(TlsMode::None), Vec::new());
    gate.inbound.reload().replace(Rules { postmaster: Some(postmaster.clone()), ..Rules::default() });
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    client.ask("RCPT TO:<ops@elsewhere.example>", 550).await;
    client.ask("RCPT TO:<Postmaster>", 250).await;
    client.ask("RCPT TO:<anna@gate.example>", 550).await;
    // Reports are sent to this one.
    client.ask("RCPT TO:<postMaster@Gate.Example>", 250).await;
    client.ask("DATA", 354).await;
    client.send_data(MESSAGE).await;
    client.expect(250).await;
    let (stored, ..) = gate.only().await.unwrap();
    // A recipient that is named twice gets one copy.
    let recipients: Vec<&Address> = stored.entry.envelope.recipients.iter().map(|r| &r.address).collect();
    assert_eq!(recipients, [&postmaster]);
}

/// If a route exists for the host name, mail for its postmaster takes it, and no other mail does.
#[tokio::test]
async fn mail_for_the_postmaster_of_the_host_name_follows_its_route() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    client.ask("RCPT TO:<anna@gate.example>", 550).await;
    client.ask("RCPT TO:<postmaster@gate.example>", 250).await;
    client.ask("DATA", 354).await;
    client.send_data(MESSAGE).await;
    client.expect(250).await;
    let (stored, ..) = gate.only().await.unwrap();
    assert_eq!(stored.entry.envelope.recipients[0].address.as_str(), "postmaster@gate.example");
}
