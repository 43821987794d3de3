//! The sandbox, as a new user sees it: what it prints, what it keeps, and when it ends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use e2e::{binary, run};
use pintle_testkit::{Client, TempDir};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const MESSAGE: &[u8] = b"Subject: one\r\n\r\nhello\r\n";
/// "\0sandbox\0wrong".
const WRONG: &str = "AUTH PLAIN AHNhbmRib3gAd3Jvbmc=";

/// A running sandbox, which ends with the test, however the test ends.
struct Sandbox {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Its output so far.
    told: Vec<String>,
}

impl Sandbox {
    fn start(folder: &Path, options: &[&str]) -> Self {
        let mut command = Command::new(binary());
        let ports = ["--submission", "127.0.0.1:0", "--submissions", "127.0.0.1:0"];
        command.args(["sandbox", "--folder", "box"]).args(ports).args(options);
        let child = command.current_dir(folder).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut sandbox = Self { child, lines, told: Vec::new() };
        sandbox.line("Ctrl-C stops the sandbox");
        sandbox
    }

    /// Waits for a line with this text.
    fn line(&mut self, text: &str) -> String {
        for line in self.lines.by_ref() {
            self.told.push(line.unwrap());
            let last = self.told.last().unwrap();
            if last.contains(text) {
                return last.clone();
            }
        }
        panic!("it ended before {text:?}: {:#?}", self.told);
    }

    /// Its address, found by the first word of the line on its first screen.
    fn address(&self, name: &str) -> SocketAddr {
        let line = self.told.iter().find(|line| line.trim_start().starts_with(name)).unwrap();
        line[name.len() + 2..].split_whitespace().next().unwrap().parse().unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    fn end(mut self) -> (ExitStatus, Vec<String>) {
        let rest: Vec<String> = self.lines.by_ref().map(|line| line.unwrap()).collect();
        self.told.extend(rest);
        (self.child.wait().unwrap(), std::mem::take(&mut self.told))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_captures_and_says_what_hooks_see() {
    let folder = TempDir::new().unwrap();
    let mut sandbox = Sandbox::start(folder.path(), &["--smtp", "127.0.0.1:0"]);
    assert!(
        sandbox.told.iter().any(|line| line.contains("The example plugin refuses")),
        "{:#?}",
        sandbox.told
    );
    let mut client = Client::connect(sandbox.address("SMTP")).await;
    client.hello("client.example").await;
    client.deliver("a@x.example", &["b@anywhere.example"], MESSAGE).await;
    sandbox.line("captured");
    for expected in ["it has mail from a@x.example", "its subject is \"one\"", "accepted", ".eml"] {
        assert!(sandbox.told.iter().any(|line| line.contains(expected)), "{expected}: {:#?}", sandbox.told);
    }
    let (_, list, _) = run(&["sandbox", "messages", "--folder", "box"], folder.path());
    assert!(list.contains("<a@x.example> to b@anywhere.example") && list.contains("1 messages"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_told_and_subjects_are_shown_as_readers_see_them() {
    let folder = TempDir::new().unwrap();
    let mut sandbox = Sandbox::start(folder.path(), &["--smtp", "127.0.0.1:0"]);
    let mut tls = TcpStream::connect(sandbox.address("submission, TLS")).await.unwrap();
    tls.write_all(b"EHLO in.plain.text\r\n").await.unwrap();
    let line = sandbox.line("TLS handshake failed");
    assert!(line.contains("client=127.0.0.1") && line.contains("plain text instead of TLS"), "{line}");
    let mut client = Client::connect(sandbox.address("SMTP")).await;
    client.hello("client.example").await;
    client.ask("MAIL FROM:<a@x.example> SIZE=99999999999", 552).await;
    let line = sandbox.line("a client exceeded a limit");
    assert!(line.contains("message_too_big"), "{line}");
    let message = b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe=1B[2J?=\r\n\r\nhello\r\n";
    client.deliver("a@x.example", &["b@anywhere.example"], message).await;
    for said in ["its subject is \"Grüße\u{fffd}[2J\"", ": \"Grüße\u{fffd}[2J\""] {
        sandbox.line(said);
    }
    sandbox.line("captured");
    let (_, list, _) = run(&["sandbox", "messages", "--folder", "box"], folder.path());
    assert!(list.contains("\"Grüße\u{fffd}[2J\""), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told() {
    let folder = TempDir::new().unwrap();
    let mut sandbox = Sandbox::start(folder.path(), &["--smtp", "127.0.0.1:0"]);
    // Without TLS, as a user could change the file for a test.
    sandbox.signal("TERM");
    assert!(sandbox.child.wait().unwrap().success());
    let path = folder.path().join("box/pintle.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let changed = "kind = \"mx\"\nauth = \"offered\"\nplain_without_tls = true\nmechanisms = [\"PLAIN\"]";
    std::fs::write(&path, text.replace("kind = \"mx\"", changed)).unwrap();

    let mut sandbox = Sandbox::start(folder.path(), &[]);
    assert!(sandbox.told.iter().any(|line| line.contains("has changes, and is used as it is")));
    assert!(std::fs::read_to_string(&path).unwrap().contains(changed), "the user's own words are kept");
    let mut client = Client::connect(sandbox.address("SMTP")).await;
    client.hello("client.example").await;
    client.ask(WRONG, 535).await;
    let line = sandbox.line("login failed");
    assert!(line.contains("client=127.0.0.1") && line.contains("username=sandbox"), "{line}");
}

#[test]
fn it_ends_with_its_terminal_and_gives_its_ports_back() {
    let folder = TempDir::new().unwrap();
    let sandbox = Sandbox::start(folder.path(), &["--smtp", "127.0.0.1:0"]);
    let address = sandbox.address("SMTP");
    sandbox.signal("HUP");
    let (status, told) = sandbox.end();
    assert!(status.success() && told.iter().any(|line| line.contains("Stopping")), "{told:#?}");
    std::net::TcpListener::bind(address).unwrap();
}

/// Two built-in plugins, with all grants; and a log level that made an unoptimised start slow.
#[test]
fn plugins_of_the_programs_own_are_tried_by_name_and_open_addresses_are_told() {
    let folder = TempDir::new().unwrap();
    let options = ["--smtp", "0.0.0.0:0", "--plugin", "stock:greylist", "--plugin", "stock:dnsbl"];
    let config = ["--plugin-config", "{}", "--plugin-config", r#"{"lists":[{"zone":"list.example"}]}"#];
    let sandbox = Sandbox::start(folder.path(), &[&options[..], &config].concat());
    let told = sandbox.told.join("\n");
    assert!(!told.contains("example plugin"), "{told}");
    assert!(told.contains("Clients in private networks may send mail here"), "{told}");
    let written = std::fs::read_to_string(folder.path().join("box/pintle.toml")).unwrap();
    assert!(written.contains("trusted = [\"127.0.0.0/8\", \"::1/128\", \"10.0.0.0/8\""), "{written}");
    assert!(!sandbox.told.iter().any(|line| line.contains("warning")), "{told}");
}
