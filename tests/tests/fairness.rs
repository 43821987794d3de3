//! Clients of one network whose plugin calls never end do not keep other clients from getting normal answers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use e2e::{Gateway, binary, configuration, run};
use pintle_testkit::{Client, DnsRecordKind, Script, Sink, TempDir, ZoneFault, ZoneServer};

/// Addresses of one /24, for which the list never answers.
const SLOW: [IpAddr; 6] = [slow(61), slow(62), slow(63), slow(64), slow(65), slow(66)];
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 2, 5));

const fn slow(last: u8) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 1, last))
}

fn listed(client: IpAddr) -> String {
    let IpAddr::V4(v4) = client else { unreachable!("all are IPv4") };
    let [a, b, c, d] = v4.octets();
    format!("{d}.{c}.{b}.{a}.list.example")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_whose_list_lookups_hang_keeps_no_other_from_being_served() {
    let folder = TempDir::new().unwrap();
    let sink = Sink::start(Script::new()).await;
    let zone = ZoneServer::start("2.0.0.127.list.example A 127.0.0.2").await;
    SLOW.iter().for_each(|client| zone.fail(&listed(*client), ZoneFault::Silent));
    let cache = binary().with_file_name("plugin-cache");
    let more = format!(
        "[dns]\nservers = [\"{}\"]\n[plugins]\ncache = \"{}\"\n[[plugin]]\nname = \"dnsbl\"\n\
         component = \"stock:dnsbl\"\ngrants = [\"dns\"]\nconfig = {{ lists = [{{ zone = \"list.example\" }}] }}\n\
         [plugin.limits]\nmax_instances = 4\nwall = \"10m\"\n",
        zone.address(),
        cache.display()
    );
    let config = configuration(folder.path(), sink.address(), &more);
    let gateway = Gateway::start(&config);
    let mut crowd = Vec::new();
    for client in SLOW {
        // None of them gets a greeting.
        crowd.push(Client::connect_from(client, gateway.address("mx")).await);
    }
    // A quarter of the instances, but at least two.
    while SLOW.iter().filter(|client| zone.count(&listed(**client), DnsRecordKind::A) > 0).count() < 2 {
        tokio::task::yield_now().await;
    }
    let mut other = Client::connect_from(OTHER, gateway.address("mx")).await;
    other.hello("other.example").await;
    other.deliver("a@x.example", &["b@ours.example"], b"Subject: s\r\n\r\nbody\r\n").await;
    assert_eq!(sink.wait_for(1).await[0].recipients(), ["b@ours.example"]);
    let (code, out, _) = run(&["plugins", "list", "-c", config.to_str().unwrap()], folder.path());
    assert!(code == 0 && out.contains(" of 4\n"), "{out}");
    drop(crowd);
}
