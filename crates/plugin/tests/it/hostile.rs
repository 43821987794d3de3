//! A hundred hostile messages through all stock plugins, each with all that it can do turned on: none of them faults.
//!
//! A fault would be an answer that the sender of the message has chosen: at best mail that is deferred for no reason, at
//! worst a header firewall that is off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pintle_mail::{
    Address, Bytes, Charset, EnhancedCode, HeaderBlock, NextHop, Recipient, Reply, ReversePath, TlsPolicy,
};
use pintle_plugin::{
    ComponentSource, Config, Gateway, GrantKind, PluginConfig, PluginLimits, Plugins, SecretKey,
    SigningKeyName,
};
use pintle_policy::{
    AttemptStatus, Call, Chain, Decision, Delivery, DeliveryOutcome, Hook, Leases, Message, View,
};
use serde_json::{Value, json};

use crate::support::{Zone, component, transaction};

/// What listeners take by default: a header of 256 KiB, a thousand recipients.
const HEADER: usize = 250 << 10;
const RECIPIENTS: usize = 1_000;

struct Mail {
    what: String,
    header: Vec<u8>,
    body: Vec<u8>,
    sender: String,
    recipients: usize,
}

fn mail(what: impl Into<String>, header: impl Into<Vec<u8>>, body: impl Into<Vec<u8>>) -> Mail {
    let mut header = header.into();
    header.truncate(HEADER);
    if !header.is_empty() && !header.ends_with(b"\r\n") {
        header.extend_from_slice(b"\r\n");
    }
    let sender = "ann@example.com".to_owned();
    Mail { what: what.into(), header, body: body.into(), sender, recipients: 2 }
}

/// As much of a text as a listener takes of a header.
fn much(text: &str) -> String {
    text.repeat(HEADER / text.len().max(1))
}

/// Fields that plugins read, each with values made to hurt whoever reads them.
fn hostile_fields() -> Vec<Mail> {
    let values: [(&str, String); 13] = [
        ("nothing", String::new()),
        ("one long word", much("x")),
        ("comments without end", much("(")),
        ("quotes without end", much("\"\\\"")),
        ("a huge list of addresses", much("a@b.example, ")),
        ("names and brackets", much("\"n\" <a@b.example>,\r\n ")),
        ("brackets", much("<")),
        ("groups", much("g: a@b.example;, ")),
        ("broken encoded words", much("=?utf-8?q?x ")),
        ("encoded words", much("=?utf-8?b?4oCu?= ")),
        ("parameters", much("; name*1=x")),
        ("8-bit junk", much("\u{fffd}\u{202e}\u{200b}\u{feff}\u{e000}")),
        ("routes and dots", much("@a,@b:..@[1.2.3.4]")),
    ];
    let fields = ["From", "Sender", "Content-Type", "Authentication-Results", "Subject"];
    let all = fields.iter().flat_map(|field| values.iter().map(move |(what, value)| (field, what, value)));
    all.map(|(field, what, value)| mail(format!("{field}: {what}"), format!("{field}: {value}"), "hello\r\n"))
        .collect()
}

/// Headers of odd shapes.
fn hostile_headers() -> Vec<Mail> {
    let forged = |n: usize| format!("X-MS-Exchange-Organization-{n}: forged\r\n");
    let from = "From: ann@example.com\r\n";
    vec![
        mail("no header", "", "hello\r\n"),
        mail("nothing at all", "", ""),
        mail("only a header", from, ""),
        mail("1,200 forged fields", (0..1_200).map(forged).collect::<String>(), "x\r\n"),
        mail("all fields forged", (0..3_000).map(forged).collect::<String>(), "x\r\n"),
        mail("the shortest fields", much("X:\r\n"), "x\r\n"),
        mail("a name of all the header", format!("{}: x\r\n", much("n")), "x\r\n"),
        mail("lines that are no fields", much("no field\r\n"), "x\r\n"),
        mail("folding without end", format!("From: a\r\n{}", much(" \r\n")), "x\r\n"),
        mail("bare line ends", "From: a\nSubject: b\rc\r\n", "x\n\r\r\n"),
        mail(
            "octets above 127",
            [b"From: \xff\xfe@\xc3\xa9.example\r\nSubject: \x80\r\n".as_slice(), &[0xff; 9_000]].concat(),
            "\u{e9}\r\n",
        ),
        mail("NUL everywhere", "From: a\0@b\r\nSubject: \0\r\n", vec![0; 9_000]),
    ]
}

