//! Configuration files with mistakes: one run reports all of them, each with its line and key.

use std::path::Path;

use pintle_config::{
    AccountRule, Cause, ConfigReport, ConfigRule, DeliveryRule, Exposed, FileRule, How, ListenerRule,
    SecretRule, read,
};

fn report(text: &str) -> ConfigReport {
    read(text.to_owned(), Path::new("pintle.toml"), &[])
}

/// Line and key of every mistake.
fn places(report: &ConfigReport) -> Vec<(usize, &str)> {
    let place = |mistake| report.place(mistake).line;
    report.mistakes.iter().map(|mistake| (place(mistake), mistake.key.as_str())).collect()
}

fn rules(text: &str) -> Vec<ConfigRule> {
    let report = report(text);
    let rule = |mistake: &pintle_config::Mistake| match &mistake.cause {
        Cause::Rule(rule) => rule.clone(),
        cause => panic!("{}: {cause}", mistake.key),
    };
    // Folders below /run depend on the machine of the test.
    let found = report.mistakes.iter().chain(&report.warnings).map(rule);
    found.filter(|rule| !matches!(rule, ConfigRule::File(FileRule::NoRuntimeFolder(_)))).collect()
}

const MANY: &str = r#"hostnme = "gw.example"

[[listener]]
name = "mx"
addresses = ["0.0.0.0"]
tls = "startls"
max_sessions = "many"
max_message_size = 1000000
command_timeout = "5 minutes"
trusted = ["192.0.2.1/24", "10.0.0.0/33"]

[[listener]]
name = "mx"
addresses = ["[::]:25"]
kind = "submission"
tls = "implicit"

[domains]
accepted = ["exa mple.org"]

[[user]]
name = "anna"
password = { file = "/nonexistent/secret" }

[[route]]
domain = "*"
via = "inside"

[queue]
warn_after = "6d"

[[plugin]]
name = "greylist"
component = "stock:greylist"
grants = ["dsn"]
on_fault = { rcpt = "ignore", mesage = "skip" }
[plugin.limits]
memory = 64

[spol]
dir = "/var/spool"

[[tls.certificate]]
chain = "/nonexistent/chain.pem"
key = "/nonexistent/key.pem"
"#;

#[test]
fn a_file_with_many_mistakes_names_them_all() {
    let report = report(MANY);
    let expected = [
        (1, "hostname"),
        (1, "hostnme"),
        (5, "listener[1].addresses[1]"),
        (6, "listener[1].tls"),
        (7, "listener[1].max_sessions"),
        (8, "listener[1].max_message_size"),
        (9, "listener[1].command_timeout"),
        (10, "listener[1].trusted[1]"),
        (10, "listener[1].trusted[2]"),
        (13, "listener[2].name"),
        (19, "domains.accepted[1]"),
        (23, "user[1].password"),
        (27, "route[1].via"),
        (30, "queue.warn_after"),
        (34, "plugin[1].component"),
        (35, "plugin[1].grants[1]"),
        (36, "plugin[1].on_fault.rcpt"),
        (36, "plugin[1].on_fault.mesage"),
        (38, "plugin[1].limits.memory"),
        (40, "spol"),
        (44, "tls.certificate[1].chain"),
    ];
    assert_eq!(places(&report), expected, "{report}");
    assert!(report.into_settings().is_err());
}

#[test]
fn mistakes_are_shown_with_their_line_and_a_remedy() {
    let text = "hostname = \"gw.example\"\n[dns]\ntimeuot = \"3s\"\nattempts = \"3\"\n[admin]\nsocket = \"s\"\n[[listener]]\n\
                name = \"mx\"\naddresses = \"[::]:25\"\ntrusted = \"192.0.2.1\"\n";
    let shown = report(text).to_string();
    let expected = "\
error: dns.timeuot: unknown key
  --> pintle.toml:3:1
   |
 3 | timeuot = \"3s\"
   | ^^^^^^^
  help: did you mean `timeout`?

error: dns.attempts: expected a whole number, found text
  --> pintle.toml:4:12
   |
 4 | attempts = \"3\"
   |            ^^^
  help: write a whole number

pintle.toml: 2 mistakes";
    assert_eq!(shown, expected);
}

