//! Tests that the sink accepts mail, follows its script, and detects protocol violations of a client.

use std::time::Duration;

use pintle_testkit::{Act, Client, Script, Sink, SinkStep, TestCa};

const MESSAGE: &[u8] = b"Subject: hello\r\n\r\n.a line with a dot\r\n";

async fn session(sink: &Sink) -> Client {
    let mut client = Client::connect(sink.address()).await;
    client.hello("client.example").await;
    client
}

#[tokio::test]
async fn keeps_messages_as_they_were_meant() {
    let sink = Sink::start(Script::new()).await;
    let mut client = session(&sink).await;
    client.deliver("a@x.example", &["b@y.example", "\"odd >\"@y.example"], MESSAGE).await;
    let message = &sink.wait_for(1).await[0];
    assert_eq!(message.message, MESSAGE);
    assert_eq!(message.sender.address, "a@x.example");
    assert_eq!(message.recipients(), ["b@y.example", "\"odd >\"@y.example"]);
    assert_eq!(
        (message.hello.as_str(), message.extended, message.tls.as_deref()),
        ("client.example", true, None)
    );
    sink.assert_no_violations();
}

#[tokio::test]
async fn takes_chunks_and_parameters() {
    let sink = Sink::start(Script::new()).await;
    let mut client = session(&sink).await;
    client.ask("MAIL FROM:<> SIZE=10 BODY=8BITMIME RET=HDRS ENVID=q1", 250).await;
    client.ask("RCPT TO:<b@y.example> NOTIFY=NEVER", 250).await;
    client.send_raw(b"BDAT 4\r\n.\xc3\xa9\r").await;
    client.expect(250).await;
    client.send_raw(b"BDAT 1 LAST\r\n\n").await;
    client.expect(250).await;
    let message = &sink.wait_for(1).await[0];
    assert_eq!(message.message, b".\xc3\xa9\r\n");
    assert!(message.chunked);
    assert_eq!(message.sender.param("envid"), Some("q1"));
    assert_eq!(message.recipients[0].param("NOTIFY"), Some("NEVER"));
    sink.assert_no_violations();
}

#[tokio::test]
async fn follows_its_script() {
    let script = Script::new()
        .on_nth(SinkStep::Rcpt, 2, Act::Reply("451 4.3.0 later".into()))
        .on_line(SinkStep::Rcpt, "never@", Act::Reply("550-5.1.1 no\n550 5.1.1 never".into()))
        .on(SinkStep::Message, Act::Close);
    let sink = Sink::start(script).await;
    let mut client = session(&sink).await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    client.ask("RCPT TO:<one@y.example>", 250).await;
    client.ask("RCPT TO:<two@y.example>", 451).await;
    let refusal = client.ask("RCPT TO:<never@y.example>", 550).await;
    assert_eq!(refusal.lines, ["5.1.1 no", "5.1.1 never"]);
    client.ask("DATA", 354).await;
    client.send_data(MESSAGE).await;
    client.expect_closed().await;
    let log = sink.wait_idle().await;
    assert_eq!(log.transactions[0].recipients(), ["one@y.example"]);
    assert!(!log.transactions[0].accepted);
}

#[tokio::test]
async fn may_take_a_message_and_not_say_so() {
    let sink = Sink::start(Script::new().on(SinkStep::Message, Act::AcceptThenClose)).await;
    let mut client = session(&sink).await;
    client.envelope("a@x.example", &["b@y.example"]).await;
    client.send_data(MESSAGE).await;
    client.expect_closed().await;
    assert_eq!(sink.wait_for(1).await.len(), 1);
}

#[tokio::test]
async fn holds_until_released_and_changes_its_mind() {
    let sink = Sink::start(Script::new().on(SinkStep::Mail, Act::Hold)).await;
    let mut client = session(&sink).await;
    client.send("MAIL FROM:<a@x.example>").await;
    sink.wait_until("a session held", |log| log.held == 1).await;
    sink.follow(Script::new().reply(SinkStep::Rcpt, "450 4.2.0 busy"));
    sink.release();
    client.expect(250).await;
    client.ask("RCPT TO:<b@y.example>", 450).await;
}

