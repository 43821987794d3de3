//! Requests about what becomes of accepted mail: discard, quarantine, refuse, close, groups.

use pintle_plugin_sdk::{HostError, Recipient, Reply, session, transaction};

/// Performs the request of this name, for all recipients or by their places in the list.
pub(crate) fn request(what: &str) -> Result<(), HostError> {
    match what {
        "discard" => transaction::discard(&[]),
        "quarantine" => transaction::quarantine(&[], "unruly", "told to"),
        "quarantine-else" => transaction::quarantine(&[], "else", "told to"),
        "quarantine-nowhere" => transaction::quarantine(&[], "No Where", "told to"),
        "quarantine-first" => transaction::quarantine(&recipients(|place| place == 0)?, "unruly", "told to"),
        "discard-first" => transaction::discard(&recipients(|place| place == 0)?),
        "refuse-first" => refuse(|place| place == 0),
        "refuse-all" => refuse(|_| true),
        "refuse-none" => refuse(|_| false),
        "close" | "close-reject" => session::close(),
        _ => Ok(()),
    }
}

/// Performs the request of this name for the recipient of the call.
pub(crate) fn request_for(what: &str, rcpt: &Recipient) -> Result<(), HostError> {
    match what {
        "discard-this" => transaction::discard(&[rcpt.id]),
        "quarantine-this" => transaction::quarantine(&[rcpt.id], "unruly", "told to"),
        "group" => transaction::set_group(rcpt.id, &rcpt.address.local),
        _ => Ok(()),
    }
}

fn refuse(which: impl Fn(usize) -> bool) -> Result<(), HostError> {
    transaction::refuse(&recipients(which)?, &Reply::new(550, "5.7.1", "told to"))
}

/// The ids of the recipients at these places.
fn recipients(which: impl Fn(usize) -> bool) -> Result<Vec<u32>, HostError> {
    let all = transaction::recipients()?;
    Ok(all.iter().enumerate().filter(|(place, _)| which(*place)).map(|(_, rcpt)| rcpt.id).collect())
}
