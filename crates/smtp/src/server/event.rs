//! Events and questions of a server session to its host, and the host's answers.
//!
//! A [`Question`] suspends the session: no more of the client's input is processed until [`super::Session::answer`] is
//! called. The host decides by its own rules and in its own time.

use bytes::Bytes;
use pintle_mail::{MailParams, Recipient, Reply, ReversePath};

use super::fault::SessionFault;
use super::offers::Offers;
use super::sasl::SaslCredentials;

/// What happened, in order. The host polls all events before it reads more from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The session waits for [`super::Session::answer`].
    Ask(Question),
    /// The next bytes of the body in message form: dots unstuffed, lines ended by CRLF.
    Body(Bytes),
    /// The 220 is in the transmit queue: send it, do the TLS handshake, then call [`super::Session::tls_started`] or
    /// [`super::Session::tls_failed`].
    StartTls,
    /// The transaction ended without an answered [`Question::Message`]: discard its envelope and its draft.
    Reset,
    /// The client, or the host, made a mistake. The reply, if one is due, is already in the transmit queue.
    Fault(SessionFault),
    /// The session is over: send what is in the transmit queue and close the socket.
    Closed(Closed),
}

/// What the host must decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether to accept a connection, before the greeting.
    Connect,
    /// Whether to accept EHLO or HELO, and what to offer, before its reply.
    Hello(Hello),
    /// Whether the credentials of AUTH are valid.
    Auth(SaslCredentials),
    /// Whether to accept the sender of MAIL.
    Sender(Sender),
    /// Whether to accept the recipient of RCPT. Its id counts from 0 within the transaction, including refused
    /// recipients.
    Recipient(Recipient),
    /// Whether to accept a message now that all recipients are known: DATA or the first BDAT, once in each transaction.
    /// The 354, or the content of the chunk, waits for this.
    Data,
    /// Whether to accept the message by its header; the body has not been read yet.
    Headers(Headers),
    /// Whether to accept the complete message; the reply to DATA or `BDAT … LAST` waits for this.
    Message(MessageCounts),
}

/// The client's EHLO or HELO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Whether it was EHLO or HELO.
    pub verb: HelloVerb,
    /// The argument as received: often, but not always, a domain or an address literal.
    pub name: String,
    /// The extensions to be offered; empty for HELO. To offer something else, edit it and answer [`HostAnswer::Offer`].
    pub offers: Offers,
}

/// Which of the two greeting commands a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloVerb {
    /// HELO: the reply lists no extensions.
    Helo,
    /// EHLO: the reply lists the extensions.
    Ehlo,
}

/// The sender of MAIL, with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The reverse-path, exactly as received.
    pub path: ReversePath,
    /// The ESMTP parameters of MAIL.
    pub params: MailParams,
}

/// The header block of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// The lines of all fields with their CRLF, without the empty line after them.
    pub header: Bytes,
    /// Whether an empty line separates header and body. It belongs to neither: the message is `header`, then CRLF if
    /// this is set, then the body.
    pub separated: bool,
}

/// Sizes and properties measured while the message came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageCounts {
    /// The size of the header block in octets, without the empty line.
    pub header_size: u64,
    /// The size of the body in octets: the sum of all [`Event::Body`].
    pub body_size: u64,
    /// Whether header or body contain octets above 127.
    pub has_8bit: bool,
}

/// The host's answer to a [`Question`]. Each variant says which questions it fits. An answer that does not fit is a
/// fault of the host and becomes a refusal with 451, so that no mistake can accept a message: the client sends it again.
/// If the host had made it durable, as for an [`HostAnswer::AcceptedExcept`] that does not fit, it is delivered twice; a
/// positive reply would lose it for the recipients that the host has refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAnswer<R> {
    /// Continue. For Connect, Hello, Sender, Recipient, Data and Headers. A 2xx reply replaces the default one: code and
    /// text for Sender and Recipient, only the text for Connect and Hello. Data and Headers have no 2xx reply, so it is
    /// ignored there.
    Accept(Option<Reply>),
    /// Continue with these offers. For Hello.
    Offer(Offers),
    /// The message is durable, and the receipt proves it. For Message. This and [`HostAnswer::AcceptedExcept`] are the
    /// only answers with a receipt. Apart from them, only [`HostAnswer::Discard`] and [`HostAnswer::DiscardExcept`] yield
    /// a 250 for a message. Without a 250 as reply the text is `Queued as RECEIPT`.
    Accepted {
        /// The proof of the durable commit.
        receipt: R,
        /// The 250 reply to send instead of the default.
        reply: Option<Reply>,
    },
    /// The message is durable for all recipients but these; the receipt proves it. For Message, in a transaction whose
    /// [`MailParams::prdr`] is set, if at least one RCPT that was accepted is not refused. To refuse all of them, use
    /// [`HostAnswer::Refuse`] before anything is durable. The client receives one reply for each recipient, and `Queued as
    /// RECEIPT` for the message. If none is refused, it is the same as [`HostAnswer::Accepted`].
    AcceptedExcept {
        /// The proof of the durable commit.
        receipt: R,
        /// The refused recipients, each once: the [`Recipient::id`] of an accepted RCPT, and the 4xx or 5xx reply for it.
        /// An id that is no accepted RCPT's, such as that of a recipient that the host has added, does not fit. A reply
        /// with another code becomes the default refusal; 421 becomes 451, because the session goes on.
        refused: Vec<(u32, Reply)>,
    },
    /// Reply 250 and drop the message. For Message; the host writes its own record of it.
    Discard(Option<Reply>),
    /// Drop the message for all recipients but these, which are refused. For Message, under the same conditions as
    /// [`HostAnswer::AcceptedExcept`]. The client receives one reply for each recipient, and 250 for the message; the host
    /// writes its own record of it. If none is refused, it is the same as [`HostAnswer::Discard`].
    DiscardExcept {
        /// The refused recipients, as in [`HostAnswer::AcceptedExcept`].
        refused: Vec<(u32, Reply)>,
    },
    /// The credentials are valid. For Auth.
    Granted {
        /// The authenticated identity, as the host names it.
        identity: String,
    },
    /// The credentials are invalid. For Auth. The reply is 535 unless a 4xx or 5xx is given.
    Denied(Option<Reply>),
    /// The credentials could not be checked. For Auth. The reply is 454 unless a 4xx is given.
    Unavailable(Option<Reply>),
    /// Refuse. For every question; for Auth it is the same as [`HostAnswer::Denied`]. The reply should be 4xx or 5xx;
    /// any other becomes the default refusal for this question. A 421 also closes the session.
    Refuse(Reply),
    /// Refuse and close the session. For every question. The reply should be 4xx or 5xx; any other becomes a 421.
    Close(Reply),
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// The client sent QUIT.
    Quit,
    /// The client closed the connection without QUIT.
    Peer,
    /// The host answered [`HostAnswer::Close`], refused with 421, or called [`super::Session::retire`] or
    /// [`super::Session::dismiss`].
    Host,
    /// The host called [`super::Session::shutdown`] or [`super::Session::abort`].
    Shutdown,
    /// A fault after which the session cannot continue.
    Fault(SessionFault),
}
