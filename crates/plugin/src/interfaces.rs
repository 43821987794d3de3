//! The interfaces that a guest can import, in one table: what each takes to be imported, and how it is linked.

use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::GrantKind;
use crate::host;
use crate::store_data::StoreData;

/// Adds the functions of an interface to what guests can import.
type LinkInterface = fn(&mut Linker<StoreData>) -> wasmtime::Result<()>;

/// An interface of the contract that the host knows.
pub(crate) struct HostInterface {
    /// Its name in the contract.
    pub(crate) name: &'static str,
    /// What it takes to import it.
    pub(crate) grant: Option<GrantKind>,
    /// Functions of it that need a grant by themselves, with those of which each needs one; the first allows the least. A
    /// plugin without may import them, and is denied when it calls.
    pub(crate) functions: &'static [(&'static str, &'static [GrantKind])],
    /// Adds its functions to what guests can import; none where this release does not serve it.
    pub(crate) link: Option<LinkInterface>,
}

const fn open(name: &'static str, link: LinkInterface) -> HostInterface {
    HostInterface { name, grant: None, functions: &[], link: Some(link) }
}

/// All interfaces.
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

/// The interface of this name.
pub(crate) fn find(name: &str) -> Option<&'static HostInterface> {
    INTERFACES.iter().find(|interface| interface.name == name)
}

/// All that any guest can import. Whether this guest may is found out before it gets here.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<StoreData>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    for link in INTERFACES.iter().filter_map(|interface| interface.link) {
        link(&mut linker)?;
    }
    Ok(linker)
}
