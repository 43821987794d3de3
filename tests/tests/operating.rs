//! The operator's view of the real binary: check, queue, signals, limits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use e2e::{Gateway, binary, configuration, example_plugin, run};
use pintle_testkit::{Act, Client, Script, Sink, SinkStep, TempDir};

const MESSAGE: &[u8] = b"Subject: one\r\n\r\nhello\r\n";

#[test]
fn check_names_every_mistake_at_once() {
    let folder = TempDir::new().unwrap();
    let text = r#"hostname = "not a host"
colour = "green"

[spool]
dir = 7

[[listener]]
name = "mx"
addresses = ["127.0.0.1:99999"]
kind = "edge"

[[listener]]
name = "mx"
addresses = ["127.0.0.1:2525"]
tls = "implicit"

[queue]
max_age = "5 parsecs"

[[route]]
domain = "*"
via = "nowhere"

[[plugin]]
name = "missing"
component = "missing.wasm"
grants = ["everything"]
"#;
    std::fs::write(folder.path().join("ten.toml"), text).unwrap();
    let (code, out, _) = run(&["check", "-c", "ten.toml"], folder.path());
    assert_eq!(code, 1, "{out}");
    let mistakes = [
        (1, "hostname"),
        (2, "colour"),
        (5, "spool.dir"),
        (9, "addresses"),
        (10, "kind"),
        (13, "name"),
        (15, "tls"),
        (18, "max_age"),
        (22, "via"),
        (26, "component"),
        (27, "grants"),
    ];
    for (line, key) in mistakes {
        let place = format!("ten.toml:{line}:");
        let told = out.split("error: ").any(|error| error.contains(&place) && error.contains(key));
        assert!(told, "line {line} ({key}) is not named in:\n{out}");
    }
    assert_eq!(out.matches("error: ").count(), mistakes.len(), "{out}");
}

#[test]
fn check_is_content_with_what_runs() {
    let folder = TempDir::new().unwrap();
    let config = configuration(folder.path(), "127.0.0.1:25".parse().unwrap(), &example_plugin());
    let (code, out, err) = run(&["check", "-c", config.to_str().unwrap()], folder.path());
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("plugin example") && out.contains("good") && !out.contains("note:"), "{out}");
    let without = example_plugin().replace("\"edit-headers\"", "");
    let config = configuration(folder.path(), "127.0.0.1:25".parse().unwrap(), &without);
    let (code, out, err) = run(&["check", "-c", config.to_str().unwrap()], folder.path());
    assert!(code == 0 && out.contains("note: it requests edit-headers in `grants`"), "{out}{err}");
}

