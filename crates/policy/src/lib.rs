//! Hooks, verdicts, and how the verdicts of many judges combine.
//!
//! A [`Judge`] is asked at a stage of a message's life and gives a [`Ruling`]: a verdict and edits. A [`Chain`] asks its
//! judges in order and makes one [`Decision`] of what they say. Nothing here knows who the judges are (built-in or
//! WebAssembly), which SMTP state the session is in, or where a body lies.

pub mod chain;
pub mod computed;
pub mod edit;
pub mod facts;
pub mod fate;
pub mod frozen;
pub mod judge;
pub mod lease;
pub mod pieced;
pub mod verdict;
pub mod view;

pub use chain::{Chain, Decision, JudgeStep};
pub use computed::Computed;
pub use edit::{Edit, EditError, ReplyEffects};
pub use fate::{Fate, Fates, MAX_QUARANTINES, RequestedFate, TooManyQuarantines};
pub use frozen::Frozen;
pub use judge::{
    AttemptStatus, AuthRuling, Call, Credentials, DeliveryOutcome, FaultKind, Judge, JudgeFault,
    LoginOutcome, LoginResult, Ruling,
};
pub use lease::{Lease, LeaseScope, Leases};
pub use pieced::Piece;
pub use verdict::{AuthVerdict, Hook, Hooks, Verdict};
pub use view::{
    AuthResult, Delivery, DmarcDisposition, FIRST_ADDED, Message, Notes, Score, Session, TlsFacts,
    Transaction, View,
};
