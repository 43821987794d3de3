//! Converts the sections about delivery: routes, relays, sessions, timeouts, retries, reports, name servers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::relays::{RESERVED, named_credentials, relay};
use super::{Names, quarantine, unique};
use crate::reader::Section;
use crate::values::{Domain, NameServer, Nat64, NonEmpty, OrNever, OrZero, Positive, RoutePattern, Size};
use crate::{Cause, DeliveryRule};
use pintle_outbound::{
    Config, Mx, Protocol, Relay, Reports, RetryPolicy, Route, RouteTable, Sessions, Sources, Timeouts,
};

pub(super) fn outbound(root: &Section<'_>, hostname: &str) -> Config {
    let section = root.table("delivery");
    let queue = root.table("queue");
    let relays: BTreeMap<String, Relay> = root.named("relays").into_iter().map(relay).collect();
    let named = root.named("credentials").into_iter();
    Config {
        own_names: section.get::<Vec<Domain>>("own_names").into_iter().map(|name| name.0).collect(),
        own_addresses: section.get("own_addresses"),
        routes: routes(root, &relays),
        credentials: named.map(|named| named_credentials(named, &relays)).collect(),
        relays,
        mx: Mx {
            tls: section.get("mx_tls"),
            port: section.get::<Positive<_>>("mx_port").0,
            addresses: section.get::<Positive<_>>("mx_addresses").0,
            networks: section.get("mx_networks"),
            nat64: section.get::<Vec<Nat64>>("nat64_prefixes").into_iter().map(|prefix| prefix.0).collect(),
        },
        sources: Sources { v4: section.optional("source_v4"), v6: section.optional("source_v6") },
        sessions: sessions(&section),
        timeouts: timeouts(&section),
        eight_bit: section.get("eight_bit"),
        transfer: section.get("transfer"),
        retry: retry(&queue),
        reports: reports(&root.table("reports")),
        quarantine: quarantine::retention(&root.table("quarantine")),
        quota: quarantine::quota(&root.table("quarantine")),
        ..Config::new(hostname)
    }
}

fn sessions(section: &Section<'_>) -> Sessions {
    Sessions {
        per_hop: section.get::<Positive<_>>("max_per_hop").0,
        total: section.get::<Positive<_>>("max_total").0,
        messages: section.get::<Positive<_>>("messages_per_session").0,
        idle: section.get::<OrZero>("idle_timeout").0,
        connect: section.get("connect_timeout"),
        plain_memory: section.get::<OrZero>("plain_memory").0,
    }
}

fn timeouts(section: &Section<'_>) -> Timeouts {
    let command: Duration = section.get("command_timeout");
    Timeouts {
        greeting: command,
        command,
        mail: command,
        rcpt: command,
        data: section.get("data_timeout"),
        block: section.get("block_timeout"),
        end: section.get("final_timeout"),
        ..Timeouts::default()
    }
}

fn retry(section: &Section<'_>) -> RetryPolicy {
    let max_age: Duration = section.get("max_age");
    let warn_after = section.get::<OrNever>("warn_after").0;
    if warn_after.is_some_and(|warn_after| warn_after >= max_age) {
        section.rule(
            if section.has("warn_after") { "warn_after" } else { "max_age" },
            DeliveryRule::WarnAfterExpiry,
        );
    }
    RetryPolicy {
        intervals: section.get::<NonEmpty<Duration>>("retry_intervals").0,
        hop_intervals: section.get::<NonEmpty<Duration>>("hop_intervals").0,
        jitter: section.get("jitter_percent"),
        max_age,
        warn_after,
    }
}

fn reports(section: &Section<'_>) -> Reports {
    Reports {
        from: section.optional("from"),
        from_name: section.get("from_name"),
        return_limit: section.get::<Size>("return_limit").0,
    }
}

fn routes(root: &Section<'_>, relays: &BTreeMap<String, Relay>) -> RouteTable {
    let mut seen = Names::new();
    let mut table = RouteTable::default();
    let mut special = Vec::new();
    for section in root.list("route") {
        let route = via(&section, relays);
        for pattern in section.get::<NonEmpty<RoutePattern>>("domain").0 {
            unique(&mut seen, &section, "domain", "route for", &pattern.0);
            match pattern.0.as_str() {
                "*" => table = RouteTable::new(route.clone()),
                _ => special.push((pattern.0, route.clone())),
            }
        }
    }
    special.into_iter().fold(table, |table, (pattern, route)| table.with(&pattern, route))
}

fn via(section: &Section<'_>, relays: &BTreeMap<String, Relay>) -> Route {
    let via: String = section.get("via");
    match (via.as_str(), relays.get(&via)) {
        ("mx" | "", _) => Route::Mx,
        ("discard", _) => Route::Discard,
        (_, Some(relay)) if relay.protocol == Protocol::Lmtp => Route::Lmtp(via),
        (_, Some(_)) => Route::Relay(via),
        (_, None) => {
            let known = RESERVED.iter().map(|&word| word.to_owned()).chain(relays.keys().cloned()).collect();
            section.complain("via", Cause::Undefined { what: "relay", name: via, known });
            Route::Mx
        }
    }
}

pub(crate) fn dns(section: &Section<'_>) -> pintle_dns::Config {
    let servers: Vec<_> =
        section.get::<Vec<NameServer>>("servers").into_iter().map(|server| server.0).collect();
    pintle_dns::Config {
        servers: if servers.is_empty() {
            pintle_dns::NameServers::System
        } else {
            pintle_dns::NameServers::List(servers)
        },
        timeout: section.get("timeout"),
        attempts: section.get::<Positive<_>>("attempts").0,
        deadline: section.get("deadline"),
        cache_entries: section.get("cache_entries"),
        max_ttl: section.get::<OrZero>("max_ttl").0,
        max_negative_ttl: section.get::<OrZero>("max_negative_ttl").0,
        hosts_file: section.get("hosts_file"),
    }
}