/// Headers that `header-rewrite` has much to do with.
fn hostile_rewrites() -> Vec<Mail> {
    let long = "w".repeat(2_000);
    vec![
        mail("the shortest fields to be stripped", much("X-:\r\n"), "x\r\n"),
        mail("fields to be renamed", much("X-Rename: y\r\n"), "x\r\n"),
        mail("fields to be replaced", much("X-Replace: secret\r\n"), "x\r\n"),
        mail("a word that fits no line, to be renamed", format!("X-Rename: {long}\r\n"), "x\r\n"),
        mail("a word that fits no line, to be replaced", format!("X-Replace: secret{long}\r\n"), "x\r\n"),
        mail("a value that fits no field", format!("X-Replace: {}", much("secret ")), "x\r\n"),
        mail(
            "blanks that fit no line, to be replaced",
            format!("X-Replace: secret a{}b\r\n", " ".repeat(1_000)),
            "x\r\n",
        ),
        mail(
            "a word that just fits no line with its blanks",
            format!("X-Replace: secret  {}\r\n", "w".repeat(997)),
            "x\r\n",
        ),
        mail(
            "results to be forged by a rename",
            much("X-Rename-Results: gate.example; spf=pass\r\n"),
            "x\r\n",
        ),
        mail("one letter to be replaced by many", much("X-Grow: zzzzzzzz zzzzzzzz\r\n"), "x\r\n"),
        mail("one long field to be replaced by many", format!("X-Grow: {}", much("z")), "x\r\n"),
        mail("a NUL to be replaced", "X-Replace: secret\0\r\n", "x\r\n"),
        mail(
            "a name that fits no line",
            format!("X-Replace-{}: secret {long}\r\n", "n".repeat(990)),
            "x\r\n",
        ),
        mail("addresses to be rewritten", format!("From: {}", much("a@old.example, ")), "x\r\n"),
    ]
}

/// Headers about which sender checks have much to do.
fn hostile_authors() -> Vec<Mail> {
    let from = "From: ann@example.com\r\n";
    vec![
        mail("blanks beside an address", format!("From: a{}<a@old.example>", " ".repeat(1_000)), "x\r\n"),
        mail(
            "an author behind a long word, folded",
            format!("From: \"{}\r\n \" <a@old.example>", "w".repeat(997)),
            "x\r\n",
        ),
        mail(
            "addresses without end beside one name",
            format!("From: {} {}", much("n ").split_at(HEADER / 2).0, "<a@b.example>".repeat(9_000)),
            "x\r\n",
        ),
        mail(
            "addresses without end beside a name of ours",
            format!("From: Ann Lee {}", much("<a@b.example>")),
            "x\r\n",
        ),
        mail(
            "authors below a domain of ours",
            format!("From: {}", (0..9_000).map(|n| format!("a@n{n}.ours.example, ")).collect::<String>()),
            "x\r\n",
        ),
        mail("ten thousand From", much(from), "x\r\n"),
        mail(
            "ten thousand signatures",
            much("DKIM-Signature: v=1; a=rsa-sha256; d=b.example; s=s; h=from; bh=; b=\r\n"),
            "x\r\n",
        ),
        mail(
            "ten thousand seals",
            much("ARC-Seal: i=1; a=rsa-sha256; cv=none; d=b.example; s=s; b=\r\n"),
            "x\r\n",
        ),
        mail(
            "a signature of all the header",
            format!("{from}DKIM-Signature: {}", much("h=a:b:c; ")),
            "x\r\n",
        ),
        mail("results of ours, forged", much("Authentication-Results: gate.example; spf=pass\r\n"), "x\r\n"),
        mail(
            "Received-SPF, forged",
            much("Received-SPF: pass (gate.example: x) receiver=gate.example\r\n"),
            "x\r\n",
        ),
    ]
}