#[test]
fn reading_goes_on_after_a_line_that_is_no_toml() {
    let report = report(
        "hostname = gw.example\n[dns]\ntimeout = \"3\"\nattempts = \n[queue]\nmax_age = 5\n[user]\nname = \"u\"\n",
    );
    let lines: Vec<usize> = places(&report).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [1, 3, 4, 6], "{report}");
}

#[test]
fn keys_given_twice_are_told() {
    let report = report("hostname = \"a.example\"\nhostname = \"b.example\"\n");
    assert_eq!(places(&report).first().map(|(line, _)| *line), Some(2), "{report}");
}

#[test]
fn sections_of_the_wrong_form_are_told() {
    let report =
        report("hostname = \"a.example\"\ndns = 5\n[listener]\nname = \"mx\"\n[relays]\nhosts = [\"a\"]\n");
    let keys: Vec<&str> = places(&report).into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys, ["dns", "listener.addresses", "relays.hosts"], "{report}");
}

const MX: &str = "hostname = \"gw.example\"\n[domains]\naccepted = \"example.org\"\n[[route]]\ndomain = \"example.org\"\n\
                  via = \"mx\"\n[admin]\nsocket = \"s\"\n[[listener]]\nname = \"mx\"\naddresses = \"[::]:25\"\n";

#[test]
fn keys_that_contradict_each_other_are_told() {
    for (text, rule) in [
        ("tls = \"starttls\"", ConfigRule::from(ListenerRule::TlsWithoutCertificate)),
        ("require_tls = true", ConfigRule::from(ListenerRule::TlsWithoutCertificate)),
        ("tls = \"none\"\nrequire_tls = true", ConfigRule::from(ListenerRule::RequireTlsWithoutTls)),
        ("trusted = \"0.0.0.0/0\"", ConfigRule::from(ListenerRule::OpenRelay)),
        ("[relay]\nnetworks = \"::/0\"", ConfigRule::from(ListenerRule::OpenRelay)),
        ("[queue]\nmax_age = \"1h\"", ConfigRule::from(DeliveryRule::WarnAfterExpiry)),
        ("[[user]]\nname = \"a\"", ConfigRule::from(SecretRule::OnePassword)),
        ("[relays.mx]\nhosts = \"a.example\"", ConfigRule::from(DeliveryRule::ReservedName("mx".into()))),
        (
            "[relays.a]\nhosts = \"a.example\"\nusername = \"u\"",
            ConfigRule::from(SecretRule::HalfCredentials),
        ),
        ("[score]\nreject = 5\nquarantine = 7.5", ConfigRule::from(DeliveryRule::QuarantineAboveReject)),
    ] {
        assert_eq!(rules(&format!("{MX}{text}\n")), [rule], "{text}");
    }
    let nobodys = MX.replace("\"example.org\"", "\".example.org\"");
    assert_eq!(rules(&nobodys), [ConfigRule::from(DeliveryRule::PostmasterNowhere)]);
    assert_eq!(rules(&format!("postmaster = \"a@b.example\"\n{nobodys}")), []);
    assert_eq!(
        rules(&format!("{MX}auth = \"offered\"\n")),
        [ConfigRule::from(ListenerRule::AuthNeverOffered), ConfigRule::from(ListenerRule::AuthWithoutUsers)]
    );
    assert_eq!(rules(MX), []);
}

/// Otherwise one missing file would be reported again at every listener.
#[test]
fn a_mistake_in_a_user_or_plugin_is_told_there_alone() {
    let listener = format!("{MX}auth = \"offered\"\nplain_without_tls = true\n");
    for more in [
        "[[user]]\nname = \"u\"\npassword = { file = \"no-such-file\" }",
        "[[plugin]]\nname = \"p\"\ncomponent = \"no-such-file.wasm\"",
    ] {
        let keys: Vec<String> =
            report(&format!("{listener}{more}\n")).mistakes.into_iter().map(|mistake| mistake.key).collect();
        assert_eq!(keys.len(), 1, "{keys:?}");
    }
}

