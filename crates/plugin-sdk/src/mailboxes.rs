//! The mailboxes in header fields such as From and To (RFC 5322 section 3.4), read by the host, so that all plugins
//! find the same ones. Positions are given too, so that a plugin can replace addresses and leave names, comments and
//! folding as they are.
//!
//! The host finds what mail programs would show or use, even in fields that violate the grammar: every pair of angle
//! brackets counts, so `Bob <bob@good.example> <eve@bad.example>` contains two mailboxes.
//!
//! One call returns at most 10,000 mailboxes. For a message with more, the functions return [`HostError::Limit`]. The
//! sender decides how many there are, so a plugin handles this error instead of passing it on.

use std::ops::Range;

use crate::batches::in_batches;
use crate::bindings::services::pintle::plugin::mailboxes as host;
pub use crate::bindings::services::pintle::plugin::mailboxes::{
    FieldMailbox, MailboxEntry, in_headers, in_text,
};
use crate::{Address, HostError};

impl FieldMailbox {
    /// Position of `local@domain` in the value, in octets.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.begin as usize..self.end as usize
    }
}

/// The addresses in all fields with one of these names, in order.
///
/// # Errors
///
/// There is no message at this stage, or its fields have more than 10,000 mailboxes.
pub fn addresses_in_headers(names: &[&str]) -> Result<Vec<Address>, HostError> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mailboxes = in_headers(&names)?.into_iter().flat_map(|entry| entry.mailboxes);
    Ok(mailboxes.map(|mailbox| mailbox.address).collect())
}

/// The texts with encoded words decoded (RFC 2047), control characters included. There may be any number of texts, of up
/// to 1 MiB each.
///
/// # Errors
///
/// The work budget of the call is spent.
pub fn decode_words(texts: &[String]) -> Result<Vec<String>, HostError> {
    in_batches(texts, host::decode_words)
}
