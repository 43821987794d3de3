//! Checks of the configuration against the machine and against itself, which would otherwise fail at a start or at the
//! first message.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pintle_config::{
    Cause, CertificateRule, ConfigReport, ConfigRule, DeliveryRule, FileRule, ListenerRule, Settings, parts,
    read,
};
use pintle_mail::UnixTime;
use tempfile::TempDir;

const BEGIN: &str = "hostname = \"gw.example\"\n[[listener]]\nname = \"mx\"\naddresses = \"127.0.0.9:25\"\n";

/// A file in a folder of its own.
fn report(folder: &TempDir, text: &str) -> ConfigReport {
    read(
        text.to_owned(),
        &folder.path().join("pintle.toml"),
        &[("stock", bytes::Bytes::from_static(b"wasm"))],
    )
}

/// Key and rule of each mistake, then of each warning, in a file that begins with this text.
fn told(folder: &TempDir, text: &str) -> Vec<(String, ConfigRule)> {
    let report = report(folder, text);
    let all = report.mistakes.iter().chain(&report.warnings);
    let rules = all.filter_map(|mistake| match &mistake.cause {
        // These depend on the machine of the test, or are not what the test is about.
        Cause::Rule(
            ConfigRule::File(FileRule::NoRuntimeFolder(_))
            | ConfigRule::Listener(ListenerRule::AcceptsNothing),
        ) => None,
        Cause::Rule(rule) => Some((mistake.key.clone(), rule.clone())),
        cause => panic!("{}: {cause}", mistake.key),
    });
    rules.collect()
}

fn one(key: &str, rule: ConfigRule) -> Vec<(String, ConfigRule)> {
    vec![(key.to_owned(), rule)]
}

#[test]
fn folders_must_be_folders_and_be_there_where_nobody_makes_them() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("folder")).unwrap();
    for (more, key, rule) in [
        ("[spool]\ndir = \"file\"", "spool.dir", ConfigRule::from(FileRule::NotAFolder(at("file")))),
        ("[plugins]\ncache = \"file\"", "plugins.cache", ConfigRule::from(FileRule::NotAFolder(at("file")))),
        ("[plugins]\nstate = \"file\"", "plugins.state", ConfigRule::from(FileRule::NotAFolder(at("file")))),
        ("[admin]\nsocket = \"none/s\"", "admin.socket", ConfigRule::from(FileRule::NoFolder(at("none")))),
        ("[admin]\nsocket = \"file/s\"", "admin.socket", ConfigRule::from(FileRule::NotAFolder(at("file")))),
        ("[admin]\nsocket = \"file\"", "admin.socket", ConfigRule::from(FileRule::NotASocket(at("file")))),
        ("[log]\nfile = \"none/l\"", "log.file", ConfigRule::from(FileRule::NoFolder(at("none")))),
        ("[log]\nfile = \"folder\"", "log.file", ConfigRule::from(FileRule::NotAFile(at("folder")))),
    ] {
        assert_eq!(told(&folder, &format!("{BEGIN}{more}\n")), one(key, rule), "{more}");
    }
    let good = "[spool]\ndir = \"a/b/spool\"\n[plugins]\ncache = \"a/cache\"\n[admin]\nsocket = \"s\"\n[log]\nfile = \"l\"\n";
    assert_eq!(told(&folder, &format!("{BEGIN}{good}")), [], "what is missing the gateway makes");
    let gone = report(&folder, &format!("{BEGIN}[admin]\nsocket = \"/run/no-such-folder/s\"\n"));
    assert!(gone.settings.is_some(), "the service manager makes it: {gone}");
    let missing = ConfigRule::from(FileRule::NoRuntimeFolder("/run/no-such-folder".into()));
    assert!(gone.warnings.iter().any(|warning| warning.cause == Cause::Rule(missing.clone())), "{gone}");
}

#[test]
fn addresses_that_exclude_each_other_are_told() {
    let folder = TempDir::new().unwrap();
    let two = |one: &str, other: &str| {
        format!(
            "hostname = \"gw.example\"\n[[listener]]\nname = \"a\"\naddresses = {one}\n[[listener]]\nname = \"b\"\naddresses = {other}\n"
        )
    };
    let overlap = |one: &str, other: &str, line| {
        ConfigRule::from(ListenerRule::Overlap(one.parse().unwrap(), other.parse().unwrap(), line))
    };
    let wild = overlap("127.0.0.1:25", "0.0.0.0:25", 4);
    assert_eq!(told(&folder, &two("\"0.0.0.0:25\"", "\"127.0.0.1:25\"")), one("listener[2].addresses", wild));
    let specific = overlap("[::]:25", "[::1]:25", 4);
    assert_eq!(told(&folder, &two("\"[::1]:25\"", "\"[::]:25\"")), one("listener[2].addresses", specific));
    let within = overlap("127.0.0.1:25", "0.0.0.0:25", 4);
    let alone = two("[\"0.0.0.0:25\", \"127.0.0.1:25\"]", "\"127.0.0.1:26\"");
    assert_eq!(told(&folder, &alone), one("listener[1].addresses", within));
    let http = format!("{}[admin]\nhttp = \"127.0.0.1:25\"\n", two("\"0.0.0.0:25\"", "\"127.0.0.1:26\""));
    assert_eq!(told(&folder, &http), one("admin.http", overlap("127.0.0.1:25", "0.0.0.0:25", 4)));
    for good in [
        two("\"0.0.0.0:25\"", "\"[::]:25\""),
        two("\"0.0.0.0:25\"", "\"127.0.0.1:26\""),
        two("\"127.0.0.1:25\"", "\"127.0.0.2:25\""),
        two("\"0.0.0.0:0\"", "\"127.0.0.1:0\""),
    ] {
        assert_eq!(told(&folder, &good), [], "{good}");
    }
}

