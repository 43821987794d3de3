//! Quarantines, as an operator lists, releases and deletes them on the real binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use e2e::{Gateway, PATIENCE, binary, configuration};
use pintle_testkit::{Client, Script, Sink, SmtpReply, TempDir, ZoneServer};
use serde_json::Value;

/// A domain whose policy is to quarantine forgeries.
const ZONES: &str = "_dmarc.x.example TXT \"v=DMARC1; p=quarantine\"";

/// A gateway that applies DMARC, and its peers.
struct Stage {
    gateway: Option<Gateway>,
    sink: Sink,
    config: PathBuf,
    folder: TempDir,
    _zone: ZoneServer,
}

/// The result of a command: exit code, standard output and standard error.
struct Said {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Said {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

impl Stage {
    /// `plugin` is the configuration of stock:dmarc, `more` sections of the file.
    async fn start(plugin: &str, more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let sink = Sink::start(Script::new()).await;
        let zone = ZoneServer::start(ZONES).await;
        let cache = binary().with_file_name("plugin-cache");
        let more = format!(
            "[dns]\nservers = [\"{}\"]\n{more}\n[plugins]\ncache = \"{}\"\n[[plugin]]\nname = \"dmarc\"\n\
             component = \"stock:dmarc\"\ngrants = [\"sender-auth\", \"auth-results\"]\nconfig = {{ {plugin} }}\n",
            zone.address(),
            cache.display()
        );
        let config = configuration(folder.path(), sink.address(), &more);
        let gateway = Some(Gateway::start(&config));
        Self { gateway, sink, config, folder, _zone: zone }
    }

    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    /// A client outside that claims to be a@x.example.
    async fn forge(&self, subject: &str) {
        let reply = self.try_to_forge(subject).await;
        assert_eq!(reply.code, 250, "{reply:?}");
    }

    /// Sends the message and returns the final reply.
    async fn try_to_forge(&self, subject: &str) -> SmtpReply {
        let from = [127, 0, 0, 66].into();
        let mut client = Client::connect_from(from, self.gateway().address("mx")).await;
        client.hello("client.example").await;
        let head = format!("From: <a@x.example>\r\nSubject: {subject}\r\n\r\n");
        let body = b"\r\n.a line with a dot\r\nnot only ASCII: \xff\x80\xfe\r\n..\r\n\tend  \r\n";
        client.envelope("a@x.example", &["b@ours.example"]).await;
        client.send_data(&[head.as_bytes(), body].concat()).await;
        client.reply().await
    }

    fn pintle(&self, arguments: &[&str]) -> Said {
        let output = Command::new(binary())
            .args(arguments)
            .arg("-c")
            .arg(&self.config)
            .current_dir(self.folder.path())
            .env("USER", "anna")
            .env_remove("SUDO_USER")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            out: output.stdout,
        }
    }

