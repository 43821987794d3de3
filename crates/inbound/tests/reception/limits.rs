//! Limits of sessions: time, number, failed logins, spool size; and what a drain waits for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pintle_inbound::{ListenerConfig, Rules, SessionLimits, StrangerLimits, TlsMode};
use pintle_smtp::Extension;
use pintle_smtp::server;
use pintle_smtp::server::config::Auth;
use pintle_spool::{Health, Spool};
use pintle_testkit::Client;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::gate::*;

#[tokio::test]
async fn who_guesses_in_session_after_session_is_not_heard_any_more() {
    let plain = ListenerConfig {
        smtp: Arc::new(server::Config {
            auth: Auth { without_tls: true, ..Auth::default() },
            ..server::Config::default().with(Extension::Auth)
        }),
        ..listener(TlsMode::None)
    };
    let gate = gate(plain, Vec::new());
    for _ in 0..2 {
        let mut client = gate.client().await;
        client.hello("client.example").await;
        for _ in 0..2 {
            client.ask("AUTH PLAIN AGFubgB3cm9uZw==", 535).await;
        }
    }
    let mut client = gate.client().await;
    client.hello("client.example").await;
    // The password is right now, but it is not checked any more.
    let reply = client.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", 421).await;
    assert!(reply.text().contains("4.7.0 Too many failed logins from your network"), "{reply:?}");
}

#[tokio::test]
async fn a_strangers_session_ends_after_its_share_and_a_colleagues_does_not() {
    let strangers = StrangerLimits { transactions: 2, ..StrangerLimits::default() };
    for trusted in [Vec::new(), vec!["127.0.0.0/8".parse().unwrap()]] {
        let is_trusted = !trusted.is_empty();
        let gate = gate(ListenerConfig { strangers, trusted, ..listener(TlsMode::None) }, Vec::new());
        let mut client = gate.client().await;
        client.hello("client.example").await;
        for _ in 0..2 {
            client.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
        }
        let reply = client.ask("MAIL FROM:<a@x.example>", if is_trusted { 250 } else { 421 }).await;
        assert!(is_trusted || reply.text().contains("4.7.0 Too many transactions"), "{reply:?}");
    }
}

#[tokio::test]
async fn a_strangers_session_has_an_end_whatever_it_does() {
    let strangers = StrangerLimits { time: Duration::ZERO, ..StrangerLimits::default() };
    for trusted in [Vec::new(), vec!["127.0.0.0/8".parse().unwrap()]] {
        let is_trusted = !trusted.is_empty();
        let gate = gate(ListenerConfig { strangers, trusted, ..listener(TlsMode::None) }, Vec::new());
        let mut client = gate.client().await;
        if is_trusted {
            client.hello("client.example").await;
        } else {
            client.expect(220).await;
            let reply = client.expect(421).await;
            assert!(reply.text().contains("4.7.0 Session time limit reached"), "{reply:?}");
        }
    }
}

#[tokio::test]
async fn a_looping_message_is_refused() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.envelope("a@x.example", &["b@ours.example"]).await;
    let mut message = b"Received: from a by b; now\r\n".repeat(30);
    message.extend_from_slice(MESSAGE);
    client.send_data(&message).await;
    let reply = client.expect(554).await;
    assert!(reply.text().contains("5.4.6"), "{reply:?}");
}

#[tokio::test]
async fn a_full_disk_is_told_before_the_data() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    gate.spool.set_health(Health::Full);
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 452).await;
}

#[tokio::test]
async fn one_address_gets_no_more_than_its_share() {
    let mut listener = listener(TlsMode::None);
    // The limit applies to the listener, however many addresses it has.
    listener.addresses.push("127.0.0.1:0".parse().unwrap());
    listener.limits = SessionLimits { per_address: 1, ..SessionLimits::default() };
    let gate = gate(listener, Vec::new());
    let mut first = gate.client().await;
    first.hello("client.example").await;
    let mut second = Client::connect(gate.inbound.addresses()[1].1).await;
    let reply = second.expect(421).await;
    assert!(reply.text().contains("4.7.0"), "{reply:?}");
    second.expect_closed().await;
}

#[tokio::test]
async fn a_drain_lets_transactions_finish() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let mut idle = gate.client().await;
    idle.hello("client.example").await;
    let mut busy = gate.client().await;
    busy.hello("client.example").await;
    busy.envelope("a@x.example", &["b@ours.example"]).await;
    let Gate { inbound, spool, .. } = gate;
    let drain = tokio::spawn(inbound.drain(Duration::from_secs(120)));
    idle.expect(421).await;
    idle.expect_closed().await;
    busy.send_data(MESSAGE).await;
    busy.expect(250).await;
    busy.expect(421).await;
    drain.await.unwrap();
    assert_eq!(spool.claim(None, 10).await.unwrap().len(), 1);
}

/// A client that sends without reading. Returns when the gateway has closed the connection or stopped reading.
async fn flood(address: SocketAddr, opening: &str, more: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let block = more.repeat(10_000);
    let mut sent = socket.write_all(opening.as_bytes()).await;
    while sent.is_ok() {
        let write = tokio::time::timeout(Duration::from_secs(10), socket.write_all(block.as_bytes()));
        match write.await {
            Ok(result) => sent = result,
            Err(_) => break,
        }
    }
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn time_runs_out_for_a_client_that_never_pauses() {
    let mut listener = listener(TlsMode::None);
    let mut smtp = server::Config::clone(&listener.smtp);
    smtp.timeouts.message = Duration::from_millis(100);
    listener.smtp = Arc::new(smtp);
    let gate = gate(listener, Vec::new());
    let opening = "EHLO c.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@ours.example>\r\nDATA\r\n";
    let client = flood(gate.address(), opening, "a line, and another\r\n");
    tokio::time::timeout(Duration::from_secs(10), client).await.expect("the message's time is up");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_cannot_hold_up_a_drain() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let stuck =
        flood(gate.address(), "EHLO c.example\r\n", "MAIL FROM:<a@x.example>\r\nMAIL FROM:<>\r\nRSET\r\n")
            .await;
    let begin = tokio::time::Instant::now();
    gate.inbound.drain(Duration::from_secs(30)).await;
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    drop(stuck);
}

#[tokio::test]
async fn a_handshake_that_does_not_get_on_cannot_hold_up_a_drain() {
    let gate = gate(listener(TlsMode::StartTls), Vec::new());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("STARTTLS", 220).await;
    let drain = gate.inbound.drain(Duration::from_secs(50));
    tokio::time::timeout(Duration::from_secs(10), drain).await.expect("at once");
    drop(client);
}

#[tokio::test]
async fn who_tries_address_after_address_is_shown_out() {
    let gate = gate(listener(TlsMode::None), Vec::new());
    let mut client = gate.client().await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    for number in 1..Rules::default().max_refusals {
        client.ask(&format!("RCPT TO:<guess{number}@other.example>"), 550).await;
    }
    let reply = client.ask("RCPT TO:<one@other.example>", 421).await;
    assert!(reply.text().contains("4.7.0"), "{reply:?}");
    client.expect_closed().await;
}