#[test]
fn a_relay_that_is_ourselves_is_a_loop() {
    let folder = TempDir::new().unwrap();
    let with = |listener: &str, host: &str| {
        let text = format!(
            "hostname = \"gw.example\"\n[delivery]\nown_names = [\"mail.example\"]\n[[listener]]\nname = \"mx\"\n\
             addresses = \"{listener}\"\n[relays.a]\nhosts = [\"inside.example\", \"{host}\"]\n"
        );
        told(&folder, &text)
    };
    let us = |host: &str| one("relays.a.hosts", ConfigRule::from(DeliveryRule::RelayIsUs(host.to_owned())));
    assert_eq!(with("127.0.0.9:2525", "127.0.0.9:2525"), us("127.0.0.9:2525"));
    assert_eq!(with("0.0.0.0:25", "127.0.0.1"), us("127.0.0.1:25"));
    assert_eq!(with("0.0.0.0:25", "localhost"), us("localhost:25"));
    assert_eq!(with("[::]:25", "[::1]"), us("[::1]:25"));
    let may =
        |host: &str| one("relays.a.hosts", ConfigRule::from(DeliveryRule::RelayMayBeUs(host.to_owned())));
    assert_eq!(with("192.0.2.1:25", "gw.example"), may("gw.example:25"));
    assert_eq!(with("192.0.2.1:25", "Mail.example:25"), may("mail.example:25"));
    for (listener, host) in [
        ("127.0.0.9:25", "127.0.0.9:10024"),
        ("127.0.0.9:25", "127.0.0.1"),
        ("[::]:25", "127.0.0.1"),
        ("0.0.0.0:25", "192.0.2.1"),
        ("0.0.0.0:25", "gw.example:2525"),
        ("0.0.0.0:25", "unix:/run/store"),
    ] {
        assert_eq!(with(listener, host), [], "{listener} {host}");
    }
}

#[test]
fn who_takes_no_mail_or_leads_it_nowhere_is_warned() {
    let folder = TempDir::new().unwrap();
    assert_eq!(
        told(&folder, "hostname = \"gw.example\"\n"),
        one("listener", ConfigRule::from(ListenerRule::NoListener))
    );
    let domains = |accepted: &str, more: &str| {
        told(
            &folder,
            &format!("{BEGIN}[domains]\naccepted = {accepted}\n[relays.in]\nhosts = \"192.0.2.1\"\n{more}"),
        )
    };
    let no_route =
        |name: &str| one("domains.accepted", ConfigRule::from(DeliveryRule::NoRoute(name.to_owned())));
    let route = |domain: &str, via: &str| format!("[[route]]\ndomain = \"{domain}\"\nvia = \"{via}\"\n");
    assert_eq!(domains("\"a.example\"", ""), no_route("a.example"));
    assert_eq!(domains("[\"a.example\", \"b.example\"]", &route("a.example", "in")), no_route("b.example"));
    let below = domains("\".a.example\"", &route("a.example", "in"));
    assert_eq!(
        below,
        [one("postmaster", ConfigRule::from(DeliveryRule::PostmasterNowhere)), no_route(".a.example")]
            .concat()
    );
    let below = domains("\".a.example\"", &route(".a.example", "in"));
    assert_eq!(below, one("postmaster", ConfigRule::from(DeliveryRule::PostmasterNowhere)));
    for (accepted, routed, via) in [
        ("a.example", "a.example", "in"),
        ("a.example", "*", "in"),
        ("x.a.example", ".a.example", "in"),
        ("a.example", "a.example", "mx"),
    ] {
        assert_eq!(domains(&format!("\"{accepted}\""), &route(routed, via)), [], "{accepted} {routed}");
    }
}

