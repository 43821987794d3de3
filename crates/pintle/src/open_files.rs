//! How many files and sockets this process may hold open.
//!
//! Most systems start a process with a limit of 1,024, kept low for programs that use `select`, and let it raise the limit
//! by itself. Sessions alone could use that up, and then neither the spool could open a file nor a delivery a socket.

use pintle_inbound::ListenerConfig;
use pintle_spool::DraftLimits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beside the sessions and the bodies that lie in files: deliveries, the log, plugins, the admin socket.
const OTHERS: u64 = 1_024;

/// Raises the limit as far as it is allowed, and says so when that is not enough.
pub(crate) fn allow(listeners: &[ListenerConfig], drafts: &DraftLimits) {
    let sessions: usize = listeners.iter().map(sessions).sum();
    // Not every session can have a body in a file at the same time.
    let wanted = (sessions + sessions.min(drafts.files)) as u64 + OTHERS;
    let allowed = raise(wanted);
    if allowed < wanted {
        tracing::warn!(
            allowed,
            wanted,
            "too few open files are allowed for so many sessions: raise LimitNOFILE, or lower max_sessions"
        );
    }
}

fn sessions(listener: &ListenerConfig) -> usize {
    listener.limits.total.saturating_mul(listener.addresses.len())
}

/// Gives the limit that is in force then.
fn raise(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let now = current.unwrap_or(u64::MAX);
    let next = wanted.min(maximum.unwrap_or(u64::MAX));
    let limit = Rlimit { current: Some(next), maximum };
    if next > now && setrlimit(Resource::Nofile, limit).is_ok() { next } else { now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_is_raised_as_far_as_allowed_and_a_high_one_kept() {
        let before = getrlimit(Resource::Nofile);
        let low = Rlimit { current: Some(256), ..before };
        setrlimit(Resource::Nofile, low).expect("a limit may be lowered");
        let most = before.maximum.unwrap_or(u64::MAX);
        assert_eq!(raise(300), most.min(300));
        assert_eq!(getrlimit(Resource::Nofile).current, Some(most.min(300)));
        assert_eq!(raise(100), most.min(300), "never lowered");
        setrlimit(Resource::Nofile, before).expect("the limit is put back");
    }
}
