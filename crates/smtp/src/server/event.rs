//! What a session tells its host and asks of it, and what the host can answer.
//!
//! A [`Question`] stops the session: nothing more of the peer's input is worked on until [`super::Session::answer`] is
//! called. Who decides, by what rules and how long it takes is the host's affair.

use bytes::Bytes;
use pintle_mail::{MailParams, Recipient, Reply, ReversePath};

use super::fault::SessionFault;
use super::offers::Offers;
use super::sasl::SaslCredentials;

/// What happened, in order. All of it is to be polled before more is read from the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The session waits for [`super::Session::answer`].
    Ask(Question),
    /// The next bytes of the body, as they belong into the message: dots unstuffed, lines ended by CRLF.
    Body(Bytes),
    /// The 220 is in the transmit queue: send it, shake hands, then call [`super::Session::tls_started`] or
    /// [`super::Session::tls_failed`].
    StartTls,
    /// The transaction ended without an answered [`Question::Message`]: forget its envelope and its draft.
    Reset,
    /// Somebody did something wrong; the reply, if one is due, is already in the transmit queue.
    Fault(SessionFault),
    /// The session is over: send what is in the transmit queue and close the socket.
    Closed(Closed),
}

/// What the host must decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A connection, before the greeting.
    Connect,
    /// EHLO or HELO, before its reply.
    Hello(Hello),
    /// Credentials, to be granted or denied.
    Auth(SaslCredentials),
    /// MAIL FROM.
    Sender(Sender),
    /// RCPT TO. Its id counts from 0 within the transaction, refused recipients included.
    Recipient(Recipient),
    /// The header of the message is here, the body is not.
    Headers(Headers),
    /// The whole message is here; the reply to DATA or `BDAT … LAST` waits for this.
    Message(MessageCounts),
}

/// EHLO or HELO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Which of them.
    pub verb: HelloVerb,
    /// The argument as received: often, but not always, a domain or an address literal.
    pub name: String,
    /// What is about to be offered; empty for HELO. Edit it and answer [`Answer::Offer`] to offer something else.
    pub offers: Offers,
}

/// How a client says hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloVerb {
    /// HELO: no extensions.
    Helo,
    /// EHLO.
    Ehlo,
}

/// MAIL FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The reverse-path, exactly as received.
    pub path: ReversePath,
    /// Its parameters.
    pub params: MailParams,
}

/// The header block of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// The lines of all fields with their CRLF, without the empty line behind them.
    pub header: Bytes,
    /// An empty line parts header and body. It belongs to neither: the message is `header`, CRLF if this is set, body.
    pub separated: bool,
}

/// What the machine counted while the message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageCounts {
    /// The header block, in octets, without the empty line.
    pub header_size: u64,
    /// The body, in octets: the sum of all [`Event::Body`].
    pub body_size: u64,
    /// Header or body hold octets above 127.
    pub has_8bit: bool,
    /// A LF without CR was made a CRLF somewhere.
    pub had_bare_lf: bool,
    /// The longest line without its CRLF, in octets.
    pub longest_line: u64,
}

/// The host's decision. Which answers fit which question stands at each; one that does not fit is a fault of the host:
/// it is taken for a refusal with 451, so that no mistake can accept a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAnswer<R> {
    /// Go on. For Connect, Hello, Sender, Recipient and Headers. A 2xx reply replaces the usual one; its code is heeded
    /// for Sender and Recipient, its text for Connect and Hello too, and nothing of it for Headers, which have no reply.
    Accept(Option<Reply>),
    /// Go on with other offers. For Hello.
    Offer(Offers),
    /// The message is durable, and the receipt proves it. For Message, and the only answer beside
    /// [`Answer::Discard`] that yields a 250 for it. Without a 2xx reply the text is `Queued as RECEIPT`.
    Accepted {
        /// The proof.
        receipt: R,
        /// What to say instead.
        reply: Option<Reply>,
    },
    /// Take the message and throw it away. For Message; the host writes its own record of it.
    Discard(Option<Reply>),
    /// The credentials are good. For Auth.
    Granted {
        /// Who that is.
        identity: String,
    },
    /// The credentials are bad. For Auth. The reply is 535 unless a 4xx or 5xx stands here.
    Denied(Option<Reply>),
    /// Nobody could tell. For Auth. The reply is 454 unless a 4xx stands here.
    Unavailable(Option<Reply>),
    /// No. For everything; for Auth it is the same as [`Answer::Denied`]. The reply should be 4xx or 5xx; any other
    /// becomes the usual refusal of the stage. A 421 also closes the session.
    Refuse(Reply),
    /// No, and the session ends. For everything. The reply should be 4xx or 5xx; any other becomes a 421.
    Close(Reply),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// QUIT.
    Quit,
    /// The peer closed the connection without QUIT.
    Peer,
    /// The host answered [`Answer::Close`], refused with 421, or called [`super::Session::retire`] or
    /// [`super::Session::dismiss`].
    Host,
    /// [`super::Session::shutdown`] or [`super::Session::abort`].
    Shutdown,
    /// A fault that cannot be gone on from.
    Fault(SessionFault),
}
