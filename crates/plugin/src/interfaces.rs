//! The table of interfaces that a guest can import: the grant that each requires, and the function that links it.

use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::GrantKind;
use crate::host;
use crate::store_data::StoreData;

/// Adds an interface's functions to the linker.
type LinkInterface = fn(&mut Linker<StoreData>) -> wasmtime::Result<()>;

/// An interface of the contract that the host knows.
pub(crate) struct HostInterface {
    /// Its name in the contract.
    pub(crate) name: &'static str,
    /// The grant required to import it; `None` if none is required.
    pub(crate) grant: Option<GrantKind>,
    /// Functions that require a grant of their own, each with the grants of which any one suffices; the first permits
    /// the least. A plugin without the grant may import the function; calls are denied.
    pub(crate) functions: &'static [(&'static str, &'static [GrantKind])],
    /// Adds the interface's functions to the linker; `None` if this release does not serve the interface.
    pub(crate) link: Option<LinkInterface>,
}

const fn open(name: &'static str, link: LinkInterface) -> HostInterface {
    HostInterface { name, grant: None, functions: &[], link: Some(link) }
}

/// All interfaces of the contract.
const INTERFACES: &[HostInterface] = &[
    open("types", host::types::link),
    open("gateway", host::gateway::link),
    open("log", host::log::link),
    open("metrics", host::metrics::link),
    HostInterface {
        functions: &[
            ("reverse-names", &[GrantKind::ReverseDns, GrantKind::Dns]),
            ("offer-extension", &[GrantKind::EditExtensions]),
            ("withhold-extension", &[GrantKind::EditExtensions]),
        ],
        ..open("session", host::session::link)
    },
    HostInterface {
        functions: &[
            ("add-recipient", &[GrantKind::EditEnvelope]),
            ("remove-recipient", &[GrantKind::EditEnvelope]),
            ("rewrite-recipient", &[GrantKind::EditEnvelope]),
            ("rewrite-sender", &[GrantKind::EditEnvelope]),
            ("grant-relay", &[GrantKind::Relay]),
            ("add-auth-result", &[GrantKind::AuthResults]),
        ],
        ..open("transaction", host::transaction::link)
    },
    HostInterface {
        functions: &[("edit-headers", &[GrantKind::EditHeaders]), ("write-body", &[GrantKind::EditBody])],
        ..open("message", host::message::link)
    },
    HostInterface {
        functions: &[
            ("set-next-hop", &[GrantKind::Route]),
            ("set-tls", &[GrantKind::Route]),
            ("set-source", &[GrantKind::Route]),
            ("set-credentials", &[GrantKind::Route]),
            ("suppress-bounce", &[GrantKind::DropMail]),
        ],
        ..open("delivery", host::delivery::link)
    },
    HostInterface { grant: Some(GrantKind::Dns), ..open("dns", host::dns::link) },
    HostInterface { grant: Some(GrantKind::Kv), ..open("kv", host::kv::link) },
    HostInterface {
        grant: Some(GrantKind::SenderAuth),
        functions: &[
            ("signing-keys", &[GrantKind::Sign]),
            ("dkim-sign", &[GrantKind::Sign]),
            ("arc-seal", &[GrantKind::Sign]),
        ],
        ..open("sender-auth", host::sender_auth::link)
    },
    HostInterface { name: "http", grant: Some(GrantKind::Http), functions: &[], link: None },
    HostInterface { name: "tables", grant: Some(GrantKind::Tables), functions: &[], link: None },
];

/// Looks up an interface by name.
pub(crate) fn find(name: &str) -> Option<&'static HostInterface> {
    INTERFACES.iter().find(|interface| interface.name == name)
}

/// The linker with all functions of all interfaces. Whether a guest may import them is checked before it is linked.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<StoreData>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    for link in INTERFACES.iter().filter_map(|interface| interface.link) {
        link(&mut linker)?;
    }
    Ok(linker)
}
