//! Relay control in the real binary: who may relay mail, with which sender, and that nothing hidden, missing or broken
//! opens the relay.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use base64::Engine;
use e2e::{Gateway, binary, configuration};
use pintle_testkit::{Client, Leaf, Script, Sink, SmtpReply, TempDir, TestCa};
use sha2::{Digest, Sha256};

struct Stage {
    gateway: Gateway,
    sink: Sink,
    ca: TestCa,
    _folder: TempDir,
}

impl Stage {
    /// A gateway with relay-control; `plugin` is what follows `component` in its section.
    async fn start(plugin: &str) -> Self {
        let plugin =
            format!("[[plugin]]\nname = \"relay-control\"\ncomponent = \"stock:relay-control\"\n{plugin}\n");
        Self::with(TestCa::new(), TempDir::new().unwrap(), &plugin).await
    }

    async fn with(ca: TestCa, folder: TempDir, more: &str) -> Self {
        let sink = Sink::start(Script::new()).await;
        let cache = binary().with_file_name("plugin-cache");
        let more = format!("[plugins]\ncache = \"{}\"\n{more}", cache.display());
        let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &more));
        Self { gateway, sink, ca, _folder: folder }
    }

    /// An untrusted client.
    async fn stranger(&self) -> Client {
        self.client(67, "mx").await
    }

    /// A client in the network of the branch office.
    async fn branch(&self) -> Client {
        self.client(66, "mx").await
    }

    /// A client that the gateway trusts.
    async fn colleague(&self) -> Client {
        self.client(1, "inside").await
    }

    async fn client(&self, last: u8, listener: &str) -> Client {
        let mut client = Client::connect_from([127, 0, 0, last].into(), self.gateway.address(listener)).await;
        client.hello("client.example").await;
        client
    }
}

/// The text of the reply, without the session id that the core adds.
fn says(reply: &SmtpReply, text: &str) {
    assert!(reply.text().starts_with(text), "{reply:?}");
}

/// Untrusted clients from 127.0.0.66 may send to the partner; no one may send to the enemy; ann may use her own
/// address. The gateway's configuration says which domains are ours.
const RELAYING: &str = r#"grants = ["relay", "kv"]
[plugin.config]
senders = { ann = ["ann@ours.example"] }
limits = { recipients_per_hour = 2 }
[[plugin.config.rules]]
name = "enemies"
action = "refuse"
recipients = ["enemy.example"]
[[plugin.config.rules]]
name = "branch office"
action = "allow"
networks = ["127.0.0.66"]
recipients = ["partner.example"]

[[listener]]
name = "users"
kind = "relay"
addresses = ["127.0.0.1:0"]
tls = "none"
auth = "required"
plain_without_tls = true

