//! SMTP protocol state machines for the server and the client side, without I/O.
//!
//! The caller passes in bytes, decisions and the current time; a session returns bytes, events and a deadline. This
//! crate has no socket, no runtime, no clock and no policy, so that a test can run through hours of protocol time in
//! milliseconds. [`server`] receives mail (ESMTP: EHLO, MAIL, RCPT, DATA, BDAT, pipelining, STARTTLS, SASL); [`client`]
//! delivers it to the next hop (SMTP or LMTP, dot stuffing, pipelining).

pub mod client;
pub mod extension;
pub mod server;

pub use extension::{Extension, Extensions};
