//! The gateway that runs the plugin: its name, and the domains that are ours.

pub use crate::bindings::services::pintle::plugin::gateway::{
    Snapshot, info, is_local, local_domains, to_ascii,
};
