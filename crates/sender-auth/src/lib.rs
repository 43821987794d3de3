//! Who sent this message, as far as DNS and signatures tell: SPF, DKIM, DMARC and ARC.
//!
//! Three questions, each a function that ends in time and always has an answer: [`spf::check`] for the envelope,
//! [`signatures::verify`] for the message, [`dmarc::check`] for the author's domain over the results of both. What DNS
//! does not say in time, or says wrongly, is the result `temperror` and never an error of the caller's.
//!
//! All DNS goes through the one resolver of the gateway, so that answers are cached once and tests can fake it. SPF and
//! DMARC are evaluated here for that reason; the library behind DKIM and ARC parses, canonicalises and checks
//! signatures, and sees no network. No other crate knows it.
//!
//! Left to others: what a result means for the mail, which is the policy of plugins; and the header fields that report
//! it (RFC 8601).

mod author;
mod deadline_resolver;
mod domain;
mod findings;
mod outcome;
mod tags;

pub mod dmarc;
pub mod sign;
pub mod signatures;
pub mod spf;

pub use deadline_resolver::DeadlineResolver;
pub use dmarc::{DmarcPolicy, DmarcResult, PublishedPolicy};
pub use findings::Findings;
pub use outcome::AuthOutcome;
pub use signatures::{ArcResult, DkimResult, Signatures};
pub use spf::{SpfClient, SpfIdentity, SpfResult};
