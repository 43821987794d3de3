//! Whole configuration files: the examples have no mistakes, and the reference in docs/ matches the schema.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pintle_config::{Cause, ConfigReport, ConfigRule, FileRule, ListenerRule, read, reference};
use pintle_inbound::{AuthOffer, TlsMode};
use pintle_mail::NextHop;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Reads an example as if it were in a folder with the files that it names: certificates for this host, and secrets.
fn example(name: &str, host: &str) -> ConfigReport {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    write(folder.path(), "tls/fullchain.pem", &pair.cert.pem());
    write(folder.path(), "tls/privkey.pem", &pair.signing_key.serialize_pem());
    write(folder.path(), "secrets/smarthost", "sesame\n");
    write(folder.path(), "secrets/scanner", "sesame\n");
    write(folder.path(), "keys/batv.key", "0123456789abcdef0123\n");
    for key in ["r2026", "e2026", "relay2026"] {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        write(folder.path(), &format!("keys/{key}.pem"), &pair.serialize_pem());
    }
    let text = fs::read_to_string(repository().join("examples").join(name).join("pintle.toml")).unwrap();
    let stock = text.lines().filter_map(|line| line.strip_prefix("component = \"stock:"));
    let stock = stock.map(|rest| (rest.trim_end_matches('"').to_owned().leak() as &str, Default::default()));
    read(text.clone(), &folder.path().join("pintle.toml"), &stock.collect::<Vec<_>>())
}