    /// The quarantined messages, as JSON.
    fn list(&self, more: &[&str]) -> Vec<Value> {
        let said = self.pintle(&[&["quarantine", "list", "--json"], more].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        let page: Value = serde_json::from_slice(&said.out).unwrap();
        page["messages"].as_array().unwrap().clone()
    }

    /// Waits for a line of the metrics.
    fn wait_for_metric(&self, line: &str) {
        let start = Instant::now();
        loop {
            let metrics = metrics(&self.folder.path().join("admin.sock"));
            if metrics.lines().any(|each| each == line) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "no {line} in\n{metrics}");
        }
    }
}

fn metrics(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The messages without their expiry times, which must be present.
fn without_expiry(mut messages: Vec<Value>) -> Vec<Value> {
    for message in &mut messages {
        let expires = message.as_object_mut().unwrap().remove("expires_ms");
        assert!(expires.is_some_and(|expires| expires.is_number()));
    }
    messages
}

fn id(message: &Value) -> String {
    message["id"].as_str().unwrap().to_owned()
}

/// A command for all held messages must not release one that was quarantined for inspection.
#[tokio::test(flavor = "multi_thread")]
async fn the_queue_s_commands_leave_quarantines_alone_unless_a_message_is_named() {
    let stage = Stage::start("", "").await;
    stage.forge("the first").await;
    let first = id(&stage.list(&[])[0]);
    for condition in [&["--held", "true"][..], &["--all"], &["--sender", "x.example"]] {
        let said = stage.pintle(&[&["queue", "release"], condition].concat());
        let text = said.text();
        assert!(said.code == 0 && text.contains("left in quarantine dmarc"), "{text}{}", said.err);
        assert!(text.contains("0 messages: release"), "{text}");
    }
    let said = stage.pintle(&["queue", "retry", &first]);
    assert!(said.code == 1 && said.text().contains("left in quarantine dmarc"), "{}", said.text());
    assert_eq!((stage.list(&[]).len(), stage.sink.log().sessions), (1, 0));
    assert_eq!(stage.list(&["--sender", ""]).len(), 0, "it has a sender");
    let said = stage.pintle(&["queue", "release", &first]);
    assert_eq!(said.code, 0, "{}{}", said.text(), said.err);
    stage.sink.wait_for(1).await;
}

/// Checks what list, show and the metrics say about two quarantined messages, and returns their list.
fn the_reasons_are_shown(stage: &Stage) -> Vec<Value> {
    let messages = stage.list(&[]);
    assert_eq!(messages.len(), 2);
    for (key, value) in [
        ("quarantine", "dmarc"),
        ("by", "dmarc"),
        ("stage", "message"),
        ("sender", "a@x.example"),
        ("subject", "the first"),
    ] {
        assert_eq!(messages[0][key], value, "{key}: {}", messages[0]);
    }
    let results = messages[0]["results"].as_array().unwrap();
    assert!(results.iter().any(|result| result.as_str().unwrap().starts_with("dmarc=fail")), "{results:?}");
    let text = stage.pintle(&["quarantine", "list", "dmarc"]).text();
    assert!(
        text.contains("the second") && text.contains("by dmarc at message") && text.contains("dmarc=fail")
    );
    assert_eq!(stage.list(&["odd"]).len(), 0);
    assert_eq!(stage.list(&["--recipient", "B@OURS", "--sender", "x.example", "--limit", "1"]).len(), 1);
    let shown = stage.pintle(&["quarantine", "show", &id(&messages[0])]).text();
    assert!(shown.contains("expires") && shown.contains("Subject: the first\n"), "{shown}");
    stage.wait_for_metric("pintle_quarantine_messages{quarantine=\"dmarc\"} 2");
    messages
}

/// Checks that one message is released as it was shown, and the other deleted.
async fn one_is_released_and_one_deleted(stage: &Stage, first: &str, second: &str, raw: &[u8]) {
    let released = stage.pintle(&["quarantine", "release", first]);
    assert_eq!((released.code, released.err.as_str()), (0, ""));
    assert!(released.text().contains(&format!("{first}  released")), "{}", released.text());
    let arrived = stage.sink.wait_for(1).await;
    assert!(arrived[0].message == raw, "{:?}", String::from_utf8_lossy(&arrived[0].message));
    let line = stage.gateway().line("\"release\"");
    assert!(line.contains(r#""quarantine":"dmarc""#) && line.contains(r#""user":"anna""#), "{line}");

    let deleted = stage.pintle(&["quarantine", "delete", second]);
    assert_eq!(deleted.code, 0, "{}", deleted.text());
    let line = stage.gateway().line("\"discard\"");
    assert!(line.contains(second) && line.contains(r#""stage":"quarantine""#), "{line}");
    let again = stage.pintle(&["quarantine", "delete", second]);
    assert!(
        again.code == 1 && again.text().contains(&format!("{second}  not deleted: no such")),
        "{}",
        again.text()
    );
    let unknown = stage.pintle(&["quarantine", "show", second, "--raw"]);
    assert!(unknown.code == 1 && unknown.out.is_empty() && unknown.err.contains(second), "{}", unknown.err);
    stage.wait_for_metric("pintle_quarantine_messages{quarantine=\"dmarc\"} 0");
    stage.wait_for_metric("pintle_quarantine_total{act=\"released\"} 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_seen_with_its_reason_survives_a_kill_and_arrives_when_released() {
    let mut stage = Stage::start("", "").await;
    stage.forge("the first").await;
    stage.forge("the second").await;
    let messages = the_reasons_are_shown(&stage);
    let (first, second) = (id(&messages[0]), id(&messages[1]));

    let raw = stage.pintle(&["quarantine", "show", &first, "--raw"]).out;
    let header = stage.pintle(&["quarantine", "show", &first, "--header"]).out;
    let body = stage.pintle(&["quarantine", "show", &first, "--body"]).out;
    assert!(header.ends_with(b"\r\n\r\n") && [header, body].concat() == raw);
    stage.gateway.take().unwrap().kill();
    stage.gateway = Some(Gateway::start(&stage.config));
    // The expiry is computed again from the new process's clocks, which may differ slightly.
    assert_eq!(without_expiry(stage.list(&[])), without_expiry(messages));

    let queue = stage.pintle(&["queue", "list"]).text();
    assert!(queue.contains("[quarantine dmarc]"), "{queue}");
    let refused = stage.pintle(&["queue", "bounce", &first]);
    assert!(refused.code == 1 && refused.text().contains("left in quarantine dmarc"), "{}", refused.text());
    assert_eq!(stage.sink.log().sessions, 0);

    one_is_released_and_one_deleted(&stage, &first, &second, &raw).await;
    let log = stage.gateway().log();
    stage.gateway.take().unwrap().stop();
    assert_eq!(stage.sink.log().accepted().count(), 1, "neither the deleted one nor a report on it");
    assert!(!log.contains("\"report\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_leave_by_name_and_by_age() {
    let mut stage = Stage::start("", "").await;
    for n in 0..3 {
        stage.forge(&format!("number {n}")).await;
    }
    let none = stage.pintle(&["quarantine", "delete", "--older-than", "30d"]);
    assert_eq!((none.code, none.text().as_str()), (0, "0 of 0 messages: deleted\n"));
    let none = stage.pintle(&["quarantine", "release", "--all", "odd"]);
    assert_eq!((none.code, none.text().as_str()), (0, "0 of 0 messages: released\n"));
    let which = stage.pintle(&["quarantine", "delete"]);
    assert!(which.code == 1 && which.err.contains("say which messages"), "{}", which.err);
    let all = stage.pintle(&["quarantine", "release", "--all", "dmarc", "--older-than", "1ms"]);
    assert!(all.code == 0 && all.text().ends_with("3 of 3 messages: released\n"), "{}", all.text());
    stage.sink.wait_for(3).await;
    stage.forge("too late").await;
    let all = stage.pintle(&["quarantine", "delete", "--all", "--json"]);
    let left: Value = serde_json::from_slice(&all.out).unwrap();
    assert_eq!(left["messages"][0]["done"], true, "{left}");
    assert_eq!(stage.list(&[]).len(), 0);
    stage.gateway.take().unwrap().stop();
    assert_eq!(stage.sink.log().accepted().count(), 3);
}

/// Untrusted clients cannot fill the disk with quarantined mail: beyond the quota their mail is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_quarantine_refuses_for_now_and_other_mail_passes() {
    let mut stage = Stage::start("", "[quarantine]\nmax_messages = { dmarc = 2 }").await;
    stage.forge("the first").await;
    stage.forge("the second").await;
    let reply = stage.try_to_forge("the third").await;
    assert!(reply.code == 452 && reply.text().contains("4.3.1"), "{reply:?}");
    assert!(!reply.text().contains("quarantine"), "{reply:?}");
    let line = stage.gateway().line("\"rejection\"");
    assert!(line.contains(r#""by":"quota""#), "{line}");
    stage.gateway().wait_for("is refused, and others will be until there is room");
    stage.gateway().wait_for("a quarantine is nearly full");
    assert_eq!(stage.list(&[]).len(), 2);
    stage.wait_for_metric("pintle_quarantine_total{act=\"refused\"} 1");
    stage.wait_for_metric("pintle_quarantine_full_ratio{quarantine=\"dmarc\"} 1");
    let mut client = Client::connect(stage.gateway().address("mx")).await;
    client.hello("client.example").await;
    client.deliver("a@y.example", &["b@ours.example"], b"From: <a@y.example>\r\n\r\nhello\r\n").await;
    stage.sink.wait_for(1).await;
    assert_eq!(stage.pintle(&["quarantine", "delete", "--all"]).code, 0);
    stage.forge("the fourth").await;
    assert_eq!(stage.list(&[]).len(), 1);
    stage.gateway.take().unwrap().stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_quarantine_drops_its_oldest_where_the_operator_wants_it() {
    let more = "[quarantine]\nmax_messages = 2\nwhen_full = \"drop-oldest\"";
    let mut stage = Stage::start("", more).await;
    for subject in ["the first", "the second", "the third"] {
        stage.forge(subject).await;
    }
    let subjects: Vec<_> = stage.list(&[]).iter().map(|message| message["subject"].clone()).collect();
    assert_eq!(subjects, ["the second", "the third"]);
    let line = stage.gateway().line("\"discard\"");
    for part in [r#""by":"quota""#, r#""quarantine":"dmarc""#, r#""stage":"quarantine""#] {
        assert!(line.contains(part), "{part}: {line}");
    }
    stage.wait_for_metric("pintle_quarantine_total{act=\"dropped\"} 1");
    let queue = stage.pintle(&["queue", "list"]).text();
    assert!(queue.contains("2 messages"), "{queue}");
    stage.gateway.take().unwrap().stop();
    assert_eq!(stage.sink.log().accepted().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_looks_at_is_dropped_when_its_time_is_over() {
    let more = "[score]\nquarantine = 2\n[quarantine]\nkeep = { default = \"30d\", score = \"1ms\" }";
    let mut stage = Stage::start("quarantine = 3.5", more).await;
    stage.forge("by points").await;
    let line = stage.gateway().line("\"expiration\"");
    for part in [r#""quarantine":"score""#, r#""unreported":"suppressed""#] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let held = stage.gateway().line("\"hold\"");
    assert!(held.contains(r#""by":"score""#), "{held}");
    assert_eq!(stage.list(&[]).len(), 0);
    assert_eq!(stage.pintle(&["queue", "list"]).text(), "0 messages\n");
    let log = stage.gateway().log();
    stage.gateway.take().unwrap().stop();
    assert_eq!(stage.sink.log().accepted().count(), 0);
    assert!(!log.contains("\"report\""), "{log}");
}
