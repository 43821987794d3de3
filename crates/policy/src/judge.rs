//! The trait of everything that is asked at a stage: plugins and built-in checks.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use pintle_mail::Reply;

use crate::{AuthVerdict, Edit, Hook, Hooks, Verdict, View};

/// A plugin or a built-in check. It answers every call, whatever happens inside: a fault becomes the verdict that the
/// operator chose for it, and is reported in [`Ruling::fault`].
pub trait Judge: Send + Sync + 'static {
    /// The judge's name in the configuration, which is also the key of its notes and scores.
    fn name(&self) -> &Arc<str>;

    /// The hooks that the judge wants now; asked before every call, since a plugin may be reloaded.
    fn hooks(&self) -> Hooks;

    /// Whether the judge's objections count even after another judge has accepted.
    fn mandatory(&self) -> bool {
        false
    }

    /// Whether the judge must be asked about this mail. `recipient` is the recipient of a call at [`Hook::Rcpt`]. A judge
    /// that answers no is not asked, as if it did not want the hook.
    fn is_concerned(&self, hook: Hook, recipient: Option<u32>, view: &View) -> bool {
        let _ = (hook, recipient, view);
        true
    }

    /// The verdict in place of a ruling whose edits cannot be made.
    fn after_conflict(&self, hook: Hook) -> Verdict {
        let _ = hook;
        Verdict::Defer(None)
    }

    /// Gives a verdict and edits at a stage.
    fn judge(&self, call: Call, view: View) -> BoxFuture<'_, Ruling>;

    /// Gives a verdict about a client's credentials. The default has no opinion.
    fn authenticate(&self, credentials: Arc<Credentials>, view: View) -> BoxFuture<'_, AuthRuling> {
        let _ = (credentials, view);
        Box::pin(std::future::ready(AuthRuling::from(AuthVerdict::Next)))
    }

    /// Receives the result of AUTH. The edits are of the session.
    fn auth_result(&self, result: Arc<LoginResult>, view: View) -> BoxFuture<'_, Ruling> {
        let _ = (result, view);
        Box::pin(std::future::ready(Ruling::from(Verdict::Next)))
    }

    /// Is called when a copy of a message has been committed; the transaction is that of the copy.
    fn queued(&self, view: View) -> BoxFuture<'_, ()> {
        let _ = view;
        Box::pin(std::future::ready(()))
    }

    /// Receives the result of a delivery attempt. The edits say what to do next.
    fn delivery_result(&self, outcomes: Arc<[DeliveryOutcome]>, view: View) -> BoxFuture<'_, Ruling> {
        let _ = (outcomes, view);
        Box::pin(std::future::ready(Ruling::from(Verdict::Next)))
    }

    /// Is called when the session has ended.
    fn disconnect(&self, view: View) -> BoxFuture<'_, ()> {
        let _ = view;
        Box::pin(std::future::ready(()))
    }
}

/// A call at a stage, except those with a method of their own in [`Judge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A new connection.
    Connect,
    /// EHLO, HELO or LHLO with this argument.
    Hello(String),
    /// MAIL FROM; the transaction is in the view.
    Mail,
    /// RCPT TO; the recipient of this id is in the transaction.
    Rcpt(u32),
    /// DATA or the first BDAT; all recipients are in the transaction.
    Data,
    /// The header is in the view.
    Headers,
    /// The whole message is in the view.
    Message,
    /// A delivery attempt is about to begin.
    Deliver,
}

impl Call {
    /// The hook of this call.
    #[must_use]
    pub fn hook(&self) -> Hook {
        match self {
            Self::Connect => Hook::Connect,
            Self::Hello(_) => Hook::Hello,
            Self::Mail => Hook::Mail,
            Self::Rcpt(_) => Hook::Rcpt,
            Self::Data => Hook::Data,
            Self::Headers => Hook::Headers,
            Self::Message => Hook::Message,
            Self::Deliver => Hook::Deliver,
        }
    }

    /// The recipient that the call is about; none for calls about the whole transaction.
    #[must_use]
    pub fn recipient(&self) -> Option<u32> {
        match self {
            Self::Rcpt(id) => Some(*id),
            _ => None,
        }
    }
}

