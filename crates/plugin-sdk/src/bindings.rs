//! The generated bindings.
//!
//! `services` holds all imports and the mandatory export. Each hook has a module of its own, generated from a world
//! that exports only this hook. The linker keeps only the descriptions of worlds that are used, and removes unused
//! imports with the others, so a component's type lists exactly what its plugin uses. All modules share the types of
//! `services`. Other modules of the SDK re-export these items under better names.
#![allow(
    missing_docs,
    clippy::mem_forget,
    unreachable_pub,
    unused_qualifications,
    reason = "generated from the WIT files, which hold the documentation"
)]

/// Imports, shared types and the mandatory export.
pub mod services {
    wit_bindgen::generate!({
        path: "wit",
        world: "pintle:sdk/services",
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq],
        pub_export_macro: true,
    });
}

macro_rules! hook {
    ($module:ident, $world:literal $(, $types:literal)?) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "wit",
                world: $world,
                with: { $($types: crate::bindings::services::pintle::plugin::types)? },
                generate_all,
                additional_derives: [PartialEq],
                pub_export_macro: true,
            });
        }
    };
}

hook!(on_connect, "pintle:sdk/on-connect", "pintle:plugin/types@0.1.0");
hook!(on_hello, "pintle:sdk/on-hello", "pintle:plugin/types@0.1.0");
hook!(on_auth_password, "pintle:sdk/on-auth-password", "pintle:plugin/types@0.1.0");
hook!(on_auth_result, "pintle:sdk/on-auth-result");
hook!(on_mail, "pintle:sdk/on-mail", "pintle:plugin/types@0.1.0");
hook!(on_rcpt, "pintle:sdk/on-rcpt", "pintle:plugin/types@0.1.0");
hook!(on_data, "pintle:sdk/on-data", "pintle:plugin/types@0.1.0");
hook!(on_headers, "pintle:sdk/on-headers", "pintle:plugin/types@0.1.0");
hook!(on_message, "pintle:sdk/on-message", "pintle:plugin/types@0.1.0");
hook!(on_queued, "pintle:sdk/on-queued");
hook!(on_deliver, "pintle:sdk/on-deliver", "pintle:plugin/types@0.1.0");
hook!(on_delivery_result, "pintle:sdk/on-delivery-result", "pintle:plugin/types@0.1.0");
hook!(on_disconnect, "pintle:sdk/on-disconnect");
hook!(on_timer, "pintle:sdk/on-timer");