#[test]
fn credentials_do_not_travel_in_the_clear_unless_told() {
    let relay = |more: &str| {
        let text =
            format!("{MX}[relays.a]\nhosts = \"a.example\"\nusername = \"u\"\npassword = \"p\"\n{more}\n");
        report(&text).mistakes.into_iter().map(|mistake| mistake.cause).collect::<Vec<_>>()
    };
    let in_the_clear = || [Cause::Rule(ConfigRule::from(SecretRule::CredentialsInTheClear("a".into())))];
    let allowed = "credentials_without_verified_tls = true";
    assert_eq!(relay(""), in_the_clear());
    assert_eq!(relay("tls = \"none\""), in_the_clear());
    assert_eq!(relay(allowed), in_the_clear(), "it may be unverified, and still not in the clear");
    for unverified in ["tls = \"required\"", "implicit_tls = true", "implicit_tls = true\ntls = \"none\""] {
        assert_eq!(
            relay(unverified),
            [Cause::Rule(ConfigRule::from(SecretRule::CredentialsUnverified("a".into())))],
            "{unverified}"
        );
        assert_eq!(relay(&format!("{unverified}\n{allowed}")), [], "{unverified}");
    }
    for good in ["tls = \"verified\"", "tls = \"verified\"\nimplicit_tls = true", "plain_without_tls = true"]
    {
        assert_eq!(relay(good), [], "{good}");
    }
}

