//! Common mail clients send through the gateway to a server that shares no code with it.
//!
//! A client that is not installed is reported and skipped, except in CI, where the set-up installs all of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "who was not there must be seen")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::{Gateway, configuration, example_plugin};
use pintle_testkit::{Script, Sink, TempDir};

const TEXT: &str =
    "From: a@x.example\r\nTo: b@y.example\r\nSubject: from a client\r\n\r\nhello\r\n.\r\ndots\r\n";

/// Sends `TEXT` with a client and checks what arrives.
async fn try_client(program: &str, command: impl FnOnce(SocketAddr, &Path) -> Command) {
    if Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        assert!(std::env::var_os("CI").is_none(), "{program} is not installed, and CI runs every client");
        println!("{program} is not installed: not tried");
        return;
    }
    let folder = TempDir::new().unwrap();
    let sink = Sink::start(Script::new()).await;
    let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &example_plugin()));
    let file = folder.path().join("message");
    std::fs::write(&file, TEXT).unwrap();
    let mut command = command(gateway.address("inside"), &file);
    let output = command.stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    let arrived = sink.wait_for(1).await.remove(0);
    assert_eq!(arrived.sender.address, "a@x.example", "{program}");
    assert_eq!(arrived.recipients(), ["b@y.example"], "{program}");
    let message = String::from_utf8(arrived.message).unwrap();
    assert!(message.contains("X-Seen: seen on the way to 1 recipient(s)\r\n"), "{program}: {message}");
    let body = message.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body.trim_end(), "hello\r\n.\r\ndots", "{program}: {message}");
    sink.assert_no_violations();
}

#[tokio::test]
async fn swaks_delivers() {
    try_client("swaks", |address, file| {
        let mut swaks = Command::new("swaks");
        swaks.args(["--from", "a@x.example", "--to", "b@y.example", "--server", &address.to_string()]);
        swaks.arg("--data").arg(format!("@{}", file.display()));
        swaks
    })
    .await;
}

#[tokio::test]
async fn msmtp_delivers() {
    try_client("msmtp", |address, _| {
        let mut msmtp = Command::new("msmtp");
        msmtp.arg(format!("--host={}", address.ip())).arg(format!("--port={}", address.port()));
        msmtp.args(["--from=a@x.example", "--", "b@y.example"]);
        msmtp
    })
    .await;
}

#[tokio::test]
async fn curl_delivers() {
    try_client("curl", |address, _| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--mail-from", "a@x.example", "--mail-rcpt", "b@y.example"]);
        curl.args(["--url", &format!("smtp://{address}"), "--upload-file", "-"]);
        curl
    })
    .await;
}

#[tokio::test]
async fn pythons_smtplib_delivers() {
    const SCRIPT: &str = "import smtplib, sys
server = smtplib.SMTP(sys.argv[1], int(sys.argv[2]))
server.sendmail('a@x.example', ['b@y.example'], open(sys.argv[3], 'rb').read())
server.quit()
";
    try_client("python3", |address, file| {
        let mut python = Command::new("python3");
        python.args(["-c", SCRIPT, &address.ip().to_string(), &address.port().to_string()]).arg(file);
        python
    })
    .await;
}