#[tokio::test]
async fn speaks_tls_in_both_ways_and_knows_users() {
    let ca = TestCa::new();
    let leaf = ca.issue(&["sink.example"]);
    let sink = Sink::start(Script::new().starttls(&leaf).login("user", "secret")).await;
    let client = {
        let mut client = Client::connect(sink.address()).await;
        assert!(client.hello("c.example").await.offers("STARTTLS"));
        client.starttls(ca.client_config(), "sink.example").await
    };
    let mut client = client;
    let offer = client.ask("EHLO c.example", 250).await;
    assert!(offer.offers("AUTH") && !offer.offers("STARTTLS"));
    client.ask("MAIL FROM:<a@x.example>", 530).await;
    client.ask("AUTH PLAIN AHVzZXIAd3Jvbmc=", 535).await;
    client.ask("AUTH LOGIN", 334).await;
    client.ask("dXNlcg==", 334).await;
    client.ask("c2VjcmV0", 235).await;
    client.deliver("a@x.example", &["b@y.example"], MESSAGE).await;
    let message = &sink.wait_for(1).await[0];
    assert_eq!((message.tls.as_deref(), message.user.as_deref()), (Some("TLSv1.3"), Some("user")));

    let sink = Sink::start(Script::new().implicit_tls(&leaf)).await;
    let mut client = Client::connect_tls(sink.address(), ca.client_config(), "sink.example").await;
    assert!(!client.hello("c.example").await.offers("STARTTLS"));
    sink.assert_no_violations();
}

#[tokio::test]
async fn answers_each_recipient_in_lmtp() {
    let sink = Sink::start(Script::new().lmtp().on_line(
        SinkStep::Message,
        "full@",
        Act::Reply("452 4.2.2 full".into()),
    ))
    .await;
    let mut client = Client::connect(sink.address()).await;
    client.expect(220).await;
    client.ask("EHLO c.example", 500).await;
    client.ask("LHLO c.example", 250).await;
    client.envelope("a@x.example", &["b@y.example", "full@y.example"]).await;
    client.send_data(MESSAGE).await;
    client.expect(250).await;
    client.expect(452).await;
}

#[tokio::test]
async fn refuses_what_it_did_not_offer() {
    let sink = Sink::start(Script::new().hide("SIZE").hide("CHUNKING").hide("DSN")).await;
    let mut client = session(&sink).await;
    client.ask("MAIL FROM:<a@x.example> SIZE=10", 555).await;
    client.ask("MAIL FROM: <a@x.example>", 501).await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    client.ask("RCPT TO:<b@y.example> NOTIFY=NEVER", 555).await;
    client.ask("DATA", 554).await;
    client.ask("AUTH PLAIN AHVzZXIAc2VjcmV0", 535).await;
    client.ask("STARTTLS", 503).await;
}

#[tokio::test]
async fn sees_what_a_client_does_wrong() {
    let cases: [(Script, &[u8], &str); 5] = [
        (Script::new().hide("PIPELINING"), b"NOOP\r\nRSET\r\n", "more bytes"),
        (Script::new().hide("PIPELINING"), b"RSET\r\nRSET\r\n", "pipelining"),
        (Script::new(), b"RSET\n", "CRLF"),
        (Script::new(), b"MAIL FROM:<\xc3\xa9@x.example>\r\n", "ASCII"),
        (Script::new(), b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nBDAT 2 LAST\r\n\xc3\xa9", "8 bits"),
    ];
    for (script, bytes, what) in cases {
        let sink = Sink::start(script).await;
        let mut client = session(&sink).await;
        client.send_raw(bytes).await;
        let log = sink.wait_until(what, |log| !log.violations.is_empty()).await;
        assert!(log.violations[0].contains(what), "{:?}", log.violations);
    }
}

#[tokio::test]
async fn a_bare_line_feed_does_not_end_a_message() {
    let sink = Sink::start(Script::new()).await;
    let mut client = session(&sink).await;
    client.envelope("a@x.example", &["b@y.example"]).await;
    client.send_raw(b"one\n.\r\ntwo\r\n.\r\n").await;
    client.expect(250).await;
    assert_eq!(sink.wait_for(1).await[0].message, b"one\n.\r\ntwo\r\n");
    assert_eq!(sink.log().violations.len(), 1);
}

#[tokio::test]
async fn goes_away_and_comes_back() {
    let sink = Sink::start(Script::new().on(SinkStep::Noop, Act::Delay(Duration::from_millis(1)))).await;
    let address = sink.address();
    let mut client = session(&sink).await;
    client.ask("NOOP", 250).await;
    sink.stop().await;
    client.expect_closed().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let sink = Sink::start_at(address, Script::new()).await;
    session(&sink).await.ask("QUIT", 221).await;
    assert_eq!(sink.wait_idle().await.count("quit"), 1);
}
