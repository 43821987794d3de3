//! Log lines about clients that were not served. As in the login lines, the client's address comes first; text that the
//! client controls comes last and is quoted, so that it cannot imitate another line.

use std::fmt::Display;

use pintle_mail::Reply;
use pintle_policy::Session;
use pintle_smtp::server::{FaultLevel, FaultOwner, SessionFault};

/// Logs a failed TLS handshake.
pub(crate) fn handshake_failed(session: &Session, error: &impl Display) {
    metrics::counter!("pintle_session_faults_total", "fault" => SessionFault::TlsFailed.counter())
        .increment(1);
    let (client, listener, id) = (session.client.ip().to_canonical(), &session.listener, session.id);
    let why = error.to_string();
    tracing::info!(%client, listener, session = %id, why, "TLS handshake failed");
}

/// Logs that a client broke the protocol or exceeded a limit.
pub(crate) fn fault(session: &Session, fault: &SessionFault) {
    metrics::counter!("pintle_session_faults_total", "fault" => fault.counter()).increment(1);
    let (client, listener, id) = (session.client.ip().to_canonical(), &session.listener, session.id);
    let (kind, reply) = (fault.counter(), fault.reply().to_string());
    macro_rules! tell {
        ($level:ident) => {
            tracing::$level!(%client, listener, session = %id, fault = kind, reply, "{}", what(fault.owner()))
        };
    }
    match fault.level() {
        FaultLevel::Debug => tell!(debug),
        FaultLevel::Info => tell!(info),
        FaultLevel::Warn => tell!(warn),
        FaultLevel::Error => tell!(error),
    }
}

fn what(owner: FaultOwner) -> &'static str {
    match owner {
        FaultOwner::PeerMisbehaved => "a client broke the protocol",
        FaultOwner::PeerIncompatible => "a client asked for something that is not offered",
        FaultOwner::LimitExceeded => "a client exceeded a limit",
        FaultOwner::Us => "internal error in an SMTP session: please report it",
    }
}

/// Logs that an untrusted client's session is closed because it has reached its limits.
pub(crate) fn dismissed(session: &Session, reply: &Reply) {
    let (client, listener, id) = (session.client.ip().to_canonical(), &session.listener, session.id);
    let reply = reply.to_string();
    tracing::info!(%client, listener, session = %id, reply, "session limit reached, closing the session");
}
