//! Held mail on the real binary: plugins that come after the one that holds it strip, tag and seal it all the same, since
//! it may be released.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use e2e::{Gateway, binary, configuration, run};
use pintle_testkit::{Client, Script, Sink, TempDir, ZoneServer};

/// A domain whose policy is to quarantine forgeries.
const ZONES: &str = "_dmarc.x.example TXT \"v=DMARC1; p=quarantine\"\n";

/// The plugin that holds comes first; the others are not mandatory.
const PLUGINS: &str = r#"
[[plugin]]
name = "dmarc"
component = "stock:dmarc"
grants = ["sender-auth", "auth-results"]

[[plugin]]
name = "header-rewrite"
component = "stock:header-rewrite"
grants = ["edit-headers"]
config = { strip_inbound = ["X-MS-Exchange-Organization-*"], rules = [{ set = { name = "X-Footer", value = "grüße" } }] }

[[plugin]]
name = "dkim"
component = "stock:dkim"
grants = ["sender-auth", "auth-results", "sign"]
config = { seal = "gate" }
"#;

fn key(folder: &Path) -> String {
    let file = folder.join("gate.pem");
    let arguments =
        ["dkim", "keygen", "--domain", "ours.example", "--selector", "gate", "--algorithm", "ed25519"];
    let (code, out, err) = run(&[&arguments[..], &["--out", file.to_str().unwrap()]].concat(), folder);
    assert_eq!(code, 0, "{out}{err}");
    format!(
        "[dkim_keys.gate]\ndomain = \"ours.example\"\nselector = \"gate\"\nkey = {{ file = \"{}\" }}\n",
        file.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn held_mail_passes_the_header_firewall_and_is_sealed() {
    let folder = TempDir::new().unwrap();
    let sink = Sink::start(Script::new()).await;
    let zone = ZoneServer::start(ZONES).await;
    let more = format!(
        "[dns]\nservers = [\"{}\"]\n[plugins]\ncache = \"{}\"\n{}{PLUGINS}",
        zone.address(),
        binary().with_file_name("plugin-cache").display(),
        key(folder.path()),
    );
    let config = configuration(folder.path(), sink.address(), &more);
    let gateway = Gateway::start(&config);
    let mut client = Client::connect_from([127, 0, 0, 66].into(), gateway.address("mx")).await;
    client.hello("client.example").await;
    let message = b"From: <a@x.example>\r\nSubject: a forgery\r\nX-MS-Exchange-Organization-AuthAs: Internal\r\n\r\ntext\r\n";
    let queued = client.deliver("a@x.example", &["b@ours.example"], message).await;
    let text = queued.text();
    let id = text.split_whitespace().last().unwrap();
    let path = config.to_str().unwrap();
    let (code, header, err) = run(&["quarantine", "show", id, "--header", "-c", path], folder.path());
    assert_eq!(code, 0, "{header}{err}");
    assert!(!header.contains("AuthAs"), "the firewall has stripped it: {header}");
    assert!(header.contains("X-Footer: =?utf-8?"), "it is tagged, in encoded words: {header}");
    assert!(header.contains("ARC-Seal: i=1;"), "it is sealed: {header}");
    let (code, out, err) = run(&["quarantine", "release", id, "-c", path], folder.path());
    assert_eq!(code, 0, "{out}{err}");
    let arrived = sink.wait_for(1).await.pop().unwrap();
    assert!(!arrived.text().contains("AuthAs") && arrived.text().contains("ARC-Seal"), "{}", arrived.text());
    gateway.stop();
}
