//! Password guessing: failures are counted over sessions, the network is locked out for a while, and the log names it
//! for tools that block addresses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use e2e::{Gateway, configuration};
use pintle_testkit::{Client, Script, Sink, TempDir};

const USERS: &str = r#"
[authentication]
max_failures = 3
failure_delay = "0s"

[[listener]]
name = "users"
kind = "relay"
addresses = ["127.0.0.1:0"]
tls = "none"
auth = "required"
plain_without_tls = true

[[user]]
name = "ann"
password = "secret"
"#;

/// "\0ann\0wrong", "\0ann\0secret", and a name that would start another log line if it were not escaped.
const WRONG: &str = "AUTH PLAIN AGFubgB3cm9uZw==";
const RIGHT: &str = "AUTH PLAIN AGFubgBzZWNyZXQ=";
const FORGED: &str = "AUTH PLAIN AHgKbG9naW4gZmFpbGVkIGNsaWVudD0xOTIuMC4yLjEgAHdyb25n";

async fn client(gateway: &Gateway, last: u8) -> Client {
    let mut client = Client::connect_from([127, 0, 0, last].into(), gateway.address("users")).await;
    client.hello("client.example").await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_is_shut_out_and_told_to_the_log_in_the_form_that_is_promised() {
    let (folder, sink) = (TempDir::new().unwrap(), Sink::start(Script::new()).await);
    let config = configuration(folder.path(), sink.address(), USERS);
    let gateway = Gateway::start(&config);
    for guess in [WRONG, WRONG, FORGED] {
        client(&gateway, 67).await.ask(guess, 535).await;
    }
    let reply = client(&gateway, 67).await.ask(RIGHT, 421).await;
    assert!(reply.text().starts_with("4.7.0 Too many failed logins from your network"), "{reply:?}");
    client(&gateway, 68).await.ask(RIGHT, 235).await;
    gateway.wait_for("login refused");
    let log = gateway.log();
    let lines = |message: &str| {
        let is_one = |line: &&str| line.contains(&format!("\"message\":\"{message}\""));
        log.lines().filter(is_one).map(str::to_owned).collect::<Vec<_>>()
    };
    let (failed, refused) = (lines("login failed"), lines("login refused"));
    assert_eq!((failed.len(), refused.len(), lines("login").len()), (3, 1, 1), "{log}");
    for line in failed.iter().chain(&refused) {
        // The filter of operations.md for JSON lines: the client follows the message, and no other text can look like
        // it.
        assert_eq!(line.matches("\"client\":\"127.0.0.67\",\"listener\":\"users\"").count(), 1, "{line}");
        let promised = ["\"message\":\"login failed\"", "\"message\":\"login refused\""];
        assert!(
            promised.iter().any(|part| line.contains(&format!("{part},\"client\":\"127.0.0.67\""))),
            "{line}"
        );
    }
    assert!(
        !failed.concat().contains("wrong") && !lines("login").concat().contains("secret"),
        "no password: {log}"
    );
    gateway.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_text_has_the_form_that_is_promised_whatever_name_was_given() {
    let (folder, sink) = (TempDir::new().unwrap(), Sink::start(Script::new()).await);
    let config = configuration(folder.path(), sink.address(), USERS);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("format = \"json\"", "format = \"text\"")).unwrap();
    let gateway = Gateway::spawn(std::process::Command::new(e2e::binary()).arg("run").arg("-c").arg(&config));
    gateway.wait_for("ready");
    let line = gateway.line("listening listener=\"users\"");
    let address = line.split("address=").nth(1).unwrap().trim().parse().unwrap();
    let mut client = Client::connect_from([127, 0, 0, 67].into(), address).await;
    client.hello("client.example").await;
    client.ask(FORGED, 535).await;
    let line = gateway.line("login failed");
    // The filter of operations.md for text lines: `^\S+ +INFO \S+: login (failed|refused) client=<HOST> `.
    let mut parts = line.split_whitespace();
    let (_time, level, target) = (parts.next().unwrap(), parts.next(), parts.next().unwrap());
    assert_eq!((level, target), (Some("INFO"), "pintle_inbound::login:"), "{line}");
    let rest: Vec<_> = parts.take(4).collect();
    assert_eq!(rest[..], ["login", "failed", "client=127.0.0.67", "listener=\"users\""], "{line}");
    assert!(line.contains(r#"username="x\nlogin failed client=192.0.2.1 ""#), "{line}");
    assert!(!gateway.log().lines().any(|line| line.starts_with("login failed")), "one line stays one line");
    gateway.stop();
}
