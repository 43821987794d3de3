//! Mail's data types: addresses, envelopes, replies, header blocks, MIME trees, trace fields and ids.
//!
//! The other crates use these types. What was received can be written back exactly as it came. Nothing in this crate
//! does I/O, reads a clock or waits. What a value means for a session, a queue or a plugin is decided by the crate that
//! uses it.

pub mod address;
pub mod auth_results;
pub mod body;
pub mod disposition;
pub mod domains;
pub mod dsn;
pub mod encoded_words;
pub mod envelope;
pub mod header;
pub mod id;
pub mod mailboxes;
pub mod mime;
pub mod names;
pub mod next_hop;
pub mod normal;
pub mod reply;
pub mod shown;
pub mod time;
pub mod trace;
pub mod xtext;

pub use address::{Address, AddressError, Charset, ReversePath};
pub use body::{Body, BodyError, BodyFuture, Bytes};
pub use disposition::Disposition;
pub use domains::Domains;
pub use envelope::{BodyType, Envelope, MailParams, Notify, Param, RcptParams, Recipient, Return};
pub use header::{Field, FieldPosition, HeaderBlock, HeaderEdit, HeaderError};
pub use id::{QueueId, SessionId};
pub use next_hop::{NextHop, NoNextHop, TlsPolicy};
pub use reply::{EnhancedCode, Reply, Severity};
pub use shown::{acts_on_terminal, shown};
pub use time::UnixTime;