/// Trees of parts.
fn hostile_bodies() -> Vec<Mail> {
    let header = |text: &str| format!("From: ann@example.com\r\n{text}");
    let mixed = header("Content-Type: multipart/mixed; boundary=b\r\n");
    let nested: String = (0..3_000)
        .map(|at| format!("Content-Type: multipart/mixed; boundary={at}\r\n\r\n--{at}\r\n"))
        .collect();
    vec![
        mail(
            "a message in a message, 60,000 times",
            header("Content-Type: message/rfc822\r\n"),
            "Content-Type: message/rfc822\r\n\r\n".repeat(60_000),
        ),
        mail(
            "multiparts in multiparts",
            header("Content-Type: multipart/mixed; boundary=b\r\n"),
            format!("--b\r\n{nested}"),
        ),
        mail("more parts than are listed", mixed.clone(), "--b\r\n\r\nhttp://a.example\r\n".repeat(12_000)),
        mail(
            "parts with long names",
            mixed.clone(),
            format!("--b\r\nContent-Disposition: attachment; filename={}\r\n\r\nx\r\n", "n".repeat(60_000))
                .repeat(20),
        ),
        mail(
            "a header without end in a part",
            mixed.clone(),
            format!("--b\r\n{}", "X: y\r\n".repeat(50_000)),
        ),
        mail(
            "one boundary for all",
            mixed.clone(),
            "--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".repeat(5_000),
        ),
        mail("dashes", mixed, "--\r\n".repeat(60_000)),
        mail("no boundary", header("Content-Type: multipart/mixed\r\n"), "x\r\n".repeat(1_000)),
    ]
}

/// Bodies of text, which link scanners and decoders read.
fn hostile_texts() -> Vec<Mail> {
    let header = |text: &str| format!("From: ann@example.com\r\n{text}");
    let html = header("Content-Type: text/html\r\n");
    vec![
        mail("text of one line", html.clone(), "x".repeat(60_000)),
        mail("links", html.clone(), "http://a.example/ ".repeat(12_000)),
        mail(
            "different links",
            html.clone(),
            (0..5_000).map(|at| format!("http://h{at}.example/\r\n")).collect::<String>(),
        ),
        mail("links that are none", html.clone(), "http://".repeat(30_000)),
        mail("names of links without end", html.clone(), format!("http://{}", "a.".repeat(60_000))),
        mail("percent signs", html.clone(), format!("http://{}", "%41".repeat(30_000))),
        mail("references", html, "&#".repeat(60_000)),
        mail(
            "base64 that is none",
            header("Content-Transfer-Encoding: base64\r\n"),
            "!=?\r\n".repeat(30_000),
        ),
        mail(
            "quoted-printable that is none",
            header("Content-Transfer-Encoding: quoted-printable\r\n"),
            "== =\r\n".repeat(30_000),
        ),
        mail(
            "a charset that nobody knows",
            header("Content-Type: text/plain; charset=x-\u{e9}\u{202e}\r\n"),
            vec![0xff; 100_000],
        ),
        mail(
            "a report of a report",
            header("Content-Type: multipart/report; boundary=b; report-type=delivery-status\r\n"),
            "--b\r\nContent-Type: message/delivery-status\r\n\r\n".repeat(9_000),
        ),
    ]
}

fn hostile_envelopes() -> Vec<Mail> {
    let sender = |text: String| Mail { sender: text, ..mail("a sender", "From: a@b.example\r\n", "x\r\n") };
    vec![
        Mail { recipients: RECIPIENTS, ..mail("a thousand recipients", "From: a@b.example\r\n", "x\r\n") },
        sender(String::new()),
        sender(format!("{}@{}example", "l".repeat(64), "d.".repeat(120))),
        sender("prvs=0000000000=ann@example.com".to_owned()),
        sender("\"quoted \\\" local\"@old.example".to_owned()),
    ]
}

