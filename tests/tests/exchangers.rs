//! Mail exchangers chosen by untrusted DNS records, in the real binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::TcpListener;

use e2e::{Gateway, configuration};
use pintle_testkit::{Client, Script, Sink, TempDir, ZoneServer};

/// The address of another program on this machine, which must not be reached.
const INSIDE: &str = "127.0.0.9";

/// Domains whose exchangers have internal addresses.
const TRAPS: &[(&str, &str)] = &[
    ("loopback.example", "A 127.0.0.9"),
    ("mapped.example", "AAAA ::ffff:127.0.0.9"),
    ("unspecified.example", "A 0.0.0.0"),
    ("metadata.example", "A 169.254.169.254"),
    ("private.example", "A 10.1.2.3"),
];

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_send_us_inside() {
    let (folder, sink) = (TempDir::new().unwrap(), Sink::start(Script::new()).await);
    let zone =
        |(domain, address): &(&str, &str)| format!("{domain} MX 10 mx.{domain}\nmx.{domain} {address}\n");
    let zones = ZoneServer::start(&TRAPS.iter().map(zone).collect::<String>()).await;
    let inside = TcpListener::bind((INSIDE, 0)).unwrap();
    inside.set_nonblocking(true).unwrap();
    let domains: Vec<String> = TRAPS.iter().map(|(domain, _)| format!("\"{domain}\"")).collect();
    let more = format!(
        "[dns]\nservers = [\"{}\"]\nhosts_file = false\n[delivery]\nmx_port = {}\n[[route]]\ndomain = [{}]\nvia = \"mx\"\n",
        zones.address(),
        inside.local_addr().unwrap().port(),
        domains.join(", ")
    );
    let gateway = Gateway::start(&configuration(folder.path(), sink.address(), &more));
    let mut colleague = Client::connect(gateway.address("inside")).await;
    colleague.hello("inside.example").await;
    for (domain, _) in TRAPS {
        let recipient = format!("b@{domain}");
        colleague.deliver("ann@ours.example", &[&recipient], b"Subject: out\r\n\r\nhello\r\n").await;
    }
    let reports = sink.wait_for(TRAPS.len()).await;
    for (domain, _) in TRAPS {
        let about = format!("Final-Recipient: rfc822; b@{domain}");
        let report = reports.iter().find(|report| report.text().contains(&about));
        let report = report.unwrap_or_else(|| panic!("no report on {domain}")).text();
        assert!(report.contains("Status: 5.4.4"), "{report}");
        assert!(report.contains("mx_networks"), "{report}");
    }
    gateway.stop();
    assert_eq!(
        inside.accept().unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "somebody was connected to inside"
    );
}
