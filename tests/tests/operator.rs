//! The operator's commands on the real binary: queue, reload and check, also when something is wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::{Gateway, binary, configuration, example_plugin, run};
use pintle_testkit::{Client, Script, Sink, SinkStep, TempDir};
use serde_json::Value;

const MESSAGE: &[u8] = b"Subject: one\r\n\r\nhello\r\n";
/// An address without a listener.
const NOBODY: &str = "127.0.0.1:9";

/// A folder with a configuration, in which commands are run.
struct Desk {
    folder: TempDir,
    config: PathBuf,
}

impl Desk {
    fn new(next_hop: &str, more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let config = configuration(folder.path(), next_hop.parse().unwrap(), more);
        Self { folder, config }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The exit code, and all output.
    fn pintle(&self, arguments: &[&str]) -> (i32, String) {
        let arguments = [arguments, &["-c", self.config.to_str().unwrap()]].concat();
        let (code, out, err) = run(&arguments, self.folder.path());
        (code, out + &err)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (_, said) = self.pintle(&[arguments, &["--json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    fn exchange(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(&self.config, text.replace(from, to)).unwrap();
    }
}

async fn deliver(gateway: &Gateway, sender: &str, recipient: &str) {
    let mut client = Client::connect(gateway.address("inside")).await;
    client.hello("client.example").await;
    client.deliver(sender, &[recipient], MESSAGE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_goes_by_new_routes_after_a_reload() {
    let busy = Sink::start(Script::new().reply(SinkStep::Rcpt, "451 4.2.0 mailbox busy")).await;
    let other = Sink::start(Script::new()).await;
    let more = format!("[relays.other]\nhosts = [\"{}\"]\n", other.address());
    let desk = Desk::new(&busy.address().to_string(), &more);
    let gateway = Gateway::start(&desk.config);
    deliver(&gateway, "a@x.example", "b@y.example").await;
    gateway.wait_for("\"deferral\"");
    let list = desk.pintle(&["queue", "list"]).1;
    for told in ["<a@x.example>", "<b@y.example>  relay:sink  next 20", "451 4.2.0 mailbox busy"] {
        assert!(list.contains(told), "{told}: {list}");
    }
    desk.exchange("via = \"sink\"", "via = \"other\"");
    let (code, said) = desk.pintle(&["reload"]);
    assert_eq!(code, 0, "{said}");
    other.wait_for(1).await;
    gateway.wait_for("\"delivery\"");
    assert_eq!(busy.log().accepted().count(), 0);
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn single_messages_are_sent_another_way_by_hand() {
    let busy = Sink::start(Script::new().reply(SinkStep::Rcpt, "451 4.2.0 mailbox busy")).await;
    let other = Sink::start(Script::new()).await;
    let more = format!(
        "[relays.other]\nhosts = [\"{}\"]\n[relays.store]\nhosts = [\"{NOBODY}\"]\nprotocol = \"lmtp\"\n",
        other.address()
    );
    let desk = Desk::new(&busy.address().to_string(), &more);
    let gateway = Gateway::start(&desk.config);
    deliver(&gateway, "a@x.example", "b@y.example").await;
    gateway.wait_for("\"deferral\"");
    for (via, told) in [
        ("relay:nowhere", "no relay named nowhere; its relays: other, sink, store"),
        ("relay:store", "write lmtp:store"),
        ("discard", "pintle queue bounce"),
        ("other", "write mx:DOMAIN, relay:NAME"),
    ] {
        let (code, said) = desk.pintle(&["queue", "reroute", "--all", "--via", via]);
        assert!(code != 0 && said.contains(told), "{via}: {code} {said}");
    }
    let (code, said) = desk.pintle(&["queue", "reroute", "--domain", "y.example", "--via", "relay:other"]);
    assert!(code == 0 && said.contains("1 messages: reroute"), "{said}");
    other.wait_for(1).await;
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_with_exit_code_1() {
    let busy = Sink::start(Script::new().reply(SinkStep::Rcpt, "451 4.2.0 mailbox busy")).await;
    let desk = Desk::new(&busy.address().to_string(), "");
    let gateway = Gateway::start(&desk.config);
    deliver(&gateway, "a@x.example", "b@y.example").await;
    gateway.wait_for("\"deferral\"");
    deliver(&gateway, "", "c@y.example").await;
    let all = desk.json(&["queue", "list"]);
    let id = |at: usize| all["messages"][at]["id"].as_str().unwrap().to_owned();
    assert_eq!(all["messages"].as_array().unwrap().len(), 2);

    let unknown = "00000000000000000000000000";
    let (code, said) = desk.pintle(&["queue", "retry", unknown]);
    assert!(code == 1 && said.contains("no such message") && said.contains("0 messages: retry"), "{said}");
    let (code, said) = desk.pintle(&["queue", "hold", &id(0)]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = desk.pintle(&["queue", "retry", &id(0)]);
    assert!(code == 1 && said.contains("held: by the operator"), "{said}");
    let (code, said) = desk.pintle(&["queue", "retry", &id(0), "--held", "false"]);
    assert!(code == 1 && said.contains("does not meet the other conditions"), "{said}");

    let (_, list) = desk.pintle(&["queue", "list", "--sender", ""]);
    assert!(list.contains(&id(1)) && !list.contains(&id(0)), "{list}");
    for command in ["list", "retry"] {
        let (code, said) = desk.pintle(&["queue", command, "--next-hop", "relay:sinc"]);
        assert!(
            code == 1
                && said.contains("nothing in the queue goes to relay:sinc: mail waits for relay:sink (2)"),
            "{said}"
        );
        let (code, said) = desk.pintle(&["queue", command, "--next-hop", "sink"]);
        assert!(code != 0 && said.contains("relay:NAME"), "{said}");
    }
    let (code, list) = desk.pintle(&["queue", "list", "--next-hop", "relay:sink"]);
    assert!(code == 0 && list.contains("2 messages") && list.contains("  held  "), "{list}");
    gateway.stop();
}

/// An operator who looks at the queue should not have to fix a plugin's settings first.
#[tokio::test(flavor = "multi_thread")]
async fn a_typo_in_the_configuration_disables_no_command() {
    let desk = Desk::new(NOBODY, "");
    let gateway = Gateway::start(&desk.config);
    desk.exchange("hostname =", "hostnme =");
    fs::OpenOptions::new()
        .append(true)
        .open(&desk.config)
        .unwrap()
        .write_all(b"[[plugin]]\nname = 7\n")
        .unwrap();
    for command in [
        &["queue", "list"][..],
        &["status"],
        &["plugins", "list"],
        &["quarantine", "list"],
        &["spool", "check"],
    ] {
        let (code, said) = desk.pintle(command);
        assert_eq!(code, 0, "{command:?}: {said}");
    }
    let (code, said) = desk.pintle(&["reload"]);
    assert!(code == 1 && said.contains("did you mean `hostname`?"), "{said}");
    let (_, said) = desk.pintle(&["status"]);
    assert!(said.contains("FAIL  configuration the last reload failed"), "{said}");
    let by_environment = |socket: &Path| {
        let mut command = Command::new(binary());
        command.args(["queue", "list"]).env("PINTLE_SOCKET", socket).current_dir("/").output().unwrap()
    };
    let output = by_environment(&desk.at("admin.sock"));
    assert!(output.status.success(), "{output:?}");
    let output = by_environment(&desk.at("none.sock"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none.sock"), "{output:?}");
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_fails_while_a_component_on_disk_is_broken() {
    let plugin = "[plugins]\nwatch = false\ncache = \"CACHE\"\n[[plugin]]\nname = \"p\"\ncomponent = \"p.wasm\"\nrequired = false\n\
                  grants = [\"kv\", \"dns\", \"auth\", \"sender-auth\", \"auth-results\", \"accept\"]\n";
    let cache = binary().with_file_name("plugin-cache");
    let desk = Desk::new(NOBODY, &plugin.replace("CACHE", cache.to_str().unwrap()));
    fs::copy(pintle_guest_build::component("unruly").unwrap(), desk.at("p.wasm")).unwrap();
    let gateway = Gateway::start(&desk.config);
    assert_eq!(desk.pintle(&["reload"]).0, 0);
    fs::write(desk.at("p.wasm"), "no component").unwrap();
    for command in [&["reload"][..], &["plugins", "reload"]] {
        let (code, said) = desk.pintle(command);
        assert!(code == 1 && said.contains("plugin") && said.contains("not a WASI"), "{command:?}: {said}");
    }
    let states = desk.json(&["plugins", "list"]);
    assert_eq!(states[0]["generation"], 1, "the previous version still serves: {states}");
    assert_eq!(states[0]["digest"].as_str().map(str::len), Some(64), "SHA-256: {states}");
    gateway.signal("HUP");
    gateway.wait_for("the old configuration stays in force");
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_hostname_is_not_half_in_force_and_is_said_to_wait() {
    let sink = Sink::start(Script::new()).await;
    let desk = Desk::new(&sink.address().to_string(), "");
    let gateway = Gateway::start(&desk.config);
    desk.exchange("gate.example", "new.example");
    let (code, said) = desk.pintle(&["reload"]);
    assert!(code == 0 && said.contains("needs a restart: hostname"), "{said}");
    let (code, said) = desk.pintle(&["status"]);
    assert!(code == 0 && said.contains("on gate.example"), "{said}");
    assert!(said.contains("configuration changed, but needs a restart: hostname"), "{said}");
    gateway.wait_for("not in force before a restart");
    deliver(&gateway, "a@x.example", "b@y.example").await;
    sink.wait_for(1).await;
    let log = sink.log();
    let hello = log.commands_of(1).into_iter().find(|line| line.starts_with("EHLO")).unwrap().to_owned();
    assert_eq!(hello.trim_end(), "EHLO gate.example", "as its greeting says");
    desk.exchange("new.example", "gate.example");
    assert_eq!(desk.pintle(&["reload"]).0, 0);
    assert!(!desk.pintle(&["status"]).1.contains("restart"));
    gateway.stop();
}

#[test]
fn check_tells_of_plugins_whatever_else_is_wrong_and_says_no_mistakes_last() {
    let broken = example_plugin().replace("header = \"X-Seen\"", "header = \"X Seen\"");
    let desk = Desk::new(NOBODY, &broken);
    let (code, said) = desk.pintle(&["check"]);
    assert!(code == 1 && said.contains("found \"X Seen\"") && !said.contains("no mistakes"), "{said}");
    desk.exchange("reserve =", "reserv =");
    let (code, said) = desk.pintle(&["check"]);
    assert_eq!(code, 1, "{said}");
    for told in
        ["spool.reserv", "found \"X Seen\"", "1 of 1 plugins cannot be loaded", "pintle.toml: 1 mistake"]
    {
        assert!(said.contains(told), "{told}: {said}");
    }
    let answer = desk.json(&["check"]);
    let mistakes = answer["mistakes"].as_array().unwrap();
    assert_eq!((&answer["good"], mistakes.len()), (&Value::Bool(false), 2), "{answer:#}");
    assert_eq!((&mistakes[0]["key"], &mistakes[0]["line"]), (&"spool.reserv".into(), &5.into()));
    assert_eq!((&mistakes[1]["plugin"], &mistakes[1]["key"]), (&"example".into(), &"/header".into()));
    assert!(mistakes.iter().all(|mistake| mistake["remedy"].is_string()), "{answer:#}");
}

#[test]
fn strict_takes_warnings_for_mistakes() {
    let desk = Desk::new(NOBODY, "");
    assert_eq!(desk.pintle(&["check", "--strict"]).0, 0, "there are none");
    desk.exchange("domain = \"*\"", "domain = \"elsewhere.example\"");
    let (code, said) = desk.pintle(&["check"]);
    assert!(code == 0 && said.contains("no mistakes, 1 warning"), "{said}");
    assert_eq!(desk.pintle(&["check", "--strict"]).0, 1);
    let answer = desk.json(&["check", "--strict"]);
    assert_eq!(
        (&answer["good"], &answer["warnings"][0]["key"]),
        (&Value::Bool(true), &"domains.accepted".into())
    );
}

/// Root checks a configuration for another user, and must not create folders that the user's gateway then refuses.
#[test]
fn check_makes_nothing() {
    let desk = Desk::new(NOBODY, &example_plugin());
    let before = binary().with_file_name("plugin-cache").display().to_string();
    desk.exchange(&before, "cache/of/plugins");
    let (code, said) = desk.pintle(&["check"]);
    assert_eq!(code, 0, "{said}");
    for made in ["cache", "spool", "admin.sock"] {
        assert!(!desk.at(made).exists(), "{made}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_there_is_a_mistake_of_the_plugins_settings() {
    let cache = binary().with_file_name("plugin-cache");
    let plugin = format!(
        "[plugins]\ncache = \"{}\"\n[[plugin]]\nname = \"dkim\"\ncomponent = \"stock:dkim\"\n\
         grants = [\"sender-auth\", \"auth-results\", \"sign\"]\nconfig = {{ seal = \"kee\" }}\n",
        cache.display()
    );
    let desk = Desk::new(NOBODY, &plugin);
    let key = [
        "dkim",
        "keygen",
        "--domain",
        "a.example",
        "--selector",
        "s",
        "--algorithm",
        "ed25519",
        "--out",
        "k.pem",
    ];
    assert_eq!(run(&key, desk.folder.path()).0, 0);
    let (code, said) = desk.pintle(&["check"]);
    assert!(code == 1 && said.contains("/seal: there is no key \"kee\" in the configuration"), "{said}");
    assert_eq!(desk.pintle(&["run"]).0, 1);
    let keys =
        "[dkim_keys.kee]\ndomain = \"a.example\"\nselector = \"s\"\nkey = { file = \"k.pem\" }\n[plugins]";
    desk.exchange("[plugins]", keys);
    assert_eq!(desk.pintle(&["check"]).0, 0);
    desk.exchange("selector = \"s\"", "selector = \"s t\"");
    let (code, said) = desk.pintle(&["check"]);
    assert!(
        code == 1 && said.contains("dkim_keys.kee.selector") && !said.contains("/seal"),
        "one mistake: {said}"
    );
    desk.exchange("selector = \"s t\"", "selector = \"s\"");
    let gateway = Gateway::start(&desk.config);
    // Neither the plugin nor its settings change, but something that they name is removed.
    desk.exchange(keys, "[plugins]");
    let (code, said) = desk.pintle(&["reload"]);
    assert!(code == 1 && said.contains("there is no key \"kee\""), "{said}");
    gateway.stop();
}

#[test]
fn a_secret_that_is_not_there_or_not_granted_is_a_mistake_of_the_plugins_settings() {
    let cache = binary().with_file_name("plugin-cache");
    let plugin = format!(
        "[plugins]\ncache = \"{}\"\n[[plugin]]\nname = \"batv\"\ncomponent = \"stock:batv\"\n\
         grants = [\"edit-envelope\", \"secrets:one\"]\nconfig = {{ keys = [{{ number = 0, secret = \"two\" }}] }}\n",
        cache.display()
    );
    let desk = Desk::new(NOBODY, &plugin);
    let (code, said) = desk.pintle(&["check"]);
    let missing = "/keys/0/secret: there is no secret \"two\" in the configuration ([secrets.NAME])";
    assert!(code == 1 && said.contains(missing), "{said}");
    desk.exchange("[plugins]", "[secrets.two]\nkey = \"nothing that anybody guesses\"\n[plugins]");
    let (code, said) = desk.pintle(&["check"]);
    assert!(code == 1 && said.contains("add \"secrets:two\" to its `grants`"), "{said}");
    desk.exchange("secrets:one", "secrets:two");
    assert_eq!(desk.pintle(&["check"]).0, 0);
}

/// Changes one octet of the first message's body in the log.
fn flip_a_body(folder: &Path) {
    let segment = folder.join("segments/0000000000000001.log");
    let mut octets = fs::read(&segment).unwrap();
    let at = octets.windows(7).position(|part| part == b"hello\r\n").unwrap();
    octets[at] ^= 0x20;
    fs::write(segment, octets).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_is_looked_through_and_repaired_by_hand() {
    let busy = Sink::start(Script::new().reply(SinkStep::Rcpt, "451 4.2.0 mailbox busy")).await;
    let desk = Desk::new(&busy.address().to_string(), "");
    let gateway = Gateway::start(&desk.config);
    for recipient in ["b@y.example", "c@y.example"] {
        deliver(&gateway, "a@x.example", recipient).await;
        gateway.wait_for("\"deferral\"");
    }
    let (code, said) = desk.pintle(&["spool", "repair"]);
    assert!(code == 1 && said.contains("is in use by another process"), "{code} {said}");
    gateway.stop();
    let (code, said) = desk.pintle(&["spool", "check"]);
    assert!(
        code == 0 && said.contains("messages: 2,") && said.contains("no problems found"),
        "{code} {said}"
    );
    let (code, said) = desk.pintle(&["spool", "repair"]);
    assert!(code == 0 && said.contains("2 messages are served"), "{code} {said}");

    let spool = desk.at("spool");
    flip_a_body(&spool);
    for command in [vec!["spool", "check", "--dir", "spool"], vec!["spool", "check", "-c", "pintle.toml"]] {
        let (code, out, err) = run(&command, desk.folder.path());
        let told =
            out.contains("error: ") && out.contains("checksum") && out.contains("`pintle spool repair`");
        assert!(code == 1 && told, "{command:?}: {code} {out}{err}");
    }
    let (code, said) = desk.pintle(&["spool", "repair"]);
    let told = said.contains("1 messages are served") && said.contains("1 messages cannot be served");
    assert!(code == 1 && told, "{code} {said}");
    let kept = fs::read_dir(spool.join("damaged")).unwrap().map(|file| file.unwrap().file_name());
    let kept: Vec<String> = kept.map(|name| name.into_string().unwrap()).collect();
    assert!(kept.iter().any(|name| name.ends_with(".record")), "{kept:?}");
    assert!(kept.iter().any(|name| name.ends_with(".txt")), "{kept:?}");
    let (code, said) = desk.pintle(&["spool", "check"]);
    assert!(code == 0 && said.contains("set aside earlier, in damaged/: 1"), "{code} {said}");
    let (code, said) = desk.pintle(&["spool", "repair"]);
    assert!(code == 0 && said.contains("1 messages are served"), "{code} {said}");

    fs::write(spool.join("envelopes.db"), "no database").unwrap();
    let (code, said) = desk.pintle(&["spool", "check"]);
    assert!(code == 1 && said.contains("warning: ") && said.contains("no mail is affected"), "{code} {said}");
    let gateway = Gateway::start(&desk.config);
    assert_eq!(desk.json(&["queue", "list"])["messages"].as_array().unwrap().len(), 1);
    gateway.stop();
}

#[test]
fn a_hash_that_is_printed_is_one_that_the_configuration_takes() {
    let desk = Desk::new(NOBODY, "");
    let hash = |input: &str| {
        let mut command = Command::new(binary());
        command.arg("hash-password").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = hash("sesame\n");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("$argon2id$") && !text.contains("sesame"), "{text}");
    let user = format!("[[user]]\nname = \"ann\"\npassword_hash = \"{}\"\n", text.trim_end());
    let with_user = Desk::new(NOBODY, &user);
    let (code, said) = with_user.pintle(&["check", "--strict"]);
    assert_eq!(code, 0, "{said}");
    let output = hash("\n");
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no password"),
        "{output:?}"
    );
    drop(desk);
}

/// The steps of the example's README, in its order, up to the first that needs the Internet.
#[test]
fn keys_can_be_compared_before_the_rest_is_there() {
    let desk = Desk::new(
        NOBODY,
        "[[plugin]]\nname = \"b\"\ncomponent = \"stock:batv\"\nconfig_file = \"batv.json\"\n",
    );
    let (code, said) = desk.pintle(&["dkim", "check", "a.example", "s"]);
    assert!(code == 1 && said.contains("no [dkim_keys.NAME]") && !said.contains("batv"), "{said}");
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/edge/README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let place = |step: &str| readme.find(step).unwrap();
    assert!(place("> keys/batv.key") < place("pintle dkim check"));
    let mode = fs::metadata(&desk.config).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "it is a file like any other");
}

/// A gateway with two plugins that a reload would load again, the second of which then takes a long time.
fn slow_to_reload(start: &str) -> (Desk, Gateway) {
    let cache = binary().with_file_name("plugin-cache");
    let plugin = |name: &str, act: &str| {
        format!(
            "[[plugin]]\nname = \"{name}\"\ncomponent = \"p.wasm\"\nconfig = {{ configure = \"{act}\" }}\n\
             grants = [\"kv\", \"dns\", \"auth\", \"sender-auth\", \"auth-results\", \"accept\"]\n\
             limits = {{ start = \"{start}\" }}\n"
        )
    };
    let plugins = plugin("first", "before") + &plugin("second", "as before");
    let desk = Desk::new(NOBODY, &format!("[plugins]\ncache = \"{}\"\n{plugins}", cache.display()));
    fs::copy(pintle_guest_build::component("unruly").unwrap(), desk.at("p.wasm")).unwrap();
    let gateway = Gateway::start(&desk.config);
    desk.exchange("\"before\"", "\"print\"");
    desk.exchange("\"as before\"", "\"sleep\"");
    (desk, gateway)
}

/// A request may time out before plugins are compiled, and an operator may interrupt the command.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_nobody_waits_for_comes_to_its_end() {
    let (desk, gateway) = slow_to_reload("5s");
    let mut socket = std::os::unix::net::UnixStream::connect(desk.at("admin.sock")).unwrap();
    let request = b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull";
    socket.write_all(request).unwrap();
    gateway.wait_for("hello from inside");
    drop(socket);
    gateway.wait_for("the old configuration stays in force");
    let (_, said) = desk.pintle(&["status"]);
    assert!(said.contains("FAIL  configuration the last reload failed"), "{said}");
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_the_gateway_waits_for_no_reload() {
    for by_signal in [true, false] {
        let (desk, gateway) = slow_to_reload("100s");
        let reload = if by_signal {
            gateway.signal("HUP");
            None
        } else {
            let mut command = Command::new(binary());
            Some(command.args(["reload", "-c"]).arg(&desk.config).stderr(Stdio::null()).spawn().unwrap())
        };
        gateway.wait_for("hello from inside");
        gateway.signal("TERM");
        gateway.wait_for("draining");
        gateway.wait_for("the gateway is being stopped");
        // A second signal would end the process at once.
        gateway.wait_for("\"stopped\"");
        assert!(!gateway.log().contains("plugin second"), "{}", gateway.log());
        assert!(reload.is_none_or(|mut reload| reload.wait().unwrap().code() == Some(1)));
    }
}

/// Reading a pipe does not end before its writer closes it, and a device may never end: neither check nor a reload may
/// wait for them.
#[test]
fn what_is_no_file_is_told_and_not_read() {
    let desk = Desk::new(NOBODY, "");
    let made = Command::new("mkfifo").args(["-m", "600"]).arg(desk.at("pipe")).status().unwrap();
    assert!(made.success());
    let before = fs::read_to_string(&desk.config).unwrap();
    for more in [
        "[[tls.certificate]]\nchain = \"PATH\"\nkey = \"PATH\"\n",
        "[tls]\nroots = \"PATH\"\n",
        "[[user]]\nname = \"a\"\npassword = { file = \"PATH\" }\n",
        "[dkim_keys.a]\ndomain = \"x.example\"\nselector = \"s\"\nkey = { file = \"PATH\" }\n",
        "[[plugin]]\nname = \"a\"\ncomponent = \"PATH\"\n",
        "[[plugin]]\nname = \"a\"\ncomponent = \"stock:dnsbl\"\nconfig_file = \"PATH\"\n",
    ] {
        for path in ["pipe", "/dev/zero"] {
            fs::write(&desk.config, before.clone() + &more.replace("PATH", path)).unwrap();
            let (code, said) = desk.pintle(&["check"]);
            assert_eq!(code, 1, "{more}: {said}");
            assert!(
                ["no file", "not a regular file"].iter().any(|text| said.contains(text))
                    || path == "/dev/zero" && said.contains("other users may"),
                "{said}"
            );
        }
    }
    let (code, _, said) = run(&["dkim", "check", "x.example", "s", "--key", "pipe"], desk.folder.path());
    assert!(code == 1 && said.contains("not a regular file"), "{said}");
}

/// The address space is laid out at the start, with room for later plugins.
#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_added_by_a_reload() {
    let cache = binary().with_file_name("plugin-cache");
    let desk = Desk::new(NOBODY, &format!("[plugins]\ncache = \"{}\"\n", cache.display()));
    let gateway = Gateway::start(&desk.config);
    let grey = "[[plugin]]\nname = \"grey\"\ncomponent = \"stock:greylist\"\ngrants = [\"kv\"]\n";
    desk.exchange("[plugins]", &format!("{grey}[plugins]"));
    let (code, said) = desk.pintle(&["reload"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(desk.json(&["plugins", "list"])[0]["name"], "grey");
    gateway.stop();
}
