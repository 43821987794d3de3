//! Bounce address tags in the real binary: outgoing mail is tagged, its bounces are accepted, and others are not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{SystemTime, UNIX_EPOCH};

use e2e::{Gateway, binary, configuration};
use pintle_testkit::{Act, Client, Script, Sink, SinkStep, SinkTransaction, SmtpReply, TempDir};

const MESSAGE: &[u8] = b"Subject: one\r\nFrom: <ann@ours.example>\r\n\r\nhello\r\n";

/// The inline keys cause a warning, no mistake.
const SECRETS: &str = r#"[secrets.now]
key = "the key of the moment"
[secrets.before]
key = "the key of last year"
"#;
const KEYS: &str = r#"keys = [{ number = 4, secret = "now" }, { number = 0, secret = "before" }]"#;

/// 239 octets: with a tag the path would exceed the length that every server must accept.
const NO_ROOM: &str = concat!(
    "a-local-part-that-leaves-no-room-for-any-tag-in-front.",
    "a-local-part-that-leaves-no-room-for-any-tag-in-front.",
    "a-local-part-that-leaves-no-room-for-any-tag-in-front.",
    "a-local-part-that-leaves-no-room-for-any-tag-in-front.",
    "to-the-end@ours.example"
);

struct Stage {
    gateway: Gateway,
    sink: Sink,
    _folder: TempDir,
}

impl Stage {
    /// `more` is added to the plugin's configuration after its keys.
    async fn start(more: &str, script: Script) -> Self {
        let folder = TempDir::new().unwrap();
        let sink = Sink::start(script).await;
        let plugin = format!(
            "{SECRETS}[plugins]\ncache = \"{}\"\n[[plugin]]\nname = \"batv\"\ncomponent = \"stock:batv\"\n\
             grants = [\"edit-envelope\", \"secrets:now\", \"secrets:before\"]\n[plugin.config]\n{KEYS}\n{more}\n",
            binary().with_file_name("plugin-cache").display()
        );
        let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &plugin));
        Self { gateway, sink, _folder: folder }
    }

    async fn stranger(&self) -> Client {
        self.client("mx").await
    }

    async fn colleague(&self) -> Client {
        self.client("inside").await
    }

    async fn client(&self, listener: &str) -> Client {
        let mut client = Client::connect_from([127, 0, 0, 66].into(), self.gateway.address(listener)).await;
        client.hello("client.example").await;
        client
    }

    /// The message that arrives when a client inside sends one.
    async fn out(&self, sender: &str, recipients: &[&str]) -> SinkTransaction {
        let before = self.sink.log().accepted().count();
        self.colleague().await.deliver(sender, recipients, MESSAGE).await;
        self.sink.wait_for(before + 1).await.remove(before)
    }

    /// The message that arrives when an untrusted client sends one.
    async fn back(&self, sender: &str, recipient: &str) -> SinkTransaction {
        let before = self.sink.log().accepted().count();
        self.stranger().await.deliver(sender, &[recipient], MESSAGE).await;
        self.sink.wait_for(before + 1).await.remove(before)
    }

    /// The reply to a recipient when an untrusted client sends a bounce.
    async fn bounce(&self, recipient: &str) -> SmtpReply {
        let mut client = self.stranger().await;
        client.ask("MAIL FROM:<>", 250).await;
        client.send(&format!("RCPT TO:<{recipient}>")).await;
        client.reply().await
    }
}