/// The beginning of a file with a certificate for the gateway that is valid between these days.
fn certificate(folder: &TempDir, from: i32, (year, month, day): (i32, u8, u8)) -> String {
    let mut params = rcgen::CertificateParams::new(["gw.example".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, month, day);
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(folder.path().join("c.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(folder.path().join("k.pem"), key.serialize_pem()).unwrap();
    fs::set_permissions(folder.path().join("k.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    format!("{BEGIN}[[tls.certificate]]\nchain = \"c.pem\"\nkey = \"k.pem\"\n")
}

#[test]
fn a_certificate_whose_time_is_over_or_has_not_come_is_told() {
    let folder = TempDir::new().unwrap();
    let key = "tls.certificate[1].chain";
    let text = certificate(&folder, 2001, (2004, 1, 1));
    assert_eq!(
        told(&folder, &text),
        one(key, ConfigRule::from(CertificateRule::Expired("2004-01-01".into())))
    );
    assert!(report(&folder, &text).settings.is_some(), "mail is taken all the same");
    let text = certificate(&folder, 2301, (2304, 1, 1));
    assert_eq!(
        told(&folder, &text),
        one(key, ConfigRule::from(CertificateRule::NotYetValid("2301-01-01".into())))
    );
    let text = certificate(&folder, 2001, (2304, 1, 1));
    assert_eq!(told(&folder, &text), []);
    let soon =
        UnixTime::from(SystemTime::now() + Duration::from_secs(10 * 24 * 3600)).rfc3339()[..10].to_owned();
    let until = (soon[..4].parse().unwrap(), soon[5..7].parse().unwrap(), soon[8..].parse().unwrap());
    let text = certificate(&folder, 2001, until);
    assert_eq!(told(&folder, &text), one(key, ConfigRule::from(CertificateRule::ExpiresSoon(soon))));
}

#[test]
fn plugins_can_be_looked_at_whatever_is_wrong_elsewhere() {
    let folder = TempDir::new().unwrap();
    let plugin = |name: &str, more: &str| {
        format!("[[plugin]]\nname = \"{name}\"\ncomponent = \"stock:stock\"\n{more}")
    };
    let text = format!("colour = 7\n{BEGIN}{}{}", plugin("bad", "grants = [\"all\"]\n"), plugin("good", ""));
    let report = report(&folder, &text);
    assert_eq!((report.mistakes.len(), report.settings.is_none()), (2, true), "{report}");
    let names: Vec<&str> = report.plugins.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names, ["good"]);
}

#[test]
fn a_part_is_read_whatever_is_wrong_elsewhere() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pintle.toml");
    fs::write(&path, "hostnme = 7\n[admin]\nsocket = \"s\"\n[spool]\ndir = \"p\"\n[[plugin]]\nname = 3\n")
        .unwrap();
    let admin = parts::admin(&path).unwrap();
    assert_eq!((admin.value.socket, admin.report.mistakes.len()), (folder.path().join("s"), 0));
    let spool = parts::spool(&path).unwrap();
    assert_eq!((spool.value.folder, spool.report.mistakes.len()), (folder.path().join("p"), 0));
    assert!(parts::signing(&path).unwrap().report.mistakes.is_empty());
    fs::write(&path, "[admin]\nsockt = \"s\"\n[spool]\ndir = 8\n").unwrap();
    let admin = parts::admin(&path).unwrap();
    assert_eq!(admin.value.socket, parts::default_socket());
    assert_eq!(admin.report.mistakes[0].key, "admin.sockt");
    assert_eq!(parts::spool(&path).unwrap().report.mistakes[0].key, "spool.dir");
    assert_eq!(parts::default_socket(), Path::new("/run/pintle/admin.sock"));
    assert!(parts::admin(&folder.path().join("none")).is_err());
}

fn settings(folder: &TempDir, text: &str) -> Settings {
    report(folder, text).into_settings().unwrap_or_else(|report| panic!("{report}"))
}

/// Greeting and EHLO must have the same name: the old one until the restart.
#[test]
fn what_needs_a_restart_is_not_half_in_force() {
    let folder = TempDir::new().unwrap();
    let old = settings(&folder, &format!("{BEGIN}[delivery]\nown_addresses = [\"192.0.2.1\"]\n"));
    let text = BEGIN.replace("gw.example", "new.example").replace("127.0.0.9", "127.0.0.10");
    let more = "[delivery]\nown_addresses = [\"192.0.2.2\"]\n[domains]\naccepted = \"a.example\"\n[plugins]\ncache = \"c\"\n";
    let new = settings(&folder, &format!("{text}{more}"));
    let needed = old.needs_restart(&new);
    assert_eq!(needed, ["hostname", "[[listener]] and [relay]", "[plugins]"]);
    let running = new.as_far_as_running(&old);
    assert_eq!(old.needs_restart(&running), [""; 0], "nothing of it is in force");
    let names = [&running.hostname, &running.outbound.hostname, &running.plugins.gateway.hostname];
    assert_eq!(names, ["gw.example"; 3]);
    assert_eq!(running.outbound.listeners, old.outbound.listeners);
    let addresses: Vec<String> = running.outbound.own_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.2", "127.0.0.9"], "what is written is new, what is listened on is old");
    assert!(running.inbound.rules.domains.contains("a.example"), "all else is");
}
