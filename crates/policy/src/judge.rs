//! Whoever can be asked at a stage.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use pintle_mail::Reply;

use crate::{AuthVerdict, Edit, Hook, Hooks, Verdict, View};

/// A plugin or a built-in check. It has one answer for every call, whatever happens inside: faults become the verdict
/// that the operator chose for them, and are told in [`Ruling::fault`].
pub trait Judge: Send + Sync + 'static {
    /// The name in the configuration; the key of notes and scores.
    fn name(&self) -> &Arc<str>;

    /// The hooks that it wants now; asked before every call, since a plugin may reload.
    fn hooks(&self) -> Hooks;

    /// It is asked even after another judge has accepted.
    fn mandatory(&self) -> bool {
        false
    }

    /// Gives a verdict and edits at a stage.
    fn judge(&self, call: Call, view: View) -> BoxFuture<'_, Ruling>;

    /// Judges credentials.
    fn authenticate(&self, credentials: Arc<Credentials>, view: View) -> BoxFuture<'_, AuthRuling> {
        let _ = (credentials, view);
        Box::pin(std::future::ready(AuthRuling::from(AuthVerdict::Next)))
    }

    /// Hears how an attempt went; its edits say what follows.
    fn delivery_result(&self, outcomes: Arc<[DeliveryOutcome]>, view: View) -> BoxFuture<'_, Ruling> {
        let _ = (outcomes, view);
        Box::pin(std::future::ready(Ruling::from(Verdict::Next)))
    }

    /// Hears that the session has ended.
    fn disconnect(&self, view: View) -> BoxFuture<'_, ()> {
        let _ = view;
        Box::pin(std::future::ready(()))
    }
}

/// What is asked.
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
    /// The header is in the view.
    Headers,
    /// The whole message is in the view.
    Message,
    /// A delivery attempt is about to begin.
    Deliver,
}

impl Call {
    /// The hook that is called.
    #[must_use]
    pub fn hook(&self) -> Hook {
        match self {
            Self::Connect => Hook::Connect,
            Self::Hello(_) => Hook::Hello,
            Self::Mail => Hook::Mail,
            Self::Rcpt(_) => Hook::Rcpt,
            Self::Headers => Hook::Headers,
            Self::Message => Hook::Message,
            Self::Deliver => Hook::Deliver,
        }
    }
}

/// What a judge says: verdict and edits apply together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruling {
    /// What it decides.
    pub verdict: Verdict,
    /// What it changes.
    pub edits: Vec<Edit>,
    /// What went wrong inside, when the verdict is the operator's answer to a fault.
    pub fault: Option<JudgeFault>,
}

impl From<Verdict> for Ruling {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, edits: Vec::new(), fault: None }
    }
}

/// What a judge says about credentials.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthRuling {
    /// What it decides.
    pub verdict: AuthVerdict,
    /// What it changes.
    pub edits: Vec<Edit>,
    /// What went wrong inside.
    pub fault: Option<JudgeFault>,
}

impl From<AuthVerdict> for AuthRuling {
    fn from(verdict: AuthVerdict) -> Self {
        Self { verdict, edits: Vec::new(), fault: None }
    }
}

/// What went wrong inside a judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeFault {
    /// Of which kind.
    pub kind: FaultKind,
    /// In words for the log.
    pub text: String,
}

/// The kinds of faults; each is a label of the fault counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The guest trapped.
    Trap,
    /// It took longer than its deadline.
    Timeout,
    /// It wanted more memory than its limit.
    Memory,
    /// It wanted more of its host than one call, or all calls for one mail, may have.
    Limit,
    /// No instance became free in time.
    Busy,
    /// It answered what cannot be done.
    BadAnswer,
    /// No working version of it is loaded.
    NotLoaded,
}

impl FaultKind {
    /// The name in logs and metrics.
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

    /// Whether what the judge was given can have brought it about. A judge that is busy or not there would have been so
    /// for any mail.
    #[must_use]
    pub const fn may_be_provoked(self) -> bool {
        !matches!(self, Self::Busy | Self::NotLoaded)
    }
}

/// What a client gave to prove who it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The SASL mechanism, in upper case.
    pub mechanism: String,
    /// Who it wants to act as, when it said so.
    pub authorization_id: Option<String>,
    /// Who it says it is.
    pub username: String,
    /// The secret.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A secret that can be printed ends up in a log.
        write!(f, "Credentials({} {:?})", self.mechanism, self.username)
    }
}

/// How a delivery attempt ended for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryOutcome {
    /// The recipient's id.
    pub recipient: u32,
    /// The host that answered.
    pub next_hop: Option<String>,
    /// What it answered.
    pub reply: Option<Reply>,
    /// The next hop has taken the message.
    pub delivered: bool,
    /// There will be another attempt.
    pub retry: bool,
}
