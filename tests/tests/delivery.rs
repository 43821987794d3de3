//! The path of one message through the real binary: received by SMTP, through a plugin, to disk, and out to a next hop.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use e2e::{Gateway, configuration, example_plugin};
use pintle_testkit::{Client, Script, Sink, SinkStep, TempDir};

const MESSAGE: &[u8] =
    b"Subject: one\r\nFrom: <a@x.example>\r\nX-Keep:  as\r\n\tit was\r\n\r\n.first\r\n\xff\xfe raw\r\n";

#[tokio::test]
async fn the_bytes_that_arrive_are_those_sent_but_for_what_was_asked_for() {
    let folder = TempDir::new().unwrap();
    let sink = Sink::start(Script::new()).await;
    let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &example_plugin()));
    let mut client = Client::connect(gateway.address("mx")).await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example", "\"c d\"@ours.example"], MESSAGE).await;
    let arrived = sink.wait_for(1).await.remove(0);
    assert_eq!(arrived.sender.address, "a@x.example");
    assert_eq!(arrived.recipients(), ["b@ours.example", "\"c d\"@ours.example"]);
    let mut expected = b"X-Seen: seen on the way to 2 recipient(s)\r\n".to_vec();
    expected.extend_from_slice(MESSAGE);
    let ours = arrived.message.windows(7).position(|window| window == b"X-Seen:").unwrap();
    assert!(arrived.message.starts_with(b"Received: from client.example ([127.0.0.1])"));
    assert_eq!(String::from_utf8_lossy(&arrived.message[ours..]), String::from_utf8_lossy(&expected));
    assert_eq!(arrived.message[ours..], expected);
    sink.assert_no_violations();
    gateway.stop();
}

#[tokio::test]
async fn a_plugin_refuses_and_the_log_says_who() {
    let folder = TempDir::new().unwrap();
    let sink = Sink::start(Script::new()).await;
    let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &example_plugin()));
    let mut client = Client::connect(gateway.address("mx")).await;
    client.hello("client.example").await;
    let reply = client.ask("MAIL FROM:<spammer@bad.example>", 550).await;
    assert!(reply.text().contains("5.7.1") && reply.text().contains("not wanted"), "{reply:?}");
    let line = gateway.line("\"rejection\"");
    assert!(line.contains("example"), "{line}");
}

#[tokio::test]
async fn what_the_next_hop_refuses_comes_back_as_a_report() {
    let folder = TempDir::new().unwrap();
    let script = Script::new().on_line(
        SinkStep::Rcpt,
        "nobody@ours.example",
        pintle_testkit::Act::Reply("550 5.1.1 no such user".into()),
    );
    let sink = Sink::start(script).await;
    let gateway = Gateway::start(&configuration(folder.path(), sink.address(), ""));
    let mut client = Client::connect(gateway.address("inside")).await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example", "nobody@ours.example"], MESSAGE).await;
    let arrived = sink.wait_until("the message and its report", |log| log.accepted().count() == 2).await;
    let report = arrived.accepted().find(|transaction| transaction.sender.address.is_empty()).unwrap();
    assert_eq!(report.recipients(), ["a@x.example"]);
    let text = String::from_utf8_lossy(&report.message).into_owned();
    for expected in ["multipart/report", "nobody@ours.example", "550 5.1.1 no such user", "Action: failed"] {
        assert!(text.contains(expected), "{expected} is missing in:\n{text}");
    }
}
