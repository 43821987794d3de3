//! The script of a sink: what it offers, and where it misbehaves.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use crate::Leaf;

/// What a sink offers, and where it misbehaves. The default accepts everything.
#[derive(Clone, Debug)]
pub struct Script {
    pub(super) extensions: Vec<String>,
    pub(super) rules: Vec<ScriptRule>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) implicit_tls: bool,
    pub(super) logins: Vec<(String, String)>,
    pub(super) lmtp: bool,
}

/// A point of the dialogue at which a script can do something else than usual.
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
    /// The end of the content, by dot or `BDAT … LAST`. In LMTP it comes once for each recipient, whose address is the
    /// line that rules are compared with.
    Message,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// VRFY.
    Vrfy,
    /// QUIT.
    Quit,
    /// Any other command.
    Unknown,
}

/// What to do instead of the usual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Replies with this text; "\n" separates lines, which are sent with CRLF. A 2xx or 3xx lets the command take effect,
    /// other codes do not.
    Reply(String),
    /// Replies with this text, then closes.
    ReplyThenClose(String),
    /// Closes without a reply.
    Close,
    /// At [`SinkStep::Message`]: accepts the message, and closes without a reply. The client cannot know.
    AcceptThenClose,
    /// Sends these bytes and nothing else; the command has no effect.
    Raw(Vec<u8>),
    /// Waits for [`super::Sink::release`], then does the usual.
    Hold,
    /// Waits this long, then does the usual.
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
    /// A script that accepts everything.
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

    /// Uses TLS from the first byte, with this certificate.
    #[must_use]
    pub fn implicit_tls(mut self, leaf: &Leaf) -> Self {
        self.tls = Some(leaf.server_config());
        self.implicit_tls = true;
        self
    }

    /// Offers AUTH PLAIN LOGIN to this user, and accepts no mail from others.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.logins.push((user.to_owned(), password.to_owned()));
        self
    }

    /// Uses LMTP (RFC 2033): LHLO, and a final reply for each recipient.
    #[must_use]
    pub fn lmtp(mut self) -> Self {
        self.lmtp = true;
        self
    }

    /// Does `act` each time `step` comes. If several rules apply, the first one given is used.
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

    /// The action to take now. Every rule that matches counts the occurrence, whichever is used.
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
