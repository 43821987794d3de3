//! Spoofed and ordinary mail through the real binary, with `spoof-guard`, `spf` and `dmarc`: the spoofs in
//! `corpus/spoofs` are detected as listed there, and none of the ordinary messages in `corpus` is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use e2e::{Gateway, binary, configuration, corpus, run};
use pintle_testkit::{Client, Script, Sink, SinkTransaction, SmtpReply, TempDir, ZoneFault, ZoneServer};
use serde_json::Value;

/// The configuration of the spoofing matrix; the corpus passes with and without it.
const OPERATOR: &str = r#"
protect = ["bank.example", "paypal.example", "modem.example"]
people = { "Ann Lee" = ["ann.lee@ours.example", "ann.lee@home.example"] }
allow_senders = ["lists.example", "forge.example.com", "tracker.example.net"]
cousins = true
distance = 1
"#;

const OURS: &str = "ours.example TXT \"v=spf1 ip4:127.0.0.82 ~all\"\n_dmarc.ours.example TXT \"v=DMARC1; p=none\"\n\
    bounce.ours.example TXT \"v=spf1 ip4:127.0.0.82 -all\"";

struct Stage {
    gateway: Gateway,
    sink: Sink,
    zone: ZoneServer,
    _folder: TempDir,
}

/// A message to be sent.
struct Sent<'a> {
    /// The client is 127.0.0.n.
    client: u8,
    sender: &'a str,
    message: &'a [u8],
}

impl Stage {
    /// Every message with a score is held, so that none is missed.
    async fn start(config: &str, zones: &str) -> Self {
        Self::with(config, zones, "").await
    }

