//! The functions that a guest can call, one file for each interface of the contract.
//!
//! Each checks the grant, the stage and the sizes before it does anything, so that every version of an interface that
//! will ever stand above them is checked in one place.

mod delivery;
pub(crate) mod dns;
mod facts;
mod gateway;
mod kv;
mod log;
mod message;
mod metrics;
mod sender_auth;
pub(crate) mod session;
pub(crate) mod stdio;
mod transaction;

use pintle_policy::Notes;

use crate::bindings::pintle::plugin::types::{self, HostError};
use crate::store_data::StoreData;

impl types::Host for StoreData {}

/// What all notes of one plugin on one session, or one transaction, may take.
const MAX_NOTES: usize = 64 << 10;
const MAX_NOTE_COUNT: usize = 256;
const MAX_NAME: usize = 128;

/// A value between these bounds, or what is wrong with it.
fn bounded(what: &str, len: usize, most: usize) -> Result<(), HostError> {
    if len > most {
        return Err(HostError::Limit(format!("{what} has at most {most} octets")));
    }
    Ok(())
}

fn name(what: &str, name: &str) -> Result<(), HostError> {
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(HostError::Invalid(format!("{what} is empty or holds a control character")));
    }
    bounded(what, name.len(), MAX_NAME)
}

fn check_note(notes: &Notes, judge: &str, key: &str, value: Option<&Vec<u8>>) -> Result<(), HostError> {
    name("a note's key", key)?;
    let Some(value) = value else { return Ok(()) };
    if notes.get(judge, key).is_none() && notes.count(judge) >= MAX_NOTE_COUNT {
        return Err(HostError::Limit(format!("a plugin has at most {MAX_NOTE_COUNT} notes in one place")));
    }
    let before = notes.get(judge, key).map_or(0, |old| old.len() + key.len());
    let after = notes.size(judge) - before + key.len() + value.len();
    bounded("all notes of a plugin together: it", after, MAX_NOTES)
}
