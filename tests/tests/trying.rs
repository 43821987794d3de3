//! Checks before a plugin is enabled: `pintle check` on its configuration, `pintle try` on a message.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use e2e::{Gateway, binary, configuration, run};
use pintle_testkit::{TempDir, ZoneServer};
use serde_json::Value;

/// A folder with a configuration and a message.
struct Desk {
    folder: TempDir,
    config: PathBuf,
}

const MESSAGE: &str = "Received: from inner by innermost; Mon, 1 Jan 2024 00:00:00 +0000\n\
    From: \"Ann, at pc7\" <ann@pc7.corp.example>\nTo: b@y.example, \"C\" <c@ours.example>\n\
    X-Internal-Id: 7\nSubject: hello \u{1b}[31m\n\nbody\n";

const REWRITE: &str = r#"[[plugin]]
name = "rewrite"
component = "stock:header-rewrite"
grants = ["edit-headers", "edit-envelope"]
[plugin.config]
strip_outbound = ["Received", "X-Internal-*"]
[[plugin.config.rules]]
stage = "deliver"
direction = "outbound"
set = { name = "X-Left", value = "yes" }
[[plugin.config.addresses]]
from = ".corp.example"
to = "corp.example"
"#;

impl Desk {
    fn new(plugins: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let cache = binary().with_file_name("plugin-cache");
        let more = format!("[plugins]\ncache = \"{}\"\n{plugins}", cache.display());
        let config = configuration(folder.path(), "127.0.0.1:25".parse().unwrap(), &more);
        std::fs::write(folder.path().join("message.eml"), MESSAGE).unwrap();
        Self { folder, config }
    }

    /// The number of the configuration line that begins with this text, from 1.
    fn line(&self, start: &str) -> usize {
        let text = std::fs::read_to_string(&self.config).unwrap();
        text.lines().position(|line| line.starts_with(start)).unwrap() + 1
    }

    fn check(&self) -> (i32, String) {
        let (code, out, err) = run(&["check", "-c", self.config.to_str().unwrap()], self.folder.path());
        (code, out + &err)
    }

    fn attempt(&self, options: &[&str]) -> (i32, String, String) {
        let mut arguments = vec!["try", "-c", self.config.to_str().unwrap(), "message.eml"];
        arguments.extend(options);
        run(&arguments, self.folder.path())
    }

    fn json(&self, options: &[&str]) -> (i32, Value) {
        let (code, out, err) = self.attempt(&[options, &["--json"]].concat());
        (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}")))
    }
}

#[test]
fn check_tells_every_mistake_with_line_cause_and_remedy() {
    let desk = Desk::new(
        "[[plugin]]\nname = \"limits\"\ncomponent = \"stock:rate-limit\"\ngrants = [\"kv\"]\n\
         [[plugin.config.limits]]\nname = \"a\"\ncount = \"mesages\"\nby = \"address\"\nmax = 0\nper = \"1d\"\n\
         mx_delay = \"5s\"\n[[plugin]]\nname = \"grey\"\ncomponent = \"stock:greylist\"\ngrants = [\"kv\"]\n\
         config = { delay = \"2d\", window = \"1d\" }\n",
    );
    let (code, out) = desk.check();
    assert_eq!(code, 1, "{out}");
    let told = |what: &str, start: &str, help: &str| {
        let line = desk.line(start);
        let place = format!("{what}\n  --> {}:{line}\n{help}", desk.config.display());
        assert!(out.contains(&place), "{place}\n--- is not in\n{out}");
    };
    told(
        "error: plugin limits: /limits/0/count: this is not one of the possible values: found \"mesages\"",
        "count",
        "  help: write \"connections\", \"messages\" or \"recipients\" (What is counted)\n",
    );
    told(
        "error: plugin limits: /limits/0/max: this number is too small: found 0",
        "max",
        "  help: write a whole",
    );
    told(
        "error: plugin limits: /limits/0/mx_delay: there is no key \"mx_delay\" here",
        "mx_delay",
        "  help: did you mean `max_delay`?\n",
    );
    // Mistakes that no schema can detect are reported by the plugin itself.
    told("error: plugin grey: /window: not longer than `delay`: no retry could come in time", "config", "\n");
}

#[test]
fn a_start_names_the_same_places_as_a_check() {
    let desk = Desk::new(
        "[[plugin]]\nname = \"grey\"\ncomponent = \"stock:greylist\"\ngrants = [\"kv\"]\nconfig_file = \"grey.json\"\n",
    );
    std::fs::write(desk.folder.path().join("grey.json"), "{\n  \"delay\": \"5m\",\n  \"keep\": 3\n}\n")
        .unwrap();
    let (code, out, err) = run(&["run", "-c", desk.config.to_str().unwrap()], desk.folder.path());
    assert_ne!(code, 0);
    let place = format!(
        "{}:3: /keep: this has the wrong type: found 3",
        desk.folder.path().join("grey.json").display()
    );
    assert!((out + &err).contains(&place), "{place}: {err}");
}

