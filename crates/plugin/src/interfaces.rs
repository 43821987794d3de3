//! The table of interfaces that a guest can import, with their functions: the grants that each requires, and the function
//! that links it. Components are judged by this table, function by function.

use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::GrantKind::{
    self, AuthResults, Dns, DropMail, EditBody, EditEnvelope, EditExtensions, EditHeaders, Kv, Relay,
    ReverseDns, Route, Secrets, SenderAuth, Sign,
};
use crate::host;
use crate::store_data::StoreData;

/// Adds an interface's functions to the linker.
type LinkInterface = fn(&mut Linker<StoreData>) -> wasmtime::Result<()>;

/// An interface of the contract that the host serves.
pub(crate) struct HostInterface {
    /// Its name in the contract.
    pub(crate) name: &'static str,
    /// The grant required to import it; `None` if none is required.
    pub(crate) grant: Option<GrantKind>,
    /// Its functions.
    pub(crate) functions: &'static [HostFunction],
    /// Adds the interface's functions to the linker.
    link: LinkInterface,
}

/// A function, with the grants of which any one suffices; the first permits the least. A plugin without the grant may
/// import the function; calls are denied.
pub(crate) type HostFunction = (&'static str, &'static [GrantKind]);

const fn open(name: &'static str, link: LinkInterface, functions: &'static [HostFunction]) -> HostInterface {
    HostInterface { name, grant: None, functions, link }
}

const fn granted(
    name: &'static str,
    grant: GrantKind,
    link: LinkInterface,
    functions: &'static [HostFunction],
) -> HostInterface {
    HostInterface { name, grant: Some(grant), functions, link }
}

