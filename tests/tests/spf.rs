//! SPF in the real binary: every case of the RFC 7208 test suite and of our own, and how the stock plugin handles the
//! results.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "spf/moved.rs"]
mod moved;

use std::net::{IpAddr, SocketAddr};

use e2e::{Gateway, binary, configuration};
use pintle_testkit::{Client, Script, Sink, SmtpReply, SpfCase, SpfScenario, TempDir, ZoneFault, ZoneServer};

use moved::Moved;

/// A gateway with the plugin, on IPv4 and IPv6, and its name server.
struct Stage {
    gateway: Gateway,
    sink: Sink,
    zone: ZoneServer,
    _folder: TempDir,
}

impl Stage {
    /// `plugin` is the plugin's own configuration, with further text after it.
    async fn start(grants: &str, plugin: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let sink = Sink::start(Script::new()).await;
        let zone = ZoneServer::start("").await;
        let cache = binary().with_file_name("plugin-cache");
        let more = format!(
            "[dns]\nservers = [\"{}\"]\ntimeout = \"1s\"\nattempts = 1\ndeadline = \"1s\"\ncache_entries = 0\n\
             [[listener]]\nname = \"mx6\"\naddresses = [\"[::1]:0\"]\ntls = \"none\"\n\
             [plugins]\ncache = \"{}\"\n\
             [[plugin]]\nname = \"spf\"\ncomponent = \"stock:spf\"\ngrants = [{grants}]\n[plugin.config]\n{plugin}\n",
            zone.address(),
            cache.display()
        );
        let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &more));
        Self { gateway, sink, zone, _folder: folder }
    }

    fn listener(&self, client: IpAddr) -> SocketAddr {
        self.gateway.address(if client.is_ipv4() { "mx" } else { "mx6" })
    }

    async fn client(&self, from: IpAddr) -> Client {
        let mut client = Client::connect_from(from, self.listener(from)).await;
        client.expect(220).await;
        client
    }

    /// A client from 127.0.0.`last` that has sent EHLO.
    async fn stranger(&self, last: u8, hello: &str) -> Client {
        let mut client = self.client([127, 0, 0, last].into()).await;
        client.ask(&format!("EHLO {hello}"), 250).await;
        client
    }
}

/// Each result has its own reply.
const TELLING: &str = "fail = \"reject\"\nsoftfail = \"defer\"\npermerror = \"reject\"\ntemperror = \"defer\"\n\
    neutral = \"reject\"\nnone = \"reject\"\nhello = false\n";

#[tokio::test(flavor = "multi_thread")]
async fn every_case_of_the_suites_passes_through_the_gateway() {
    let stage = Stage::start("\"sender-auth\", \"auth-results\"", TELLING).await;
    let mut wrong = Vec::new();
    let mut seen = Seen::default();
    for file in ["rfc7208-tests.json", "pintle.json"] {
        for scenario in SpfScenario::read(file) {
            run(&stage, &scenario, &mut seen, &mut wrong).await;
        }
    }
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    // Commands that SMTP itself does not allow are refused before SPF.
    assert_eq!(seen.unspeakable, UNSPEAKABLE);
    assert_eq!((seen.nameless, seen.judged), (NAMELESS.len(), JUDGED));
}

/// Cases whose HELO or MAIL command is refused for its syntax.
const UNSPEAKABLE: [&str; 3] = ["nolocalpart", "emptylabel", "toolonglabel"];
/// Cases that need a host name of the client, which a client on loopback cannot have: resolvers answer for its reverse
/// zones themselves (RFC 6303 sections 4.2 and 4.4). They run only in the tests of the crate.
const NAMELESS: [&str; 9] = [
    "ptr-match-target",
    "ptr-match-implicit",
    "ptr-match-ip6",
    "ptr-case-change",
    "p-macro-ip4-valid",
    "p-macro-ip6-novalid",
    "p-macro-ip6-valid",
    "p-macro-multiple",
    "bytes-bug",
];
/// All other cases.
const JUDGED: usize = 203 + 43 - 3 - 9;

#[derive(Default)]
struct Seen {
    judged: usize,
    nameless: usize,
    unspeakable: Vec<String>,
}

