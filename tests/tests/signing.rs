//! DKIM and ARC in the real binary: one gateway signs, others verify and seal, with DNS in the test process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use e2e::{Gateway, binary, configuration, run};
use pintle_testkit::{Client, Script, Sink, SinkStep, TempDir, ZoneServer};

const MESSAGE: &[u8] = b"From: Ann <ann@a.example>\r\nTo: bob@ours.example\r\nSubject: a\r\n\
    \t folded   one\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n\r\nHello  there. \r\n\r\n.a dot\r\n\r\n\r\n";

/// A key made by the program itself in `folder`: its configuration and its zone line.
fn key(folder: &Path, name: &str, domain: &str, algorithm: &str) -> (String, String) {
    let file = folder.join(format!("{name}.pem"));
    let arguments = ["dkim", "keygen", "--domain", domain, "--selector", name, "--algorithm", algorithm];
    let arguments = [&arguments[..], &["--out", file.to_str().unwrap()]].concat();
    let (code, out, err) = run(&arguments, folder);
    assert_eq!(code, 0, "{out}{err}");
    let record = out.lines().find(|line| line.contains("._domainkey.")).expect("a line for the zone");
    let config = format!(
        "[dkim_keys.{name}]\ndomain = \"{domain}\"\nselector = \"{name}\"\nkey = {{ file = \"{}\" }}\n",
        file.display()
    );
    (config, format!("{record}\n"))
}

/// A gateway with the plugin, and its next hop.
struct Hop {
    gateway: Gateway,
    sink: Sink,
    _folder: TempDir,
}

impl Hop {
    /// `plugin` is the text after the plugin's grants, with further sections.
    async fn start(zone: &ZoneServer, keys: &str, plugin: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let sink = Sink::start(Script::new()).await;
        let cache = binary().with_file_name("plugin-cache");
        let more = format!(
            "[dns]\nservers = [\"{}\"]\n[plugins]\ncache = \"{}\"\n{keys}\n[[plugin]]\nname = \"dkim\"\n\
             component = \"stock:dkim\"\ngrants = [\"sender-auth\", \"auth-results\", \"sign\"]\n{plugin}",
            zone.address(),
            cache.display()
        );
        let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &more));
        Self { gateway, sink, _folder: folder }
    }

    /// The message that arrives, unfolded, when an own client sends this one.
    async fn sent_inside(&self, sender: &str, message: &[u8]) -> String {
        let before = self.sink.log().accepted().count();
        let mut client = Client::connect(self.gateway.address("inside")).await;
        client.hello("inside.example").await;
        client.deliver(sender, &["bob@ours.example"], message).await;
        self.sink.wait_for(before + 1).await.pop().unwrap().text().to_owned()
    }

    /// The reply to a message from an untrusted client.
    async fn sent_outside(&self, message: &[u8]) -> u16 {
        let mut client = Client::connect_from([127, 0, 0, 66].into(), self.gateway.address("mx")).await;
        client.hello("client.example").await;
        client.envelope("forwarder@b.example", &["bob@ours.example"]).await;
        client.send_data(message).await;
        client.reply().await.code
    }

    /// The results that were reported for a message from an untrusted client.
    async fn results(&self, message: &[u8]) -> String {
        let before = self.sink.log().accepted().count();
        assert_eq!(self.sent_outside(message).await, 250);
        let arrived = self.sink.wait_for(before + 1).await.pop().unwrap();
        let text = unfolded(arrived.text());
        text.lines().find(|line| line.starts_with("Authentication-Results:")).unwrap_or_default().to_owned()
    }
}

fn unfolded(text: &str) -> String {
    text.replace("\r\n ", " ").replace("\r\n\t", " ")
}

