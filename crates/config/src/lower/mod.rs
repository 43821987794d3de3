//! Converts the sections of the file to the configuration type of each crate, and checks the rules between keys.

mod delivery;
mod intake;
mod listener;
pub(crate) mod operation;
mod plugins;
mod quarantine;
mod relays;
mod secrets;
mod signing;
mod surroundings;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use pintle_plugin::{Gateway, PluginConfig};

pub(crate) use delivery::dns;
pub use operation::LogSettings;
pub(crate) use signing::keys;

use crate::exposed::{self, Us};
use crate::reader::Section;
use crate::values::Domain;
use crate::{ListenerRule, RunAs};

/// The stock plugins, which are compiled into the program: the names for `stock:NAME`, each with its component.
pub type Stock = [(&'static str, Bytes)];

/// All settings of the program, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The gateway's host name, for greetings, EHLO, trace fields and reports.
    pub hostname: String,
    /// The receiving side: listeners and the rules for clients.
    pub inbound: pintle_inbound::Config,
    /// The certificates of the listeners; none if no certificate is configured.
    pub server_tls: Option<pintle_tls::ServerConfig>,
    /// The root certificates that next hops are verified against.
    pub client_tls: pintle_tls::ClientConfig,
    /// The folder and limits of the spool.
    pub spool: pintle_spool::EmbeddedConfig,
    /// The delivering side: routes, relays, sessions, retries, reports, quarantines.
    pub outbound: pintle_outbound::Config,
    /// The name servers, and the limits of the resolver.
    pub dns: pintle_dns::Config,
    /// The plugins and the settings of the plugin host.
    pub plugins: pintle_plugin::Config,
    /// The admin socket and the HTTP address.
    pub admin: pintle_admin::Config,
    /// Format, level and file of the log.
    pub log: LogSettings,
    /// The user that the gateway switches to after a start as root; none if it keeps the user that starts it.
    pub run_as: Option<RunAs>,
    /// The names of the plugins without `max_instances`, whose limit follows from the sessions of the listeners.
    follow_sessions: BTreeSet<String>,
}

impl Settings {
    /// The sections and keys whose changes in `new` take effect only after a restart; all other changes take effect at
    /// once. Call it on the settings of the start, not on those of the last reload, which are only partly in force.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let kept = |plugins: &pintle_plugin::Config| {
            let folders = (plugins.cache.clone(), plugins.state.clone());
            (folders, plugins.address_space, plugins.watch, plugins.settle, plugins.kv_octets)
        };
        let differences = [
            ("hostname", self.hostname != new.hostname),
            ("[process]", self.run_as != new.run_as),
            ("[[listener]] and [relay]", self.inbound.listeners != new.inbound.listeners),
            ("[[tls.certificate]]", self.server_tls != new.server_tls),
            ("[spool]", self.spool != new.spool),
            ("[dns]", self.dns != new.dns),
            ("[plugins]", kept(&self.plugins) != kept(&new.plugins)),
            ("[admin]", self.admin != new.admin),
            ("[log]", self.log != new.log),
        ];
        differences.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

impl Settings {
    /// These settings, with everything that needs a restart taken from `in_force`, so that a changed hostname or
    /// listener does not take effect in some crates and not in others.
    #[must_use]
    pub fn as_far_as_running(mut self, in_force: &Self) -> Self {
        let (new, old) = (&mut self.outbound, &in_force.outbound);
        // Those of our own addresses that come from listeners stay with the listeners in force.
        let of_listeners = |settings: &pintle_inbound::Config| -> Vec<std::net::IpAddr> {
            settings.listeners.iter().flat_map(|listener| &listener.addresses).map(SocketAddr::ip).collect()
        };
        let coming = of_listeners(&self.inbound);
        let written =
            new.own_addresses.len().saturating_sub(coming.iter().filter(|ip| !ip.is_unspecified()).count());
        new.own_addresses.truncate(written);
        new.own_addresses
            .extend(of_listeners(&in_force.inbound).into_iter().filter(|ip| !ip.is_unspecified()));
        new.listeners.clone_from(&old.listeners);
        new.hostname.clone_from(&old.hostname);
        let plugins = self.plugins.plugins.iter_mut();
        let following = plugins.filter(|plugin| self.follow_sessions.contains(&plugin.name));
        plugins::follow_sessions(following, &in_force.inbound.listeners);
        let Gateway { hostname: _, domains, keys, relays, secrets } = self.plugins.gateway;
        self.plugins = pintle_plugin::Config {
            plugins: self.plugins.plugins,
            gateway: Gateway { hostname: in_force.hostname.clone(), domains, keys, relays, secrets },
            ..in_force.plugins.clone()
        };
        Self {
            hostname: in_force.hostname.clone(),
            inbound: pintle_inbound::Config { rules: self.inbound.rules, ..in_force.inbound.clone() },
            server_tls: in_force.server_tls.clone(),
            spool: in_force.spool.clone(),
            dns: in_force.dns.clone(),
            admin: in_force.admin.clone(),
            log: in_force.log.clone(),
            run_as: in_force.run_as.clone(),
            ..self
        }
    }
}

/// Reads every section. The reader has recorded all mistakes when this returns; if there are any, the settings must not
/// be used.
pub(crate) fn lower(root: &Section<'_>, stock: &Stock) -> Settings {
    let run_as = operation::run_as(&root.table("process"));
    root.here().reader.us.set(Us::new(run_as.as_ref()));
    // A user who can write the file controls the gateway. If it contains a secret, reading that checks its mode too.
    root.here().guard(&root.here().reader.path, exposed::FileKind::Trusted);
    let hostname = root.get::<Domain>("hostname").0;
    let (server_tls, client_tls) = intake::tls(root, &hostname);
    let mut plugins = plugins::plugins(root, stock);
    let mut outbound = delivery::outbound(root, &hostname);
    // If mail for our own name goes by MX, it comes back to us.
    let loops = *outbound.routes.find(&hostname) == pintle_outbound::Route::Mx;
    let keys = keys(root);
    let rules = intake::rules(root, loops, Arc::clone(&keys));
    plugins.gateway = Gateway {
        hostname: hostname.clone(),
        domains: rules.domains.clone(),
        keys: signing::key_names(root, &keys),
        relays: outbound.relays.keys().cloned().collect(),
        secrets: secrets::secrets(root),
    };
    outbound.keys = keys;
    let shared = listener::ListenerDefaults {
        hostname: &hostname,
        rules: &rules,
        has_certificate: server_tls.is_some(),
        has_users: root.has("user"),
        has_plugins: root.has("plugin"),
        networks: intake::networks(&root.table("relay"), "networks"),
    };
    let mut taken = surroundings::TakenAddresses::default();
    let listeners = listener::listeners(root, &shared, &mut taken);
    // A plugin may write a body as large as the largest message that a listener accepts.
    let sizes = listeners.iter().map(|listener| listener.smtp.limits.message);
    plugins.max_message = sizes.max().unwrap_or(plugins.max_message);
    let unsaid = |plugin: &&mut PluginConfig| plugin.limits.max_instances == plugins::UNSAID;
    let following: Vec<_> = plugins.plugins.iter_mut().filter(unsaid).collect();
    let follow_sessions = following.iter().map(|plugin| plugin.name.clone()).collect();
    plugins::follow_sessions(following, &listeners);
    plugins.usual_instances = plugins::usual_instances(&listeners);
    let own = listeners.iter().flat_map(|listener| &listener.addresses);
    outbound.listeners.extend(own.clone());
    outbound.own_addresses.extend(own.map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()));
    let admin = admin(root, &mut taken);
    surroundings::relays(root, &outbound);
    surroundings::domains(root);
    Settings {
        inbound: pintle_inbound::Config { hostname: hostname.clone(), listeners, rules },
        outbound,
        server_tls,
        client_tls,
        spool: operation::spool(&root.table("spool")),
        dns: dns(&root.table("dns")),
        plugins,
        admin,
        log: operation::log(&root.table("log")),
        run_as,
        follow_sessions,
        hostname,
    }
}

