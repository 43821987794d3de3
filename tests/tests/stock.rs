//! The stock plugins in the real binary, as clients see them, with DNS in the test process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use e2e::{Gateway, binary, configuration, run};
use pintle_testkit::{Client, Script, Sink, SmtpReply, TempDir, ZoneFault, ZoneServer};
use serde_json::{Map, Value};

const MESSAGE: &[u8] = b"Subject: one\r\nFrom: <a@x.example>\r\n\r\nhello\r\n";
const PLUGINS: [&str; 10] = [
    "batv",
    "dnsbl",
    "greylist",
    "rate-limit",
    "relay-control",
    "header-rewrite",
    "spf",
    "dmarc",
    "spoof-guard",
    "dkim",
];

/// A gateway with one stock plugin, its peers, and its folder.
struct Stage {
    gateway: Gateway,
    sink: Sink,
    zone: ZoneServer,
    _folder: TempDir,
}

impl Stage {
    /// `plugin` is the text after `component` in the plugin's section; `zones` has the DNS records.
    async fn start(name: &str, plugin: &str, zones: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let sink = Sink::start(Script::new()).await;
        let zone = ZoneServer::start(zones).await;
        let more = format!("[dns]\nservers = [\"{}\"]\n{}", zone.address(), section(name, plugin));
        let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &more));
        Self { gateway, sink, zone, _folder: folder }
    }

    /// An untrusted client that has sent EHLO; its address is 127.0.0.66.
    async fn stranger(&self, hello: &str) -> Client {
        let from = [127, 0, 0, 66].into();
        let mut client = Client::connect_from(from, self.gateway.address("mx")).await;
        client.hello(hello).await;
        client
    }

    /// A client in a trusted network that has sent EHLO.
    async fn colleague(&self) -> Client {
        let mut client = Client::connect(self.gateway.address("inside")).await;
        client.hello("inside.example").await;
        client
    }
}

fn section(name: &str, plugin: &str) -> String {
    // Shared by all scenarios: an unoptimised compiler takes seconds where the real one takes a tenth.
    let cache = binary().with_file_name("plugin-cache");
    format!(
        "[plugins]\ncache = \"{}\"\n[[plugin]]\nname = \"{name}\"\ncomponent = \"stock:{name}\"\n{plugin}\n",
        cache.display()
    )
}

/// The text of the reply, without the session id that the core adds.
fn says(reply: &SmtpReply, text: &str) {
    assert!(reply.text().starts_with(text), "{reply:?}");
}

fn grants(name: &str) -> &'static str {
    match name {
        "batv" => "grants = [\"edit-envelope\", \"secrets:batv\"]",
        "dnsbl" => "grants = [\"dns\"]",
        "greylist" | "rate-limit" => "grants = [\"kv\"]",
        "header-rewrite" => "grants = [\"edit-headers\", \"edit-envelope\"]",
        "relay-control" => "grants = [\"relay\", \"kv\"]",
        "dkim" => "grants = [\"sender-auth\", \"auth-results\", \"sign\"]",
        "spf" | "dmarc" => "grants = [\"sender-auth\", \"auth-results\"]",
        "spoof-guard" => "grants = [\"sender-auth\"]",
        _ => panic!("no grants of {name} here"),
    }
}

