//! The facts that the core itself reads, and tells others in its own name.
//!
//! All other facts are between judges, and each stands under the name of the judge that wrote it. Whoever lets a judge
//! write one of these must know that the gateway will vouch for it.

/// What was done with a message for its author's DMARC policy: told to the domain's owner.
pub const DMARC_DISPOSITION: &str = "dmarc.disposition";
/// Why that is not what the owner wants: told as well.
pub const DMARC_OVERRIDE: &str = "dmarc.override";
/// The confirmed name of the client: told in the Received field.
pub const CLIENT_NAME: &str = "iprev.name";

/// Whether the core reads the fact of this name.
#[must_use]
pub fn is_read_by_the_core(name: &str) -> bool {
    [DMARC_DISPOSITION, DMARC_OVERRIDE, CLIENT_NAME].contains(&name)
}