#[test]
fn an_answer_that_nobody_reads_to_its_end_is_no_crash() {
    let folder = TempDir::new().unwrap();
    let file = configuration(folder.path(), "127.0.0.1:25".parse().unwrap(), "");
    let mut check = Command::new(binary())
        .args(["check", "-c"])
        .arg(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(check.stdout.take());
    let end = check.wait_with_output().unwrap();
    assert!(end.status.success(), "{end:?}");
    assert_eq!(String::from_utf8_lossy(&end.stderr), "");
}

#[test]
fn a_plugin_without_its_grant_is_named_by_check_and_refused_at_start() {
    let folder = TempDir::new().unwrap();
    let plugin = example_plugin().replace("header = \"X-Seen\"", "header = \"X Seen\"");
    let config = configuration(folder.path(), "127.0.0.1:25".parse().unwrap(), &plugin);
    let (code, out, _) = run(&["check", "-c", config.to_str().unwrap()], folder.path());
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("/header") && out.contains("found \"X Seen\""), "{out}");
    assert!(out.contains("pintle.toml: 1 of 1 plugins cannot be loaded"), "{out}");
    let (code, _, err) = run(&["run", "-c", config.to_str().unwrap()], folder.path());
    assert_eq!(code, 1);
    assert!(err.contains("found \"X Seen\""), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_seen_and_steered() {
    let folder = TempDir::new().unwrap();
    let sink =
        Sink::start(Script::new().on(SinkStep::Rcpt, Act::Reply("451 4.2.0 mailbox busy".into()))).await;
    let config = configuration(folder.path(), sink.address(), "");
    let gateway = Gateway::start(&config);
    let mut client = Client::connect(gateway.address("inside")).await;
    client.hello("client.example").await;
    let reply = client.deliver("a@x.example", &["b@y.example"], MESSAGE).await;
    gateway.wait_for("\"deferral\"");
    let pintle = |arguments: &[&str]| {
        let arguments = [arguments, &["-c", config.to_str().unwrap()]].concat();
        let (code, out, err) = run(&arguments, folder.path());
        assert_eq!(code, 0, "{arguments:?}: {out}{err}");
        out
    };
    let list = pintle(&["queue", "list"]);
    let id = list.split_whitespace().next().unwrap().to_owned();
    assert!(reply.text().contains(&id), "{reply:?} {list}");
    let shown = pintle(&["queue", "show", &id]);
    assert!(shown.contains("451 4.2.0 mailbox busy") && shown.contains("relay:sink"), "{shown}");
    pintle(&["queue", "hold", &id]);
    assert!(pintle(&["queue", "list", "--held", "true"]).contains(&id));
    sink.follow(Script::new());
    pintle(&["queue", "release", &id]);
    sink.wait_for(1).await;
    gateway.wait_for("\"delivery\"");
    assert!(!pintle(&["queue", "list"]).contains(&id));
    assert!(pintle(&["status"]).contains("ok    spool"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_reloads_and_a_term_drains() {
    let folder = TempDir::new().unwrap();
    let sink = Sink::start(Script::new()).await;
    let config = configuration(folder.path(), sink.address(), "");
    let gateway = Gateway::start(&config);
    let mut client = Client::connect(gateway.address("mx")).await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example>", 250).await;
    client.ask("RCPT TO:<b@new.example>", 550).await;
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"ours.example\"", "\"ours.example\", \"new.example\"")).unwrap();
    gateway.signal("HUP");
    gateway.wait_for("reloaded");
    client.ask("RCPT TO:<b@new.example>", 250).await;
    std::fs::write(&config, "hostname = 7\n").unwrap();
    gateway.signal("HUP");
    gateway.wait_for("the old configuration stays in force");
    client.ask("RCPT TO:<c@new.example>", 250).await;
    client.ask("DATA", 354).await;
    client.send_data(MESSAGE).await;
    client.expect(250).await;
    gateway.stop();
}

/// The reader of the log may die, and the log's disk may be full: mail goes on without the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_any_more_costs_no_mail() {
    let folder = TempDir::new().unwrap();
    let sink = Sink::start(Script::new()).await;
    let config = configuration(folder.path(), sink.address(), "");
    let mut command = Command::new(binary());
    command.args(["run", "-c"]).arg(&config).stderr(Stdio::piped());
    let mut gateway = command.spawn().unwrap();
    let mut log = BufReader::new(gateway.stderr.take().unwrap()).lines().map(Result::unwrap);
    let listening = log.find(|line| line.contains("\"listening\"") && line.contains("\"inside\"")).unwrap();
    let listening: serde_json::Value = serde_json::from_str(&listening).unwrap();
    assert!(log.any(|line| line.contains("\"ready\"")));
    drop(log);
    let mut client = Client::connect(listening["address"].as_str().unwrap().parse().unwrap()).await;
    client.hello("client.example").await;
    for _ in 0..3 {
        client.deliver("a@x.example", &["b@y.example"], MESSAGE).await;
    }
    sink.wait_for(3).await;
    let (code, said, errors) = run(&["status", "-c", config.to_str().unwrap()], folder.path());
    assert_eq!(code, 0, "{said}{errors}");
    assert!(Command::new("kill").arg(gateway.id().to_string()).status().unwrap().success());
    assert!(gateway.wait().unwrap().success());
}

#[test]
fn a_complaint_that_nobody_can_have_is_no_crash() {
    let folder = TempDir::new().unwrap();
    for arguments in [["run", "-c", "missing.toml"], ["queue", "list", "--socket=missing.sock"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(binary());
        let ended = command.args(arguments).current_dir(folder.path()).stderr(full).status().unwrap();
        assert_eq!(ended.code(), Some(1), "{arguments:?}");
    }
}

/// As in some containers: with less address space than the plugins' memories would reserve.
#[test]
fn a_limit_of_address_space_costs_no_start() {
    let folder = TempDir::new().unwrap();
    let more = example_plugin()
        + "\n[[plugin]]\nname = \"grey\"\ncomponent = \"stock:greylist\"\ngrants = [\"kv\"]\n";
    let config = configuration(folder.path(), "127.0.0.1:25".parse().unwrap(), &more);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 8000000 && exec \"$0\" run -c \"$1\""]).arg(binary()).arg(&config);
    let gateway = Gateway::attempt(&mut command).unwrap_or_else(|why| panic!("{why}"));
    gateway.wait_for("each instance takes its own, with bounds checks");
    gateway.stop();
    // The operator can configure the same.
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[plugins]", "[plugins]\naddress_space = \"1GiB\"")).unwrap();
    let gateway = Gateway::start(&config);
    gateway.wait_for("each instance takes its own, with bounds checks");
    gateway.stop();
}

/// The example plugin logs what it sees at every stage, in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_follows_a_message_to_its_queue_id() {
    let folder = TempDir::new().unwrap();
    let sink = Sink::start(Script::new()).await;
    let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &example_plugin()));
    let mut client = Client::connect(gateway.address("inside")).await;
    client.hello("client.example").await;
    let reply = client.deliver("a@x.example", &["b@ours.example", "c@ours.example"], MESSAGE).await.text();
    let queued = gateway.line("it is queued as");
    let id = queued.split_once("it is queued as ").unwrap().1.split(' ').next().unwrap();
    assert!(reply.contains(id), "{reply}: {queued}");
    let log = gateway.log();
    let place = |text: &str| log.find(text).unwrap_or_else(|| panic!("no {text:?} in {log}"));
    let stages = [
        "it is for c@ours.example",
        "it sends the message to 2 recipient(s)",
        "its subject is",
        "it is queued as",
    ];
    assert!(stages.windows(2).all(|two| place(two[0]) < place(two[1])), "{log}");
}