/// The warnings, without those about folders below /run, which depend on the machine of the test.
fn warnings(report: &ConfigReport) -> Vec<Cause> {
    let all = report.warnings.iter().map(|warning| warning.cause.clone());
    all.filter(|cause| !matches!(cause, Cause::Rule(ConfigRule::File(FileRule::NoRuntimeFolder(_)))))
        .collect()
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn the_edge_example_is_good() {
    let report = example("edge", "mx.example.org");
    assert!(report.mistakes.is_empty() && warnings(&report).is_empty(), "{report}");
    let settings = report.into_settings().unwrap();
    let mx = &settings.inbound.listeners[0];
    assert_eq!((mx.tls, mx.auth), (TlsMode::StartTls, AuthOffer::Off));
    assert!(settings.inbound.rules.domains.contains("example.org"));
    let hop = |domain| settings.outbound.routes.next_hop(domain);
    assert_eq!(hop("example.org"), NextHop::Relay("exchange".into()));
    assert_eq!(hop("example.net"), NextHop::Mx("example.net".into()));
}

#[test]
fn the_smarthost_example_is_good() {
    let report = example("smarthost", "relay.example.org");
    assert!(report.mistakes.is_empty(), "{report}");
    assert_eq!(warnings(&report), [Cause::Rule(ListenerRule::PlainPasswords.into())], "{report}");
    let settings = report.into_settings().unwrap();
    assert_eq!(settings.outbound.routes.next_hop("example.net"), NextHop::Relay("microsoft".into()));
    assert!(settings.outbound.relays["microsoft"].credentials.is_some());
    assert!(!settings.inbound.rules.users.is_empty());
}

#[test]
fn a_hostname_outside_the_certificate_is_warned_about() {
    let report = example("edge", "other.example.org");
    assert_eq!(
        warnings(&report),
        [Cause::Rule(ListenerRule::HostnameNotCovered("mx.example.org".into()).into())]
    );
    assert!(report.settings.is_some());
}

const BEGIN: &str =
    "<!-- The rest of this page is written by `PINTLE_UPDATE=1 cargo test -p pintle-config`. -->\n";

/// With PINTLE_UPDATE set it writes the page instead of comparing it; review the difference.
#[test]
fn the_reference_page_is_up_to_date() {
    let path = repository().join("docs/configuration.md");
    let page = fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let expected = format!("\n{}\n", reference().trim_end());
    if std::env::var_os("PINTLE_UPDATE").is_some() {
        fs::write(&path, format!("{head}{BEGIN}{expected}")).unwrap();
    } else {
        assert!(
            rest == expected,
            "docs/configuration.md is out of date; set PINTLE_UPDATE=1 and run this again"
        );
    }
}

#[test]
fn a_bare_postmaster_goes_where_somebody_reads_it() {
    let postmaster = |more: &str| {
        let text = format!("hostname = \"mx.example.org\"\n{more}");
        let report = read(text, Path::new("pintle.toml"), &[]);
        let settings = report.into_settings().unwrap_or_else(|report| panic!("{report}"));
        settings.inbound.rules.postmaster.map(|address| address.to_string())
    };
    let listener = "[[listener]]\nname = \"mx\"\naddresses = [\"127.0.0.1:25\"]\ntls = \"none\"\n";
    let domains = "[domains]\naccepted = [\".sub.example\", \"example.org\"]\n";
    let ours = format!("{domains}{listener}");
    assert_eq!(postmaster(&ours).as_deref(), Some("postmaster@example.org"));
    let named = format!("postmaster = \"ann@example.net\"\n{ours}");
    assert_eq!(postmaster(&named).as_deref(), Some("ann@example.net"));
    let routed =
        format!("{ours}[relays.in]\nhosts = [\"192.0.2.1\"]\n[[route]]\ndomain = \"*\"\nvia = \"in\"\n");
    assert_eq!(postmaster(&routed), None);
}

fn with_keys(more: &str) -> ConfigReport {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    write(folder.path(), "good.pem", &pair.serialize_pem());
    write(folder.path(), "bad.pem", "sesame\n");
    let listener = "[[listener]]\nname = \"mx\"\naddresses = \"[::]:25\"\n";
    read(format!("hostname = \"gw.example.org\"\n{listener}{more}"), &folder.path().join("pintle.toml"), &[])
}

#[test]
fn keys_are_read_once_and_plugins_hear_their_names_alone() {
    let settings = with_keys(
        "[dkim_keys.b]\ndomain = \"Example.org\"\nselector = \"s2\"\nkey = { file = \"good.pem\" }\n\
         expires = \"never\"\n\
         [dkim_keys.a]\ndomain = \"example.org\"\nselector = \"s1\"\nkey = { file = \"good.pem\" }\n",
    );
    let settings = settings.into_settings().unwrap();
    let told = &settings.plugins.gateway.keys["example.org"];
    let told: Vec<_> = told.iter().map(|key| (key.name.as_str(), key.selector.as_str())).collect();
    assert_eq!(told, [("a", "s1"), ("b", "s2")]);
    assert!(settings.inbound.rules.keys.get("a").is_some() && settings.outbound.keys.get("b").is_some());
}

#[test]
fn what_is_wrong_with_keys_is_told_where_it_stands() {
    let report = with_keys(
        "[dkim_keys.one]\ndomain = \"example.org\"\nselector = \"s_1\"\nkey = { file = \"bad.pem\" }\n\
         [dkim_keys.two]\ndomain = \"example.org\"\nselector = \"s2\"\nkey = { file = \"good.pem\" }\n\
         [dkim_keys.three]\ndomain = \"example.org\"\nselector = \"s2\"\nkey = { file = \"good.pem\" }\n\
         headers = [\"Sub ject\"]\n\
         [dkim_keys.four]\ndomain = \"example.org\"\n",
    );
    let keys: Vec<_> = report.mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
    for key in
        ["dkim_keys.one.selector", "dkim_keys.one.key", "dkim_keys.three.headers", "dkim_keys.four.key"]
    {
        assert!(keys.contains(&key), "{key} is not among {keys:?}: {report}");
    }
    let same = |key: &&str| ["dkim_keys.two.selector", "dkim_keys.three.selector"].contains(key);
    assert_eq!(keys.iter().filter(|key| same(key)).count(), 1, "{report}");
    assert!(!report.to_string().contains("sesame"), "{report}");
}

#[test]
fn secrets_are_read_by_name_and_short_ones_are_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "one.key", "0123456789abcdef\n");
    write(folder.path(), "short.key", "0123456789abcde\n");
    let of = |secrets: &str| {
        let text = format!(
            "hostname = \"gw.example.org\"\n[[listener]]\nname = \"mx\"\naddresses = \"[::]:25\"\n{secrets}"
        );
        read(text, &folder.path().join("pintle.toml"), &[])
    };
    let settings = of("[secrets.one]\nkey = { file = \"one.key\" }").into_settings().unwrap();
    let key = pintle_plugin::SecretKey::new(b"0123456789abcdef");
    assert_eq!(settings.plugins.gateway.secrets, [("one".to_owned(), key)].into());
    let wrong = "[secrets.short]\nkey = { file = \"short.key\" }\n[secrets.gone]\nkey = { file = \"gone.key\" }\n\
                 [secrets.none]\n";
    let report = of(wrong);
    let keys: Vec<_> = report.mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
    assert_eq!(keys, ["secrets.short.key", "secrets.gone.key", "secrets.none.key"], "{report}");
    assert!(!report.to_string().contains("0123456789"), "{report}");
}

/// A reload that changes nothing but a key replaces it.
#[test]
fn a_changed_secret_takes_effect_without_a_restart() {
    let of = |key: &str| {
        let text = format!("hostname = \"gw.example.org\"\n[secrets.one]\nkey = \"{key}\"\n");
        read(text, Path::new("pintle.toml"), &[]).into_settings().unwrap()
    };
    let (old, new) = (of("the key of last year"), of("the key of the moment"));
    assert!(old.needs_restart(&new).is_empty());
    let secrets = new.plugins.gateway.secrets.clone();
    assert_eq!(new.as_far_as_running(&old).plugins.gateway.secrets, secrets);
}
