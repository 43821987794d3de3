//! Sender authentication in the real binary: SPF and DMARC act, and Authentication-Results reports the results.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use e2e::{Gateway, binary, configuration};
use pintle_testkit::{Client, Script, Sink, TempDir, ZoneFault, ZoneServer};

const ZONES: &str = "a.example TXT \"v=spf1 ip4:127.0.0.66 -all exp=why.a.example\"\n\
    why.a.example TXT \"%{i} is none of ours\"\n\
    _dmarc.a.example TXT \"v=DMARC1; p=reject\"\n\
    _dmarc.q.example TXT \"v=DMARC1; p=quarantine\"";

const MESSAGE: &[u8] = b"From: <x@a.example>\r\nSubject: one\r\n\r\nhello\r\n";

struct Stage {
    gateway: Gateway,
    sink: Sink,
    zone: ZoneServer,
    _folder: TempDir,
}

impl Stage {
    /// A gateway with both plugins; SPF refuses failures if `fail` says so.
    async fn start(fail: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let sink = Sink::start(Script::new()).await;
        let zone = ZoneServer::start(ZONES).await;
        let cache = binary().with_file_name("plugin-cache");
        let plugins = format!(
            "[dns]\nservers = [\"{}\"]\n[plugins]\ncache = \"{}\"\n\
             [[plugin]]\nname = \"spf\"\ncomponent = \"stock:spf\"\ngrants = [\"sender-auth\", \"auth-results\"]\n\
             [plugin.config]\nfail = \"{fail}\"\n\
             [[plugin]]\nname = \"dmarc\"\ncomponent = \"stock:dmarc\"\ngrants = [\"sender-auth\", \"auth-results\"]\n",
            zone.address(),
            cache.display()
        );
        let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &plugins));
        Self { gateway, sink, zone, _folder: folder }
    }

    /// A client from 127.0.0.`last` that has sent EHLO.
    async fn client(&self, last: u8) -> Client {
        let mut client = Client::connect_from([127, 0, 0, last].into(), self.gateway.address("mx")).await;
        client.hello("client.example").await;
        client
    }

    /// The reply to a message of `header` from this client.
    async fn send(&self, last: u8, sender: &str, message: &[u8]) -> u16 {
        let mut client = self.client(last).await;
        client.ask(&format!("MAIL FROM:<{sender}>"), 250).await;
        client.ask("RCPT TO:<b@ours.example>", 250).await;
        client.ask("DATA", 354).await;
        client.send_data(message).await;
        client.reply().await.code
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aligned_mail_passes_and_carries_its_results() {
    let stage = Stage::start("reject").await;
    assert_eq!(stage.send(66, "x@a.example", MESSAGE).await, 250);
    let arrived = stage.sink.wait_for(1).await;
    let text = arrived[0].text().replace("\r\n ", " ");
    let results = text.lines().find(|line| line.starts_with("Authentication-Results: ")).unwrap();
    for part in ["spf=pass smtp.mailfrom=a.example", "dmarc=pass header.from=a.example policy.dmarc=reject"] {
        assert!(results.contains(part), "{results}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_the_domain_forbids_hears_why() {
    let stage = Stage::start("reject").await;
    let mut client = stage.client(67).await;
    let reply = client.ask("MAIL FROM:<x@a.example>", 550).await;
    let text = reply.text();
    assert!(
        text.starts_with("5.7.23 SPF of a.example: fail; a.example explains: 127.0.0.67 is none of ours"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn spoofed_authors_are_refused_whatever_the_envelope_says() {
    let stage = Stage::start("pass-on").await;
    for (sender, message) in [
        ("x@a.example", MESSAGE),
        ("x@other.example", MESSAGE),
        ("", MESSAGE),
        ("x@a.example", b"From: <x@a.example>\r\nFrom: <x@b.example>\r\n\r\nhello\r\n"),
        ("x@a.example", b"From: \"bob@good.example\" <x@a.example>\r\n\r\nhello\r\n"),
    ] {
        assert_eq!(stage.send(67, sender, message).await, 550, "{sender}");
    }
    assert_eq!(stage.send(67, "x@q.example", b"From: <x@q.example>\r\n\r\nheld\r\n").await, 250);
    assert_eq!(stage.send(67, "x@plain.example", b"From: <x@plain.example>\r\n\r\nno record\r\n").await, 250);
    let arrived = stage.sink.wait_for(1).await;
    assert!(arrived[0].text().contains("no record"), "the other one is held");
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_in_trouble_refuses_nobody_by_default() {
    let stage = Stage::start("reject").await;
    for name in ["a.example", "_dmarc.a.example"] {
        stage.zone.fail(name, ZoneFault::ServFail);
    }
    assert_eq!(stage.send(67, "x@a.example", MESSAGE).await, 250);
    stage.sink.wait_for(1).await;
}
