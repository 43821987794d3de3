//! Sender authentication by DNS and signatures: SPF, DKIM, DMARC and ARC.
//!
//! There are three checks, each a function that ends in bounded time and always has a result: [`spf::check`] for the
//! envelope, [`signatures::verify`] for the message, [`dmarc::check`] for the author's domain, based on the results of
//! both. When DNS does not answer in time, or answers wrongly, the result is `temperror` and never an error of the
//! caller.
//!
//! All DNS queries go through the gateway's resolver, so that answers are cached once and tests can fake them. SPF and
//! DMARC are evaluated here for that reason; the library behind DKIM and ARC parses, canonicalises and verifies
//! signatures, and has no network access. No other crate uses it.
//!
//! Not done here: deciding what a result means for the mail, which is up to plugins; and the header fields that report
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
