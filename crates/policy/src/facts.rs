//! The names of facts that the core itself reads and reports to others in the gateway's name.
//!
//! All other facts are exchanged between judges, and each has the name of the judge that wrote it as a prefix. A judge
//! that is allowed to write one of the facts below is trusted: the gateway will report it as its own finding.

/// What was done with a message for its author's DMARC policy: reported to the domain's owner.
pub const DMARC_DISPOSITION: &str = "dmarc.disposition";
/// Why that differs from the owner's policy: reported as well.
pub const DMARC_OVERRIDE: &str = "dmarc.override";
/// The client's confirmed host name: written into the Received field.
pub const CLIENT_NAME: &str = "iprev.name";

/// Whether the core reads the fact of this name.
#[must_use]
pub fn is_read_by_the_core(name: &str) -> bool {
    [DMARC_DISPOSITION, DMARC_OVERRIDE, CLIENT_NAME].contains(&name)
}