const TWO_LISTS: &str = r#"grants = ["dns"]
[plugin.config]
lists = [
    { zone = "list.example", codes = { "127.0.0.2-127.0.0.3" = { meaning = "spam source" } } },
    { zone = "dead.example" },
    { zone = "good.example", weight = -5 },
]"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_client_hears_why_and_can_write_to_postmaster() {
    let zones =
        "66.0.0.127.list.example A 127.0.0.2\n66.0.0.127.list.example TXT \"see https://list.example/66\"";
    let stage = Stage::start("dnsbl", TWO_LISTS, zones).await;
    stage.zone.fail("66.0.0.127.dead.example", ZoneFault::ServFail);
    let mut client = stage.stranger("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    let reply = client.ask("RCPT TO:<b@ours.example>", 550).await;
    says(&reply, "5.7.1 127.0.0.66 is listed by list.example (spam source): see https://list.example/66");
    client.ask("RCPT TO:<postmaster@ours.example>", 250).await;
    client.ask("DATA", 354).await;
    client.send_data(MESSAGE).await;
    client.expect(250).await;
    stage.sink.wait_for(1).await;
    let line = stage.gateway.line("\"listed\"");
    assert!(line.contains("list.example") && line.contains("127.0.0.66"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_the_good_outweighs_and_a_code_that_does_not_count_is_none() {
    let zones = "66.0.0.127.list.example A 127.0.0.2\n66.0.0.127.good.example A 127.0.9.1\n\
        67.0.0.127.list.example A 127.0.0.10";
    let stage = Stage::start("dnsbl", TWO_LISTS, zones).await;
    stage.stranger("client.example").await.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    let mut other = Client::connect_from([127, 0, 0, 67].into(), stage.gateway.address("mx")).await;
    other.hello("client.example").await;
    other.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_fails_in_any_way_refuses_nobody() {
    // The resolver would try longer than a call may take; the call must not fail because of that.
    let plugin = format!("{TWO_LISTS}\n[plugin.limits]\nwall = \"4s\"");
    for fault in
        [ZoneFault::ServFail, ZoneFault::Refused, ZoneFault::Garbage, ZoneFault::Silent, ZoneFault::NoData]
    {
        let stage = Stage::start("dnsbl", &plugin, "66.0.0.127.list.example A 127.0.0.2").await;
        for zone in ["list", "dead", "good"] {
            stage.zone.fail(&format!("66.0.0.127.{zone}.example"), fault);
        }
        stage.stranger("client.example").await.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_lists_everything_or_refuses_to_serve_lists_nobody() {
    let zones = "66.0.0.127.list.example A 127.0.0.2\n1.0.0.127.list.example A 127.0.0.2\n\
        2.0.0.127.list.example A 127.0.0.2\n66.0.0.127.dead.example A 127.255.255.254\n\
        2.0.0.127.dead.example A 127.255.255.254";
    let stage = Stage::start("dnsbl", TWO_LISTS, zones).await;
    stage.stranger("client.example").await.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    // Logged once by the tests for the whole gateway, and not by each instance that sees it.
    stage.gateway.wait_for("it lists 1.0.0.127.list.example, which no list may contain");
    stage.gateway.wait_for("it answers 127.255.255.254 to its test entry 2.0.0.127.dead.example");
    assert!(!stage.gateway.log().contains("refuses; the answer"), "{}", stage.gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn trusted_clients_are_not_looked_up() {
    let stage = Stage::start("dnsbl", TWO_LISTS, "66.0.0.127.list.example A 127.0.0.2").await;
    let mut colleague = Client::connect_from([127, 0, 0, 66].into(), stage.gateway.address("inside")).await;
    colleague.hello("inside.example").await;
    colleague.deliver("a@x.example", &["b@y.example"], MESSAGE).await;
    let asked = stage.zone.asked();
    assert!(asked.iter().all(|asked| !asked.name.starts_with("66.")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_senders_and_links_are_looked_up_in_lists_of_domains() {
    let plugin = "grants = [\"dns\"]\n[plugin.config]\n\
        lists = [{ zone = \"dbl.example\", of = [\"hello\", \"sender\", \"links\"] }]";
    let zones = "bad.test.dbl.example A 127.0.1.2\nlink.test.dbl.example A 127.0.1.2";
    let stage = Stage::start("dnsbl", plugin, zones).await;
    let mut by_name = stage.stranger("bad.test").await;
    by_name.ask("MAIL FROM:<a@x.example>", 250).await;
    let reply = by_name.ask("RCPT TO:<b@ours.example>", 550).await;
    says(&reply, "5.7.1 bad.test is listed by dbl.example");
    let mut by_sender = stage.stranger("client.example").await;
    by_sender.ask("MAIL FROM:<a@bad.test>", 250).await;
    by_sender.ask("RCPT TO:<b@ours.example>", 550).await;
    let mut by_link = stage.stranger("client.example").await;
    by_link.envelope("a@x.example", &["b@ours.example"]).await;
    by_link.send_data(b"Subject: s\r\n\r\nbuy at https://www.link.test/now\r\n").await;
    let reply = by_link.expect(550).await;
    says(&reply, "5.7.1 link.test is listed by dbl.example");
    let mut by_parent = stage.stranger("mx7.out.bad.test").await;
    by_parent.ask("MAIL FROM:<a@x.example>", 250).await;
    by_parent.ask("RCPT TO:<b@ours.example>", 550).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_found_however_they_are_written() {
    let plugin = "grants = [\"dns\"]\n[plugin.config]\nlists = [\n\
        { zone = \"dbl.example\", of = [\"links\"] }, { zone = \"list.example\", of = [\"link-addresses\"] }]";
    let zones = "link.test.dbl.example A 127.0.1.2\n1.2.0.192.list.example A 127.0.0.2";
    let stage = Stage::start("dnsbl", plugin, zones).await;
    let html = "Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n";
    for (more, body, subject) in [
        (
            "Content-Transfer-Encoding: base64\r\n",
            "PGEgaHJlZj0iaHR0cHM6Ly93d3cubGluay50ZXN0Lz94Ij5idXk8L2E+",
            "link.test",
        ),
        (
            "Content-Transfer-Encoding: quoted-printable\r\n",
            "<a href=3D\"https://www.li=\r\nnk.te=73t/\">buy</a>",
            "link.test",
        ),
        ("", "<a href=\"http://link&#46;test/\">buy</a>", "link.test"),
        ("", "<a href=\"http://good.example@link%2Etest\">buy</a>", "link.test"),
        ("", "<a href=\"http://0xc0.0.513/\">buy</a>", "192.0.2.1"),
    ] {
        let mut client = stage.stranger("client.example").await;
        client.envelope("a@x.example", &["b@ours.example"]).await;
        client.send_data(format!("{html}{more}\r\n{body}\r\n").as_bytes()).await;
        let reply = client.expect(550).await;
        assert!(reply.text().starts_with(&format!("5.7.1 {subject} is listed by ")), "{body}: {reply:?}");
    }
    let mut client = stage.stranger("client.example").await;
    client
        .deliver(
            "a@x.example",
            &["b@ours.example"],
            b"Subject: s\r\n\r\nhttp://link.example/ http://192.0.2.2/\r\n",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_its_test_entry_is_reported_at_the_start() {
    let zones = "2.0.0.127.good.example A 127.0.0.2\n2.0.0.127.list.example A 127.0.0.2\n\
        1.0.0.127.list.example A 127.0.0.2";
    let stage = Stage::start("dnsbl", TWO_LISTS, zones).await;
    stage.gateway.wait_for("its test entry 2.0.0.127.dead.example is not listed");
    stage.gateway.wait_for("it lists 1.0.0.127.list.example, which no list may contain");
    assert!(!stage.gateway.log().contains("2.0.0.127.good.example"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_comes_again_and_is_known_from_then_on() {
    let plugin = "grants = [\"kv\"]\nconfig = { delay = \"0s\", auto_allow = 2 }";
    let stage = Stage::start("greylist", plugin, "").await;
    let mut client = stage.stranger("client.example").await;
    client.ask("MAIL FROM:<bounce-17@x.example>", 250).await;
    let reply = client.ask("RCPT TO:<b@ours.example>", 451).await;
    says(&reply, "4.7.1 Greylisted");
    client.ask("RCPT TO:<b@ours.example>", 250).await;
    client.ask("RSET", 250).await;
    client.ask("MAIL FROM:<bounce-18@x.example>", 250).await;
    client.ask("RCPT TO:<b@ours.example>", 250).await;
    client.ask("RCPT TO:<c@ours.example>", 451).await;
    client.ask("RCPT TO:<c@ours.example>", 250).await;
    // Two combinations of this network have come back: the third need not wait.
    client.ask("RCPT TO:<d@ours.example>", 250).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_again_too_early_waits_and_relay_clients_never_do() {
    let plugin = "grants = [\"kv\"]\nconfig = { delay = \"1h\", allow_senders = [\"friend.example\"] }";
    let stage = Stage::start("greylist", plugin, "").await;
    let mut client = stage.stranger("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    for _ in 0..2 {
        client.ask("RCPT TO:<b@ours.example>", 451).await;
    }
    client.ask("RSET", 250).await;
    client.ask("MAIL FROM:<a@friend.example>", 250).await;
    client.ask("RCPT TO:<b@ours.example>", 250).await;
    stage.colleague().await.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_much_is_deferred_and_colleagues_are_slowed() {
    let plugin = r#"grants = ["kv"]
[[plugin.config.limits]]
name = "messages"
count = "messages"
by = "address"
max = 2
per = "1d"
action = "defer"
max_delay = "5ms"
[[plugin.config.limits]]
name = "recipients"
count = "recipients"
by = "recipient"
max = 3
per = "1d"
action = "defer"
clients = "strangers""#;
    let stage = Stage::start("rate-limit", plugin, "").await;
    let mut client = stage.stranger("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    for _ in 0..3 {
        client.ask("RCPT TO:<b@ours.example>", 250).await;
    }
    let reply = client.ask("RCPT TO:<B@ours.example>", 451).await;
    says(&reply, "4.7.0 Too many recipients (limit recipients)");
    client.ask("RCPT TO:<c@ours.example>", 250).await;
    client.ask("RSET", 250).await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    client.ask("RSET", 250).await;
    let reply = client.ask("MAIL FROM:<a@x.example>", 451).await;
    says(&reply, "4.7.0 Too many messages");
    let mut colleague = stage.colleague().await;
    for _ in 0..4 {
        colleague.deliver("a@x.example", &["b@ours.example"], MESSAGE).await;
    }
    stage.gateway.wait_for("too fast: the reply waits 5 ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_too_often_is_turned_away() {
    let plugin = "grants = [\"kv\"]\n[plugin.config]\n\
        limits = [{ name = \"c\", count = \"connections\", by = \"network\", max = 1, per = \"1d\", action = \"defer\" }]";
    let stage = Stage::start("rate-limit", plugin, "").await;
    stage.stranger("client.example").await;
    let mut client = Client::connect_from([127, 0, 0, 67].into(), stage.gateway.address("mx")).await;
    let reply = client.expect(421).await;
    assert!(reply.text().contains("Too many connections"), "{reply:?}");
    client.expect_closed().await;
}

const REWRITING: &str = r#"grants = ["edit-headers", "edit-envelope"]
[plugin.config]
authserv_ids = ["gate.example"]
strip_outbound = ["Received", "X-Internal-*"]

[[plugin.config.rules]]
direction = "inbound"
replace = { name = "Subject", matches = "^(.*)$", with = "[outside] $1" }
add = { name = "X-Outside", value = "yes", at = "bottom" }

[[plugin.config.rules]]
if_header = "X-Mailer"
if_matches = "secret"
remove = { name = "X-Mailer" }
rename = { from = "X-Old", to = "X-New" }

[[plugin.config.addresses]]
from = ".corp.example"
to = "corp.example"

[[plugin.config.addresses]]
from = "old@ours.example"
to = "new@ours.example"
direction = "inbound"
in = ["recipients"]
"#;

const FORGED: &[u8] = b"X-MS-Exchange-Organization-SCL: -1\r\nAuthentication-Results: gate.example;\r\n\tspf=pass\r\n\
    Authentication-Results: other.example; spf=pass\r\nSubject: hello\r\nX-Keep:  as\r\n\tit was\r\n\r\nbody\r\n";

/// The message that arrived, without the Received field that the gateway adds.
fn content(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message).into_owned();
    let ours = text
        .split_inclusive("\r\n")
        .take_while(|line| line.starts_with(['R', '\t', ' ']))
        .map(str::len)
        .sum();
    text[ours..].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_forge_is_stripped_and_rules_rewrite_the_rest() {
    let stage = Stage::start("header-rewrite", REWRITING, "").await;
    let mut client = stage.stranger("client.example").await;
    client.deliver("a@x.corp.example", &["old@ours.example", "b@ours.example"], FORGED).await;
    let arrived = stage.sink.wait_for(1).await.remove(0);
    assert_eq!(
        content(&arrived.message),
        "Authentication-Results: other.example; spf=pass\r\nSubject: [outside] hello\r\nX-Keep:  as\r\n\tit was\r\n\
         X-Outside: yes\r\n\r\nbody\r\n"
    );
    assert_eq!(arrived.sender.address, "a@x.corp.example", "a stranger's sender is no affair of ours");
    assert_eq!(arrived.recipients(), ["new@ours.example", "b@ours.example"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_internal_does_not_leave_and_addresses_are_masqueraded() {
    let stage = Stage::start("header-rewrite", REWRITING, "").await;
    let message =
        b"Received: from inner by innermost; Mon, 1 Jan 2024 00:00:00 +0000\r\nX-Internal-Id: 7\r\n\
        From: \"Ann, at pc7\" <ann@pc7.corp.example>\r\nTo: b@y.example\r\nX-Mailer: Secret 1.0\r\n\
        Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@a.example>\r\nX-Old: 1\r\n\r\nbody\r\n";
    stage.colleague().await.deliver("ann@pc7.corp.example", &["b@y.example"], message).await;
    let arrived = stage.sink.wait_for(1).await.remove(0);
    assert_eq!(
        content(&arrived.message),
        "From: \"Ann, at pc7\" <ann@corp.example>\r\nTo: b@y.example\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n\
         Message-ID: <1@a.example>\r\nX-New: 1\r\n\r\nbody\r\n"
    );
    assert_eq!(arrived.message.windows(10).filter(|window| window == b"\r\nReceived").count(), 0);
    assert_eq!(arrived.sender.address, "ann@corp.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_the_difference_and_changes_nothing() {
    let plugin = REWRITING.replace("[plugin.config]", "[plugin.config]\ndry_run = true");
    let stage = Stage::start("header-rewrite", &plugin, "").await;
    stage.stranger("client.example").await.deliver("a@x.example", &["old@ours.example"], FORGED).await;
    let arrived = stage.sink.wait_for(1).await.remove(0);
    // But fields in the gateway's own name are removed whatever plugins do (RFC 8601 section 5).
    let ours = "Authentication-Results: gate.example;\r\n\tspf=pass\r\n";
    let kept = String::from_utf8_lossy(FORGED).replace(ours, "");
    assert_eq!(content(&arrived.message), kept);
    assert_eq!(arrived.recipients(), ["old@ours.example"]);
    for line in [
        "dry run: - X-MS-Exchange-Organization-SCL: -1",
        "dry run: - Subject: hello",
        "dry run: + Subject: [outside] hello",
        "dry run: + RCPT TO:<new@ours.example>",
    ] {
        stage.gateway.wait_for(line);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_is_rewritten_opens_no_relay() {
    let plugin = REWRITING.replace("to = \"new@ours.example\"", "to = \"new@other.example\"");
    let stage = Stage::start("header-rewrite", &plugin, "").await;
    let mut client = stage.stranger("client.example").await;
    client.envelope("a@x.example", &["old@ours.example"]).await;
    client.send_data(MESSAGE).await;
    says(&client.expect(550).await, "5.7.1 Relaying denied");
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(name)
}

fn schema(name: &str) -> Value {
    let text = std::fs::read_to_string(folder(name).join("config.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// All objects of the schema that list their properties.
fn objects(schema: &Value, found: &mut Vec<Map<String, Value>>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get("properties") {
                assert_eq!(object["additionalProperties"], Value::Bool(false), "{object:?}");
                found.push(properties.clone());
            }
            object.values().for_each(|value| objects(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| objects(value, found)),
        _ => {}
    }
}

#[test]
fn every_key_of_a_schema_stands_in_its_readme() {
    for name in PLUGINS {
        let readme = std::fs::read_to_string(folder(name).join("README.md")).unwrap();
        let mut found = Vec::new();
        objects(&schema(name), &mut found);
        assert!(!found.is_empty(), "{name}");
        for key in found.iter().flat_map(Map::keys) {
            assert!(readme.contains(&format!("`{key}`")), "{name} does not explain {key}");
        }
        assert!(readme.contains(grants(name)), "{name} does not show its grants");
    }
}

#[test]
fn the_examples_in_each_readme_are_good() {
    for name in PLUGINS {
        let readme = std::fs::read_to_string(folder(name).join("README.md")).unwrap();
        let examples: Vec<_> = readme.split("```").filter_map(|block| block.strip_prefix("toml\n")).collect();
        assert!(
            examples.iter().any(|example| example.contains("[[plugin]]")),
            "{name} shows no configuration"
        );
        for example in examples {
            let folder = TempDir::new().unwrap();
            let plugin = whole(name, example);
            for key in example.split("key = { file = \"").skip(1) {
                make_key(folder.path(), key.split('"').next().unwrap());
            }
            let file = configuration(folder.path(), "127.0.0.1:25".parse().unwrap(), &plugin);
            // The plugin's schema checks it first, then the plugin.
            let (code, out, err) = run(&["check", "-c", file.to_str().unwrap()], folder.path());
            assert_eq!(code, 0, "{name}: {example}: {out}{err}");
        }
    }
}

/// An example may show only the plugin's own settings.
fn whole(name: &str, example: &str) -> String {
    if example.contains("[[plugin]]") {
        return example.to_owned();
    }
    format!("[[plugin]]\nname = \"{name}\"\ncomponent = \"stock:{name}\"\n{}\n{example}", grants(name))
}

/// The key that an example signs with, made as a reader would make it.
fn make_key(folder: &Path, file: &str) {
    std::fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
    let words = [
        "dkim",
        "keygen",
        "--domain",
        "example.org",
        "--selector",
        "s",
        "--algorithm",
        "ed25519",
        "--out",
        file,
    ];
    let (code, out, err) = run(&words, folder);
    assert_eq!(code, 0, "{out}{err}");
}

/// The schema's defaults must be the plugin's, and what the schema refuses, the plugin must refuse.
#[test]
fn check_takes_what_the_schema_says_and_names_what_it_does_not() {
    for name in PLUGINS {
        let mut config = Map::new();
        let schema = schema(name);
        for (key, property) in schema["properties"].as_object().unwrap() {
            let required =
                schema["required"].as_array().is_some_and(|keys| keys.contains(&key.as_str().into()));
            let example = property.pointer("/examples/0").cloned().unwrap_or(Value::Array(Vec::new()));
            let value = default_of(&schema, property).or_else(|| required.then_some(example));
            config.extend(value.map(|value| (key.clone(), value)));
        }
        let (code, out) = check(name, &config);
        assert_eq!(code, 0, "{name}: {out}");
        config.insert("nonsense".to_owned(), Value::Bool(true));
        let (code, out) = check(name, &config);
        assert!(code == 1 && out.contains("nonsense"), "{name}: {out}");
    }
}

/// The default of the property, or of the definition that it refers to.
fn default_of(schema: &Value, property: &Value) -> Option<Value> {
    let reference = property.get("$ref").and_then(Value::as_str).unwrap_or_default();
    let definition = reference.rsplit('/').next().unwrap_or_default();
    property.get("default").or_else(|| schema["$defs"][definition].get("default")).cloned()
}

fn check(name: &str, config: &Map<String, Value>) -> (i32, String) {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("plugin.json"), Value::from(config.clone()).to_string()).unwrap();
    let secret = "[secrets.batv]\nkey = \"an example that everybody knows\"";
    let more = section(name, &format!("{}\nconfig_file = \"plugin.json\"\n{secret}", grants(name)));
    let file = configuration(folder.path(), "127.0.0.1:25".parse().unwrap(), &more);
    let (code, out, err) = run(&["check", "-c", file.to_str().unwrap()], folder.path());
    (code, out + &err)
}