fn refused(reply: &SmtpReply, why: &str) {
    assert!(
        reply.code == 550 && reply.text().starts_with("5.7.1 ") && reply.text().contains(why),
        "{reply:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_is_signed_and_its_bounce_comes_home() {
    let stage = Stage::start("", Script::new()).await;
    let sent = stage.out("Ann@ours.example", &["b@other.example"]).await;
    let signed = sent.sender.address;
    assert!(
        signed.starts_with("prvs=4") && signed.ends_with("=Ann@ours.example") && signed.len() == 32,
        "{signed}"
    );
    assert_eq!(stage.back("", &signed).await.recipients(), ["Ann@ours.example"]);
    assert_eq!(stage.back("", &signed.to_lowercase()).await.recipients(), ["ann@ours.example"]);
    // A person who answers the return address means the person behind it.
    assert_eq!(stage.back("b@other.example", &signed).await.recipients(), ["Ann@ours.example"]);
    assert_eq!(
        stage.back("b@other.example", "prvs=0000000000=ann@ours.example").await.recipients(),
        ["ann@ours.example"]
    );
    refused(&stage.bounce(&signed.replace("Ann", "bob")).await, "a BATV tag that we did not make");
    stage.sink.assert_no_violations();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_addresses_are_signed_and_only_for_the_outside() {
    let more = "unsigned_recipients = [\"lists.example\"]\nexempt_addresses = [\"robot@ours.example\"]";
    let stage = Stage::start(more, Script::new()).await;
    for (sender, recipient) in [
        ("ann@ours.example", "bob@ours.example"),
        ("ann@ours.example", "talk@lists.example"),
        ("robot@ours.example", "b@other.example"),
        ("prvs=4123abcdef=ann@ours.example", "b@other.example"),
        ("c@guest.example", "b@other.example"),
        ("", "b@other.example"),
        (NO_ROOM, "b@other.example"),
    ] {
        assert_eq!(stage.out(sender, &[recipient]).await.sender.address, sender, "to {recipient}");
    }
    // Relayed mail of others is not tagged.
    assert_eq!(stage.back("ann@ours.example", "bob@ours.example").await.sender.address, "ann@ours.example");
    let both = stage.out("ann@ours.example", &["talk@lists.example", "b@other.example"]).await;
    assert!(both.sender.address.starts_with("prvs="), "the bounce of the other one must come home");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounce_of_nothing_of_ours_is_refused_and_says_why() {
    let more = "exempt_addresses = [\"robot@ours.example\"]";
    let stage = Stage::start(more, Script::new()).await;
    refused(&stage.bounce("ann@ours.example").await, "<ann@ours.example> has no BATV tag");
    refused(&stage.bounce("prvs=4123abcdef=ann@ours.example").await, "that we did not make");
    refused(&stage.bounce("prvs=7123abcdef=ann@ours.example").await, "of a key that we do not have");
    refused(&stage.bounce(expired()).await, "that has expired");
    // The recipient inside the tag is checked like any other: no relaying.
    refused(&stage.bounce("prvs=4123abcdef=ann%other.example@ours.example").await, "");
    let mut client = stage.stranger().await;
    client.ask("MAIL FROM:<b@other.example>", 250).await;
    refused(
        &client.ask("RCPT TO:<prvs=4123abcdef=ann%other.example@ours.example>", 550).await,
        "Relaying denied",
    );
    for taken in
        ["postmaster@ours.example", "Postmaster", "ABUSE@ours.example", "robot@ours.example", NO_ROOM]
    {
        assert_eq!(stage.bounce(taken).await.code, 250, "{taken}");
    }
    let mut colleague = stage.colleague().await;
    colleague.deliver("", &["ann@ours.example"], MESSAGE).await;
    let line = stage.gateway.line("a bounce of mail that we did not send");
    assert!(line.contains("untagged") && line.contains("ann@ours.example"), "{line}");
}

/// A tag of the older key, whose code was computed with Python's hmac module, for a day far from today.
fn expired() -> &'static str {
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400 % 1_000;
    if (1..900).contains(&today) {
        "prvs=0000180c35=ann@ours.example"
    } else {
        "prvs=0500f8e9f6=ann@ours.example"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_our_own_goes_to_the_address_without_a_tag() {
    let unknown = Act::Reply("550 5.1.1 no such user".into());
    let stage =
        Stage::start("", Script::new().on_line(SinkStep::Rcpt, "nobody@other.example", unknown)).await;
    stage.colleague().await.deliver("ann@ours.example", &["nobody@other.example"], MESSAGE).await;
    let report = stage.sink.wait_for(1).await.remove(0);
    assert_eq!((report.sender.address.as_str(), report.recipients()), ("", vec!["ann@ours.example"]));
    let text = String::from_utf8_lossy(&report.message).into_owned();
    assert!(text.contains("550 5.1.1 no such user") && !text.contains("prvs="), "{text}");
    let log = stage.sink.log();
    let tried = log.commands.iter().find(|command| command.line.starts_with("MAIL FROM:<prvs=4"));
    assert!(tried.is_some(), "the attempt itself was signed: {:?}", log.commands);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_refusal_at_data_a_callout_hears_that_the_address_exists() {
    let stage = Stage::start("refuse_at = \"data\"\naccept_receipts = true", Script::new()).await;
    let good = stage.out("bob@ours.example", &["b@other.example"]).await.sender.address;
    let mut client = stage.stranger().await;
    client.ask("MAIL FROM:<>", 250).await;
    client.ask("RCPT TO:<ann@ours.example>", 250).await;
    client.ask("DATA", 354).await;
    client.send_data(MESSAGE).await;
    refused(&client.expect(550).await, "<ann@ours.example> has no BATV tag");
    // One recipient is not refused because of another.
    client.ask("MAIL FROM:<>", 250).await;
    client.ask("RCPT TO:<ann@ours.example>", 250).await;
    client.ask(&format!("RCPT TO:<{good}>"), 250).await;
    client.ask("DATA", 354).await;
    client.send_data(MESSAGE).await;
    client.expect(250).await;
    assert_eq!(stage.sink.wait_for(2).await[1].recipients(), ["bob@ours.example"]);
    let receipt = b"Content-Type: multipart/report; boundary=b;\r\n\treport-type=disposition-notification\r\n\r\nread\r\n";
    client.deliver("", &["ann@ours.example"], receipt).await;
    assert_eq!(stage.sink.wait_for(3).await[2].recipients(), ["ann@ours.example"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_first_bounces_without_a_tag_are_taken_and_told() {
    let stage = Stage::start("accept_untagged_until = \"9999-12-31\"", Script::new()).await;
    assert_eq!(stage.back("", "ann@ours.example").await.recipients(), ["ann@ours.example"]);
    stage.gateway.wait_for("a bounce without a tag would be refused after accept_untagged_until");
    refused(&stage.bounce("prvs=4123abcdef=ann@ours.example").await, "that we did not make");
}

#[tokio::test(flavor = "multi_thread")]
async fn domains_and_networks_are_the_operators_choice() {
    let more = "domains = [\"relayed.example\"]\nexempt_networks = [\"127.0.0.67\"]";
    let stage = Stage::start(more, Script::new()).await;
    assert!(stage.out("a@relayed.example", &["b@other.example"]).await.sender.address.starts_with("prvs=4"));
    assert_eq!(stage.out("ann@ours.example", &["b@other.example"]).await.sender.address, "ann@ours.example");
    assert_eq!(stage.bounce("ann@ours.example").await.code, 250);
    refused(&stage.bounce("a@relayed.example").await, "has no BATV tag");
    let mut client = Client::connect_from([127, 0, 0, 67].into(), stage.gateway.address("mx")).await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<>", 250).await;
    let reply = client.ask("RCPT TO:<a@relayed.example>", 550).await;
    assert!(
        reply.text().contains("Relaying denied"),
        "the plugin has no objection, the core's law has: {reply:?}"
    );
}
