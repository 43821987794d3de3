//! `pintle try` against the wire: for each message of the corpora, the dry run and the running gateway give the same
//! verdicts of each plugin, the same reply, the same event records, and the same header on delivery.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use e2e::{corpus, spoofs};
use serde_json::Value;

use super::{Edge, INSIDE, LISTED, LISTS, ORDINARY, STRANGER, ZONES};

/// The hooks before a message is accepted.
const RECEIVING: [&str; 7] = ["connect", "hello", "auth", "mail", "rcpt", "headers", "message"];

/// A message for the gateway and for the dry run.
struct Mail<'a> {
    from: IpAddr,
    sender: &'a str,
    recipient: &'a str,
    message: Vec<u8>,
}

impl Mail<'_> {
    /// The parameters of MAIL that a client gives which sends what is offered to it.
    fn parameters(&self) -> String {
        let header = self.message.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or(self.message.len());
        let body = if self.message.is_ascii() { "" } else { " BODY=8BITMIME" };
        let utf8 = if self.message[..header].is_ascii() { "" } else { " SMTPUTF8" };
        format!(" SIZE={}{body}{utf8}", self.message.len())
    }
}

/// What the wire shows of a message.
#[derive(Debug)]
struct Wire {
    code: u16,
    text: String,
    /// The event records since the session began.
    records: Vec<Value>,
}

/// How many messages had which fate.
#[derive(Debug, Default)]
struct Counts {
    arrived: usize,
    left: usize,
    refused: usize,
    held: usize,
}