#[test]
fn only_hooks_that_a_plugin_has_are_measured() {
    let desk = Desk::new(REWRITE);
    let gateway = Gateway::start(&desk.config);
    let mut admin = UnixStream::connect(desk.folder.path().join("admin.sock")).unwrap();
    admin.write_all(b"GET /metrics HTTP/1.1\r\nHost: pintle\r\nConnection: close\r\n\r\n").unwrap();
    let mut metrics = String::new();
    admin.read_to_string(&mut metrics).unwrap();
    let mut hooks: Vec<_> = metrics
        .lines()
        .filter(|line| line.starts_with("pintle_plugin_call_seconds"))
        .filter_map(|line| line.split("hook=\"").nth(1)?.split('"').next())
        .collect();
    hooks.sort_unstable();
    hooks.dedup();
    assert_eq!(hooks, ["deliver", "headers"], "{metrics}");
    gateway.stop();
}

#[test]
fn a_dry_run_prints_verdicts_and_the_difference() {
    let desk = Desk::new(REWRITE);
    let (code, out, err) = desk.attempt(&["--trusted", "--deliver"]);
    assert_eq!(code, 0, "{out}{err}");
    for expected in [
        "envelope  <ann@pc7.corp.example> to <b@y.example>, <c@ours.example>",
        "\nheaders\n  rewrite          next\n",
        "    change header: 0 added, 1 replaced, 2 removed\n",
        "\n-Received: from inner by innermost; Mon, 1 Jan 2024 00:00:00 +0000\n",
        "\n-From: \"Ann, at pc7\" <ann@pc7.corp.example>\n+From: \"Ann, at pc7\" <ann@corp.example>\n",
        "\n-X-Internal-Id: 7\n",
        "\n+ <ann@corp.example> to <b@y.example>, <c@ours.example>\n",
        "\nbody      unchanged\n",
        "\ndeliver relay:sink\n  rewrite          next\n",
        "\n+X-Left: yes\n",
        "\nresult    accepted\n",
        "not judged here:",
    ] {
        assert!(out.contains(expected), "{expected:?} is not in\n{out}");
    }
    assert!(!out.contains('\u{1b}'), "mail must not steer the terminal");
}

#[test]
fn a_dry_run_of_what_does_not_leave_changes_nothing() {
    let desk = Desk::new(REWRITE);
    let (code, report) = desk.json(&["--trusted", "--recipient", "c@ours.example"]);
    assert_eq!(code, 0, "{report}");
    assert!(report["header_diff"].is_null() && report["new_envelope"].is_null(), "{report}");
}

#[test]
fn relaying_is_judged_for_strangers() {
    let desk = Desk::new(REWRITE);
    let (code, report) = desk.json(&[]);
    assert_eq!((code, report["fate"].as_str()), (1, Some("accepted-for-some")), "{report}");
    let said = report["stages"][3]["gateway"][0].as_str().unwrap();
    assert!(said.contains("Relaying denied: mail for y.example needs authentication"), "{said}");
    assert_eq!(report["taken"], serde_json::json!(["c@ours.example"]));
    assert!(report["new_envelope"].is_null(), "no plugin has changed it: {report}");
    let (code, report) = desk.json(&["--recipient", "b@y.example"]);
    assert_eq!((code, report["fate"].as_str()), (1, Some("rejected")), "{report}");
    assert_eq!(report["stages"].as_array().unwrap().len(), 4, "nobody is left to ask about");
    let (code, _) = desk.json(&["--recipient", "b@y.example", "--identity", "ann"]);
    assert_eq!(code, 0);
}

#[test]
fn verdicts_facts_and_log_lines_are_told() {
    let desk = Desk::new("[[plugin]]\nname = \"grey\"\ncomponent = \"stock:greylist\"\ngrants = [\"kv\"]\n");
    let (code, report) = desk.json(&["--recipient", "c@ours.example", "--log", "debug"]);
    assert_eq!((code, report["fate"].as_str()), (1, Some("deferred")), "{report}");
    assert_eq!(report["by"], "grey");
    let step = &report["stages"][3]["plugins"][0];
    assert_eq!(step["verdict"], "defer");
    assert!(step["reply"].as_str().unwrap().starts_with("451 4.7.1 Greylisted"), "{step}");
    let (code, _) = desk.json(&["--recipient", "c@ours.example", "--trusted"]);
    assert_eq!(code, 0, "relay clients never wait");
}

