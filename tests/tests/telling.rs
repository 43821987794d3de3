//! The log, for people and machines: one name for the queue id, one line per event, and the client's address.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use e2e::{Gateway, binary, configuration};
use pintle_testkit::{Act, Client, Script, Sink, SinkStep, TempDir, TestCa};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const MESSAGE: &[u8] = b"Message-ID: <1@client.example>\r\n\
    Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe=0AERROR_forged=1B[2J?=\r\n\r\nhello\r\n";

/// A next hop that refuses one recipient and defers another.
async fn choosy() -> Sink {
    let refuse = |reply: &str| Act::Reply(reply.into());
    let script = Script::new()
        .on_line(SinkStep::Rcpt, "never@ours.example", refuse("550 5.1.1 no such user"))
        .on_line(SinkStep::Rcpt, "later@ours.example", refuse("451 4.2.1 mailbox busy"));
    Sink::start(script).await
}

async fn send(gateway: &Gateway, listener: &str) {
    let mut client = Client::connect(gateway.address(listener)).await;
    client.hello("client.example").await;
    let to = ["b@ours.example", "never@ours.example", "later@ours.example"];
    client.deliver("a@x.example", &to, MESSAGE).await;
}

fn grey(folder: &Path, next_hop: std::net::SocketAddr) -> std::path::PathBuf {
    let more = format!(
        "[plugins]\ncache = \"{}\"\n[[plugin]]\nname = \"grey\"\ncomponent = \"stock:greylist\"\ngrants = [\"kv\"]\n",
        binary().with_file_name("plugin-cache").display()
    );
    configuration(folder, next_hop, &more)
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_get_objects_under_one_name_and_each_event_once() {
    let (folder, sink) = (TempDir::new().unwrap(), choosy().await);
    let gateway = Gateway::start(&grey(folder.path(), sink.address()));
    let mut stranger = Client::connect(gateway.address("mx")).await;
    stranger.hello("client.example").await;
    stranger.ask("MAIL FROM:<a@x.example>", 250).await;
    stranger.ask("RCPT TO:<b@ours.example>", 451).await;
    send(&gateway, "inside").await;
    for event in ["delivery", "deferral", "bounce", "report"] {
        gateway.wait_for(&format!("\"event\":\"{event}\""));
    }
    let log = gateway.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with = |name: &str, value: &str| -> Vec<&Value> {
        lines.iter().filter(|line| line.to_string().contains(value) && line[name].is_string()).collect()
    };
    let said = with("plugin", "asked to retry in").remove(0);
    assert_eq!(said["fields"]["network"], "127.0.0.0/24", "{said}");
    assert_eq!(said["fields"]["sender"], "a@x.example", "{said}");
    let id = said["queue_id"].as_str().unwrap();
    let refusal = with("queue_id", "\"rejection\"").remove(0);
    assert_eq!((&refusal["queue_id"], &refusal["record"]["queue-id"]), (&id.into(), &id.into()));
    for line in &lines {
        let is_other_name = |name: &&str| line.get(name).is_some() || line["record"].get(name).is_some();
        assert_eq!(["queue", "id"].iter().find(|name| is_other_name(name)), None, "{line}");
    }
    let reception = with("queue_id", "\"reception\"").remove(0)["record"].clone();
    assert_eq!(reception["message-id"], "<1@client.example>");
    assert_eq!(reception["subject"], "Grüße\u{fffd}ERROR forged\u{fffd}[2J");
    for recipient in ["never@ours.example", "later@ours.example"] {
        let of_outcome = |line: &&Value| {
            let recipient_of = [&line["recipient"], &line["record"]["recipient"]];
            recipient_of.iter().any(|value| **value == *recipient)
        };
        let told: Vec<_> = lines.iter().filter(of_outcome).collect();
        assert_eq!(told.len(), 1, "{told:#?}");
    }
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn people_get_lines_without_json() {
    let (folder, sink) = (TempDir::new().unwrap(), choosy().await);
    let config = configuration(folder.path(), sink.address(), "");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("format = \"json\"", "format = \"text\"")).unwrap();
    let gateway = Gateway::spawn(Command::new(binary()).arg("run").arg("-c").arg(&config));
    let line = gateway.line("listening listener=\"inside\"");
    let address = line.split("address=").nth(1).unwrap().trim().parse().unwrap();
    gateway.wait_for("ready");
    let mut client = Client::connect(address).await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@ours.example", "later@ours.example"], MESSAGE).await;
    let deferral = gateway.line("pintle::record: deferral queue_id=");
    for part in ["recipient=later@ours.example", "next_hop=relay:sink", "reply=\"451 4.2.1 mailbox busy\""] {
        assert!(deferral.contains(part), "{part} is not in {deferral}");
    }
    let reception = gateway.line("pintle::record: reception queue_id=");
    assert!(reception.contains("subject=\"Grüße\u{fffd}ERROR forged\u{fffd}[2J\""), "{reception}");
    gateway.wait_for("pintle::record: delivery queue_id=");
    let log = gateway.log();
    assert!(!log.contains("\"event") && !log.contains("\\\""), "JSON in lines for people: {log}");
    gateway.stop();
}

/// A client hello of TLS 1.0: one cipher, no extension.
fn old_hello() -> Vec<u8> {
    let body = [&[3, 1][..], &[7; 32], &[0], &[0, 2, 0xc0, 0x13], &[1, 0]].concat();
    let length = |octets: &[u8]| u8::try_from(octets.len()).unwrap();
    let message = [&[1, 0, 0, length(&body)][..], &body].concat();
    [&[22, 3, 1, 0, length(&message)][..], &message].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_served_is_named_by_address_and_told_apart() {
    let (folder, sink) = (TempDir::new().unwrap(), Sink::start(Script::new()).await);
    let files = TestCa::new().issue(&["gate.example"]).write(folder.path(), "gate");
    let more = format!(
        "[[tls.certificate]]\nchain = {:?}\nkey = {:?}\n[[listener]]\nname = \"tls\"\nkind = \"submission\"\n\
         addresses = [\"127.0.0.1:0\"]\ntls = \"implicit\"\n[[user]]\nname = \"ann\"\npassword = \"secret\"\n",
        files.chain, files.key
    );
    let config = configuration(folder.path(), sink.address(), &more);
    let text = std::fs::read_to_string(&config).unwrap();
    let mx = "name = \"mx\"\naddresses = [\"127.0.0.1:0\"]\ntls = \"none\"";
    assert!(text.contains(mx));
    std::fs::write(&config, text.replace(mx, &mx.replace("none", "starttls"))).unwrap();
    let gateway = Gateway::start(&config);

    let mut old = TcpStream::connect(gateway.address("tls")).await.unwrap();
    old.write_all(&old_hello()).await.unwrap();
    let by_starttls = async |octets: &[u8], from: [u8; 4]| {
        let mut client = Client::connect_from(from.into(), gateway.address("mx")).await;
        client.hello("client.example").await;
        client.ask("STARTTLS", 220).await;
        client.send_raw(octets).await;
        client
    };
    let _old = by_starttls(&old_hello(), [127, 0, 0, 21]).await;
    let _plain = by_starttls(b"EHLO again\r\n", [127, 0, 0, 22]).await;
    let mut odd = Client::connect_from([127, 0, 0, 23].into(), gateway.address("mx")).await;
    odd.hello("client.example").await;
    odd.ask("MAIL FROM:<a@x.example> COLOUR=green", 555).await;

    for (client, listener, what) in [
        ("127.0.0.1", "tls", "the peer offers TLS 1.0 at best"),
        ("127.0.0.21", "mx", "the peer offers TLS 1.0 at best"),
        ("127.0.0.22", "mx", "plain text instead of TLS"),
        ("127.0.0.23", "mx", "\"fault\":\"unknown_parameter\""),
    ] {
        let is_it = |line: &&str| line.contains(&format!("\"client\":\"{client}\"")) && line.contains(what);
        gateway.wait_for(&format!("\"client\":\"{client}\",\"listener\":\"{listener}\""));
        let log = gateway.log();
        assert!(log.lines().any(|line| is_it(&line)), "{client}: {what} is not in {log}");
    }
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_finds_no_session_free_is_named_by_address() {
    let (folder, sink) = (TempDir::new().unwrap(), Sink::start(Script::new()).await);
    let config = configuration(folder.path(), sink.address(), "");
    let text = std::fs::read_to_string(&config).unwrap();
    let mx = "name = \"mx\"\n";
    assert!(text.contains(mx));
    std::fs::write(&config, text.replace(mx, "name = \"mx\"\nmax_per_address = 1\n")).unwrap();
    let gateway = Gateway::start(&config);
    let from = [127, 0, 0, 24].into();
    let mut first = Client::connect_from(from, gateway.address("mx")).await;
    assert_eq!(first.reply().await.code, 220);
    let mut second = Client::connect_from(from, gateway.address("mx")).await;
    let reply = second.reply().await;
    assert_eq!(reply.code, 421, "{reply:?}");
    gateway.wait_for("connection refused: too many sessions");
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("connection refused")).unwrap();
    for part in ["\"client\":\"127.0.0.24\"", "\"listener\":\"mx\"", "\"limit\":\"address\""] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    gateway.stop();
}
