//! The client machine: one session with one next hop, in SMTP (RFC 5321) or LMTP (RFC 2033), without I/O.
//!
//! Bytes, the host's wishes and the time go in; bytes, events and a deadline come out. The host owns the socket:
//!
//! ```text
//! Session::new(config, now)              poll_event → Ready, StartTls, NeedBody, Done, Closed
//! receive(&bytes, now)                   bytes from the next hop; connection_lost(now) at their end
//! poll_transmit() → Option<Bytes>        bytes for the next hop, until None
//! poll_timeout(), handle_timeout(now)    the next deadline
//! send(transaction, now)                 after Ready; then body / end_of_body, one for each NeedBody
//! probe(now), quit(now), abandon(now)    between transactions; at any time
//! ```
//!
//! It promises: each recipient of a transaction that was taken gets exactly one outcome, in one `Done`, before `Closed`
//! if the session ends; whatever the next hop sends, it neither panics nor holds more than its limits; nothing that was
//! said before TLS counts after it; QUIT is never pipelined behind the final dot. It leaves to the host: names and
//! addresses, the handshake and its certificates, which message goes when, and what an outcome means for the queue.

mod config;
mod outcome;
mod reply_reader;

use std::time::Instant;

use bytes::Bytes;

pub use config::{Channel, Config, Credentials, EightBit, Limits, Protocol, Timeouts, Transfer};
pub use outcome::{
    Closed, Content, Delivery, DsnRelay, Event, Fault, Lack, Outcome, Owner, RecipientOutcome, Speaker, Step,
    Transaction, is_hop_trouble,
};
pub use reply_reader::ReplyFault;

/// One session with a next hop.
#[derive(Debug)]
pub struct Session {
    config: Config,
}

/// The session cannot take a transaction now; here it is back, untouched.
#[derive(Debug)]
pub struct NotReady(pub Box<Transaction>);

impl Session {
    /// A session over a connection just opened; the next hop speaks first.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        let _ = now;
        Self { config }
    }

    /// Takes bytes that the next hop sent.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        let _ = (bytes, now);
    }

    /// The connection ended or failed: nothing more will come, nothing more can be written.
    pub fn connection_lost(&mut self) {}

    /// The handshake that [`Event::StartTls`] asked for is done.
    pub fn tls_started(&mut self, now: Instant) {
        let _ = now;
    }

    /// Begins a transaction. Exactly one [`Event::Done`] will follow.
    ///
    /// # Errors
    /// Gives the transaction back when the session is not ready: no [`Event::Ready`] was seen since the last one, or the
    /// next hop has closed it since.
    pub fn send(&mut self, transaction: Transaction, now: Instant) -> Result<(), NotReady> {
        let _ = now;
        Err(NotReady(Box::new(transaction)))
    }

    /// The next piece of the message, header first: whole lines or not, with CRLF line ends, of any size (the host's
    /// choice bounds memory; 16 to 64 KiB are good). Ignored when the transaction ended in the meantime.
    pub fn body(&mut self, piece: Bytes, now: Instant) {
        let _ = (piece, now);
    }

    /// The message has been given whole.
    pub fn end_of_body(&mut self, now: Instant) {
        let _ = now;
    }

    /// Asks an idle session whether it is still alive (NOOP); [`Event::Ready`] or [`Event::Closed`] follows. Does nothing
    /// when a transaction is under way.
    pub fn probe(&mut self, now: Instant) {
        let _ = now;
    }

    /// Ends an idle session politely; [`Event::Closed`] follows. In any other state it is [`Self::abandon`].
    pub fn quit(&mut self, now: Instant) {
        let _ = now;
    }

    /// Gives up at once, say when the message cannot be read; what is under way is deferred. Nothing more is written.
    pub fn abandon(&mut self) {}

    /// The next bytes to write, in order; none when there are no more for now. Small pieces are already joined.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        None
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// When [`Self::handle_timeout`] must be called, unless something else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Tells the session that time has passed; harmless when nothing is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// Whether [`Self::send`] would be taken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        false
    }

    /// What the next hop said of itself.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        unreachable!("{:?}", self.config)
    }
}

/// What the next hop said of itself so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// The text of its greeting.
    pub greeting: String,
    /// What it offers since the last EHLO.
    pub extensions: Extensions,
}

/// What a next hop offers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030).
    pub binary_mime: bool,
    /// SIZE (RFC 1870); zero when no limit was named.
    pub size: Option<u64>,
    /// The mechanisms of AUTH (RFC 4954), in upper case.
    pub auth: Vec<String>,
}
