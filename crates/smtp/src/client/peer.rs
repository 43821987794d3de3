//! What is known about a next hop: its greeting and its EHLO keywords (RFC 5321 section 4.1.1.1).

use crate::extension::Offered;

/// What the next hop has announced so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// The text of its 220 greeting.
    pub greeting: String,
    /// The extensions of its last EHLO reply.
    pub offered: Offered,
}