fn admin(root: &Section<'_>, taken: &mut surroundings::TakenAddresses) -> pintle_admin::Config {
    let section = root.table("admin");
    let admin = operation::admin(&section);
    surroundings::socket(&section.spot("socket"), &admin.socket);
    admin.http.iter().for_each(|address| taken.take(&section, "http", *address));
    admin
}

/// The names that were used so far, each with the offset of its first use in the file.
type Names = HashMap<String, usize>;

/// Records a mistake if an earlier section has used this name; otherwise remembers the name.
fn unique(seen: &mut Names, section: &Section<'_>, key: &str, what: &'static str, name: &str) {
    let spot = section.spot(key);
    match seen.get(name) {
        Some(first) => {
            let (name, line) = (name.to_owned(), spot.reader.line(*first));
            spot.complain(crate::Cause::Duplicate { what, name, line });
        }
        None if name.is_empty() => {}
        None => drop(seen.insert(name.to_owned(), spot.span.start)),
    }
}

/// Refuses networks with a prefix length of 0: a gateway that lets every client relay is an open relay.
fn refuse_the_internet(networks: &[ipnet::IpNet], section: &Section<'_>, key: &str) {
    if networks.iter().any(|network| network.prefix_len() == 0) {
        section.rule(key, ListenerRule::OpenRelay);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn settings(text: &str) -> Settings {
        match crate::read(text.to_owned(), Path::new("/etc/pintle/pintle.toml"), &[]).into_settings() {
            Ok(settings) => settings,
            Err(report) => panic!("{report}"),
        }
    }

    /// The crates have defaults of their own, for their tests. They must be those that the reference documents.
    #[test]
    fn an_empty_file_means_what_the_crates_mean() {
        let settings =
            settings("hostname = \"gw.example\"\n[[listener]]\nname = \"mx\"\naddresses = \"[::]:25\"");
        let folder = "/var/lib/pintle/spool";
        assert_eq!(settings.spool, pintle_spool::EmbeddedConfig::new(folder));
        assert_eq!(settings.dns, pintle_dns::Config::default());
        let gateway = Gateway { hostname: "gw.example".into(), ..Gateway::default() };
        let usual_instances = settings.plugins.usual_instances;
        let plugins = pintle_plugin::Config { gateway, usual_instances, ..pintle_plugin::Config::default() };
        assert_eq!(settings.plugins, plugins);
        assert_eq!(settings.client_tls, pintle_tls::ClientConfig::default());
        let mut outbound = pintle_outbound::Config::new("gw.example");
        outbound.listeners = vec!["[::]:25".parse().unwrap()];
        assert_eq!(settings.outbound, outbound);
        let rules = pintle_inbound::config::Rules::default();
        assert_eq!(settings.inbound.rules, rules);
        let listener = &settings.inbound.listeners[0];
        assert_eq!(listener.limits, pintle_inbound::SessionLimits::default());
        assert_eq!(listener.strangers, pintle_inbound::StrangerLimits::default());
        let hostname = "gw.example".to_owned();
        let smtp = pintle_smtp::server::Config { hostname, ..pintle_smtp::server::Config::default() };
        assert_eq!(*listener.smtp, smtp);
    }

    #[test]
    fn relays_and_submissions_take_what_devices_send_and_an_exchanger_does_not() {
        use pintle_smtp::server::config::BareCr;
        let listener = |more: &str| {
            let text = format!(
                "hostname = 'gw.example'\n[[listener]]\nname = 'a'\naddresses = '[::]:25'\ntls = 'none'\n\
                 require_tls = false\nauth = 'off'\ntrusted = '192.0.2.0/24'\n{more}"
            );
            let listener = settings(&text).inbound.listeners.remove(0);
            let smtp = Arc::unwrap_or_clone(listener.smtp);
            (smtp.leniency.bare_cr, listener.completes_header, smtp.default_domain)
        };
        assert_eq!(listener("kind = 'mx'"), (BareCr::Refuse, false, None));
        assert_eq!(listener("kind = 'relay'"), (BareCr::Normalise, true, None));
        assert_eq!(listener("kind = 'submission'"), (BareCr::Normalise, true, None));
        let other = "bare_cr = 'refuse'\ncomplete_header = false\ndefault_domain = 'b\u{fc}cher.example'\n";
        let domain = Some("xn--bcher-kva.example".to_owned());
        assert_eq!(listener(&format!("kind = 'relay'\n{other}")), (BareCr::Refuse, false, domain));
        let more = "bare_cr = 'normalise'\ncomplete_header = true\ndefault_domain = 'a.example'\n";
        let domain = Some("a.example".to_owned());
        assert_eq!(listener(&format!("kind = 'mx'\n{more}")), (BareCr::Normalise, true, domain));
    }

    #[test]
    fn quarantines_keep_for_one_time_or_for_a_time_of_their_own() {
        let keep = |text: &str| settings(&format!("hostname = 'gw.example'\n{text}")).outbound.quarantine;
        let days = |days: u64| std::time::Duration::from_secs(days * 24 * 3600);
        assert_eq!(keep("").default, days(30));
        assert_eq!(keep("[quarantine]\nkeep = '7d'").default, days(7));
        let own = keep("[quarantine]\nkeep = { default = '14d', score = '2d' }");
        assert_eq!((own.default, own.names.get("score"), own.names.len()), (days(14), Some(&days(2)), 1));
        let own = keep("[quarantine.keep]\nscore = '2d'");
        assert_eq!((own.default, own.names.get("score")), (days(30), Some(&days(2))));
    }

    #[test]
    fn quarantines_hold_as_much_for_all_or_by_name() {
        let quota =
            |text: &str| settings(&format!("hostname = 'gw.example'\n[quarantine]\n{text}")).outbound.quota;
        let defaults = pintle_outbound::Quota::default();
        assert_eq!(quota(""), defaults);
        let all =
            quota("max_size = '5MiB'\nmax_messages = 7\nwhen_full = 'drop-oldest'\nmax_disk_percent = 20");
        assert_eq!((all.of("x").bytes, all.of("x").messages, all.disk_percent), (5 << 20, 7, 20));
        assert_eq!(all.when_full, pintle_outbound::WhenFull::DropOldest);
        let own = quota("max_size = { score = '1kB' }\nmax_messages = { default = 3, score = 9 }");
        assert_eq!((own.of("score").bytes, own.of("score").messages), (1_000, 9));
        assert_eq!((own.of("dmarc").bytes, own.of("dmarc").messages), (defaults.default.bytes, 3));
    }

    #[test]
    fn a_plugin_without_keys_has_the_defaults_of_the_host() {
        let stock = [("footer", Bytes::from_static(b"wasm"))];
        let text = "hostname = \"gw.example\"\n[[plugin]]\nname = \"a\"\ncomponent = \"stock:footer\"";
        let report = crate::read(text.to_owned(), Path::new("x.toml"), &stock);
        let source =
            pintle_plugin::ComponentSource::Bytes { name: "stock:footer".into(), bytes: stock[0].1.clone() };
        assert_eq!(
            report.into_settings().map(|settings| settings.plugins.plugins).unwrap(),
            [PluginConfig::new("a", source)]
        );
    }

    #[test]
    fn a_plugin_gets_its_settings_from_the_file_or_from_a_file_of_its_own() {
        let stock = [("footer", Bytes::from_static(b"wasm"))];
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.toml"), "text = 'x'\nlist = [1, 2.5, true]").unwrap();
        std::fs::write(folder.path().join("a.json"), r#"{"text": "x", "list": [1, 2.5, true]}"#).unwrap();
        for (written, place) in [
            ("config_file = 'a.toml'", "a.toml:2"),
            ("config_file = 'a.json'", "a.json:1"),
            ("[plugin.config]\ntext = 'x'\nlist = [1, 2.5, true]", "x.toml:7"),
        ] {
            let text = format!(
                "hostname = 'gw.example'\n[[plugin]]\nname = 'a'\ncomponent = 'stock:footer'\n{written}"
            );
            let report = crate::read(text, &folder.path().join("x.toml"), &stock);
            let expected = serde_json::json!({"text": "x", "list": [1, 2.5, true]});
            let plugin = report.into_settings().unwrap().plugins.plugins.remove(0);
            assert_eq!(plugin.settings, expected, "{written}");
            let found = plugin.places.at("/list/1").unwrap().to_string();
            assert_eq!(found, folder.path().join(place).display().to_string());
        }
        let text = "hostname = 'gw.example'\n[[plugin]]\nname = 'a'\ncomponent = 'stock:footer'\nconfig_file = 'a.json'\n\
                    config = {}";
        let report = crate::read(text.to_owned(), &folder.path().join("x.toml"), &stock);
        assert_eq!(report.mistakes[0].cause, crate::Cause::Rule(crate::DeliveryRule::TwoSettings.into()));
    }

    #[test]
    fn plugins_have_instances_for_the_sessions_of_all_listeners_unless_the_file_says_how_many() {
        let stock = [("footer", Bytes::from_static(b"wasm"))];
        let listener = |port: u16, sessions: usize| {
            format!("[[listener]]\nname = 'l{port}'\naddresses = '[::]:{port}'\nmax_sessions = {sessions}\n")
        };
        let plugin = |more: &str| format!("[[plugin]]\nname = 'a'\ncomponent = 'stock:footer'\n{more}\n");
        let said = "[plugin.limits]\nmax_instances = 5";
        for (listeners, more, expected) in [
            (vec![10_000], "", 100),
            (vec![4_000, 6_000], "", 100),
            (vec![900], "", 16),
            (vec![1_000_000], "", 128),
            (vec![10_000], said, 5),
        ] {
            let listeners = listeners.into_iter().zip(25..).map(|(sessions, port)| listener(port, sessions));
            let text = format!("hostname = 'gw.example'\n{}{}", listeners.collect::<String>(), plugin(more));
            let settings = crate::read(text.clone(), Path::new("x.toml"), &stock).into_settings().unwrap();
            assert_eq!(settings.plugins.plugins[0].limits.max_instances, expected, "{text}");
        }
    }

    #[test]
    fn plugins_write_bodies_as_large_as_the_largest_listener_takes() {
        let listener = |name: &str, port: u16, size: &str| {
            format!("[[listener]]\nname = '{name}'\naddresses = '[::]:{port}'\nmax_message_size = '{size}'\n")
        };
        let both =
            format!("hostname = 'gw.example'\n{}{}", listener("a", 25, "80MiB"), listener("b", 26, "1MiB"));
        assert_eq!(settings(&both).plugins.max_message, 80 << 20);
    }

    #[test]
    fn every_setting_of_a_plugin_knows_its_line() {
        let stock = [("footer", Bytes::from_static(b"wasm"))];
        let text = "hostname = 'gw.example'\n[[plugin]]\nname = 'a'\ncomponent = 'stock:footer'\n[plugin.config]\n\
                    text = 'x'\nlist = [\n1,\n2]\n[plugin.limits]\nwall = '1s'\n[[plugin]]\nname = 'b'\n\
                    component = 'stock:footer'\n";
        let report = crate::read(text.to_owned(), Path::new("x.toml"), &stock);
        let plugins = report.into_settings().unwrap().plugins.plugins;
        let place = |plugin: usize, at: &str| plugins[plugin].places.at(at).unwrap().to_string();
        assert_eq!(place(0, ""), "x.toml:5");
        assert_eq!(place(0, "/text"), "x.toml:6");
        assert_eq!(place(0, "/list/1"), "x.toml:9");
        assert_eq!(place(1, "/missing"), "x.toml:12", "where the plugin begins");
    }

    /// Values that are computed from listeners take effect with them, at the restart: twice the instances of a plugin
    /// may not fit into memory.
    #[test]
    fn what_follows_from_listeners_waits_with_them() {
        let stock = [("footer", Bytes::from_static(b"wasm"))];
        let read = |sessions: usize, size: &str, more: &str| {
            let text = format!(
                "hostname = 'gw.example'\n[plugins]\n{more}\n[[listener]]\nname = 'mx'\naddresses = '[::]:25'\n\
                 max_sessions = {sessions}\nmax_message_size = '{size}'\n\
                 [[plugin]]\nname = 'a'\ncomponent = 'stock:footer'\n\
                 [[plugin]]\nname = 'b'\ncomponent = 'stock:footer'\nlimits = {{ max_instances = 5 }}"
            );
            crate::read(text, Path::new("x.toml"), &stock).into_settings().unwrap()
        };
        let old = read(100, "1MiB", "");
        let written = read(20_000, "2MiB", "");
        assert_ne!(old.plugins.plugins[0].limits, written.plugins.plugins[0].limits);
        assert_eq!(old.needs_restart(&written), ["[[listener]] and [relay]"]);
        assert_eq!(written.as_far_as_running(&old).plugins, old.plugins);
        for more in ["address_space = '1GiB'", "settle = '1s'", "kv_size = '1MiB'", "watch = false"] {
            let written = read(100, "1MiB", more);
            assert_eq!(old.needs_restart(&written), ["[plugins]"], "{more}");
            assert_eq!(written.as_far_as_running(&old).plugins, old.plugins, "{more}");
        }
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let old = settings("hostname = \"gw.example\"\n[[listener]]\nname = \"mx\"\naddresses = \"[::]:25\"");
        let new = settings(
            "hostname = \"gw.example\"\n[[listener]]\nname = \"mx\"\naddresses = \"[::]:26\"\nmax_sessions = 5\n\
             [spool]\ndir = \"/x\"",
        );
        assert_eq!(old.needs_restart(&old.clone()), Vec::<&str>::new());
        assert_eq!(old.needs_restart(&new), ["[[listener]] and [relay]", "[spool]"]);
    }
}