/// Runs a scenario's cases, those of one client in parallel.
async fn run(stage: &Stage, scenario: &SpfScenario, seen: &mut Seen, wrong: &mut Vec<String>) {
    let mut hosts: Vec<IpAddr> = scenario.cases.iter().map(|case| case.host.to_canonical()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    for host in hosts {
        let moved = &Moved::to_loopback(host);
        stage.zone.heal_all();
        stage.zone.serve_records(&moved.records(&scenario.records));
        for (name, kind) in moved.silent(&scenario.silent) {
            stage.zone.fail_kind(&name, kind, ZoneFault::Silent);
        }
        let of_host = scenario.cases.iter().filter(|case| case.host.to_canonical() == host);
        let replies = of_host.map(|case| async move { (case, said(stage, moved, case).await) });
        for (case, said) in futures_util::future::join_all(replies).await {
            match said {
                Said::Unspeakable => seen.unspeakable.push(case.name.clone()),
                Said::Reply(_) if NAMELESS.contains(&case.name.as_str()) => seen.nameless += 1,
                Said::Reply(reply) => {
                    seen.judged += 1;
                    let complaint = complaint(case, moved, &reply);
                    wrong.extend(
                        complaint.map(|text| format!("{}, {}: {text}", scenario.description, case.name)),
                    );
                }
            }
        }
    }
}

enum Said {
    /// HELO or MAIL is refused for its syntax.
    Unspeakable,
    /// The reply to MAIL.
    Reply(SmtpReply),
}

async fn said(stage: &Stage, moved: &Moved, case: &SpfCase) -> Said {
    let mut client = stage.client(moved.client()).await;
    client.send(&format!("EHLO {}", moved.text(&case.helo))).await;
    if client.reply().await.code != 250 {
        return Said::Unspeakable;
    }
    client.send(&format!("MAIL FROM:<{}>", path(&moved.text(&case.sender)))).await;
    let reply = client.reply().await;
    if [500, 501, 553].contains(&reply.code) { Said::Unspeakable } else { Said::Reply(reply) }
}

/// A path as SMTP requires it: a local part that is not a dot-atom is quoted.
fn path(sender: &str) -> String {
    match sender.rsplit_once('@') {
        Some((local, domain)) if local.contains(' ') => format!("\"{local}\"@{domain}"),
        _ => sender.to_owned(),
    }
}

fn complaint(case: &SpfCase, moved: &Moved, reply: &SmtpReply) -> Option<String> {
    let text = reply.text();
    let (result, explanation) = told(reply);
    let code = match result.as_str() {
        "pass" => 250,
        "softfail" | "temperror" => 451,
        _ => 550,
    };
    if reply.code != code || !case.results.contains(&result) {
        return Some(format!("{:?} is right, not {} {text}", case.results, reply.code));
    }
    let right = case.explanation.as_ref()?.as_ref().map(|right| moved.text(right));
    let same = match (&right, &explanation) {
        // The suite writes the nibbles of IPv6 addresses in capitals.
        (Some(right), Some(given)) => right.eq_ignore_ascii_case(given),
        (right, given) => right == given,
    };
    (!same).then(|| format!("explained by {right:?}, not {explanation:?}"))
}

/// Result and explanation in a reply: `5.7.23 SPF of DOMAIN: RESULT; DOMAIN explains: TEXT (session …)`.
fn told(reply: &SmtpReply) -> (String, Option<String>) {
    // Each line begins with the enhanced code.
    let text: String = reply.lines.iter().map(|line| line.get(7..).unwrap_or_default()).collect();
    let text = text.rfind(" (").map_or(text.as_str(), |at| &text[..at]);
    let Some((_, verdict)) = text.split_once("SPF of ").and_then(|(_, rest)| rest.split_once(": ")) else {
        return ("pass".to_owned(), None);
    };
    match verdict.split_once("; ") {
        Some((result, rest)) => {
            (result.to_owned(), rest.split_once(" explains: ").map(|(_, text)| text.to_owned()))
        }
        None => (verdict.to_owned(), None),
    }
}

/// A domain for each result, as seen from 127.0.0.66.
const RESULTS: [&str; 7] = ["pass", "fail", "softfail", "neutral", "none", "permerror", "temperror"];

const ZONES: &str = "pass.example TXT \"v=spf1 ip4:127.0.0.66 -all\"\nfail.example TXT \"v=spf1 -all\"\n\
    softfail.example TXT \"v=spf1 ~all\"\nneutral.example TXT \"v=spf1 ?all\"\nnone.example TXT \"hello\"\n\
    permerror.example TXT \"v=spf1 moo\"\nhelo.example TXT \"v=spf1 ip4:127.0.0.66 -all\"";

/// The message that arrived, unfolded, line by line, without the Received field.
fn fields(message: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(message).replace("\r\n ", " ").replace("\r\n\t", " ");
    text.lines().take_while(|line| !line.is_empty()).map(str::to_owned).collect()
}

const MESSAGE: &[u8] = b"From: <x@other.example>\r\nSubject: one\r\n\r\nhello\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn by_default_no_result_refuses_and_both_identities_are_reported() {
    let stage = Stage::start("\"sender-auth\", \"auth-results\"", "").await;
    stage.zone.serve(ZONES);
    stage.zone.fail("temperror.example", ZoneFault::ServFail);
    for (at, result) in RESULTS.iter().enumerate() {
        let mut client = stage.stranger(66, "helo.example").await;
        client.deliver(&format!("x@{result}.example"), &["b@ours.example"], MESSAGE).await;
        let arrived = stage.sink.wait_for(at + 1).await;
        let fields = fields(&arrived.last().unwrap().message);
        let found = fields.iter().find(|field| field.starts_with("Authentication-Results: ")).unwrap();
        for part in
            ["spf=pass smtp.helo=helo.example", &format!("spf={result} smtp.mailfrom={result}.example")]
        {
            assert!(found.contains(part), "{found}");
        }
        assert!(!fields.iter().any(|field| field.starts_with("Received-SPF")), "{fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn points_add_up_and_a_forbidden_hello_counts() {
    let points =
        "fail = 5.0\nsoftfail = 2.0\nneutral = \"quarantine\"\nnone = \"defer\"\n[score]\nreject = 5.0\n";
    let stage = Stage::start("\"sender-auth\", \"auth-results\"", points).await;
    stage.zone.serve(ZONES);
    for (hello, sender, at_mail, at_end) in [
        ("helo.example", "x@fail.example", 250, 550),
        ("helo.example", "x@softfail.example", 250, 250),
        ("fail.example", "x@pass.example", 250, 550),
        ("softfail.example", "x@pass.example", 250, 250),
        ("fail.example", "", 250, 550),
        ("helo.example", "x@none.example", 451, 0),
        ("none", "", 451, 0),
        ("helo.example", "x@neutral.example", 250, 250),
    ] {
        let mut client = stage.stranger(66, hello).await;
        client.ask(&format!("MAIL FROM:<{sender}>"), at_mail).await;
        if at_end != 0 {
            client.ask("RCPT TO:<b@ours.example>", 250).await;
            client.ask("DATA", 354).await;
            client.send_data(MESSAGE).await;
            client.expect(at_end).await;
        }
    }
    stage.gateway.wait_for("not passed on: neutral");
    let arrived = stage.sink.wait_for(2).await;
    assert!(arrived.iter().all(|transaction| transaction.sender.address != "x@neutral.example"));
}

/// Two results forged in our name, and one of another server, which must stay.
const FORGED: &[u8] =
    b"Received-SPF: pass (gate.example: all is well) receiver=gate.example; client-ip=127.0.0.1\r\n\
    Received-SPF: pass (c)\r\n\tRECEIVER (c) =\r\n\t\"Gate.Example\"\r\n\
    Received-SPF: fail receiver=other.example\r\nSubject: one\r\n\r\nhello\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn received_spf_stands_on_top_and_nobody_else_writes_in_our_name() {
    let plugin = "received_spf = true\nexempt_networks = [\"127.0.0.77\"]";
    let stage = Stage::start("\"sender-auth\", \"auth-results\", \"edit-headers\"", plugin).await;
    stage.zone.serve(ZONES);
    let hostile = "\"a\\\"; receiver=evil.example; (b\"@softfail.example";
    let ours = |result: &str, domain: &str, [identity, matched]: [&str; 2], from: &str| {
        format!(
            "Received-SPF: {result} (gate.example: {domain} 127.0.0.66) identity={identity}; \
             client-ip=127.0.0.66; helo=helo.example; envelope-from={from}; mechanism={matched}; \
             receiver=gate.example"
        )
    };
    let theirs = "Received-SPF: fail receiver=other.example".to_owned();
    let hello =
        |from| ours("pass", "helo.example lets its mail come from", ["helo", "\"ip4:127.0.0.66\""], from);
    let quoted = r#""\"a\\\"; receiver=evil.example; (b\"@softfail.example""#;
    let wish = "softfail.example would rather not have its mail come from";
    for (at, (sender, expected)) in [
        (hostile, vec![ours("softfail", wish, ["mailfrom", "~all"], quoted), hello(quoted), theirs.clone()]),
        ("", vec![hello("\"postmaster@helo.example\""), theirs.clone()]),
    ]
    .into_iter()
    .enumerate()
    {
        stage.stranger(66, "helo.example").await.deliver(sender, &["b@ours.example"], FORGED).await;
        let arrived = stage.sink.wait_for(at + 1).await;
        let fields = fields(&arrived.last().unwrap().message);
        let received = fields.iter().position(|field| field.starts_with("Received: ")).unwrap();
        let found = &fields[received + 1..fields.len() - 1];
        assert_eq!(found, expected);
    }
    // A forwarder is not checked, but must not send with our domain either; an authenticated colleague may.
    stage.stranger(77, "helo.example").await.deliver("", &["b@ours.example"], FORGED).await;
    stage.sink.wait_for(3).await;
    let mut colleague = Client::connect(stage.gateway.address("inside")).await;
    colleague.hello("inside.example").await;
    colleague.deliver("x@fail.example", &["b@ours.example"], FORGED).await;
    let arrived = stage.sink.wait_for(4).await;
    let count = |at: usize| {
        let fields = fields(&arrived[at].message);
        fields.iter().filter(|field| field.starts_with("Received-SPF: ")).count()
    };
    assert_eq!((count(2), count(3)), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_grant_costs_the_field_and_no_mail() {
    let stage = Stage::start("\"sender-auth\", \"auth-results\"", "received_spf = true").await;
    stage.zone.serve(ZONES);
    stage.stranger(66, "helo.example").await.deliver("x@pass.example", &["b@ours.example"], MESSAGE).await;
    stage.sink.wait_for(1).await;
    stage.gateway.wait_for("no Received-SPF: received_spf needs the grant edit-headers");
}
