//! The log of a sink.

use std::net::SocketAddr;

/// Everything that happened at a sink since it started.
#[derive(Clone, Debug, Default)]
pub struct SinkLog {
    /// The number of sessions that began.
    pub sessions: usize,
    /// The number of open sessions.
    pub open: usize,
    /// The most sessions that were open at once.
    pub most_open: usize,
    /// The number of sessions that wait in an `Act::Hold` now.
    pub held: usize,
    /// Every command line, in order of arrival.
    pub commands: Vec<SinkCommand>,
    /// Every completed message, accepted or not.
    pub transactions: Vec<SinkTransaction>,
    /// The clients' protocol violations, as text.
    pub violations: Vec<String>,
}

impl SinkLog {
    /// The messages that got a positive final reply, or would have got one without [`super::Act::AcceptThenClose`].
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

/// A command line from a client, without its line end. The secret lines of AUTH are included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkCommand {
    /// The session, numbered from 1.
    pub session: usize,
    /// The line as sent; bytes that are not UTF-8 become U+FFFD.
    pub line: String,
}

/// A message with its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkTransaction {
    /// The session, numbered from 1.
    pub session: usize,
    /// The client's address.
    pub peer: SocketAddr,
    /// The EHLO, LHLO or HELO argument.
    pub hello: String,
    /// Whether the client used EHLO or LHLO, not HELO.
    pub extended: bool,
    /// The TLS version, such as "TLSv1.3"; none in plain text.
    pub tls: Option<String>,
    /// The user who authenticated, if any.
    pub user: Option<String>,
    /// The path of MAIL FROM.
    pub sender: SinkPath,
    /// The paths of RCPT TO that were accepted, in order.
    pub recipients: Vec<SinkPath>,
    /// The content: without dot-stuffing and the final dot, with line ends as sent.
    pub message: Vec<u8>,
    /// Whether it was sent by BDAT, not DATA.
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
    /// The text between the angle brackets, exactly as sent; empty for the null reverse-path.
    pub address: String,
    /// The parameters after it, exactly as sent.
    pub params: Vec<String>,
}

impl SinkPath {
    /// The value of a parameter, whose keyword is in any case; empty if it has no value.
    pub fn param(&self, keyword: &str) -> Option<&str> {
        self.params.iter().find_map(|param| {
            let (key, value) = param.split_once('=').unwrap_or((param, ""));
            key.eq_ignore_ascii_case(keyword).then_some(value)
        })
    }
}