[[user]]
name = "ann"
password = "secret"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_opens_the_relay_for_its_network_and_no_hidden_address_opens_it_wider() {
    let stage = Stage::start(RELAYING).await;
    let mut client = stage.branch().await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    client.ask("RCPT TO:<b@partner.example>", 250).await;
    client.ask("RCPT TO:<b@ours.example>", 250).await;
    for hidden in [
        "b@other.example",
        "b%other.example@partner.example",
        "other.example!b@partner.example",
        "\"b@other.example\"@partner.example",
        "b%other.example@ours.example",
        "b%ours.example@ours.example",
        "b@enemy.example",
    ] {
        let reply = client.ask(&format!("RCPT TO:<{hidden}>"), 550).await;
        says(&reply, "5.7.1 Relaying denied");
    }
    // A source route is ignored, and the address after it is checked (RFC 5321 section 4.1.1.3).
    client.ask("RCPT TO:<@partner.example:b@other.example>", 550).await;
    let mut stranger = stage.stranger().await;
    stranger.ask("MAIL FROM:<a@x.example>", 250).await;
    stranger.ask("RCPT TO:<b@partner.example>", 550).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_refuses_even_those_whom_the_core_would_let_relay() {
    let stage = Stage::start(RELAYING).await;
    let mut colleague = stage.colleague().await;
    colleague.ask("MAIL FROM:<a@x.example>", 250).await;
    colleague.ask("RCPT TO:<b@other.example>", 250).await;
    let reply = colleague.ask("RCPT TO:<b@enemy.example>", 550).await;
    says(&reply, "5.7.1 Relaying denied: you may not send mail to enemy.example");
    colleague.ask("RCPT TO:<b%enemy.example@other.example>", 550).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_from_in_other_letters_is_the_address_that_the_operator_named() {
    let named = RELAYING.replace("\"ann@ours.example\"", "\"ann@xn--bcher-kva.example\"");
    let stage = Stage::start(&named).await;
    let mut client = Client::connect(stage.gateway.address("users")).await;
    client.hello("laptop.example").await;
    client.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", 235).await;
    client.ask("MAIL FROM:<ann@xn--bcher-kva.example> SMTPUTF8", 250).await;
    client.ask("RCPT TO:<b@other.example>", 250).await;
    client.ask("DATA", 354).await;
    client.send_data("From: Ann <ann@B\u{fc}cher.example>\r\n\r\nhello\r\n".as_bytes()).await;
    client.expect(250).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_sends_as_itself_and_not_too_much() {
    let stage = Stage::start(RELAYING).await;
    let mut client = Client::connect(stage.gateway.address("users")).await;
    client.hello("laptop.example").await;
    client.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", 235).await;
    let reply = client.ask("MAIL FROM:<director@ours.example>", 550).await;
    says(&reply, "5.7.1 ann may not send mail as director@ours.example");
    client.envelope("ann@ours.example", &["b@other.example"]).await;
    client.send_data(b"From: The Director <director@ours.example>\r\n\r\npay\r\n").await;
    says(&client.expect(550).await, "5.7.1 ann may not send mail as director@ours.example");
    client.ask("MAIL FROM:<Ann@ours.example>", 250).await;
    client.ask("RCPT TO:<b@other.example>", 250).await;
    let reply = client.ask("RCPT TO:<c@other.example>", 451).await;
    says(&reply, "4.7.0 ann may send 2 recipients an hour");
    stage.gateway.wait_for("has its password been stolen?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_control_that_is_broken_opens_nothing() {
    // Without its grant, allowing a relay is a fault; and the operator's worst choice for a fault is to accept.
    let plugin = RELAYING.replace("grants = [\"relay\", \"kv\"]", "grants = [\"kv\"]\non_fault = \"accept\"");
    let stage = Stage::start(&plugin).await;
    let mut client = stage.branch().await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    let reply = client.ask("RCPT TO:<b@partner.example>", 550).await;
    says(&reply, "5.7.1 Relaying denied: mail for partner.example needs authentication");
    client.ask("RCPT TO:<b@ours.example>", 250).await;
    stage.gateway.wait_for("denied");
}

/// Forms in which an address of domain D hides one of host H, and in which one of H is written so that a filter may
/// overlook it.
const FORMS: [&str; 71] = [
    "b@H",
    "b@H.",
    "b@D@H",
    "b@D.@H",
    "b@H@D",
    "b%H@D",
    "b%H.@D",
    "b%H%D@D",
    "b%D%H@D",
    "b%x.example%H@D",
    "b%%H@D",
    "b%H%@D",
    "H!b@D",
    "D!H!b@D",
    "H!D!b@D",
    "x!H!y!b@D",
    "H!b%D@D",
    "D!b%H@D",
    "H!b%H@D",
    "b%40H@D",
    "b%2540H@D",
    "b%25H@D",
    "b%2525H@D",
    "b%252525252540H@D",
    "H%21b@D",
    "H%2521b@D",
    "@D:b@H",
    "@D,@x.example:b@H",
    "@H:b%H@D",
    "=?x?q?b=40H?=@D",
    "imceasmtp-b+40H@D",
    "=?utf-8?b?YkBI?=@D",
    "\"b@H\"@D",
    "\"b%H\"@D",
    "\"H!b\"@D",
    "\"b%40H\"@D",
    "\"H::b\"@D",
    "\"b\\@H\"@D",
    "\"b@\\H\"@D",
    "\"b\\%H\"@D",
    "\"\\\"b\\\"@H\"@D",
    "\"b@\\\"H\\\"\"@D",
    "\"b\\\\@H\"@D",
    "\"<b@H>\"@D",
    "\"b@H> <c@D\"@D",
    "\"b @ H\"@D",
    "\" b@H \"@D",
    "\"b@H.\"@D",
    "\"b@(c)H\"@D",
    "\"b(c)@H(d)\"@D",
    "\"b@D,c@H\"@D",
    "\"b@D@H\"@D",
    "\"@H:b\"@D",
    "\"@D,@H:b@D\"@D",
    "\"@D:b@H\"@D",
    "\"D!b@H\"@D",
    "\"b%D@H\"@D",
    "\"=?x?q?b=40H?=\"@D",
    "b\u{ff20}H@D",
    "b\u{ff05}H@D",
    "H\u{ff01}b@D",
    "H\u{ff1a}\u{ff1a}b@D",
    "H\u{2236}\u{2236}b@D",
    "H\u{203c}b@D",
    "b\u{66a}H@D",
    "b@H\u{ff20}D",
    "b@H\u{ff20}x.D",
    "\" IMCEASMTP-b+40H\"@D",
    "\u{200b}imceasmtp-b+40H@D",
    "imc\u{ad}easmtp-b+40H@D",
    "=\u{ff1f}x?q?b=40H?=@D",
];

/// Tries all forms in one session, and those with dots outside ASCII; none may be accepted.
async fn closed(mut client: Client, hidden: &str, domain: &str) {
    client.ask("MAIL FROM:<a@x.example> SMTPUTF8", 250).await;
    let wide = hidden.replace('.', "\u{3002}");
    let wide =
        [format!("b@{wide}"), format!("b%{wide}@{domain}"), format!("b%{}@{domain}", hidden.to_uppercase())];
    let forms = FORMS.iter().map(|form| form.replace('H', hidden).replace('D', domain));
    for form in forms.chain(wide) {
        client.send(&format!("RCPT TO:<{form}>")).await;
        let reply = client.reply().await;
        assert!((500..600).contains(&reply.code) && reply.code != 503, "{form} was not refused: {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_in_which_an_address_hides_another_is_closed_to_everybody() {
    let plugin = RELAYING.replace("recipients_per_hour = 2", "recipients_per_hour = 2000");
    let stage = Stage::start(&plugin).await;
    closed(stage.stranger().await, "other.example", "ours.example").await;
    closed(stage.branch().await, "other.example", "partner.example").await;
    closed(stage.branch().await, "other.example", "ours.example").await;
    closed(stage.colleague().await, "enemy.example", "other.example").await;
    closed(stage.colleague().await, "enemy.example", "ours.example").await;
    // A hidden address is accepted if all of its parts may be relayed to.
    let mut client = stage.branch().await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    for open in [
        "b%partner.example@partner.example",
        "\"b@partner.example\"@partner.example",
        "ours.example!b@partner.example",
    ] {
        client.ask(&format!("RCPT TO:<{open}>"), 250).await;
    }
    let mut colleague = stage.colleague().await;
    colleague.ask("MAIL FROM:<a@x.example>", 250).await;
    colleague.ask("RCPT TO:<b%other.example@ours.example>", 250).await;
    assert_eq!(stage.sink.log().sessions, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forms_table_without_the_plugin_is_closed_to_strangers_too() {
    let folder = TempDir::new().unwrap();
    let stage = Stage::with(TestCa::new(), folder, "").await;
    closed(stage.stranger().await, "other.example", "ours.example").await;
    let mut client = stage.stranger().await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    client.ask("RCPT TO:<b@ours.example>", 250).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_another_one_to_a_next_hop_that_normalises_is_refused_with_the_reason() {
    let (folder, sink) = (TempDir::new().unwrap(), Sink::start(Script::new()).await);
    let config = configuration(folder.path(), sink.address(), "");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[\"ours.example\"]", "[\"ours.example\", \".sub.example\"]"))
        .unwrap();
    let gateway = Gateway::start(&config);
    let mut client = Client::connect_from([127, 0, 0, 67].into(), gateway.address("mx")).await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example> SMTPUTF8", 250).await;
    for (address, code, text) in [
        ("evil.test\u{ff1a}\u{ff1a}u@ours.example", 553, "5.1.3 Relaying denied: once normalised"),
        ("\u{200b}IMCEASMTP-u+40evil.test@x.sub.example", 550, "5.7.1 Relaying denied"),
        ("\" IMCEASMTP-u+40evil.test\"@x.sub.example", 550, "5.7.1 Relaying denied"),
        ("bo\u{200b}ss@ours.example", 553, "5.1.3 Bad recipient address: once normalised"),
        ("u@evil.test\u{ff20}x.sub.example", 501, "5.1.3 "),
    ] {
        says(&client.ask(&format!("RCPT TO:<{address}>"), code).await, text);
    }
    for same in ["zoe\u{308}@ours.example", "zo\u{eb}@x.sub.example", "u@ours\u{3002}example"] {
        client.ask(&format!("RCPT TO:<{same}>"), 250).await;
    }
}

/// The result when the plugin fails in this way, with the operator's worst choice, to accept on faults.
async fn fails_closed(section: &str, line: &str) {
    let section = format!("[[plugin]]\nname = \"relay-control\"\non_fault = \"accept\"\n{section}\n");
    let stage = Stage::with(TestCa::new(), TempDir::new().unwrap(), &section).await;
    let mut client = stage.branch().await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    for recipient in ["b@partner.example", "b%partner.example@ours.example"] {
        says(&client.ask(&format!("RCPT TO:<{recipient}>"), 550).await, "5.7.1 Relaying denied");
    }
    client.ask("RCPT TO:<b@ours.example>", 250).await;
    stage.gateway.wait_for(line);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_control_that_is_missing_opens_nothing() {
    fails_closed("component = \"gone.wasm\"\nrequired = false\n", "not-loaded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_control_that_traps_or_hangs_after_it_granted_opens_nothing() {
    let component = pintle_guest_build::component("unruly").unwrap();
    for (act, line) in [
        ("grant-then-trap", "\"trap\""),
        ("grant-then-spin", "\"timeout\""),
        ("grant-then-sleep", "\"timeout\""),
    ] {
        let section = format!(
            "component = \"{}\"\ngrants = [\"relay\", \"kv\", \"dns\", \"auth\", \"sender-auth\"]\n\
             [plugin.limits]\nwall = \"400ms\"\ncpu = \"200ms\"\n[plugin.config]\nrcpt = \"{act}\"",
            component.display()
        );
        fails_closed(&section, line).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_go_by_listener_sender_and_identity() {
    let more = r#"
[[plugin.config.rules]]
name = "by sender"
action = "allow"
networks = ["127.0.0.66"]
senders = ["branch.example"]
recipients = [".far.example"]
[[plugin.config.rules]]
name = "by listener"
action = "refuse"
listeners = ["inside"]
recipients = ["secret.example"]
[[plugin.config.rules]]
name = "by identity"
action = "refuse"
identities = ["ann"]
recipients = ["noann.example"]

[[listener]]"#;
    let stage = Stage::start(&RELAYING.replacen("\n[[listener]]", more, 1)).await;
    let mut client = stage.branch().await;
    client.ask("MAIL FROM:<a@branch.example>", 250).await;
    client.ask("RCPT TO:<b@very.far.example>", 250).await;
    client.ask("RSET", 250).await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    client.ask("RCPT TO:<b@very.far.example>", 550).await;
    let mut colleague = stage.colleague().await;
    colleague.ask("MAIL FROM:<a@x.example>", 250).await;
    colleague.ask("RCPT TO:<b@noann.example>", 250).await;
    colleague.ask("RCPT TO:<b@secret.example>", 550).await;
    let mut ann = stage.client(1, "users").await;
    ann.ask("AUTH PLAIN AGFubgBzZWNyZXQ=", 235).await;
    ann.ask("MAIL FROM:<ann@ours.example>", 250).await;
    ann.ask("RCPT TO:<b@secret.example>", 250).await;
    says(
        &ann.ask("RCPT TO:<b@noann.example>", 550).await,
        "5.7.1 Relaying denied: you may not send mail to noann.example",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_opens_the_relay_for_who_has_its_key() {
    let (ca, folder) = (TestCa::new(), TempDir::new().unwrap());
    let (printer, other) = (ca.issue(&["printer.example"]), ca.issue(&["other.example"]));
    let section = with_certificate(&ca, folder.path(), &fingerprint(&printer));
    let stage = Stage::with(ca, folder, &section).await;
    for (certificate, code) in [(Some(&printer), 250), (Some(&other), 550), (None, 550)] {
        let config =
            certificate.map_or_else(|| stage.ca.client_config(), |leaf| stage.ca.client_config_with(leaf));
        let mut client = stage.client(67, "tls").await.starttls(config, "gate.example").await;
        client.ask("EHLO printer.example", 250).await;
        client.ask("MAIL FROM:<a@x.example>", 250).await;
        client.ask("RCPT TO:<b@partner.example>", code).await;
    }
}

/// relay-control with a rule for this certificate, and a listener with STARTTLS that asks for one.
fn with_certificate(ca: &TestCa, folder: &Path, fingerprint: &str) -> String {
    let server = ca.issue(&["gate.example"]).write(folder, "server");
    format!(
        "[[plugin]]\nname = \"relay-control\"\ncomponent = \"stock:relay-control\"\ngrants = [\"relay\", \"kv\"]\n\
         [[plugin.config.rules]]\nname = \"printer\"\naction = \"allow\"\ncertificates = [\"{fingerprint}\"]\n\
         [tls]\nclient_certificates = \"record\"\n\
         [[tls.certificate]]\nchain = \"{}\"\nkey = \"{}\"\n\
         [[listener]]\nname = \"tls\"\naddresses = [\"127.0.0.1:0\"]\ntls = \"starttls\"\n",
        server.chain.display(),
        server.key.display()
    )
}

/// As `openssl x509 -fingerprint -sha256` prints it.
fn fingerprint(leaf: &Leaf) -> String {
    let text: String = leaf.chain_pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64::prelude::BASE64_STANDARD.decode(text).unwrap();
    Sha256::digest(der).iter().map(|octet| format!("{octet:02X}")).collect::<Vec<_>>().join(":")
}