    /// As above, with other sections.
    async fn with(config: &str, zones: &str, sections: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let sink = Sink::start(Script::new()).await;
        let zone = ZoneServer::start(&format!("{OURS}\n{zones}")).await;
        let cache = binary().with_file_name("plugin-cache");
        let plugin = |name: &str, config: &str| {
            format!(
                "[[plugin]]\nname = \"{name}\"\ncomponent = \"stock:{name}\"\ngrants = [\"sender-auth\", \"auth-results\"]\n\
                 [plugin.config]\n{config}\n"
            )
        };
        let more = format!(
            "[dns]\nservers = [\"{}\"]\n[score]\nquarantine = 0.1\n[plugins]\ncache = \"{}\"\n{}{}{}{sections}",
            zone.address(),
            cache.display(),
            plugin("spoof-guard", config),
            plugin("spf", ""),
            // It would refuse some of the same mail, for the same reasons.
            plugin("dmarc", "permerror = \"pass-on\""),
        );
        let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &more));
        Self { gateway, sink, zone, _folder: folder }
    }

    async fn send(&self, sent: &Sent<'_>) -> SmtpReply {
        let from = [127, 0, 0, sent.client].into();
        let mut client = Client::connect_from(from, self.gateway.address("mx")).await;
        client.hello("client.example").await;
        client.ask(&format!("MAIL FROM:<{}>", sent.sender), 250).await;
        client.ask("RCPT TO:<b@ours.example>", 250).await;
        client.ask("DATA", 354).await;
        client.send_data(sent.message).await;
        client.reply().await
    }

    /// The fate of a message, and its findings. The log has both under the id that is in the reply.
    fn fate(&self, reply: &SmtpReply) -> (&'static str, BTreeSet<String>) {
        let text = reply.text();
        let last = text.trim_end_matches(')').rsplit(' ').next().unwrap().to_owned();
        if reply.code != 250 {
            self.gateway.wait_for(&format!("\"session\":\"{last}\",\"listener\":"));
            return ("reject", self.found(&last));
        }
        self.gateway.wait_for(&format!("\"event\":\"reception\",\"queue_id\":\"{last}\""));
        // A held message has a hold record in the log, any other a delivery record.
        let next = self.gateway.line_of_any(
            &["hold", "delivery"].map(|event| format!("\"event\":\"{event}\",\"queue_id\":\"{last}\"")),
        );
        let fate = if next.contains("quarantine\":\"spoof-guard") {
            "hold"
        } else if next.contains("quarantine\":\"score") {
            "points"
        } else if next.contains("\"event\":\"delivery\"") {
            "pass"
        } else {
            "another"
        };
        (fate, self.found(&last))
    }

    /// The findings in the plugin's log lines about this session or message.
    fn found(&self, id: &str) -> BTreeSet<String> {
        let log = self.gateway.log();
        let lines = log.lines().filter(|line| line.contains(id) && line.contains("\"message\":\"found: "));
        let check = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["fields"]["check"].as_str().unwrap().to_owned()
        };
        lines.map(check).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spoofs_are_caught_as_the_matrix_says() {
    let text = std::fs::read_to_string(corpus::folder().join("spoofs")).unwrap();
    let cases = cases(&text);
    let spoofs = cases.iter().filter(|case| case.fate != "pass").count();
    assert!(spoofs >= 60, "{spoofs}");
    let zones = "evil.example TXT \"v=spf1 ip4:127.0.0.66 -all\"\n_dmarc.evil.example TXT \"v=DMARC1; p=reject\"\n\
        lists.example TXT \"v=spf1 ip4:127.0.0.80 -all\"\nfreemail.example TXT \"v=spf1 ip4:127.0.0.80 -all\"";
    let stage = Stage::start(OPERATOR, zones).await;
    let mut wrong = Vec::new();
    for case in &cases {
        let message = case.message();
        let sent = Sent { client: case.client, sender: case.sender, message: &message };
        let (fate, found) = stage.fate(&stage.send(&sent).await);
        if fate != case.fate || found != case.found {
            let expected = (&case.fate, &case.found);
            wrong.push(format!("{}: {fate} {found:?}, expected {expected:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let passed = cases.iter().filter(|case| case.fate == "pass").count();
    assert_eq!(stage.sink.wait_for(passed).await.len(), passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_mail_passes_the_defaults_untouched() {
    all_pass("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_mail_passes_whatever_is_protected() {
    all_pass(OPERATOR).await;
}

const FORGED: &[u8] = b"From: Ann <ann@ours.example>\r\nSubject: s\r\n\r\nhello\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn our_own_signature_vouches_for_what_a_forwarder_brings_back() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("k.pem");
    let path = file.to_str().unwrap();
    let arguments = [
        "dkim",
        "keygen",
        "--domain",
        "ours.example",
        "--selector",
        "k",
        "--algorithm",
        "ed25519",
        "--out",
        path,
    ];
    let (code, out, err) = run(&arguments, folder.path());
    assert_eq!(code, 0, "{out}{err}");
    let record = out.lines().find(|line| line.contains("._domainkey.")).unwrap();
    let signing = format!(
        "[dkim_keys.k]\ndomain = \"ours.example\"\nselector = \"k\"\nkey = {{ file = \"{path}\" }}\n\
         [[plugin]]\nname = \"dkim\"\ncomponent = \"stock:dkim\"\ngrants = [\"sender-auth\", \"auth-results\", \"sign\"]\n"
    );
    let stage = Stage::with("", record, &signing).await;
    let mut colleague = Client::connect(stage.gateway.address("inside")).await;
    colleague.hello("inside.example").await;
    colleague.deliver("ann@ours.example", &["bob@ours.example"], FORGED).await;
    let text = stage.sink.wait_for(1).await.remove(0).text().to_owned();
    let signed = text[text.find("DKIM-Signature:").unwrap()..].to_owned();
    let changed = signed.replace("hello", "jello");
    for (message, fate) in [(signed, "pass"), (changed, "hold")] {
        let sent = Sent { client: 66, sender: "forwarder@evil.example", message: message.as_bytes() };
        assert_eq!(stage.fate(&stage.send(&sent).await).0, fate);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_ours_and_networks_that_may_use_our_name() {
    let stage = Stage::start("allow_networks = [\"127.0.0.67\"]", "").await;
    for (client, fate) in [(66, "hold"), (67, "pass")] {
        let sent = Sent { client, sender: "eve@evil.example", message: FORGED };
        assert_eq!(stage.fate(&stage.send(&sent).await).0, fate);
    }
    let message: &[u8] = b"From: A <a@x.example> <b@y.example>\r\n\r\nform is form\r\n";
    let sent = Sent { client: 67, sender: "eve@evil.example", message };
    assert_eq!(stage.fate(&stage.send(&sent).await).0, "reject");
    let mut colleague = Client::connect(stage.gateway.address("inside")).await;
    colleague.hello("inside.example").await;
    colleague.deliver("eve@evil.example", &["b@ours.example"], FORGED).await;
    colleague.deliver("eve@evil.example", &["b@ours.example"], message).await;
    assert_eq!(stage.sink.wait_for(3).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_actions_are_taken_and_dns_in_trouble_defers() {
    let config = "places = [\"from\", \"envelope\"]\n\
        actions = { own-domain = \"reject\", display-address = \"pass-on\", null-from = \"defer\" }";
    let stage = Stage::start(config, "").await;
    let send = async |sender: &str, message: &[u8]| {
        let reply = stage.send(&Sent { client: 66, sender, message }).await;
        format!("{} {}", reply.code, reply.text())
    };
    let reply = send("eve@evil.example", FORGED).await;
    assert!(
        reply.starts_with("550 5.7.26 ours.example in From is ours, and neither SPF nor DKIM"),
        "{reply}"
    );
    let enveloped = send("ann@ours.example", b"From: <eve@evil.example>\r\n\r\nx\r\n").await;
    assert!(enveloped.starts_with("550 5.7.26 ours.example in MAIL FROM is ours"), "{enveloped}");
    assert!(
        send("eve@evil.example", b"From: \"a@x.example\" <b@y.example>\r\n\r\nx\r\n")
            .await
            .starts_with("250")
    );
    assert!(send("eve@evil.example", b"From: <>\r\n\r\nx\r\n").await.starts_with("451 4.7.1 "));
    stage.sink.wait_for(1).await;
    stage.zone.fail("other.ours.example", ZoneFault::ServFail);
    let reply = send("ann@other.ours.example", FORGED).await;
    assert!(reply.starts_with("451 4.7.26 ours.example in From is ours"), "{reply}");
}

/// Sends the whole corpus, and checks that every message arrives unchanged.
async fn all_pass(config: &str) {
    let list = corpus::list();
    let envelopes = corpus::envelopes(&list);
    assert!(envelopes.len() >= 40, "{}", envelopes.len());
    let stage = Stage::start(config, &corpus::honest_zones(&envelopes, "?all")).await;
    let mut caught = Vec::new();
    for (name, envelope) in &envelopes {
        let message = corpus::message(name);
        let sent = Sent { client: envelope.client, sender: envelope.sender, message: &message };
        let (fate, found) = stage.fate(&stage.send(&sent).await);
        let is_known = |check: &String| check == "display-relayed" || check == "own-domain-relayed";
        if fate != "pass" || !found.iter().all(is_known) {
            caught.push(format!("{name}: {fate} {found:?}"));
        }
    }
    assert!(caught.is_empty(), "{}", caught.join("\n"));
    let arrived = stage.sink.wait_for(envelopes.len()).await;
    stage.sink.assert_no_violations();
    let ours = ["Received: ", "Authentication-Results: gate.example", "Received-SPF: "];
    for name in envelopes.keys() {
        let message = corpus::message(name);
        let is_it = |arrived: &SinkTransaction| corpus::is_intact(&message, &arrived.message, &ours);
        assert!(arrived.iter().any(is_it), "{name} does not arrive as it was sent");
    }
}

/// A row of the matrix.
struct Case<'a> {
    name: &'a str,
    fate: &'a str,
    found: BTreeSet<String>,
    client: u8,
    sender: &'a str,
    header: Vec<&'a str>,
}

impl Case<'_> {
    fn message(&self) -> Vec<u8> {
        let mut message = Vec::new();
        for line in &self.header {
            message.extend(unescaped(line));
            message.extend(b"\r\n");
        }
        message.extend(format!("X-Case: {}\r\nTo: b@ours.example\r\n\r\nhello\r\n", self.name).bytes());
        message
    }
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let Some(head) = line.strip_prefix("= ") else {
            cases.last_mut().unwrap().header.push(line);
            continue;
        };
        let parts: Vec<&str> = head.split(" | ").collect();
        let [name, fate, found, client, sender] = <[&str; 5]>::try_from(parts).unwrap();
        let found = found.split(',').filter(|check| *check != "-").map(str::to_owned).collect();
        let (client, sender) = (client.parse().unwrap(), sender.trim_matches(['<', '>']));
        cases.push(Case { name, fate, found, client, sender, header: Vec::new() });
    }
    cases
}

/// `\u{…}`, `\xHH`, `\t`, `\\`, and `\*N` with the character to write N times.
fn unescaped(line: &str) -> Vec<u8> {
    let mut out = String::new();
    let (mut rest, mut times) = (line, 1);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let (one, after) = if c == '\\' { escape(rest) } else { (Some(c), rest) };
        rest = after;
        match one {
            Some(one) => {
                out.extend(std::iter::repeat_n(one, times));
                times = 1;
            }
            None => {
                let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
                times = rest[..digits].parse().unwrap();
                rest = &rest[digits..];
            }
        }
    }
    out.into_bytes()
}

/// The character that an escape stands for (none for a repetition), and the text after it.
fn escape(rest: &str) -> (Option<char>, &str) {
    let number = |digits| char::from_u32(u32::from_str_radix(digits, 16).unwrap());
    match rest.split_at(1) {
        ("*", rest) => (None, rest),
        ("t", rest) => (Some('\t'), rest),
        ("\\", rest) => (Some('\\'), rest),
        ("x", rest) => (number(&rest[..2]), &rest[2..]),
        ("u", rest) => {
            let (digits, rest) = rest[1..].split_once('}').unwrap();
            (number(digits), rest)
        }
        (other, _) => panic!("\\{other} is no escape"),
    }
}