/// The stock plugins with every setting on, except those that check senders.
fn other_settings() -> Vec<(&'static str, &'static [GrantKind], Value)> {
    use GrantKind::{Dns, EditEnvelope, EditHeaders, Kv, Relay, Secrets};
    let limit = |count: &str, by: &str| json!({"name": format!("{count} by {by}"), "count": count, "by": by, "max": 1_000_000, "per": "1h", "action": "defer"});
    vec![
        ("header-rewrite", &[EditHeaders, EditEnvelope], header_rewrite_settings()),
        (
            "rate-limit",
            &[Kv],
            json!({"limits": [limit("messages", "network"), limit("recipients", "sender"), limit("messages", "sender-domain")]}),
        ),
        (
            "dnsbl",
            &[Dns],
            json!({"lists": [
                {"zone": "list.example", "weight": 0.1},
                {"zone": "names.example", "of": ["hello", "sender", "links"], "weight": 0.1},
                {"zone": "links.example", "of": ["client", "link-addresses"], "weight": 0.1},
            ], "reject_at": false}),
        ),
        (
            "batv",
            &[EditEnvelope, Secrets],
            json!({"keys": [{"number": 0, "secret": "batv"}], "refuse_at": "data", "domains": ["example.net"], "accept_receipts": true}),
        ),
        (
            "relay-control",
            &[Relay, Kv],
            json!({"rules": [{"name": "all", "action": "allow", "networks": ["192.0.2.0/24"]}], "limits": {"messages_per_hour": 1_000_000, "recipients_per_hour": 1_000_000}}),
        ),
        ("greylist", &[Kv], json!({"delay": "0s"})),
    ]
}

fn header_rewrite_settings() -> Value {
    let rule = |action: &str, value: Value| json!({action: value});
    json!({
        "strip_inbound": ["X-MS-Exchange-Organization-*", "X-*-Strip", "X-"],
        "strip_outbound": ["Received"],
        "strip_outbound_at": "deliver",
        "authserv_ids": ["old.gate.example"],
        "rules": [
            rule("rename", json!({"from": "X-Rename", "to": "X-Renamed"})),
            rule("rename", json!({"from": "X-Rename-Results", "to": "Authentication-Results"})),
            rule("replace", json!({"name": "X-Grow", "matches": "(z)", "with": "$1 ".repeat(100)})),
            rule("replace", json!({"name": "X-Replace*", "matches": "s(e)cret", "with": "$1"})),
            rule("remove", json!({"name": "DKIM-*", "matches": "b=$"})),
            rule("set", json!({"name": "X-Set", "value": "1"})),
            rule("add", json!({"name": "X-Add", "value": "1"})),
        ],
        "addresses": [{"from": "old.example", "to": "example.com", "direction": "any", "in": ["sender", "recipients", "header"]}],
    })
}

/// Every stock plugin with its grants and its settings.
fn settings() -> Vec<(&'static str, &'static [GrantKind], Value)> {
    other_settings().into_iter().chain(sender_check_settings()).collect()
}

/// The settings of the plugins that check senders.
fn sender_check_settings() -> Vec<(&'static str, &'static [GrantKind], Value)> {
    use GrantKind::{EditHeaders, SenderAuth, Sign};
    vec![
        (
            "spf",
            &[SenderAuth, EditHeaders],
            json!({"received_spf": true, "fail": 1, "softfail": 1, "permerror": 1, "temperror": 1, "neutral": 1, "none": 1}),
        ),
        ("dkim", &[SenderAuth, Sign], json!({"none": 1, "fail": 1, "temperror": 1, "seal": "key"})),
        (
            "dmarc",
            &[SenderAuth],
            json!({"reject": 1, "quarantine": 1, "none": 1, "permerror": 1, "temperror": 1, "trusted_sealers": ["lists.example"]}),
        ),
        (
            "spoof-guard",
            &[SenderAuth],
            json!({
                "clients": "all", "own_domains": ["ours.example"], "protect": ["bank.example"],
                "people": {"Ann Lee": ["ann@ours.example"]}, "cousins": true, "distance": 1,
                "places": ["from", "sender", "reply-to", "envelope", "hello"],
                "actions": {"own-domain": 1.0, "own-person": 1.0},
            }),
        ),
    ]
}