/// The message from the first field with this name on: as the next gateway gets it, without our trace fields.
fn from_field(text: &str, name: &str) -> Vec<u8> {
    let start = text.find(&format!("{name}:")).unwrap_or_else(|| panic!("no {name} in {text}"));
    text.as_bytes()[start..].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_signs_another_verifies() {
    let folder = TempDir::new().unwrap();
    let (rsa, rsa_record) = key(folder.path(), "r1", "a.example", "rsa");
    let (ed, ed_record) = key(folder.path(), "e1", "a.example", "ed25519");
    let zone = ZoneServer::start(&(rsa_record + &ed_record)).await;
    let signer = Hop::start(&zone, &(rsa + &ed), "").await;
    let verifier = Hop::start(&zone, "", "").await;
    let signed = from_field(&signer.sent_inside("ann@a.example", MESSAGE).await, "DKIM-Signature");
    let results = verifier.results(&signed).await;
    for part in ["header.s=r1 header.a=rsa-sha256", "header.s=e1 header.a=ed25519-sha256"] {
        assert!(results.contains(part), "{part} is not in {results}");
    }
    assert_eq!(results.matches("dkim=pass header.d=a.example").count(), 2, "{results}");

    let text = String::from_utf8(signed).unwrap();
    let another_body = verifier.results(text.replace("Hello", "Jello").as_bytes()).await;
    assert_eq!(another_body.matches("dkim=fail").count(), 2, "{another_body}");
    // Oversigned fields cannot be added; unsigned ones can.
    let second = text.replacen("\r\nSubject: a", "\r\nSubject: another\r\nSubject: a", 1);
    let second = verifier.results(second.as_bytes()).await;
    assert_eq!(second.matches("dkim=fail").count(), 2, "{second}");
    let traced = verifier.results(format!("X-Trace: 1\r\n{text}").as_bytes()).await;
    assert_eq!(traced.matches("dkim=pass").count(), 2, "{traced}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_mail_with_one_author_is_signed() {
    let folder = TempDir::new().unwrap();
    let (config, record) = key(folder.path(), "k1", "a.example", "ed25519");
    let zone = ZoneServer::start(&record).await;
    let signer = Hop::start(&zone, &config, "").await;
    let below = signer.sent_inside("x@x.example", b"From: <n@news.a.example>\r\n\r\nbelow\r\n").await;
    assert!(unfolded(&below).contains("d=a.example;"), "a parent's key signs: {below}");
    for (why, header) in [
        ("another domain", "From: <x@b.example>"),
        ("two authors' domains", "From: <x@a.example>, <x@b.example>"),
        ("no author", "Subject: x"),
        ("a name that only shows ours", "From: \"x@a.example\" <x@b.example>"),
    ] {
        let text = signer.sent_inside("x@x.example", format!("{header}\r\n\r\nbody\r\n").as_bytes()).await;
        assert!(!text.contains("DKIM-Signature"), "{why}: {text}");
    }
    let results = signer.results(MESSAGE).await;
    assert!(!results.contains("dkim="), "nothing to report: {results}");
    let arrived = signer.sink.log().accepted().last().unwrap().text().to_owned();
    assert!(!arrived.contains("DKIM-Signature"), "a stranger's mail in our name is not signed: {arrived}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_grant_mail_leaves_unsigned_and_the_operator_hears_of_it() {
    let folder = TempDir::new().unwrap();
    let (config, record) = key(folder.path(), "k1", "a.example", "ed25519");
    let zone = ZoneServer::start(&record).await;
    let plugin = "[[plugin]]\nname = \"verify\"\ncomponent = \"stock:dkim\"\ngrants = [\"sender-auth\", \"auth-results\"]\n\
        config = { seal = \"k1\" }\n";
    let sink = Sink::start(Script::new()).await;
    let more = format!("[dns]\nservers = [\"{}\"]\n{config}\n{plugin}", zone.address());
    let file = configuration(folder.path(), sink.address(), &more);
    let (code, out, _) = run(&["check", "-c", file.to_str().unwrap()], folder.path());
    assert!(code == 0 && out.contains("it requests sign in `grants`"), "{out}");
    let gateway = Gateway::start(&file);
    let mut client = Client::connect(gateway.address("inside")).await;
    client.hello("inside.example").await;
    client.deliver("ann@a.example", &["bob@ours.example"], MESSAGE).await;
    let arrived = sink.wait_for(1).await.remove(0);
    assert!(!arrived.text().contains("DKIM-Signature"), "{}", arrived.text());
    gateway.wait_for("nothing is signed: the plugin lacks the grant `sign`");
    let mut stranger = Client::connect_from([127, 0, 0, 66].into(), gateway.address("mx")).await;
    stranger.hello("client.example").await;
    stranger.deliver("joe@b.example", &["bob@ours.example"], MESSAGE).await;
    gateway.wait_for("nothing is sealed: the plugin lacks the grant `sign`");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_reports_are_signed_when_they_are_delivered() {
    let folder = TempDir::new().unwrap();
    let (config, record) = key(folder.path(), "k1", "gate.example", "ed25519");
    let zone = ZoneServer::start(&record).await;
    let signer = Hop::start(&zone, &config, "").await;
    signer.sink.follow(Script::new().on_line(
        SinkStep::Rcpt,
        "bob@ours.example",
        pintle_testkit::Act::Reply("550 5.1.1 nobody of this name".to_owned()),
    ));
    let mut client = Client::connect(signer.gateway.address("inside")).await;
    client.hello("inside.example").await;
    client.deliver("ann@a.example", &["bob@ours.example"], MESSAGE).await;
    let report = signer.sink.wait_for(1).await.remove(0);
    assert_eq!(report.sender.address, "");
    assert!(unfolded(report.text()).contains("d=gate.example;"), "{}", report.text());
    let verifier = Hop::start(&zone, "", "").await;
    let results = verifier.results(&from_field(report.text(), "DKIM-Signature")).await;
    assert!(results.contains("dkim=pass header.d=gate.example"), "{results}");
}

/// A mailing list changes the subject, which breaks the author's signature, and seals its own results.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_seal_rescues_what_a_list_has_changed() {
    let folder = TempDir::new().unwrap();
    let (author, author_record) = key(folder.path(), "k1", "a.example", "rsa");
    let (seal, seal_record) = key(folder.path(), "k2", "list.example", "rsa");
    let policy = "_dmarc.a.example TXT \"v=DMARC1; p=reject\"\n";
    let zone = ZoneServer::start(&format!("{author_record}{seal_record}{policy}")).await;
    let signer = Hop::start(&zone, &author, "").await;
    let dmarc = "[[plugin]]\nname = \"dmarc\"\ncomponent = \"stock:dmarc\"\ngrants = [\"sender-auth\", \"auth-results\"]\n";
    let list = "[plugin.config]\nseal = \"k2\"\n[[plugin]]\nname = \"header-rewrite\"\n\
        component = \"stock:header-rewrite\"\ngrants = [\"edit-headers\", \"edit-envelope\"]\n\
        [[plugin.config.rules]]\nreplace = { name = \"Subject\", matches = \"^\", with = \"[list] \" }\n";
    let list = Hop::start(&zone, &seal, &format!("{list}{dmarc}")).await;
    let trusting =
        Hop::start(&zone, "", &format!("{dmarc}config = {{ trusted_sealers = [\"list.example\"] }}\n")).await;
    let strict = Hop::start(&zone, "", dmarc).await;

    let signed = from_field(&signer.sent_inside("ann@a.example", MESSAGE).await, "DKIM-Signature");
    assert_eq!(strict.sent_outside(&signed).await, 250, "its author vouches for it");
    assert_eq!(list.sent_outside(&signed).await, 250);
    let sealed = list.sink.wait_for(1).await.remove(0).text().to_owned();
    assert!(sealed.contains("Subject: [list] a"), "{sealed}");
    let sealed = from_field(&sealed, "ARC-Seal");
    assert_eq!(strict.sent_outside(&sealed).await, 550, "nobody whom it trusts vouches for it");
    let results = trusting.results(&sealed).await;
    for part in ["dkim=fail", "dmarc=fail", "arc=pass"] {
        assert!(results.contains(part), "{part} is not in {results}");
    }
    let tampered = String::from_utf8(sealed).unwrap().replace("Hello", "Jello");
    assert_eq!(trusting.sent_outside(tampered.as_bytes()).await, 550, "the seal is broken");
}

/// A mailing list seals what it gets: trusting the list does not authenticate a forgery that passed through it.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_seal_launders_no_forgery() {
    let folder = TempDir::new().unwrap();
    let (seal, seal_record) = key(folder.path(), "k2", "list.example", "ed25519");
    let policy = "_dmarc.a.example TXT \"v=DMARC1; p=reject\"\n";
    let zone = ZoneServer::start(&format!("{seal_record}{policy}")).await;
    let dmarc = "[[plugin]]\nname = \"dmarc\"\ncomponent = \"stock:dmarc\"\ngrants = [\"sender-auth\", \"auth-results\"]\n";
    let lenient = format!("[plugin.config]\nseal = \"k2\"\n{dmarc}config = {{ reject = \"pass-on\" }}\n");
    let trusting = format!("{dmarc}config = {{ trusted_sealers = [\"list.example\"] }}\n");
    let trusting = Hop::start(&zone, "", &trusting).await;
    // One list that reports its results, and one that did not verify.
    for plugins in [lenient.as_str(), "[plugin.config]\nseal = \"k2\"\n"] {
        let list = Hop::start(&zone, &seal, plugins).await;
        assert_eq!(list.sent_outside(MESSAGE).await, 250);
        let sealed = list.sink.wait_for(1).await.remove(0).text().to_owned();
        let sealed = from_field(&sealed, "ARC-Seal");
        assert_eq!(trusting.sent_outside(&sealed).await, 550, "{}", String::from_utf8_lossy(&sealed));
    }
}

/// Mail from our own users in every unusual form arrives as it was signed.
#[tokio::test(flavor = "multi_thread")]
async fn odd_messages_verify_where_they_arrive() {
    let folder = TempDir::new().unwrap();
    let (rsa, rsa_record) = key(folder.path(), "r1", "a.example", "rsa");
    let (ed, ed_record) = key(folder.path(), "e1", "a.example", "ed25519");
    let zone = ZoneServer::start(&(rsa_record + &ed_record)).await;
    let simple = "header_form = \"simple\"\nbody_form = \"simple\"\n";
    let signer = Hop::start(&zone, &format!("{rsa}{ed}{simple}"), "").await;
    let verifier = Hop::start(&zone, "", "").await;
    let from = "From: ann@a.example\r\n";
    let long = "long ".repeat(1_000);
    let large = format!("{from}\r\n{}", "0123456789 abcdefghij \r\n".repeat(5 << 20 >> 4));
    for (what, message) in [
        ("a header alone", from.to_owned()),
        ("a header without its last line end", "Subject: x\r\nFrom: ann@a.example".to_owned()),
        ("no body", format!("{from}\r\n")),
        ("empty lines", format!("{from}\r\n\r\n\r\n \r\n\t\r\n")),
        ("no empty line", format!("{from}This is no field\r\nnor this: one\r\n")),
        ("no line end at the end", format!("{from}\r\nHello")),
        ("blanks at the ends of lines", format!("{from}Subject: x  \t\r\n\t y \r\n\r\na \r\n\tb\t\r\n \r\n")),
        ("dots", format!("{from}\r\n.\r\n..\r\n.a\r\n")),
        ("line feeds alone", "From: ann@a.example\nSubject: x\n y\n\nHello\n.\nthere\n".to_owned()),
        ("line feeds in the body", format!("{from}\r\nHello\nthere\r\n\n.\n")),
        ("eight bits", format!("{from}Subject: Z\u{fc}rich\r\n\r\nZ\u{fc}rich\r\n")),
        ("long lines", format!("{from}Subject: {long}\r\n\r\n{long}\r\n")),
        ("five megabytes", large),
    ] {
        let before = signer.sink.log().accepted().count();
        assert_eq!(chunked(&signer, "inside", message.as_bytes()).await, 250, "{what}");
        let arrived = signer.sink.wait_for(before + 1).await.pop().unwrap().message;
        let start = arrived.windows(15).position(|at| at == b"DKIM-Signature:");
        let signed = &arrived[start.unwrap_or_else(|| panic!("{what} is not signed"))..];
        let before = verifier.sink.log().accepted().count();
        assert_eq!(chunked(&verifier, "mx", signed).await, 250, "{what}");
        let verified = verifier.sink.wait_for(before + 1).await.pop().unwrap();
        let head = unfolded(&String::from_utf8_lossy(&verified.message[..verified.message.len().min(4_000)]));
        assert_eq!(head.matches("dkim=pass").count(), 2, "{what}: {head}");
    }
}

/// The reply to a message sent by BDAT.
async fn chunked(hop: &Hop, listener: &str, message: &[u8]) -> u16 {
    let mut client = Client::connect_from([127, 0, 0, 66].into(), hop.gateway.address(listener)).await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<ann@a.example> BODY=8BITMIME SMTPUTF8", 250).await;
    client.ask("RCPT TO:<bob@ours.example>", 250).await;
    client.send_raw(format!("BDAT {} LAST\r\n", message.len()).as_bytes()).await;
    client.send_raw(message).await;
    client.reply().await.code
}
