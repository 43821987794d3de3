//! How a sink is told to behave.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use crate::Leaf;

/// What a sink offers, and where it departs from good behaviour. The default takes everything.
#[derive(Clone, Debug)]
pub struct Script {
    pub(super) extensions: Vec<String>,
    pub(super) rules: Vec<ScriptRule>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) implicit_tls: bool,
    pub(super) logins: Vec<(String, String)>,
    pub(super) lmtp: bool,
}

/// A point of the dialogue at which a sink can be told to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SinkStep {
    /// The greeting.
    Connect,
    /// EHLO or LHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// STARTTLS; with a positive reply the handshake follows.
    StartTls,
    /// AUTH, its final reply.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, before the content.
    Data,
    /// A BDAT that is not the last; its octets have been read.
    Chunk,
    /// The end of the content, by dot or `BDAT … LAST`. In LMTP once for each recipient, whose address is
    /// the line that rules are compared with.
    Message,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// VRFY.
    Vrfy,
    /// QUIT.
    Quit,
    /// Anything else.
    Unknown,
}

/// What to do instead of the usual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Say this, with CRLF between and after lines divided by "\n". A 2xx or 3xx lets the command take
    /// effect, anything else does not.
    Reply(String),
    /// Say this, then close.
    ReplyThenClose(String),
    /// Close without a word.
    Close,
    /// At [`Step::Message`]: take the message for good, and close without a word. The client cannot know.
    AcceptThenClose,
    /// Send these bytes and nothing else; the command takes no effect.
    Raw(Vec<u8>),
    /// Wait for [`super::Sink::release`], then do the usual.
    Hold,
    /// Wait so long, then do the usual.
    Delay(Duration),
}

#[derive(Clone, Debug)]
pub(super) struct ScriptRule {
    step: SinkStep,
    containing: Option<String>,
    nth: Option<usize>,
    act: Act,
    seen: usize,
}

impl Default for Script {
    fn default() -> Self {
        let usual =
            ["PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "ENHANCEDSTATUSCODES"];
        Self {
            extensions: usual.map(str::to_owned).to_vec(),
            rules: Vec::new(),
            tls: None,
            implicit_tls: false,
            logins: Vec::new(),
            lmtp: false,
        }
    }
}

impl Script {
    /// Takes everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers one more line in the reply to EHLO.
    #[must_use]
    pub fn offer(mut self, extension: &str) -> Self {
        self.extensions.push(extension.to_owned());
        self
    }

    /// Does not offer an extension of this keyword, and refuses its parameters and commands.
    #[must_use]
    pub fn hide(mut self, keyword: &str) -> Self {
        self.extensions.retain(|line| !is_keyword(line, keyword));
        self
    }

    /// Offers STARTTLS with this certificate.
    #[must_use]
    pub fn starttls(mut self, leaf: &Leaf) -> Self {
        self.tls = Some(leaf.server_config());
        self
    }

    /// Speaks TLS from the first byte.
    #[must_use]
    pub fn implicit_tls(mut self, leaf: &Leaf) -> Self {
        self.tls = Some(leaf.server_config());
        self.implicit_tls = true;
        self
    }

    /// Offers AUTH PLAIN LOGIN to this user, and takes no mail from others.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.logins.push((user.to_owned(), password.to_owned()));
        self
    }

    /// Speaks LMTP (RFC 2033): LHLO, and a final reply for each recipient.
    #[must_use]
    pub fn lmtp(mut self) -> Self {
        self.lmtp = true;
        self
    }

    /// Does `act` each time `step` comes. Of several rules that apply, the one given first is followed.
    #[must_use]
    pub fn on(self, step: SinkStep, act: Act) -> Self {
        self.rule(step, None, None, act)
    }

    /// Does `act` the `nth` time `step` comes, counted from 1 over all sessions.
    #[must_use]
    pub fn on_nth(self, step: SinkStep, nth: usize, act: Act) -> Self {
        self.rule(step, None, Some(nth), act)
    }

    /// Does `act` each time `step` comes with a line that contains `part`.
    #[must_use]
    pub fn on_line(self, step: SinkStep, part: &str, act: Act) -> Self {
        self.rule(step, Some(part.to_owned()), None, act)
    }

    /// [`Act::Reply`] each time `step` comes.
    #[must_use]
    pub fn reply(self, step: SinkStep, text: &str) -> Self {
        self.on(step, Act::Reply(text.to_owned()))
    }

    fn rule(mut self, step: SinkStep, containing: Option<String>, nth: Option<usize>, act: Act) -> Self {
        self.rules.push(ScriptRule { step, containing, nth, act, seen: 0 });
        self
    }

    /// What to do now. Every rule that fits counts the occasion, whichever is followed.
    pub(super) fn act(&mut self, step: SinkStep, line: &str) -> Option<Act> {
        let due: Vec<&ScriptRule> = self.rules.iter_mut().filter_map(|rule| rule.due(step, line)).collect();
        due.first().map(|rule| rule.act.clone())
    }

    pub(super) fn offers(&self, keyword: &str) -> bool {
        self.extensions.iter().any(|line| is_keyword(line, keyword))
    }
}

impl ScriptRule {
    fn due(&mut self, step: SinkStep, line: &str) -> Option<&Self> {
        let fits =
            self.step == step && self.containing.as_ref().is_none_or(|part| line.contains(part.as_str()));
        if !fits {
            return None;
        }
        self.seen += 1;
        self.nth.is_none_or(|nth| nth == self.seen).then_some(self)
    }
}

fn is_keyword(line: &str, keyword: &str) -> bool {
    line.split(' ').next().is_some_and(|word| word.eq_ignore_ascii_case(keyword))
}