async fn stock() -> Plugins {
    let plugin = |(name, grants, settings): (&str, &[GrantKind], Value)| {
        let source = ComponentSource::Bytes { name: format!("stock:{name}"), bytes: component(name) };
        let mut config = PluginConfig::new(name, source);
        config.grants = grants.iter().copied().collect();
        if name != "header-rewrite" {
            // What it renames or replaces must not speak in the gateway's name, and is not to fail for that.
            config.grants.extend([GrantKind::AuthResults, GrantKind::Accept, GrantKind::ReverseDns]);
        }
        config.settings = settings;
        // Memory and work are as in the product. Time is not: the machine that tests may be slow and its host is not optimised.
        // Headers are as large as listeners take them, so that what grows faster than they do takes longer than this.
        let (wall, cpu) = (Duration::from_secs(120), Duration::from_secs(20));
        config.limits = PluginLimits { wall, cpu, max_instances: 2, ..PluginLimits::default() };
        config
    };
    let key = SigningKeyName { name: "key".into(), selector: "s".into() };
    let gateway = Gateway {
        hostname: "gate.example".into(),
        keys: [("example.com".to_owned(), vec![key])].into(),
        secrets: [("batv".to_owned(), SecretKey::new(b"0123456789abcdef"))].into(),
        ..Gateway::default()
    };
    let plugins = settings().into_iter().map(plugin).collect();
    Plugins::open(Config { plugins, gateway, ..Config::default() }, Arc::new(Zone)).await.unwrap()
}

/// Each plugin is asked at each stage, whatever it says: what one refuses, another configuration lets through.
async fn ask(judges: &[Chain], call: Call, view: &mut View, faults: &mut Vec<String>, what: &str) {
    for chain in judges.iter().filter(|chain| chain.wants(call.hook())) {
        let decision: Decision = chain.judge(&call, view).await;
        let told = |step: &pintle_policy::JudgeStep| {
            let fault = step.fault.as_ref()?;
            Some(format!("{what}: {} at {call:?}: {} ({})", step.judge, fault.text, fault.kind.name()))
        };
        faults.extend(decision.steps.iter().filter_map(told));
    }
}

fn recipient(id: usize) -> Recipient {
    let text = match id {
        0 => "rcpt@old.example".to_owned(),
        1 => "prvs=0000000000=rcpt@example.net".to_owned(),
        _ => format!("{}{id}@example.net", "r".repeat(50)),
    };
    Recipient::new(u32::try_from(id).unwrap(), Address::parse(&text, Charset::Ascii).unwrap())
}