/// A judge's answer: verdict and edits, which apply together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruling {
    /// What the judge decides.
    pub verdict: Verdict,
    /// The changes that the judge requests, in order.
    pub edits: Vec<Edit>,
    /// The judge's fault, when the verdict is the one configured for faults.
    pub fault: Option<JudgeFault>,
}

impl Ruling {
    /// The name of the answer: the verdict, or the first fate that is requested if the verdict has no objection.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let request = self.edits.iter().find_map(|edit| match edit {
            Edit::Fate { fate, .. } => Some(fate.name()),
            Edit::Close => Some("close"),
            _ => None,
        });
        request.filter(|_| self.verdict == Verdict::Next).unwrap_or_else(|| self.verdict.name())
    }

    /// Whether it objects to the mail or the session: by its verdict or by requesting a fate.
    #[must_use]
    pub fn objects(&self) -> bool {
        self.verdict.refuses() || self.edits.iter().any(Edit::objects)
    }
}

impl From<Verdict> for Ruling {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, edits: Vec::new(), fault: None }
    }
}

/// A judge's answer about credentials.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthRuling {
    /// What the judge decides about the credentials.
    pub verdict: AuthVerdict,
    /// The changes that the judge requests, in order.
    pub edits: Vec<Edit>,
    /// The judge's fault, if it had one.
    pub fault: Option<JudgeFault>,
}

impl From<AuthVerdict> for AuthRuling {
    fn from(verdict: AuthVerdict) -> Self {
        Self { verdict, edits: Vec::new(), fault: None }
    }
}

/// A fault of a judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeFault {
    /// The kind of fault.
    pub kind: FaultKind,
    /// The error as text for the log.
    pub text: String,
}

/// The kinds of faults; each is a label of the fault counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The guest trapped, for example by a panic.
    Trap,
    /// The call took longer than its deadline.
    Timeout,
    /// The guest wanted more memory than its limit.
    Memory,
    /// The guest wanted more of its host than one call, or all calls for one mail, may have.
    Limit,
    /// No instance became free in time.
    Busy,
    /// It returned something that cannot be done.
    BadAnswer,
    /// No working version of the plugin is loaded.
    NotLoaded,
}

impl FaultKind {
    /// The kind's name in logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Limit => "limit",
            Self::Busy => "busy",
            Self::BadAnswer => "bad-answer",
            Self::NotLoaded => "not-loaded",
        }
    }

    /// Whether the input of the call can have caused the fault. A judge that is busy or not loaded would have failed
    /// for any mail.
    #[must_use]
    pub const fn may_be_provoked(self) -> bool {
        !matches!(self, Self::Busy | Self::NotLoaded)
    }
}

/// The credentials that a client sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The SASL mechanism, in upper case.
    pub mechanism: String,
    /// The authorization identity, when the client gave one.
    pub authorization_id: Option<String>,
    /// The user name (the authentication identity).
    pub username: String,
    /// The password in plain text.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The password is left out: a secret that can be printed ends up in a log.
        write!(f, "Credentials({} {:?})", self.mechanism, self.username)
    }
}

/// How an AUTH with complete credentials ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginResult {
    /// The SASL mechanism, in upper case.
    pub mechanism: String,
    /// The user name that the client gave.
    pub username: String,
    /// How it ended.
    pub outcome: LoginOutcome,
}

/// How a login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginOutcome {
    /// The client is authenticated.
    Granted,
    /// The credentials are wrong.
    Denied,
    /// The credentials could not be checked.
    Unavailable,
    /// The credentials were not checked, since the client's network has failed too often.
    Refused,
}

impl LoginOutcome {
    /// The word in the plugin contract.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
        }
    }
}

/// The result of a delivery attempt for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryOutcome {
    /// The id of the recipient, as in the transaction.
    pub recipient: u32,
    /// The name of the host that replied, if one did.
    pub next_hop: Option<String>,
    /// The reply, if there was one.
    pub reply: Option<Reply>,
    /// How the attempt ended.
    pub status: AttemptStatus,
    /// Further results by name: `tls.version`, `tls.cipher`, `address`, `duration-ms`.
    pub details: Vec<(String, String)>,
}

/// How a delivery attempt ended for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptStatus {
    /// The next hop has accepted the message.
    Delivered,
    /// There will be another attempt.
    Deferred,
    /// Delivery has failed permanently.
    Failed,
}

impl AttemptStatus {
    /// The word in the plugin contract.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
        }
    }
}
