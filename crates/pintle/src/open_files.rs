//! How many files and sockets this process may hold open, and how many sessions go with that.
//!
//! Most systems start a process with a limit of 1,024, kept low for programs that use `select`, and let it raise the limit
//! by itself. Sessions alone could use that up, and then neither the spool could open a file nor a delivery a socket. So the
//! limit is raised for as many sessions as there may be; where that is not allowed and nobody has said how many there shall
//! be, there may be fewer.

use pintle_inbound::ListenerConfig;
use pintle_spool::DraftLimits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beside the sessions and the bodies that lie in files: deliveries, the log, plugins, the admin socket.
const OTHERS: u64 = 1_024;
/// A listener has room for so many sessions, whatever comes of it.
const FEWEST: usize = 100;

/// Raises the limit as far as it is allowed, and fits the listeners to it. Says so when that is not enough for what the
/// operator has asked for.
pub(crate) fn allow(listeners: &mut [ListenerConfig], drafts: &DraftLimits) {
    let allowed = raise(wanted(listeners, drafts));
    let before: usize = listeners.iter().map(sessions).sum();
    fit(listeners, drafts, allowed);
    let after: usize = listeners.iter().map(sessions).sum();
    if after < before {
        tracing::info!(allowed, sessions = after, "max_sessions is limited by the number of open files");
    }
    let wanted = wanted(listeners, drafts);
    if allowed < wanted {
        tracing::warn!(
            allowed,
            wanted,
            "too few open files are allowed for so many sessions: raise LimitNOFILE, or lower max_sessions"
        );
    }
}

fn wanted(listeners: &[ListenerConfig], drafts: &DraftLimits) -> u64 {
    let sessions: usize = listeners.iter().map(sessions).sum();
    // Not every session can have a body in a file at the same time.
    (sessions + sessions.min(drafts.files)) as u64 + OTHERS
}

/// Fewer sessions for the listeners whose number nobody has chosen, where all of them would need more files than these.
fn fit(listeners: &mut [ListenerConfig], drafts: &DraftLimits, allowed: u64) {
    if wanted(listeners, drafts) <= allowed {
        return;
    }
    let files = usize::try_from(allowed.saturating_sub(OTHERS)).unwrap_or(usize::MAX);
    // Each session takes one file, and a second one as long as there may be bodies in files.
    let all = if files / 2 <= drafts.files { files / 2 } else { files - drafts.files };
    let (free, chosen): (Vec<_>, Vec<_>) = listeners.iter().partition(|listener| listener.limits.total_fits);
    let left = all.saturating_sub(chosen.into_iter().map(sessions).sum());
    let each = (left / free.len().max(1)).max(FEWEST);
    for listener in listeners.iter_mut().filter(|listener| listener.limits.total_fits) {
        let limits = &mut listener.limits;
        let fewer = each.min(limits.total);
        // What is kept shrinks with it.
        limits.kept_for_trusted = limits.kept_for_trusted * fewer / limits.total.max(1);
        limits.total = fewer;
    }
}

/// Of a listener, whose addresses share them.
fn sessions(listener: &ListenerConfig) -> usize {
    listener.limits.total
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

    fn listener(total: usize, total_fits: bool) -> ListenerConfig {
        let text = "hostname = \"a.example\"\n[spool]\ndir = \"spool\"\n[domains]\naccepted = [\"a.example\"]\n\
                    [[listener]]\nname = \"in\"\naddresses = [\"0.0.0.0:25\", \"[::]:25\"]\ntls = \"none\"\n";
        let folder = pintle_testkit::TempDir::new().unwrap();
        let config = folder.path().join("pintle.toml");
        std::fs::write(&config, text).unwrap();
        let settings = pintle_config::check(&config, &crate::stock::components()).into_settings().unwrap();
        let mut listener = settings.inbound.listeners[0].clone();
        assert!(listener.limits.total_fits, "nobody has said how many");
        listener.limits = pintle_inbound::SessionLimits {
            total,
            total_fits,
            kept_for_trusted: total / 10,
            ..listener.limits
        };
        listener
    }

    /// Its addresses share its sessions: counted by address they would ask for twice the files that they need.
    #[test]
    fn a_listener_on_two_addresses_needs_no_more_than_one_on_one() {
        let mut one = listener(10_000, true);
        one.addresses.truncate(1);
        let drafts = DraftLimits::default();
        assert_eq!(wanted(&[listener(10_000, true)], &drafts), wanted(&[one], &drafts));
        let edge = [listener(10_000, true), listener(10_000, true), listener(10_000, true)];
        assert!(wanted(&edge, &drafts) <= 65_536, "what the unit of the manual allows");
    }

    #[test]
    fn what_nobody_has_chosen_fits_the_files_that_are_allowed() {
        let drafts = DraftLimits::default();
        for allowed in [4_096, 20_000, 65_536, 524_288] {
            // What an edge with submission has.
            let mut listeners = vec![listener(10_000, true), listener(10_000, true), listener(10_000, true)];
            fit(&mut listeners, &drafts, allowed);
            assert!(wanted(&listeners, &drafts) <= allowed, "no warning with {allowed}");
            let limits = listeners[0].limits;
            assert!(limits.total >= 250 && limits.kept_for_trusted * 10 <= limits.total, "{limits:?}");
        }
        let mut listeners = vec![listener(10_000, false), listener(10_000, true)];
        fit(&mut listeners, &drafts, 15_000);
        assert_eq!(listeners[0].limits.total, 10_000, "what was chosen stays");
        assert!(listeners[1].limits.total < 3_000 && wanted(&listeners, &drafts) <= 15_000);
    }

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
