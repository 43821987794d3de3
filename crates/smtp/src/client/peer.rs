//! What a next hop says of itself: its greeting and the keywords of its EHLO reply (RFC 5321 section 4.1.1.1).

use crate::extension::Offered;

/// What the next hop said of itself so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// The text of its greeting.
    pub greeting: String,
    /// What it offers since the last EHLO.
    pub offered: Offered,
}