#[test]
fn an_unverified_login_is_told_with_place_and_remedy() {
    let text = format!(
        "{MX}[relays.a]\nhosts = \"a.example\"\nusername = \"u\"\npassword = {{ env = \"PATH\" }}\ntls = \"required\"\n"
    );
    let shown = report(&text).to_string();
    for part in [
        "error: relays.a.tls: the password for relay \"a\" could be sent to any host that answers",
        "pintle.toml:16:7",
        "help: set tls = \"verified\" for the relay",
        "credentials_without_verified_tls = true",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

/// A plugin that chooses the next hop must not choose which host gets a password.
#[test]
fn named_credentials_belong_to_relays() {
    let named = |relays: &str, tls: &str, more: &str| {
        let text = format!(
            "{MX}[relays.a]\nhosts = \"a.example\"\ntls = \"{tls}\"\n[credentials.c]\nusername = \"u\"\n\
             password = {{ env = \"PATH\" }}\n{relays}\n{more}\n"
        );
        let report = report(&text);
        let found = report.mistakes.iter().map(|mistake| (mistake.key.clone(), mistake.cause.clone()));
        found.collect::<Vec<_>>()
    };
    let key = "credentials.c.relays".to_owned();
    assert_eq!(named("relays = \"a\"", "verified", ""), []);
    let missing = named("", "verified", "");
    assert!(matches!(&missing[..], [(at, Cause::Missing { .. })] if *at == key), "{missing:?}");
    let known = vec!["a".to_owned()];
    let undefined = Cause::Undefined { what: "relay", name: "b".into(), known };
    assert_eq!(named("relays = [\"a\", \"b\"]", "verified", ""), [(key.clone(), undefined)]);
    let unverified =
        || [(key.clone(), Cause::Rule(ConfigRule::from(SecretRule::CredentialsUnverified("a".into()))))];
    assert_eq!(named("relays = \"a\"", "required", ""), unverified());
    assert_eq!(named("relays = \"a\"", "required", "credentials_without_verified_tls = true"), []);
    let clear = Cause::Rule(ConfigRule::from(SecretRule::CredentialsInTheClear("a".into())));
    assert_eq!(named("relays = \"a\"", "opportunistic", ""), [(key.clone(), clear)]);
}

#[test]
fn numbers_that_would_stop_the_gateway_are_told() {
    for (text, key) in [
        ("max_sessions = 0", "listener[1].max_sessions"),
        ("command_timeout = \"0s\"", "listener[1].command_timeout"),
        ("max_recipients = -1", "listener[1].max_recipients"),
        ("[delivery]\nmax_total = 0", "delivery.max_total"),
        ("[queue]\nretry_intervals = []", "queue.retry_intervals"),
        ("[quarantine]\nmax_messages = { score = 0 }", "quarantine.max_messages.score"),
        ("[quarantine]\nmax_disk_percent = 101", "quarantine.max_disk_percent"),
        ("[quarantine]\nwhen_full = \"drop\"", "quarantine.when_full"),
        ("[queue]\nretry_intervals = [\"1m\", \"0s\"]", "queue.retry_intervals[2]"),
    ] {
        let report = report(&format!("{MX}{text}\n"));
        let keys: Vec<&str> = report.mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(keys, [key], "{report}");
    }
}

#[test]
fn a_listener_that_takes_nothing_is_warned_about() {
    let text = "hostname = \"gw.example\"\n[[listener]]\nname = \"mx\"\naddresses = \"[::]:25\"\n";
    assert!(report(text).settings.is_some());
    assert_eq!(rules(text), [ConfigRule::from(ListenerRule::AcceptsNothing)]);
}

/// The client has its 250 by then, so the message cannot be refused any more.
#[test]
fn a_refusal_for_a_fault_after_the_acceptance_is_warned_about() {
    let plugin = format!("{MX}[[plugin]]\nname = \"a\"\ncomponent = \"stock:a\"\n");
    let read = |on_fault: &str| {
        let text = format!("{plugin}on_fault = {on_fault}\n");
        read(text, Path::new("pintle.toml"), &[("a", Default::default())])
    };
    let report = read("{ default = \"reject\", deliver = \"reject\" }");
    assert!(report.settings.is_some(), "{report}");
    let [warning] = report.warnings.as_slice() else { panic!("{report}") };
    assert_eq!(warning.cause, Cause::Rule(ConfigRule::from(DeliveryRule::RefusedAfterAcceptance)));
    assert_eq!((report.place(warning).line, warning.key.as_str()), (15, "plugin[1].on_fault.deliver"));
    for fine in ["\"reject\"", "{ deliver = \"defer\", message = \"reject\" }"] {
        assert!(read(fine).warnings.is_empty(), "{fine}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let text = format!(
        "{MX}[[user]]\nname = \"anna\"\npassword = \"sesame-1\"\n[relays.a]\nhosts = \"a.example\"\ntls = \"verified\"\n\
         username = \"u\"\npassword = \"sesame-2\"\n[credentials.b]\nrelays = \"a\"\nusername = \"u\"\npassword = \"sesame-3\"\n"
    );
    let report = report(&text);
    let shown = report.to_string();
    assert_eq!(shown.matches("a secret is written in the configuration file").count(), 3, "{shown}");
    assert!(!shown.contains("sesame"), "{shown}");
    let settings = format!("{:?}", report.into_settings().unwrap());
    assert!(!settings.contains("sesame"), "{settings}");
}

#[test]
fn secrets_come_from_files_that_nobody_else_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "sesame\n").unwrap();
    let text = format!("{MX}[[user]]\nname = \"anna\"\npassword = {{ file = \"secret\" }}\n");
    let with_mode = |mode| {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        read(text.clone(), &folder.path().join("pintle.toml"), &[])
    };
    let closed = with_mode(0o600);
    assert!(closed.settings.is_some(), "{closed}");
    let open = with_mode(0o644);
    assert_eq!(open.mistakes[0].cause, Cause::Exposed(Exposed { path: secret, how: How::Read(0o644) }));
    assert!(open.to_string().contains("chmod o="), "{open}");
}

#[test]
fn a_file_with_a_password_in_it_is_a_secret() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pintle.toml");
    let text = format!(
        "{MX}[[user]]\nname = \"anna\"\npassword = \"one\"\n[[user]]\nname = \"bob\"\npassword = \"two\"\n"
    );
    std::fs::write(&path, &text).unwrap();
    let with_mode = |text: &str, mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        read(text.to_owned(), &path, &[])
            .mistakes
            .into_iter()
            .map(|mistake| mistake.cause)
            .collect::<Vec<_>>()
    };
    let exposed = |how| [Cause::Exposed(Exposed { path: path.clone(), how })];
    assert_eq!(with_mode(&text, 0o640), []);
    assert_eq!(with_mode(&text, 0o644), exposed(How::Read(0o644)), "once, however many there are");
    assert_eq!(with_mode(MX, 0o644), []);
    assert_eq!(with_mode(MX, 0o646), exposed(How::Write(0o646)));
}

