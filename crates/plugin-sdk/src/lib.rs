//! SDK for Pintle plugins in Rust.
//!
//! A plugin consists of a type that is deserialised from the operator's configuration, functions named after the hooks,
//! and one line that lists the hooks to export:
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
//! Hooks are inherent functions of the plugin's type instead of trait methods, because the compiler then catches both
//! kinds of mistake in the list: a hook that is listed but not implemented does not compile, and one that is
//! implemented but not listed causes a dead-code warning. A hook that is not listed is not part of the component and
//! costs nothing.
//!
//! | function | when | returns |
//! |---|---|---|
//! | `on_connect(&self)` | a new connection, before the greeting | [`Verdict`] |
//! | `on_hello(&self, name: &str)` | EHLO, HELO or LHLO, before its reply | [`Verdict`] |
//! | `on_auth_password(&self, mechanism: &str, authorization_id: Option<&str>, username: &str, password: &str)` | AUTH with a password, after the client has sent it | [`AuthVerdict`] |
//! | `on_auth_result(&self, mechanism: &str, username: &str, outcome: &str)` | after AUTH, whoever judged the credentials | nothing |
//! | `on_mail(&self)` | MAIL FROM | [`Verdict`] |
//! | `on_rcpt(&self, rcpt: &Recipient)` | RCPT TO, once per recipient | [`Verdict`] |
//! | `on_data(&self)` | DATA or the first BDAT, before its reply | [`Verdict`] |
//! | `on_headers(&self)` | after the header, before the body | [`Verdict`] |
//! | `on_message(&self)` | after the whole message, before it is accepted | [`Verdict`] |
//! | `on_queued(&self)` | a copy of a message has been committed, after the reply | nothing |
//! | `on_deliver(&self)` | before each delivery attempt | [`Verdict`] |
//! | `on_delivery_result(&self, outcomes: &[DeliveryOutcome])` | after each attempt | nothing |
//! | `on_disconnect(&self)` | the end of a session | nothing |
//! | `on_timer(&self)` | background work at the operator's interval | nothing |
//!
//! Each function may also return a `Result` of that type, so that `?` works on errors of the host; [`Settle`] defines
//! the effect of an error.
//!
//! The modules [`session`], [`transaction`], [`message`] and [`delivery`] give access to the objects of the current
//! call, and [`gateway`] to the gateway-wide configuration. The host's services are in [`log`], [`metrics`], [`calls`],
//! [`mailboxes`], [`names`], [`dns`], [`kv`], [`leases`], [`secrets`], [`sender_auth`] and [`signing`]. Only functions
//! that a plugin calls become imports of its component, and only imports need the operator's grants. A verdict is the
//! reply of one hook; what becomes of accepted mail is requested by [`transaction::quarantine`],
//! [`transaction::discard`] and [`transaction::refuse`]. [`settings`] parses values of the configuration (durations,
//! networks, domains, addresses).
//!
//! # Building
//!
//! The crate type is `cdylib` and the target `wasm32-wasip2`; the result is the component to put into the plugin
//! folder. On other targets `cargo check` and `cargo test` work, so that functions that call no service can be
//! unit-tested natively; calling a service there panics, and `cargo build` fails at linking.
//!
//! The host keeps state between calls ([`session::set_note`], [`kv`]): it may drop an instance at any time, and each
//! call may use a different one.

mod address;
mod batches;
#[doc(hidden)]
pub mod bindings;
mod config;
mod export;
mod log_macros;
mod notes;
#[doc(hidden)]
pub mod plugin;
mod replies;

pub use bindings::on_auth_password::pintle::plugin::auth_types::AuthVerdict;
pub use bindings::on_delivery_result::exports::pintle::plugin::on_delivery_result::Outcome as DeliveryOutcome;
pub use bindings::services::exports::pintle::plugin::plugin::ConfigError;
pub use bindings::services::pintle::plugin::types::{
    Address, Header, HostError, IpAddress, Param, Recipient, Reply, Verdict,
};
pub use plugin::{Plugin, Settle, mistake};
pub use replies::{defer, reject};

/// The items that most plugins use, for a glob import.
pub mod prelude {
    pub use crate::{
        Address, AuthVerdict, ConfigError, DeliveryOutcome, HostError, Plugin, Recipient, Reply, Verdict,
        calls, debug, defer, delivery, error, gateway, info, message, mistake, reject, session, transaction,
        warn,
    };
}

pub mod action;
pub mod calls;
pub mod delivery;
pub mod dns;
pub mod gateway;
pub mod kv;
pub mod leases;
pub mod log;
pub mod mailboxes;
pub mod message;
pub mod metrics;
pub mod names;
pub mod secrets;
pub mod sender_auth;
pub mod session;
pub mod settings;
pub mod signing;
pub mod transaction;