/// A greylist knows no client in a dry run, so nothing after RCPT could ever be seen.
#[test]
fn a_dry_run_goes_beyond_the_greylist_where_it_is_told_to() {
    let grey = "[[plugin]]\nname = \"grey\"\ncomponent = \"stock:greylist\"\ngrants = [\"kv\"]\n";
    let desk = Desk::new(&format!("{grey}{REWRITE}"));
    let to = ["--recipient", "c@ours.example"];
    let (code, report) = desk.json(&[&to[..], &["--assume-known"]].concat());
    assert_eq!((code, report["fate"].as_str()), (0, Some("accepted")), "{report}");
    let step = &report["stages"][3]["plugins"][0];
    assert_eq!((step["plugin"].as_str(), step["verdict"].as_str()), (Some("grey"), Some("next")), "{report}");
    assert!(step["assumed_known"].as_str().unwrap().starts_with("451 4.7.1 Greylisted"), "{step}");
    let (code, out, _) = desk.attempt(&[&to[..], &["--assume-known"]].concat());
    assert!(code == 0 && out.contains("known  as assumed; otherwise it would have said 451 4.7.1"), "{out}");
    let (code, report) = desk.json(&[&to[..], &["--skip", "grey"]].concat());
    assert_eq!((code, report["fate"].as_str()), (0, Some("accepted")), "{report}");
    assert!(!report.to_string().contains("\"grey\""), "{report}");
    let (code, _, err) = desk.attempt(&[&to[..], &["--skip", "grey", "--assume-known"]].concat());
    assert!(code == 2 && err.contains("--skip NAME leaves another one out"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_asks_the_name_server_that_it_is_told_and_only_the_plugins_named() {
    let zone = ZoneServer::start("9.2.0.192.list.example A 127.0.0.2").await;
    let desk = Desk::new(&format!(
        "{REWRITE}[[plugin]]\nname = \"lists\"\ncomponent = \"stock:dnsbl\"\ngrants = [\"dns\"]\n\
         config = {{ lists = [{{ zone = \"list.example\" }}] }}\n"
    ));
    let dns = zone.address().to_string();
    let options =
        ["--dns", &dns, "--only", "lists", "--client", "192.0.2.9", "--recipient", "c@ours.example"];
    let (code, report) = desk.json(&options);
    assert_eq!((code, report["fate"].as_str()), (1, Some("rejected")), "{report}");
    assert!(report["reply"].as_str().unwrap().contains("192.0.2.9 is listed by list.example"), "{report}");
    assert!(!report.to_string().contains("rewrite"), "{report}");
    let asked = zone.asked();
    assert!(asked.iter().any(|question| question.name.starts_with("9.2.0.192.list.example")), "{asked:?}");
}

/// A dry run must not overwrite data that the running gateway's plugins have stored, in whatever form it is.
#[test]
fn a_dry_run_leaves_what_plugins_have_stored_alone() {
    let desk = Desk::new(
        "state = \"state\"\n[[plugin]]\nname = \"grey\"\ncomponent = \"stock:greylist\"\ngrants = [\"kv\"]\n",
    );
    let state = desk.folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("grey.kv"), "precious").unwrap();
    let (code, report) = desk.json(&["--client", "192.0.2.9", "--recipient", "c@ours.example"]);
    assert_eq!((code, report["fate"].as_str()), (1, Some("deferred")), "{report}");
    assert!(report["log"].to_string().contains("cannot be read; continuing without them"), "{report}");
    let files: Vec<_> = std::fs::read_dir(&state).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["grey.kv"]);
    assert_eq!(std::fs::read(state.join("grey.kv")).unwrap(), b"precious");
}

#[test]
fn what_cannot_be_tried_is_no_verdict() {
    let desk = Desk::new(REWRITE);
    for (options, cause) in [
        (&["--only", "nobody"][..], "there is no plugin \"nobody\"; there are rewrite"),
        (&["--skip", "nobody"][..], "there is no plugin \"nobody\"; there are rewrite"),
        (&["--listener", "nowhere"][..], "no such listener; there are: mx, inside"),
        (&["--sender", "no address"][..], "the sender \"no address\""),
    ] {
        let (code, out, err) = desk.attempt(options);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains(cause), "{err}");
    }
    std::fs::write(desk.folder.path().join("message.eml"), "\nno header\n").unwrap();
    let (code, _, err) = desk.attempt(&[]);
    assert!(code == 2 && err.contains("no header"), "{err}");
}
