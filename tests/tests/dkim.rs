//! `pintle dkim`: a key is made, published as the command says, and found valid; mistakes are reported.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::run;
use pintle_testkit::{TempDir, ZoneServer};

fn keygen(folder: &Path, more: &[&str]) -> (i32, String, String) {
    let base = ["dkim", "keygen", "--domain", "Example.ORG", "--selector", "s1", "--out"];
    run(&[&base[..], more].concat(), folder)
}

/// The zone-file lines in the output of `keygen`.
fn zone(out: &str) -> String {
    out.split("Publish in DNS:\n\n").skip(1).flat_map(|part| [part.lines().next().unwrap(), "\n"]).collect()
}

/// Runs the command on another thread than the one that serves.
async fn check(server: &ZoneServer, folder: &Path, more: &[&str]) -> (i32, String) {
    let dns = server.address().to_string();
    let arguments = [&["dkim", "check", "example.org", "s1", "--dns", &dns], more].concat();
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let folder = folder.to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &folder)
    });
    let (code, out, error) = asked.await.unwrap();
    (code, out + &error)
}

#[tokio::test]
async fn a_new_key_is_published_as_told_and_found_good() {
    let folder = TempDir::new().unwrap();
    let (code, out, error) = keygen(folder.path(), &[".", "--algorithm", "both"]);
    assert_eq!(code, 0, "{error}");
    for name in ["s1.example.org.pem", "s1-ed25519.example.org.pem"] {
        let file = folder.path().join(name);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        let text = std::fs::read_to_string(&file).unwrap();
        let secret = text.lines().nth(1).unwrap();
        assert!(!out.contains(secret));
        let path = file.canonicalize().unwrap();
        assert!(out.contains(&format!("key = {{ file = \"{}\" }}", path.display())), "{out}");
    }
    assert!(
        out.contains("[dkim_keys.example-org-s1]\ndomain = \"example.org\"\nselector = \"s1\"\n"),
        "{out}"
    );
    let server = ZoneServer::start(&zone(&out)).await;
    let (code, said) = check(&server, folder.path(), &["--key", "s1.example.org.pem"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("s1._domainkey.example.org: good, RSA of 2048 bits"), "{said}");
    let (code, said) = check(&server, folder.path(), &[]).await;
    assert_eq!(code, 0, "{said}");
    let config = |selector: &str| {
        let key = format!(
            "domain = \"example.org\"\nselector = \"{selector}\"\nkey = {{ file = \"s1.example.org.pem\" }}"
        );
        let listener = "[[listener]]\nname = \"mx\"\naddresses = [\"127.0.0.1:2525\"]";
        let text = format!("hostname = \"gate.example.org\"\n{listener}\n[dkim_keys.own]\n{key}\n");
        std::fs::write(folder.path().join("pintle.toml"), text).unwrap();
    };
    config("s1");
    let (code, said) = check(&server, folder.path(), &["-c", "pintle.toml"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("the key of [dkim_keys.own]"), "{said}");
    config("s2");
    let (code, said) = check(&server, folder.path(), &["-c", "pintle.toml"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("has the domain example.org and the selector s1"), "{said}");
    let (code, said) = check(&server, folder.path(), &["--key", "s1-ed25519.example.org.pem"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("another key is published"), "{said}");
    assert!(said.contains("k=ed25519"), "{said}");
}

#[test]
fn a_key_that_is_there_is_not_replaced_unasked() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("key.pem");
    std::fs::write(&file, "precious").unwrap();
    let (code, _, error) = keygen(folder.path(), &["key.pem", "--algorithm", "ed25519"]);
    assert_eq!(code, 1);
    assert!(error.contains("key.pem already exists"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let (code, _, error) = keygen(folder.path(), &["key.pem", "--algorithm", "ed25519", "--force"]);
    assert_eq!(code, 0, "{error}");
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_cannot_sign_is_not_written() {
    let folder = TempDir::new().unwrap();
    for (more, reason) in [
        (&["--domain", "localhost"][..], "not a domain that can sign"),
        (&["--selector", "s_1"], "is not a selector"),
        (&["--selector", "../s1"], "is not a selector"),
        (&["--algorithm", "rsa", "--bits", "1024"], "2048, 3072 or 4096"),
        (&["--out", "nowhere/key.pem"], "cannot write"),
        (&["--out", "key.pem", "--algorithm", "both"], "is not a folder"),
    ] {
        let mut words = vec!["dkim", "keygen"];
        let defaults =
            [("--domain", "example.org"), ("--selector", "s1"), ("--out", "."), ("--algorithm", "ed25519")];
        let missing = defaults.iter().filter(|(name, _)| !more.contains(name));
        missing.for_each(|(name, value)| words.extend([*name, *value]));
        words.extend(more);
        let (code, _, error) = run(&words, folder.path());
        assert_eq!(code, 1, "{more:?}");
        assert!(error.contains(reason), "{more:?}: {error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_wrong_in_dns_is_told_with_its_remedy() {
    let folder = TempDir::new().unwrap();
    let (_, out, _) = keygen(folder.path(), &["key.pem"]);
    let good = zone(&out);
    let server = ZoneServer::start("example.org. A 192.0.2.1").await;
    for (text, reason) in [
        ("example.org. A 192.0.2.1".to_owned(), "nothing is published"),
        ("s1._domainkey.example.org. TXT \"v=DKIM1; p=\"".to_owned(), "revoked"),
        ("s1._domainkey.example.org. TXT \"v=DKIM1; p=!\"".to_owned(), "not a key (p= is not Base64)"),
        (good.replace("k=rsa;", "t=y;  "), "testing (t=y)"),
        (format!("{good}s1._domainkey.example.org. TXT \"other\"\n"), "2 TXT records"),
    ] {
        server.serve(&text);
        let (code, said) = check(&server, folder.path(), &["--key", "key.pem"]).await;
        assert_eq!(code, 1, "{reason}");
        assert!(said.contains(reason), "{reason}: {said}");
        assert!(said.contains(good.trim_end()), "the record to publish: {said}");
    }
    server.fail("s1._domainkey.example.org", pintle_testkit::ZoneFault::Refused);
    let (code, said) = check(&server, folder.path(), &[]).await;
    assert_eq!(code, 1);
    assert!(said.contains("DNS: "), "{said}");
}
