//! What a sink remembers.

use std::net::SocketAddr;

/// Everything that happened at a sink since it started.
#[derive(Clone, Debug, Default)]
pub struct SinkLog {
    /// How many sessions began.
    pub sessions: usize,
    /// How many are open now.
    pub open: usize,
    /// The most that were open at once.
    pub most_open: usize,
    /// How many sessions wait in an `Act::Hold` now.
    pub held: usize,
    /// Every command line, in order of arrival.
    pub commands: Vec<SinkCommand>,
    /// Every message that came to its end, accepted or not.
    pub transactions: Vec<SinkTransaction>,
    /// What clients did against the protocol, in words.
    pub violations: Vec<String>,
}

impl SinkLog {
    /// The messages that got a positive final reply, or would have but for [`super::Act::AcceptThenClose`].
    pub fn accepted(&self) -> impl Iterator<Item = &SinkTransaction> {
        self.transactions.iter().filter(|transaction| transaction.accepted)
    }

    /// The command lines of one session, numbered from 1.
    pub fn commands_of(&self, session: usize) -> Vec<&str> {
        self.commands.iter().filter(|c| c.session == session).map(|c| c.line.as_str()).collect()
    }

    /// How many command lines begin with `verb`, in any case.
    pub fn count(&self, verb: &str) -> usize {
        let begins =
            |c: &&SinkCommand| c.line.get(..verb.len()).is_some_and(|start| start.eq_ignore_ascii_case(verb));
        self.commands.iter().filter(begins).count()
    }
}

/// A line that a client sent, without its end. The secret lines of AUTH are here as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkCommand {
    /// Numbered from 1.
    pub session: usize,
    /// As sent; bytes that are not UTF-8 show as U+FFFD.
    pub line: String,
}

/// A message with its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkTransaction {
    /// The session that it came in, numbered from 1.
    pub session: usize,
    /// Where the client was.
    pub peer: SocketAddr,
    /// What the client called itself.
    pub hello: String,
    /// By EHLO or LHLO, not HELO.
    pub extended: bool,
    /// The TLS version, "TLSv1.3", if there was TLS.
    pub tls: Option<String>,
    /// Who authenticated.
    pub user: Option<String>,
    /// MAIL FROM.
    pub sender: SinkPath,
    /// RCPT TO, those that were accepted, in order.
    pub recipients: Vec<SinkPath>,
    /// The content as the client meant it: without dot-stuffing and the final dot, line ends as they came.
    pub message: Vec<u8>,
    /// By BDAT, not DATA.
    pub chunked: bool,
    /// The final reply as sent; several, joined by "\n", in LMTP.
    pub reply: String,
    /// Whether the final reply was positive (for any recipient, in LMTP).
    pub accepted: bool,
}

impl SinkTransaction {
    /// The content as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.message).expect("a message in UTF-8")
    }

    /// The addresses of the recipients.
    pub fn recipients(&self) -> Vec<&str> {
        self.recipients.iter().map(|path| path.address.as_str()).collect()
    }
}

/// The argument of MAIL or RCPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkPath {
    /// Between the angle brackets, exactly as sent; empty for the null reverse-path.
    pub address: String,
    /// The parameters after it, exactly as sent.
    pub params: Vec<String>,
}

impl SinkPath {
    /// The value of a parameter, its keyword in any case; an empty one if it has none.
    pub fn param(&self, keyword: &str) -> Option<&str> {
        self.params.iter().find_map(|param| {
            let (key, value) = param.split_once('=').unwrap_or((param, ""));
            key.eq_ignore_ascii_case(keyword).then_some(value)
        })
    }
}