/// Lets the log have the verdict of each plugin, and gives one client more messages than the example does: how many there were
/// before is known to the running gateway alone.
fn exchanges() -> [(&'static str, String); 2] {
    [
        ("format = \"json\"", "format = \"json\"\nlevel = \"debug\"".to_owned()),
        ("burst = 100", "burst = 500".to_owned()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_the_edge_does_with_ordinary_mail() {
    let list = corpus::list();
    let envelopes = corpus::envelopes(&list);
    let edge = Edge::of_ours(&corpus::honest_zones(&envelopes, "-all"), &exchanges()).await;
    let mut counts = Counts::default();
    for (name, envelope) in &envelopes {
        let (from, message) = (IpAddr::from([127, 0, 0, envelope.client]), corpus::message(name));
        let mail = Mail { from, sender: envelope.sender, recipient: "ann.lee@ours.example", message };
        edge.compare(&mail, &mut counts).await;
    }
    assert!(counts.arrived > 50, "{counts:?}");
    edge.compare_quarantine(&counts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_the_edge_does_with_spoofs() {
    let text = std::fs::read_to_string(corpus::folder().join("spoofs")).unwrap();
    let zones = "evil.example TXT \"v=spf1 ip4:127.0.0.66 -all\"\n_dmarc.evil.example TXT \"v=DMARC1; p=reject\"\n\
        lists.example TXT \"v=spf1 ip4:127.0.0.80 -all\"\nfreemail.example TXT \"v=spf1 ip4:127.0.0.80 -all\"";
    let edge = Edge::of_ours(zones, &exchanges()).await;
    let mut counts = Counts::default();
    for case in spoofs::cases(&text) {
        let (from, message) = (IpAddr::from([127, 0, 0, case.client]), case.message());
        edge.compare(&Mail { from, sender: case.sender, recipient: "b@ours.example", message }, &mut counts)
            .await;
    }
    assert!(counts.arrived > 5 && counts.refused + counts.held > 20, "{counts:?}");
    edge.compare_quarantine(&counts);
}

/// One message for each way in which the example treats mail.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_the_edge_does_with_each_kind_of_mail() {
    let edge = Edge::of("example.org", &format!("{ZONES}\n{LISTS}"), &exchanges()).await;
    let looping = "Received: by a.example; Sun, 22 Nov 2026 10:00:00 +0000\n".repeat(31);
    let forged = |author: &str| format!("From: {author}\nTo: erika@example.org\nSubject: x\n\nx\n");
    let out = "Received: from pc7 by exchange\nFrom: Erika <erika@example.org>\nTo: sue@there.example\n\
        Date: Sun, 22 Nov 2026 10:00:00 +0000\nMessage-ID: <1@example.org>\n\nout\n";
    let mut counts = Counts::default();
    for (from, sender, recipient, message) in [
        (STRANGER, "joe@good.example", "erika@example.org", ORDINARY.to_owned()),
        (STRANGER, "joe@good.example", "PostMaster", ORDINARY.to_owned()),
        (STRANGER, "joe@good.example", "somebody@there.example", ORDINARY.to_owned()),
        (STRANGER, "joe@good.example", "erika@example.org", format!("{looping}{ORDINARY}")),
        (STRANGER, "joe@good.example", "erika@example.org", format!("{ORDINARY}\0\n")),
        (STRANGER, "", "erika@example.org", forged("<mailer@good.example>")),
        (STRANGER, "joe@other.example", "erika@example.org", forged("boss@strict.example")),
        (STRANGER, "joe@second.example", "erika@example.org", forged("ceo@example.org")),
        (LISTED, "joe@good.example", "erika@example.org", ORDINARY.to_owned()),
        (INSIDE, "erika@example.org", "sue@there.example", out.to_owned()),
    ] {
        let message = message.replace('\n', "\r\n").into_bytes();
        edge.compare(&Mail { from, sender, recipient, message }, &mut counts).await;
    }
    assert!(counts.arrived > 1 && counts.left == 1 && counts.refused > 4, "{counts:?}");
    edge.compare_quarantine(&counts);
}

impl Edge {
    /// Sends a message, plays it, and compares.
    async fn compare(&self, mail: &Mail<'_>, counts: &mut Counts) {
        let mut wire = self.wire(mail).await;
        if wire.code == 451 && wire.text.contains("Greylisted") {
            wire = self.wire(mail).await;
        }
        let report = self.dry_run(mail.from, mail.sender, mail.recipient, &mail.message);
        let about = || format!("<{}> to <{}>: {wire:#?}\n{report:#}", mail.sender, mail.recipient);
        assert_eq!(played_verdicts(&report), wire.verdicts(), "{}", about());
        assert_eq!(played_records(&report), wire.stable_records(), "{}", about());
        match report["fate"].as_str().unwrap() {
            "accepted" => {
                assert_eq!(wire.code, 250, "{}", about());
                let header = self.delivered_header(mail.from, counts).await;
                let stages = report["stages"].as_array().unwrap();
                let deliver = stages.iter().find(|stage| stage["stage"] == "deliver").unwrap();
                assert_eq!(stable(deliver["header"].as_str().unwrap()), stable(&header), "{}", about());
            }
            "quarantined" => {
                assert_eq!(wire.code, 250, "{}", about());
                counts.held += 1;
            }
            _ => {
                let said = wire.text.split(" (session ").next().unwrap();
                assert_eq!(report["reply"], format!("{} {said}", wire.code), "{}", about());
                counts.refused += 1;
            }
        }
    }

    /// Sends a message, and waits for the records about it.
    async fn wire(&self, mail: &Mail<'_>) -> Wire {
        let before = self.gateway.log().lines().count();
        let (code, text) =
            self.offer_with(mail.from, mail.sender, &mail.parameters(), mail.recipient, &mail.message).await;
        let last = text.trim_end_matches(')').rsplit(' ').next().unwrap();
        if code == 250 {
            self.gateway.wait_for(&format!("\"event\":\"reception\",\"queue_id\":\"{last}\""));
            // A held message has a hold record in the log, any other a delivery record.
            let _ = self.gateway.line_of_any(
                &["hold", "delivery"].map(|event| format!("\"event\":\"{event}\",\"queue_id\":\"{last}\"")),
            );
        } else {
            // The protocol machine refuses some messages itself, which makes no record.
            self.wait_since(before, &["\"event\":\"rejection\"", "\"fault\":\""]).await;
        }
        let log = self.gateway.log();
        Wire { code, records: log.lines().skip(before).filter_map(record).collect(), text }
    }

    /// Waits for a line with one of these texts, after so many lines of the log.
    async fn wait_since(&self, before: usize, texts: &[&str]) {
        let is_there = || {
            let log = self.gateway.log();
            log.lines().skip(before).any(|line| texts.iter().any(|text| line.contains(text)))
        };
        let start = std::time::Instant::now();
        while !is_there() {
            assert!(start.elapsed() < e2e::PATIENCE, "no {texts:?} in {}", self.gateway.log());
            tokio::task::yield_now().await;
        }
    }

    async fn delivered_header(&self, from: IpAddr, counts: &mut Counts) -> String {
        let (sink, count) = if from == INSIDE {
            (&self.world, &mut counts.left)
        } else {
            (&self.exchange, &mut counts.arrived)
        };
        *count += 1;
        let copy = sink.wait_for(*count).await.pop().unwrap();
        String::from_utf8_lossy(&copy.message).split("\r\n\r\n").next().unwrap().to_owned() + "\r\n"
    }

    fn compare_quarantine(&self, counts: &Counts) {
        let list: Value =
            serde_json::from_str(&self.quarantine(&["list", "--limit", "1000", "--json"])).unwrap();
        assert_eq!(list["messages"].as_array().unwrap().len(), counts.held, "{list}");
    }
}

impl Wire {
    /// Hook, plugin and verdict, in the order of the calls, as far as the message is not yet accepted.
    fn verdicts(&self) -> Vec<[String; 3]> {
        let is_verdict =
            |record: &&Value| ["plugin-verdict", "plugin-fault"].contains(&record["event"].as_str().unwrap());
        let verdicts = self.records.iter().filter(is_verdict);
        verdicts
            .map(|record| ["hook", "plugin", "verdict"].map(|key| record[key].as_str().unwrap().to_owned()))
            .filter(|[hook, ..]| RECEIVING.contains(&hook.as_str()))
            .collect()
    }

    fn stable_records(&self) -> Vec<Value> {
        stable_records(self.records.iter())
    }
}

/// The record in a line of the log, if there is one.
fn record(line: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).ok()?;
    [&line["record"], &line["fields"]["record"]].into_iter().find(|record| record.is_object()).cloned()
}

/// As [`Wire::verdicts`].
fn played_verdicts(report: &Value) -> Vec<[String; 3]> {
    let stages = report["stages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|stage| RECEIVING.contains(&stage["stage"].as_str().unwrap()));
    let of = |stage: &Value| -> Vec<[String; 3]> {
        let plugins = stage["plugins"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        plugins
            .map(|plugin| [text(&stage["stage"]), text(&plugin["plugin"]), text(&plugin["verdict"])])
            .collect()
    };
    stages.flat_map(of).collect()
}

fn played_records(report: &Value) -> Vec<Value> {
    stable_records(report["records"].as_array().unwrap().iter())
}

/// The records of the receiving side, without what differs between sessions: ids, times, ports.
fn stable_records<'a>(records: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    const KINDS: [&str; 6] =
        ["reception", "rejection", "discard", "dmarc-evaluation", "hold", "plugin-fault"];
    let records = records.filter(|record| KINDS.contains(&record["event"].as_str().unwrap()));
    let stable = |record: &Value| {
        let mut members: BTreeMap<String, Value> = serde_json::from_value(record.clone()).unwrap();
        members.retain(|name, _| !["time", "queue-id", "session"].contains(&name.as_str()));
        if let Some(client) = members.get_mut("client") {
            let address: SocketAddr = client.as_str().unwrap().parse().unwrap();
            *client = address.ip().to_string().into();
        }
        serde_json::to_value(members).unwrap()
    };
    records.map(stable).collect()
}

/// A header without the parts that differ between sessions: ids, times, and the signatures over them.
fn stable(header: &str) -> String {
    let unfolded = header.replace("\r\n\t", " ").replace("\r\n ", " ");
    let varies = |tag: &&str| !["b=", "t=", "x="].iter().any(|name| tag.trim_start().starts_with(name));
    let field = |line: &str| match line.split_once(':') {
        Some((name, value)) if name.starts_with("ARC-") || name == "DKIM-Signature" => {
            format!("{name}:{}", value.split(';').filter(varies).collect::<Vec<_>>().join(";"))
        }
        Some(("Received", value)) => {
            let (before, after) = value.split_once(" id ").unwrap_or((value, ""));
            let after = after.split_once(' ').map_or(after, |(_, after)| after);
            format!("Received:{before}{}", after.split(';').next().unwrap_or_default())
        }
        _ => line.to_owned(),
    };
    unfolded.lines().map(field).collect::<Vec<_>>().join("\n")
}