/// All interfaces of the contract that a guest can import. A test compares them with `wit/plugin.wit`.
pub(crate) const INTERFACES: &[HostInterface] = &[
    open("types", host::types::link, &[]),
    open("auth-types", host::types::link_auth, &[]),
    open(
        "gateway",
        host::gateway::link,
        &[("info", &[]), ("are-local", &[]), ("to-ascii", &[]), ("local-domains", &[]), ("generation", &[])],
    ),
    open("log", host::log::link, &[("enabled", &[]), ("write", &[])]),
    open("metrics", host::metrics::link, &[("count", &[]), ("observe", &[]), ("set", &[])]),
    open(
        "calls",
        host::calls::link,
        &[
            ("never", &[]),
            ("only-clients", &[]),
            ("only-listeners", &[]),
            ("not-networks", &[]),
            ("only-senders", &[]),
            ("only-recipients", &[]),
            ("only-with-headers", &[]),
            ("only-sizes", &[]),
        ],
    ),
    open("mailboxes", host::mailboxes::link, &[("in-headers", &[]), ("in-text", &[]), ("decode-words", &[])]),
    open("names", host::names::link, &[("registered-domains", &[]), ("to-unicode", &[]), ("skeletons", &[])]),
    open(
        "session",
        host::session::link,
        &[
            ("info", &[]),
            ("tls", &[]),
            ("client-certificate", &[]),
            ("reverse-names", &[ReverseDns, Dns]),
            ("extensions", &[]),
            ("offer-extension", &[EditExtensions]),
            ("withhold-extension", &[EditExtensions]),
            ("note", &[]),
            ("set-note", &[]),
            ("facts", &[]),
            ("set-fact", &[]),
            ("delay-reply", &[]),
            ("close", &[]),
        ],
    ),
    open(
        "transaction",
        host::transaction::link,
        &[
            ("info", &[]),
            ("recipients", &[]),
            ("recipient-by-id", &[]),
            ("add-recipient", &[EditEnvelope]),
            ("remove-recipient", &[EditEnvelope]),
            ("rewrite-recipient", &[EditEnvelope]),
            ("rewrite-sender", &[EditEnvelope]),
            ("grant-relay", &[Relay]),
            ("set-group", &[]),
            ("quarantine", &[]),
            ("discard", &[DropMail]),
            ("refuse", &[]),
            ("note", &[]),
            ("set-note", &[]),
            ("facts", &[]),
            ("set-fact", &[]),
            ("set-score", &[]),
            ("score", &[]),
            ("add-auth-result", &[AuthResults]),
            ("auth-results", &[]),
        ],
    ),
    open(
        "message",
        host::message::link,
        &[
            ("info", &[]),
            ("headers", &[]),
            ("headers-named", &[]),
            ("headers-shown", &[]),
            ("raw-header", &[]),
            ("edit-headers", &[EditHeaders]),
            ("read-body", &[]),
            ("find-in-body", &[]),
            ("parts", &[]),
            ("tree-flaws", &[]),
            ("part-headers", &[]),
            ("read-part", &[]),
            ("find-in-part", &[]),
            ("part-text", &[]),
            ("part-digest", &[]),
            ("write-body", &[EditBody]),
            ("drop-body", &[EditBody]),
        ],
    ),
    open(
        "delivery",
        host::delivery::link,
        &[
            ("info", &[]),
            ("set-next-hop", &[Route]),
            ("set-tls", &[Route]),
            ("set-source", &[Route]),
            ("set-credentials", &[Route]),
            ("set-retry-after", &[]),
            ("suppress-bounce", &[DropMail]),
        ],
    ),
    granted("dns", Dns, host::dns::link, &[("query-many", &[Dns]), ("query-lists", &[Dns])]),
    granted(
        "kv",
        Kv,
        host::kv::link,
        &[
            ("get-many", &[Kv]),
            ("set", &[Kv]),
            ("swap", &[Kv]),
            ("remove", &[Kv]),
            ("increment", &[Kv]),
            ("count-many", &[Kv]),
            ("take", &[Kv]),
        ],
    ),
    granted(
        "sender-auth",
        SenderAuth,
        host::sender_auth::link,
        &[
            ("spf", &[SenderAuth]),
            ("dkim", &[SenderAuth]),
            ("dmarc", &[SenderAuth]),
            ("arc", &[SenderAuth]),
            ("results", &[SenderAuth]),
            ("report-disposition", &[AuthResults]),
        ],
    ),
    open("signing", host::signing::link, &[("keys", &[Sign]), ("dkim-sign", &[Sign]), ("arc-seal", &[Sign])]),
    granted("secrets", Secrets, host::secrets::link, &[("hmac", &[Secrets]), ("random-bytes", &[Secrets])]),
    granted("leases", Kv, host::leases::link, &[("take", &[Kv])]),
];

/// Looks up an interface by name.
pub(crate) fn find(name: &str) -> Option<&'static HostInterface> {
    INTERFACES.iter().find(|interface| interface.name == name)
}

/// The linker with all functions of all interfaces. Whether a guest may import them is checked before it is linked.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<StoreData>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    for interface in INTERFACES {
        (interface.link)(&mut linker)?;
    }
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// The functions of each interface in the text of the contract.
    fn declared(wit: &str) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut interfaces: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut current = "";
        for line in wit.lines() {
            if let Some(name) = line.strip_prefix("interface ").and_then(|rest| rest.strip_suffix(" {")) {
                current = name;
                interfaces.entry(name).or_default();
            } else if let Some((name, _)) =
                line.strip_prefix("  ").and_then(|line| line.split_once(": func("))
                && let Some(functions) = interfaces.get_mut(current)
            {
                functions.insert(name);
            }
        }
        interfaces
    }

    #[test]
    fn the_table_has_every_function_of_the_contract() {
        let mut declared = declared(include_str!("../../../wit/plugin.wit"));
        declared.retain(|name, _| *name != "plugin" && !name.starts_with("on-"));
        let served: BTreeMap<_, BTreeSet<_>> = INTERFACES
            .iter()
            .map(|interface| (interface.name, interface.functions.iter().map(|(name, _)| *name).collect()))
            .collect();
        assert_eq!(served, declared);
    }
}
