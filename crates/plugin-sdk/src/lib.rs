//! Write Pintle plugins in Rust.
//!
//! A plugin is a type that is read from the operator's configuration, some functions named after the hooks, and one
//! line that says which hooks to export:
//!
//! ```
//! use pintle_plugin_sdk::prelude::*;
//!
//! #[derive(serde::Deserialize)]
//! struct Quiet {
//!     silenced: Vec<String>,
//! }
//!
//! impl Plugin for Quiet {
//!     const ID: &'static str = "acme.quiet";
//! }
//!
//! impl Quiet {
//!     fn on_rcpt(&self, rcpt: &Recipient) -> Verdict {
//!         if self.silenced.contains(&rcpt.address.domain) {
//!             info!(rcpt = rcpt.address; "mail to a closed address");
//!             return reject("5.7.1", "this address accepts no mail");
//!         }
//!         Verdict::Next
//!     }
//! }
//!
//! pintle_plugin_sdk::export!(Quiet: on_rcpt);
//! ```
//!
//! # Hooks
//!
//! Hooks are inherent functions of the plugin's type, not trait methods, because the compiler then catches both
//! mistakes that a list beside an implementation invites: a hook listed but not written does not compile, and one
//! written but not listed is warned about as dead code. A hook that is not listed is not in the component at all and
//! costs nothing.
//!
//! | function | when | returns |
//! |---|---|---|
//! | `on_connect(&self)` | a new connection, before the greeting | [`Verdict`] |
//! | `on_hello(&self, name: &str)` | EHLO, HELO or LHLO, before its reply | [`Verdict`] |
//! | `on_auth(&self, mechanism: &str, credentials: &Credentials)` | the client's credentials are known | [`AuthVerdict`] |
//! | `on_mail(&self)` | MAIL FROM | [`Verdict`] |
//! | `on_rcpt(&self, rcpt: &Recipient)` | RCPT TO, once a recipient | [`Verdict`] |
//! | `on_headers(&self)` | the header is here, the body is not | [`Verdict`] |
//! | `on_message(&self)` | the whole message is here, not yet accepted | [`Verdict`] |
//! | `on_deliver(&self)` | before each delivery attempt | [`Verdict`] |
//! | `on_delivery_result(&self, outcomes: &[Outcome])` | after each attempt | nothing |
//! | `on_disconnect(&self)` | the end of a session | nothing |
//! | `on_timer(&self)` | background work at the operator's interval | nothing |
//!
//! Each may also return a `Result` of that, so that `?` works on what the host refuses: see [`Settle`] for what an
//! error does.
//!
//! What is at hand in a hook is found in the modules [`session`], [`transaction`], [`message`] and [`delivery`], what the
//! operator has said of the gateway as a whole in [`gateway`]; the
//! host's services in [`log`], [`metrics`], [`dns`], [`kv`], [`http`], [`tables`] and [`sender_auth`]. Only what a
//! plugin calls becomes an import of its component, and only imports need the operator's grants. [`settings`] reads what
//! operators write (durations, networks, domains, addresses), and [`fields`] finds the addresses in a header field; with the feature
//! `encoded-words`, the module of that name decodes what such a field shows.
//!
//! # Building
//!
//! The crate type is `cdylib` and the target `wasm32-wasip2`; what comes out is the component to put into the plugin
//! folder. Off that target `cargo check` and `cargo test` work, so that functions which call no service can be
//! unit-tested natively; calling a service there panics, and `cargo build` has nothing to link.
//!
//! State between calls belongs to the host ([`session::set_note`], [`kv`]): the host may drop an instance whenever it
//! likes, and every call may meet another one.

#[doc(hidden)]
pub mod bindings;
mod config;
mod export;
mod log_macros;
mod notes;
#[doc(hidden)]
pub mod plugin;
mod replies;

pub use bindings::on_auth::exports::pintle::plugin::on_auth::{AuthVerdict, Bearer, Credentials, Password};
pub use bindings::on_delivery_result::exports::pintle::plugin::on_delivery_result::Outcome;
pub use bindings::services::exports::pintle::plugin::plugin::ConfigError;
pub use bindings::services::pintle::plugin::types::{
    Address, Header, HostError, IpAddress, Param, Recipient, Reply, Verdict,
};
pub use plugin::{Plugin, Settle, mistake};
pub use replies::{defer, reject};

/// What nearly every plugin uses; meant to be imported whole.
pub mod prelude {
    pub use crate::{
        Address, AuthVerdict, ConfigError, Credentials, HostError, Outcome, Plugin, Recipient, Reply,
        Verdict, debug, defer, delivery, error, gateway, info, message, mistake, reject, session,
        transaction, warn,
    };
}

pub mod action;
pub mod delivery;
pub mod dns;
#[cfg(feature = "encoded-words")]
pub mod encoded_words;
pub mod fields;
pub mod gateway;
pub mod http;
pub mod kv;
pub mod log;
pub mod message;
pub mod metrics;
pub mod sender_auth;
pub mod session;
pub mod settings;
pub mod tables;
pub mod transaction;