#[test]
fn a_hash_that_would_stop_the_gateway_is_a_mistake() {
    let hash = "$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$YWJjZGVmZ2hpamtsbW5vcA";
    let report = report(&format!("{MX}[[user]]\nname = \"anna\"\npassword_hash = \"{hash}\"\n"));
    assert!(report.to_string().contains("each login would take 4096 MiB of memory"), "{report}");
}

#[test]
fn whom_to_become_must_exist_and_not_be_root() {
    assert_eq!(
        rules(&format!("{MX}[process]\nuser = \"no such user\"\n")),
        [ConfigRule::from(AccountRule::NoSuchUser("no such user".to_owned()))]
    );
    assert_eq!(
        rules(&format!("{MX}[process]\nuser = \"root\"\n")),
        [ConfigRule::from(AccountRule::UserIsRoot)]
    );
    assert_eq!(
        rules(&format!("{MX}[process]\ngroup = \"root\"\n")),
        [ConfigRule::from(AccountRule::GroupWithoutUser)]
    );
    assert_eq!(
        rules(&format!("{MX}[process]\nuser = \"4294000001\"\n")),
        [ConfigRule::from(AccountRule::NumberWithoutGroup)]
    );
}

#[test]
fn some_sessions_are_left_for_strangers() {
    let text = format!("{MX}max_sessions = 10\nkept_for_trusted = 10\n");
    assert_eq!(rules(&text), [ConfigRule::from(ListenerRule::NothingForStrangers)]);
}

#[test]
fn a_missing_variable_and_a_missing_file_are_told() {
    let text =
        format!("{MX}[[user]]\nname = \"anna\"\npassword = {{ env = \"PINTLE_TEST_NO_SUCH_VARIABLE\" }}\n");
    assert_eq!(report(&text).mistakes[0].cause, Cause::Environment("PINTLE_TEST_NO_SUCH_VARIABLE".into()));
    let report = pintle_config::check(Path::new("/nonexistent/pintle.toml"), &[]);
    assert!(matches!(report.mistakes[0].cause, Cause::NoFile(_)));
    assert!(report.to_string().starts_with("error: the configuration file cannot be read"), "{report}");
}

#[test]
fn no_text_makes_it_panic() {
    let mut cut = MANY;
    while !cut.is_empty() {
        let _ = report(cut).to_string();
        let end = (0..cut.len()).rev().find(|&at| cut.is_char_boundary(at)).unwrap_or(0);
        cut = &cut[..end];
    }
    for text in [
        "\u{feff}x",
        "= = =",
        "[[[",
        "a = \"ü",
        "hostname = \"\u{1F600}\"\nü = 1",
        "\0",
        "listener = [1, {}]",
    ] {
        let _ = report(text).to_string();
    }
}

/// At any other prefix length, the IPv4 address that an IPv6 address embeds is unknown.
#[test]
fn a_translator_s_prefix_has_one_of_six_lengths() {
    let mistakes_of = |prefix: &str| {
        let text = format!("hostname = \"gw.example\"\n[delivery]\nnat64_prefixes = [\"{prefix}\"]\n");
        let report = report(&text);
        report.mistakes.iter().filter(|mistake| mistake.key.contains("nat64")).count()
    };
    for good in ["2001:db8::/32", "2001:db8:122:344::/64", "2001:db8:64::/96", "fd00:64::/96"] {
        assert_eq!(mistakes_of(good), 0, "{good}");
    }
    for bad in ["2001:db8::/33", "2001:db8::1/96", "192.0.2.0/24", "2001:db8:64::", "64:ff9b::/128"] {
        assert_eq!(mistakes_of(bad), 1, "{bad}");
    }
}
