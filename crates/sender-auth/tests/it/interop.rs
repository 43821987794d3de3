//! Verifies our signatures with opendkim (C) and dkimpy (Python), which share no code with us or each other.
//!
//! A program that is not installed is reported and skipped, except in CI, where the set-up installs both.

use std::path::Path;
use std::process::{Command, Stdio};

use pintle_sender_auth::sign::{key_name, sign};
use pintle_testkit::TempDir;

use crate::seal::sealed;
use crate::sign::{ED25519, NOW, PLAIN, RSA, keys, parts};

/// Bodies with every kind of end, each with CRLF on its last line: opendkim's file reader accepts no other.
const BODIES: [&str; 5] =
    ["", "\r\n", "a\r\n \t\r\n", "First  line\r\nsecond line \t\r\n\r\n\r\n", "\u{e9}\r\n.\r\n"];

/// The first of these programs that passes the probe.
#[allow(clippy::print_stdout, reason = "who was not asked must be seen")]
fn found(name: &str, programs: &[&'static str], probe: &[&str]) -> Option<&'static str> {
    let passes = |program: &&&str| {
        let mut probing = Command::new(program);
        probing.args(probe).stdout(Stdio::null()).stderr(Stdio::null());
        probing.status().is_ok_and(|status| status.success())
    };
    let found = programs.iter().find(passes).copied();
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is not installed, and CI asks every verifier");
        println!("{name} is not installed: not asked");
    }
    found
}

/// `NAME TEXT` lines for both keys of each domain.
fn zone(domains: &[&str]) -> String {
    let line =
        |selector: &str, domain: &str, record: &str| format!("{} {record}\n", key_name(selector, domain));
    let both = |domain: &&str| line("rsa", domain, &RSA.record) + &line("ed", domain, &ED25519.record);
    domains.iter().map(both).collect()
}

/// The test message with another body, signed by both keys without an end, since others have a clock of their own.
async fn signed(body: &str) -> Vec<u8> {
    let header = PLAIN.split_once("\r\n\r\n").unwrap().0.replace("X-Odd :", "X-Odd:");
    let message = format!("{header}\r\n\r\n{body}");
    let (header, body) = parts(message.as_bytes());
    let fields =
        sign(&keys("signer.example", |config| config.expires = None), &header, &body, NOW).await.unwrap();
    [&fields, message.as_bytes()].concat()
}

/// Adds another From field on top of ours.
fn forged(message: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(message.to_vec()).unwrap();
    text.replacen("\r\nTo: bob", "\r\nFrom: eve@evil.example\r\nTo: bob", 1).into_bytes()
}

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn opendkim(folder: &Path, message: &[u8]) -> String {
    let (zone_file, config, file) = (folder.join("zone"), folder.join("conf"), folder.join("message"));
    std::fs::write(&zone_file, zone(&["signer.example"])).unwrap();
    std::fs::write(&config, format!("Mode v\nTestDNSData file:{}\n", zone_file.display())).unwrap();
    std::fs::write(&file, message).unwrap();
    output(Command::new("opendkim").arg("-x").arg(config).arg("-t").arg(file).arg("-vv"))
}

#[tokio::test]
async fn opendkim_believes_us() {
    if found("opendkim", &["opendkim"], &["-V"]).is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    for body in BODIES {
        let message = signed(body).await;
        let said = opendkim(folder.path(), &message);
        assert_eq!(said.matches("dkim=pass").count(), 2, "{body:?}: {said}");
        let said = opendkim(folder.path(), &forged(&message));
        assert_eq!((said.matches("dkim=pass").count(), said.matches("dkim=fail").count()), (0, 2), "{said}");
    }
}

/// Prints the result of every signature, and of the chain.
const DKIMPY: &str = "import dkim, sys
zone = dict(line.split(' ', 1) for line in open(sys.argv[1]).read().splitlines())
def ask(name, timeout=5):
    return zone[(name.decode() if isinstance(name, bytes) else name).rstrip('.')].encode()
message = open(sys.argv[2], 'rb').read()
print([dkim.DKIM(message).verify(idx=at, dnsfunc=ask) for at in range(2)], dkim.arc_verify(message, dnsfunc=ask)[0])
";

fn dkimpy(python: &str, folder: &Path, message: &[u8]) -> String {
    let (zone_file, file) = (folder.join("zone"), folder.join("message"));
    std::fs::write(&zone_file, zone(&["signer.example", "one.example", "two.example", "three.example"]))
        .unwrap();
    std::fs::write(&file, message).unwrap();
    output(Command::new(python).args(["-c", DKIMPY]).arg(zone_file).arg(file)).trim_end().to_owned()
}

#[tokio::test]
async fn dkimpy_believes_us_and_our_chains() {
    // Debian's own Python sees Debian's packages; the first one on the PATH may be another.
    let python = found("dkimpy", &["/usr/bin/python3", "python3"], &["-c", "import dkim, nacl"]);
    let Some(python) = python else { return };
    let folder = TempDir::new().unwrap();
    for body in BODIES {
        let mut message = signed(body).await;
        assert_eq!(dkimpy(python, folder.path(), &message), "[True, True] b'none'", "{body:?}");
        assert_eq!(dkimpy(python, folder.path(), &forged(&message)), "[False, False] b'none'", "{body:?}");
        // It does not support Ed25519 in chains.
        for domain in ["one.example", "two.example", "three.example"] {
            message = sealed(&message, domain, 0).await.unwrap();
            assert_eq!(dkimpy(python, folder.path(), &message), "[True, True] b'pass'", "{body:?} {domain}");
        }
        assert_eq!(dkimpy(python, folder.path(), &forged(&message)), "[False, False] b'fail'", "{body:?}");
    }
}
