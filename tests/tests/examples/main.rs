//! Starts the examples and sends mail through them. Only addresses, paths and server names are replaced, and each of
//! them must occur.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dry_run;

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use e2e::{Gateway, binary, corpus, run};
use pintle_testkit::{Client, Script, Sink, SinkTransaction, TempDir, TestCa, ZoneServer};

/// Our internal servers, and clients outside.
const INSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const WORLD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));
const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 66));
const LISTED: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 67));

/// Writes an example's configuration with these replacements to a folder that has the files it names.
fn adapted(name: &str, folder: &Path, exchanges: &[(&str, String)]) -> std::path::PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name).join("pintle.toml");
    let mut text = std::fs::read_to_string(file).unwrap();
    let cache = binary().with_file_name("plugin-cache").display().to_string();
    let everywhere = [
        ("dir = \"/var/lib/pintle/spool\"", "dir = \"spool\"\nreserve = \"1MiB\"".to_owned()),
        ("cache = \"/var/cache/pintle\"", format!("cache = \"{cache}\"")),
        ("state = \"/var/lib/pintle/plugins\"", "state = \"state\"".to_owned()),
        ("socket = \"/run/pintle/admin.sock\"", "socket = \"admin.sock\"".to_owned()),
    ];
    for (from, to) in everywhere.iter().chain(exchanges) {
        assert!(text.contains(from), "the example {name} does not say {from}");
        text = text.replace(from, to);
    }
    if !text.contains("[log]") {
        text.push_str("\n[log]\nformat = \"json\"\n");
    }
    let path = folder.join("pintle.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// Makes a key as the example's README says; returns the line for the zone.
fn key(folder: &Path, domain: &str, selector: &str, algorithm: &str) -> String {
    let out = format!("keys/{selector}.pem");
    let arguments = ["dkim", "keygen", "--domain", domain, "--selector", selector];
    let rest = ["--algorithm", algorithm, "--out", &out];
    let (code, said, errors) = run(&[&arguments[..], &rest[..]].concat(), folder);
    assert_eq!(code, 0, "{said}{errors}");
    let line = said.lines().find(|line| line.contains("._domainkey."));
    line.expect("a line for the zone").to_owned()
}

fn certificate(folder: &Path, ca: &TestCa, name: &str) {
    let leaf = ca.issue(&[name]);
    write(folder, "tls/fullchain.pem", &leaf.chain_pem);
    write(folder, "tls/privkey.pem", &leaf.key_pem);
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

/// The edge gateway, the server inside, the Internet, and their DNS.
struct Edge {
    gateway: Gateway,
    exchange: Sink,
    world: Sink,
    folder: TempDir,
    _zone: ZoneServer,
}

impl Edge {
    async fn start() -> Self {
        Self::of("example.org", &format!("{ZONES}\n{LISTS}"), &[]).await
    }

    /// The edge gateway for another domain than the example's, with more replacements.
    async fn of(domain: &str, zones: &str, more: &[(&str, String)]) -> Self {
        let folder = TempDir::new().unwrap();
        let ca = TestCa::new();
        certificate(folder.path(), &ca, "mx.example.org");
        let exchange = Sink::start(Script::new().starttls(&ca.issue(&["exchange.example"]))).await;
        let world = Sink::start_at(SocketAddr::new(WORLD, 0), Script::new()).await;
        std::fs::create_dir_all(folder.path().join("keys")).unwrap();
        write(folder.path(), "keys/batv.key", "something of the test's own");
        let keys = [("r2026", "rsa"), ("e2026", "ed25519")];
        let keys =
            keys.map(|(selector, algorithm)| key(folder.path(), domain, selector, algorithm)).join("\n");
        let zone = ZoneServer::start(&format!("{zones}\n{keys}")).await;
        let exchanges = [&Self::exchanges(&exchange, &world, &zone)[..], more].concat();
        let config = adapted("edge", folder.path(), &exchanges);
        let gateway = Gateway::start(&config);
        Self { gateway, exchange, world, folder, _zone: zone }
    }

    /// The edge of `ours.example`, which the corpus is for.
    async fn of_ours(zones: &str, more: &[(&str, String)]) -> Self {
        let zones = format!(
            "{LISTS}\nthere.example MX 10 mx.there.example\nmx.there.example A 127.0.0.3\n\
             ours.example TXT \"v=spf1 ip4:127.0.0.82 ~all\"\n_dmarc.ours.example TXT \"v=DMARC1; p=none\"\n\
             bounce.ours.example TXT \"v=spf1 ip4:127.0.0.82 -all\"\n{zones}"
        );
        let ours = [
            ("[\"example.org\", \"example.com\"]", "[\"ours.example\"]".to_owned()),
            ("example.org", "ours.example".to_owned()),
        ];
        Self::of("ours.example", &zones, &[&ours[..], more].concat()).await
    }

    fn exchanges(exchange: &Sink, world: &Sink, zone: &ZoneServer) -> [(&'static str, String); 8] {
        [
            ("[\"0.0.0.0:25\", \"[::]:25\"]", "\"127.0.0.1:0\"".to_owned()),
            ("[\"0.0.0.0:2525\"]", "\"127.0.0.1:0\"".to_owned()),
            ("http = \"127.0.0.1:9125\"", String::new()),
            ("[\"10.1.2.0/24\"]", format!("[\"{INSIDE}/32\"]")),
            (
                "[\"exchange1.corp.example.org\", \"exchange2.corp.example.org\"]",
                format!("[\"{}\"]", exchange.address()),
            ),
            // This makes the second attempt come at once.
            ("delay = \"5m\"", "delay = \"0s\"".to_owned()),
            ("[plugins]", format!("[dns]\nservers = [\"{}\"]\n[plugins]", zone.address())),
            (
                "[log]",
                format!(
                    "[delivery]\nmx_port = {}\nmx_networks = \"127.0.0.0/8\"\n[log]",
                    world.address().port()
                ),
            ),
        ]
    }

    async fn client(&self, from: IpAddr, listener: &str) -> Client {
        let mut client = Client::connect_from(from, self.gateway.address(listener)).await;
        client.hello("client.example").await;
        client
    }

    /// The final reply to a message, or the reply that refused a part of its envelope.
    async fn send(&self, from: IpAddr, sender: &str, recipient: &str, message: &str) -> (u16, String) {
        self.offer(from, sender, recipient, message.replace('\n', "\r\n").as_bytes()).await
    }

    /// As `send`, with a message of octets.
    async fn offer(&self, from: IpAddr, sender: &str, recipient: &str, message: &[u8]) -> (u16, String) {
        self.offer_with(from, sender, "", recipient, message).await
    }

    /// As `offer`, with parameters of MAIL.
    async fn offer_with(
        &self,
        from: IpAddr,
        sender: &str,
        parameters: &str,
        recipient: &str,
        message: &[u8],
    ) -> (u16, String) {
        let mut client = self.client(from, if from == INSIDE { "inside" } else { "mx" }).await;
        for line in
            [format!("MAIL FROM:<{sender}>{parameters}"), format!("RCPT TO:<{recipient}>"), "DATA".to_owned()]
        {
            client.send(&line).await;
            let reply = client.reply().await;
            if reply.code >= 400 {
                return (reply.code, reply.text());
            }
        }
        client.send_data(message).await;
        let reply = client.reply().await;
        (reply.code, reply.text())
    }

    /// Sends as a server does: once more after a greylist's deferral.
    async fn persist(&self, sender: &str, recipient: &str, message: &str) -> (u16, String) {
        let first = self.send(STRANGER, sender, recipient, message).await;
        assert!(first.0 == 451 && first.1.contains("Greylisted"), "a stranger waits: {first:?}");
        self.send(STRANGER, sender, recipient, message).await
    }

    /// The output of `pintle try` for the same message.
    fn dry_run(&self, from: IpAddr, sender: &str, recipient: &str, message: &[u8]) -> serde_json::Value {
        std::fs::write(self.folder.path().join("message.eml"), message).unwrap();
        let (from, listener) = (from.to_string(), if from == INSIDE { "inside" } else { "mx" });
        let arguments = ["try", "-c", "pintle.toml", "message.eml", "--json", "--deliver", "--assume-known"];
        let session = ["--client", &from, "--hello", "client.example", "--listener", listener];
        let envelope = ["--sender", sender, "--recipient", recipient];
        let (_, out, err) = run(&[&arguments[..], &session, &envelope].concat(), self.folder.path());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"))
    }

    fn quarantine(&self, arguments: &[&str]) -> String {
        let config = self.folder.path().join("pintle.toml");
        let all = [&["quarantine"], arguments, &["-c", config.to_str().unwrap()]].concat();
        let (code, out, err) = run(&all, self.folder.path());
        assert_eq!(code, 0, "{out}{err}");
        out
    }
}

const ZONES: &str = "there.example MX 10 mx.there.example\nmx.there.example A 127.0.0.3\n\
    good.example TXT \"v=spf1 ip4:127.0.0.66 -all\"\n_dmarc.good.example TXT \"v=DMARC1; p=reject\"\n\
    _dmarc.strict.example TXT \"v=DMARC1; p=reject\"\n_dmarc.example.org TXT \"v=DMARC1; p=none\"\n\
    67.0.0.127.zen.spamhaus.org A 127.0.0.2";

/// The lists' test entries.
const LISTS: &str = "2.0.0.127.zen.spamhaus.org A 127.0.0.2\n2.0.0.127.list.dnswl.org A 127.0.0.2";

const ORDINARY: &str = "From: Joe <joe@good.example>\nTo: erika@example.org\nSubject: hello\n\
    X-MS-Exchange-Organization-SCL: -1\nAuthentication-Results: mx.example.org; dmarc=pass\n\nHello Erika\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_lets_the_honest_in_and_says_who_they_are() {
    let edge = Edge::start().await;
    let reply = edge.persist("joe@good.example", "erika@example.org", ORDINARY).await;
    assert_eq!(reply.0, 250, "{reply:?}");
    let arrived = edge.exchange.wait_for(1).await.remove(0);
    assert!(arrived.tls.is_some(), "the inner hop is encrypted");
    let text = arrived.text().replace("\r\n ", " ").replace("\r\n\t", " ");
    let results: Vec<_> = text.lines().filter(|line| line.starts_with("Authentication-Results:")).collect();
    assert_eq!(results.len(), 1, "{text}");
    for part in ["spf=pass", "smtp.mailfrom=good.example", "dmarc=pass header.from=good.example"] {
        assert!(results[0].contains(part), "{part} is not in {results:?}");
    }
    assert!(text.contains("Received-SPF: pass"), "{text}");
    assert!(text.contains("ARC-Seal: i=1;"), "{text}");
    assert!(!text.contains("X-MS-Exchange-Organization-SCL"), "{text}");
    assert!(text.contains("Hello Erika"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_refuses_and_holds_what_is_forged() {
    let edge = Edge::start().await;
    let from = |author: &str| format!("From: {author}\nTo: erika@example.org\nSubject: x\n\nx\n");
    let relayed = edge.send(STRANGER, "joe@good.example", "somebody@there.example", ORDINARY).await;
    assert!(relayed.0 == 550 && relayed.1.contains("5.7.1"), "{relayed:?}");
    let listed = edge.send(LISTED, "joe@good.example", "erika@example.org", ORDINARY).await;
    assert!(listed.0 == 550 && listed.1.contains("zen.spamhaus.org"), "{listed:?}");
    let backscatter = edge.persist("", "erika@example.org", &from("<mailer@good.example>")).await;
    assert!(backscatter.0 == 550 && backscatter.1.contains("BATV"), "{backscatter:?}");
    let strict = edge.persist("joe@other.example", "erika@example.org", &from("boss@strict.example")).await;
    assert!(strict.0 == 550 && strict.1.contains("DMARC of strict.example"), "{strict:?}");
    let ours = edge.persist("joe@second.example", "erika@example.org", &from("ceo@example.org")).await;
    assert_eq!(ours.0, 250, "{ours:?}");
    let held = edge.quarantine(&["list"]);
    assert!(held.contains("spoof-guard") && held.contains("joe@second.example"), "{held}");
    assert_eq!(edge.exchange.log().accepted().count(), 0, "nothing of it has come in");
}

/// A message that an operator releases is filtered like one that was never held: the header firewall comes first here,
/// and a verdict to hold does not end the chain (the policy crate tests that).
#[tokio::test(flavor = "multi_thread")]
async fn what_the_edge_holds_and_releases_bears_no_forged_field() {
    let edge = Edge::start().await;
    let forged = "From: ceo@example.org\nTo: erika@example.org\nX-MS-Exchange-Organization-AuthAs: Internal\n\
        Subject: x\n\nx\n";
    let reply = edge.persist("joe@second.example", "erika@example.org", forged).await;
    assert_eq!(reply.0, 250, "{reply:?}");
    let held: serde_json::Value = serde_json::from_str(&edge.quarantine(&["list", "--json"])).unwrap();
    let id = held["messages"][0]["id"].as_str().unwrap();
    edge.quarantine(&["release", id]);
    let released = edge.exchange.wait_for(1).await.remove(0);
    let released = released.text();
    assert!(released.contains("From: ceo@example.org"), "{released}");
    assert!(!released.contains("X-MS-Exchange-Organization"), "{released}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_the_edge_is_signed_and_its_bounces_come_back() {
    let edge = Edge::start().await;
    let message = "Received: from pc7 by exchange\nFrom: Erika <erika@example.org>\nTo: sue@there.example\n\
        Subject: out\nDate: Sun, 22 Nov 2026 10:00:00 +0000\nMessage-ID: <1@example.org>\n\nout\n";
    let reply = edge.send(INSIDE, "erika@example.org", "sue@there.example", message).await;
    assert_eq!(reply.0, 250, "{reply:?}");
    let arrived = edge.world.wait_for(1).await.remove(0);
    let tagged = arrived.sender.address.clone();
    assert!(tagged.starts_with("prvs=") && tagged.ends_with("=erika@example.org"), "{tagged}");
    let text = arrived.text().replace("\r\n ", " ").replace("\r\n\t", " ");
    for part in ["a=rsa-sha256", "a=ed25519-sha256", "s=r2026", "s=e2026", "d=example.org"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(!text.contains("pc7"), "{text}");
    let bounce = "From: <mailer-daemon@there.example>\nTo: erika@example.org\nSubject: failed\n\nfailed\n";
    let reply = edge.send(STRANGER, "", &tagged, bounce).await;
    let reply = if reply.0 == 451 { edge.send(STRANGER, "", &tagged, bounce).await } else { reply };
    assert_eq!(reply.0, 250, "{reply:?}");
    let returned = edge.exchange.wait_for(1).await.remove(0);
    assert_eq!(returned.recipients(), ["erika@example.org"]);
}

/// Sends the whole corpus to the example as `ours.example` would get it. Forwarders are not allowed to send for the
/// sender's domain, which forbids it; reports of mail that was sent from here come back to the address that it was sent
/// with.
#[tokio::test(flavor = "multi_thread")]
async fn ordinary_mail_passes_the_edge_and_arrives_as_it_was() {
    let list = corpus::list();
    let envelopes = corpus::envelopes(&list);
    let edge = Edge::of_ours(&corpus::honest_zones(&envelopes, "-all"), &[]).await;
    let question = "From: Ann Lee <ann.lee@ours.example>\nTo: sue@there.example\nSubject: q\n\n?\n";
    let asked = edge.send(INSIDE, "ann.lee@ours.example", "sue@there.example", question).await;
    assert_eq!(asked.0, 250, "{asked:?}");
    let return_address = edge.world.wait_for(1).await.remove(0).sender.address;
    let mut caught = Vec::new();
    for (name, envelope) in &envelopes {
        // A receipt is sent to an address in the header.
        let is_answer = envelope.sender.is_empty() && *name != "read-receipt.eml";
        let recipient = if is_answer { &return_address } else { "ann.lee@ours.example" };
        let from = IpAddr::from([127, 0, 0, envelope.client]);
        let message = corpus::message(name);
        let first = edge.offer(from, envelope.sender, recipient, &message).await;
        let is_greylisted = first.0 == 451 && first.1.contains("Greylisted");
        let last =
            if is_greylisted { edge.offer(from, envelope.sender, recipient, &message).await } else { first };
        if last.0 != 250 {
            caught.push(format!("{name}: {last:?}"));
        }
    }
    let held = edge.quarantine(&["list"]);
    assert!(caught.is_empty() && held.starts_with("0 messages"), "{}\n{held}", caught.join("\n"));
    let arrived = edge.exchange.wait_for(envelopes.len()).await;
    edge.exchange.assert_no_violations();
    let above = ["Received: ", "Authentication-Results: mx.ours.example", "Received-SPF: ", "ARC-"];
    for name in envelopes.keys() {
        let message = corpus::message(name);
        let is_it = |arrived: &SinkTransaction| corpus::is_intact(&message, &arrived.message, &above);
        assert!(arrived.iter().any(is_it), "{name} does not arrive as it was sent");
    }
}

/// The smart host, its provider, and what they need.
struct SmartHost {
    gateway: Gateway,
    provider: Sink,
    ca: TestCa,
    _zone: ZoneServer,
    _folder: TempDir,
}

impl SmartHost {
    async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let ca = TestCa::new();
        certificate(folder.path(), &ca, "relay.example.org");
        ca.write(folder.path());
        for secret in ["secrets/scanner", "secrets/smarthost"] {
            write(folder.path(), secret, "sesame\n");
        }
        std::fs::create_dir_all(folder.path().join("keys")).unwrap();
        let record = key(folder.path(), "example.org", "relay2026", "rsa");
        let provider =
            Script::new().starttls(&ca.issue(&["provider.example"])).login("relay@example.org", "sesame");
        let provider = Sink::start_at(SocketAddr::new(WORLD, 0), provider).await;
        let zone = ZoneServer::start(&format!("provider.example A {WORLD}\n{record}")).await;
        let exchanges = [
            ("[\"0.0.0.0:587\", \"[::]:587\"]", "\"127.0.0.1:0\"".to_owned()),
            ("[\"0.0.0.0:465\", \"[::]:465\"]", "\"127.0.0.1:0\"".to_owned()),
            ("[\"10.1.3.1:25\"]", "\"127.0.0.1:0\"".to_owned()),
            ("[\"10.1.3.0/24\"]", format!("[\"{INSIDE}/32\"]")),
            ("smtp.office365.com:587", format!("provider.example:{}", provider.address().port())),
            (
                "[plugins]",
                format!("[tls]\nroots = \"ca.pem\"\n[dns]\nservers = [\"{}\"]\n[plugins]", zone.address()),
            ),
        ];
        let gateway = Gateway::start(&adapted("smarthost", folder.path(), &exchanges));
        Self { gateway, provider, ca, _zone: zone, _folder: folder }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smart_host_serves_devices_and_accounts_and_nobody_else() {
    let smart_host = SmartHost::start().await;
    let SmartHost { gateway, provider, ca, .. } = &smart_host;
    let mut device = Client::connect_from(INSIDE, gateway.address("devices")).await;
    device.hello("scanner").await;
    let message =
        b"From: Ann <ann@pc7.corp.example.org>\r\nTo: sue@there.example\r\nX-Mailer: secret\r\n\r\nscan\r\n";
    device.deliver("ann@pc7.corp.example.org", &["sue@there.example"], message).await;
    let arrived = provider.wait_for(1).await.remove(0);
    assert_eq!(arrived.sender.address, "ann@example.org");
    assert_eq!((arrived.user.as_deref(), arrived.tls.is_some()), (Some("relay@example.org"), true));
    // Wrong line ends, no domain, no date: a scanner's mail is completed, and then signed.
    let message = b"From: scanner@example.org\r\nTo: sue@there.example\r\r\n\r\npage\r1\r\r\n";
    device.deliver("scanner", &["sue@there.example"], message).await;
    let scanned = provider.wait_for(2).await.remove(1);
    assert_eq!(scanned.sender.address, "scanner@example.org");
    let text = scanned.text();
    assert!(text.contains("\r\nDate: ") && text.contains("\r\nMessage-ID: <"), "{text}");
    assert!(text.ends_with("\r\n\r\npage 1\r\n") && text.contains("DKIM-Signature: "), "{text}");
    let text = arrived.text().replace("\r\n ", " ").replace("\r\n\t", " ");
    assert!(text.contains("From: Ann <ann@example.org>") && !text.contains("X-Mailer"), "{text}");
    assert!(text.contains("DKIM-Signature:") && text.contains("s=relay2026"), "{text}");

    let client = Client::connect(gateway.address("submission")).await;
    let mut client = hello_tls(client, ca).await;
    client.ask("AUTH LOGIN", 334).await;
    client.ask(&BASE64.encode("scanner"), 334).await;
    client.ask(&BASE64.encode("sesame"), 235).await;
    let refused = client.ask("MAIL FROM:<boss@example.org>", 550).await;
    assert!(refused.text().contains("boss@example.org"), "{refused:?}");
    let message = b"From: <scanner@example.org>\r\nTo: sue@there.example\r\n\r\nscan\r\n";
    client.deliver("scanner@example.org", &["sue@there.example"], message).await;
    provider.wait_for(3).await;

    let mut stranger = Client::connect_from(STRANGER, gateway.address("devices")).await;
    stranger.hello("stranger").await;
    stranger.ask("MAIL FROM:<x@x.example>", 250).await;
    stranger.ask("RCPT TO:<sue@there.example>", 550).await;
}

async fn hello_tls(mut client: Client, ca: &TestCa) -> Client {
    client.hello("client.example").await;
    let mut client = client.starttls(ca.client_config(), "relay.example.org").await;
    client.ask("EHLO client.example", 250).await;
    client
}