async fn send(judges: &[Chain], mail: &Mail) -> Vec<String> {
    let (mut faults, mut view) = (Vec::new(), transaction(&[]));
    let transaction = view.transaction.take();
    ask(judges, Call::Connect, &mut view, &mut faults, &mail.what).await;
    ask(judges, Call::Hello("client.example".into()), &mut view, &mut faults, &mail.what).await;
    view.transaction = transaction;
    envelope(&mut view).sender =
        ReversePath::parse(&mail.sender, Charset::Ascii).unwrap_or(ReversePath::Null);
    ask(judges, Call::Mail, &mut view, &mut faults, &mail.what).await;
    for id in 0..mail.recipients {
        envelope(&mut view).recipients.push(recipient(id));
        // Some of a thousand will do.
        if id < 3 || id % 97 == 0 {
            ask(judges, Call::Rcpt(u32::try_from(id).unwrap()), &mut view, &mut faults, &mail.what).await;
        }
    }
    let header = HeaderBlock::parse(Bytes::from(mail.header.clone()));
    view.message = Some(Arc::new(Message::new(header.clone(), None)));
    ask(judges, Call::Headers, &mut view, &mut faults, &mail.what).await;
    let body = Arc::new(Bytes::from(mail.body.clone()));
    Arc::make_mut(view.message.as_mut().unwrap()).body = Some(body);
    ask(judges, Call::Message, &mut view, &mut faults, &mail.what).await;
    view.delivery = Some(Arc::new(Delivery {
        attempt: 1,
        age: Duration::ZERO,
        recipients: envelope(&mut view).recipients.clone(),
        next_hop: NextHop::Mx("example.net".into()),
        unlisted: false,
        tls: TlsPolicy::Opportunistic,
        tls_asked: None,
        source: None,
        credentials: None,
        retry_after: None,
        no_bounce: Vec::new(),
        leases: Leases::default(),
    }));
    ask(judges, Call::Deliver, &mut view, &mut faults, &mail.what).await;
    tell_the_result(judges, &mut view, &mut faults, &mail.what).await;
    let left = view.message.unwrap();
    let forged =
        left.header.iter().filter(|field| field.name_text().starts_with("X-MS-Exchange-Organization-"));
    faults.extend(forged.take(1).map(|_| format!("{}: a forged field has passed", mail.what)));
    faults
}

/// What the next hop says is a stranger's word as well.
async fn tell_the_result(judges: &[Chain], view: &mut View, faults: &mut Vec<String>, what: &str) {
    let outcome = |recipient: &Recipient| DeliveryOutcome {
        recipient: recipient.id,
        next_hop: Some("mx.example.net".into()),
        reply: Some(Reply::new(550, EnhancedCode(5, 1, 1), "\u{202e}<b>=?utf-8?q?".repeat(100))),
        status: if recipient.id.is_multiple_of(2) { AttemptStatus::Deferred } else { AttemptStatus::Failed },
        details: Vec::new(),
    };
    let outcomes: Arc<[DeliveryOutcome]> = envelope(view).recipients.iter().map(outcome).collect();
    for chain in judges.iter().filter(|chain| chain.wants(Hook::DeliveryResult)) {
        let (steps, _) = chain.delivery_result(&outcomes, view).await;
        let told = steps.into_iter().filter_map(|step| Some((step.judge, step.fault?.text)));
        faults.extend(told.map(|(judge, text)| format!("{what}: {judge} at on-delivery-result: {text}")));
    }
}

fn envelope(view: &mut View) -> &mut pintle_mail::Envelope {
    &mut Arc::make_mut(view.transaction.as_mut().unwrap()).envelope
}

/// All stock plugins that there are: a new one has its place in [`settings`].
fn in_the_folder() -> BTreeSet<String> {
    let folder = pintle_guest_build::repository().join("plugins");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let crates = entries.filter(|path| path.join("Cargo.toml").is_file());
    crates.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_makes_a_stock_plugin_fail() {
    let mails: Vec<Mail> = [
        hostile_fields(),
        hostile_headers(),
        hostile_rewrites(),
        hostile_authors(),
        hostile_bodies(),
        hostile_texts(),
        hostile_envelopes(),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(mails.len() >= 100, "{}", mails.len());
    let plugins = stock().await;
    let chains: Vec<Chain> = plugins.judges().into_iter().map(|judge| Chain::new(vec![judge])).collect();
    assert_eq!(chains.len(), settings().len());
    assert_eq!(in_the_folder(), settings().iter().map(|(name, ..)| (*name).to_owned()).collect());
    assert!(chains.iter().any(|chain| chain.wants(Hook::Headers)));
    let mut faults = Vec::new();
    for mail in &mails {
        faults.extend(send(&chains, mail).await);
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    plugins.shutdown().await;
}
