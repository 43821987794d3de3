//! Lines of the log about clients that did not get what they wanted. Each begins with the client's address, as the lines
//! about logins do, and ends with what the client had a hand in, quoted: no name can make a line look like another.

use std::fmt::Display;

use pintle_mail::Reply;
use pintle_policy::Session;
use pintle_smtp::server::{FaultLevel, FaultOwner, SessionFault};

/// A TLS handshake came to nothing.
pub(crate) fn handshake_failed(session: &Session, error: &impl Display) {
    metrics::counter!("pintle_session_faults_total", "fault" => SessionFault::TlsFailed.counter())
        .increment(1);
    let (client, listener, id) = (session.client.ip().to_canonical(), &session.listener, session.id);
    let why = error.to_string();
    tracing::info!(%client, listener, session = %id, why, "TLS handshake failed");
}

/// A client broke the protocol, or met a limit.
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
        FaultOwner::PeerIncompatible => "a client wants what is not done here",
        FaultOwner::LimitExceeded => "a client met a limit",
        FaultOwner::Us => "a session was misused by the gateway itself: please report it",
    }
}

/// A session ends since a stranger has had its share.
pub(crate) fn dismissed(session: &Session, reply: &Reply) {
    let (client, listener, id) = (session.client.ip().to_canonical(), &session.listener, session.id);
    let reply = reply.to_string();
    tracing::info!(%client, listener, session = %id, reply, "a client is sent away");
}
