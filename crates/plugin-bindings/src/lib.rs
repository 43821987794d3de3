//! What `bindgen!` makes of `wit/`, and nothing else.
//!
//! A crate of its own because it takes longer to compile than all the rest of the host together and changes only with
//! the contract. `pintle-plugin` alone uses it. Functions that may suspend are async here; that is the host's affair and
//! no part of the contract.

#![allow(missing_docs, reason = "the contract in wit/ is the documentation")]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "pintle:plugin/host-side",
    imports: {
        "pintle:plugin/session.reverse-names": async,
        "pintle:plugin/message.read-body": async,
        "pintle:plugin/message.find-in-body": async,
        "pintle:plugin/message.parts": async,
        "pintle:plugin/message.tree-flaws": async,
        "pintle:plugin/message.part-headers": async,
        "pintle:plugin/message.read-part": async,
        "pintle:plugin/message.find-in-part": async,
        "pintle:plugin/message.part-text": async,
        "pintle:plugin/message.part-digest": async,
        "pintle:plugin/message.write-body": async,
        "pintle:plugin/dns.query-many": async,
        "pintle:plugin/dns.query-lists": async,
        "pintle:plugin/sender-auth.spf": async,
        "pintle:plugin/sender-auth.dkim": async,
        "pintle:plugin/sender-auth.dmarc": async,
        "pintle:plugin/sender-auth.arc": async,
        "pintle:plugin/sender-auth.results": async,
        "pintle:plugin/signing.arc-seal": async,
    },
    exports: { default: async },
});
