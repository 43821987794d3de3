//! Whether the file fits the machine that it is for, and itself: folders that must be there, addresses that exclude each
//! other, relays that lead back, domains whose mail leads nowhere.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use pintle_outbound::{Config, Endpoint, Relay, Route, RouteTable, SystemNetwork, is_listener};

use super::{Names, unique};
use crate::reader::{Section, Spot};
use crate::values::{DomainPattern, NonEmpty};
use crate::{DeliveryRule, FileRule, ListenerRule};

/// A domain below every other, to ask routes for what has no name of its own.
const ANY: &str = "any";

/// Complains where something else than a folder stands; what is missing the gateway makes.
pub(super) fn folder(spot: &Spot<'_>, path: &Path) {
    if fs::metadata(path).is_ok_and(|found| !found.is_dir()) {
        spot.rule(FileRule::NotAFolder(path.to_owned()));
    }
}

/// The same for a folder that must be the gateway's own at a start. Root gives an empty one to the gateway's user; one with
/// something in it is left alone and refused then. `strictly`: it is refused in any case, unless its owner uses it.
pub(super) fn own_folder(spot: &Spot<'_>, path: &Path, strictly: bool) {
    folder(spot, path);
    let us = spot.reader.us.get();
    let owner = fs::metadata(path).ok().filter(fs::Metadata::is_dir).map(|found| found.uid());
    let Some(uid) = owner.filter(|uid| us.is_known_not_to_be(*uid)) else { return };
    let is_refused = if us.is_whoever_looks() { strictly } else { has_something(path) };
    if is_refused {
        spot.rule(FileRule::NotOurs(path.to_owned(), uid));
    }
}

fn has_something(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Complains where a file cannot be made or written to.
pub(super) fn file(spot: &Spot<'_>, path: &Path) {
    // A device or a pipe may be meant; what cannot be looked at, other than since it is missing, cannot be opened either.
    if fs::metadata(path).map_or_else(|error| error.kind() != ErrorKind::NotFound, |found| found.is_dir()) {
        spot.rule(FileRule::NotAFile(path.to_owned()));
    }
    parent(spot, path);
}

/// Complains where the admin socket cannot be made.
pub(super) fn socket(spot: &Spot<'_>, path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        spot.rule(FileRule::NotASocket(path.to_owned()));
    }
    parent(spot, path);
}

/// The folder in which something is made must be there. One below `/run` is gone after each boot, and made by whoever
/// starts the service, so that it may be missing while nothing runs.
fn parent(spot: &Spot<'_>, path: &Path) {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return };
    let folder = folder.to_owned();
    if folder.is_dir() {
        return;
    }
    if folder.exists() {
        spot.rule(FileRule::NotAFolder(folder));
    } else if ["/run", "/var/run"].iter().any(|run| folder.starts_with(run)) {
        spot.warn(FileRule::NoRuntimeFolder(folder));
    } else {
        spot.rule(FileRule::NoFolder(folder));
    }
}

/// Addresses that are taken, and by which line.
#[derive(Default)]
pub(super) struct TakenAddresses {
    names: Names,
    addresses: Vec<(SocketAddr, usize)>,
}

impl TakenAddresses {
    /// Complains about an address that cannot be listened on beside those before it.
    pub(super) fn take(&mut self, section: &Section<'_>, key: &str, address: SocketAddr) {
        if address.port() == 0 {
            return;
        }
        unique(&mut self.names, section, key, "address", &address.to_string());
        let spot = section.spot(key);
        if let Some((other, line)) = self.addresses.iter().find(|(other, _)| overlap(*other, address)) {
            spot.rule(ListenerRule::Overlap(address, *other, *line));
        }
        self.addresses.push((address, spot.line()));
    }
}

/// A wildcard takes in every address of its family, and the kernel lets no other listen there.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let wild = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && wild && one.ip() != other.ip()
}

/// Relays must not be ourselves.
pub(super) fn relays(root: &Section<'_>, outbound: &Config) {
    for (name, section) in root.named("relays") {
        for endpoint in outbound.relays.get(&name).into_iter().flat_map(|relay: &Relay| &relay.hosts) {
            relay(&section, endpoint, outbound);
        }
    }
}

fn relay(section: &Section<'_>, endpoint: &Endpoint, outbound: &Config) {
    let Endpoint::Tcp { host, port } = endpoint else { return };
    let here = |ip: IpAddr| is_listener(SocketAddr::new(ip, *port), &outbound.listeners, &SystemNetwork);
    let is_us = match host.parse() {
        Ok(ip) => here(ip),
        Err(_) if host == "localhost" => here(Ipv4Addr::LOCALHOST.into()) || here(Ipv6Addr::LOCALHOST.into()),
        Err(_) => false,
    };
    let ours = |name: &String| name.eq_ignore_ascii_case(host);
    if is_us {
        section.rule("hosts", DeliveryRule::RelayIsUs(endpoint.to_string()));
    } else if (ours(&outbound.hostname) || outbound.own_names.iter().any(ours))
        && outbound.listeners.iter().any(|listener| listener.port() == *port)
    {
        section.spot("hosts").warn(DeliveryRule::RelayMayBeUs(endpoint.to_string()));
    }
}

/// Mail for our domains must lead somewhere. A domain that a route sends by MX is one whose other exchangers are preferred
/// to us; one that no route names most likely was forgotten.
pub(super) fn domains(root: &Section<'_>) {
    let written = written(root);
    let section = root.table("domains");
    let accepted: Vec<DomainPattern> = section.get("accepted");
    for pattern in accepted {
        let domain = match pattern.0.strip_prefix('.') {
            Some(_) => format!("{ANY}{}", pattern.0),
            None => pattern.0.clone(),
        };
        if *written.find(&pintle_mail::address::domain_to_ascii(&domain)) == Route::Mx {
            section.spot("accepted").warn(DeliveryRule::NoRoute(pattern.0));
        }
    }
}

/// A table in which every domain that a route names leads away, by whatever way.
fn written(root: &Section<'_>) -> RouteTable {
    let patterns: BTreeMap<String, ()> = root
        .list("route")
        .iter()
        .flat_map(|section| section.get::<NonEmpty<crate::values::RoutePattern>>("domain").0)
        .map(|pattern| (pattern.text().to_owned(), ()))
        .collect();
    let default = if patterns.contains_key("*") { Route::Discard } else { Route::Mx };
    let special = patterns.keys().filter(|pattern| *pattern != "*");
    special.fold(RouteTable::new(default), |table, pattern| table.with(pattern, Route::Discard))
}
