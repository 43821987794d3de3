//! Checks the configuration against the machine and against itself: missing folders, addresses that overlap, relays
//! that are this gateway (mail loops), accepted domains without a route.

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

/// A label that makes a subdomain of a pattern, to look up its route.
const ANY: &str = "any";

/// Records a mistake if the path exists and is not a folder. The gateway creates a missing folder.
pub(super) fn folder(spot: &Spot<'_>, path: &Path) {
    if fs::metadata(path).is_ok_and(|found| !found.is_dir()) {
        spot.rule(FileRule::NotAFolder(path.to_owned()));
    }
}

/// The same for a folder that must belong to the gateway's user. A start as root gives an empty folder to that user,
/// and refuses one that is not empty. `strictly`: refused also when this process runs as the gateway's user, and so
/// cannot change the owner.
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

/// Records a mistake if a file cannot be created or written.
pub(super) fn file(spot: &Spot<'_>, path: &Path) {
    // Devices and pipes are allowed. A file whose metadata cannot be read, unless it is missing, cannot be opened
    // either.
    if fs::metadata(path).map_or_else(|error| error.kind() != ErrorKind::NotFound, |found| found.is_dir()) {
        spot.rule(FileRule::NotAFile(path.to_owned()));
    }
    parent(spot, path);
}

/// Records a mistake if the admin socket cannot be created.
pub(super) fn socket(spot: &Spot<'_>, path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        spot.rule(FileRule::NotASocket(path.to_owned()));
    }
    parent(spot, path);
}

/// The folder of a file or socket that is to be created must exist. One below `/run` may be missing while the gateway
/// does not run, since each boot empties `/run` and the service manager creates the folder: this is a warning.
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

/// The addresses that are listened on, each with its line in the file.
#[derive(Default)]
pub(super) struct TakenAddresses {
    names: Names,
    addresses: Vec<(SocketAddr, usize)>,
}

impl TakenAddresses {
    /// Adds an address. Records a mistake if it is a duplicate, or overlaps with an earlier one.
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

/// Whether one is a wildcard that covers the other: the kernel refuses the second `bind`.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let wild = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && wild && one.ip() != other.ip()
}

/// Checks that no relay is one of our own listeners.
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

/// Warns of accepted domains that no route names: most likely their route was forgotten. A route by MX is allowed, for
/// a domain whose other exchangers are preferred to us.
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

/// A route table in which the domains that have a route are discarded, and all others go by MX.
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
