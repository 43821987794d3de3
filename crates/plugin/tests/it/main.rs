//! The plugin host with real guests: `unruly`, which does what a test tells it to, and the example plugin.

#![allow(clippy::unwrap_used, reason = "a test that meets nothing has failed")]

mod edits;
mod fairness;
mod fates;
mod faults;
mod grants;
mod hooks;
mod hostile;
mod languages;
mod leases;
mod load;
mod reading;
mod reload;
mod secrets;
mod sender_auth;
mod support;
mod work;
