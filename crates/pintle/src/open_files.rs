//! The limit of open files (`RLIMIT_NOFILE`, systemd's `LimitNOFILE`): raises it to fit the number of sessions, or
//! lowers the number of sessions to fit it.
//!
//! Most systems start a process with a soft limit of 1,024, kept low for programs that use `select`, and let the
//! process raise it. Sessions alone could use that up, and then the spool could not open a file, nor a delivery a
//! socket. So the limit is raised for the maximum number of sessions. If the hard limit is too low, listeners without
//! an explicit `max_sessions` get fewer sessions.

use pintle_inbound::ListenerConfig;
use pintle_spool::DraftLimits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files needed besides those of sessions and of bodies in files: for deliveries, the log, plugins, the admin socket.
const OTHERS: u64 = 1_024;
/// The minimum number of sessions of a listener, even if the limit of open files is too low for it.
const FEWEST: usize = 100;

/// Raises the limit of open files as far as the hard limit allows, and lowers the listeners' number of sessions to fit
/// it. Logs a warning if the limit is too low for the configured `max_sessions`.
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
            "the limit of open files is too low for the number of sessions: raise LimitNOFILE, or lower max_sessions"
        );
    }
}

/// The number of open files that these listeners need at most.
fn wanted(listeners: &[ListenerConfig], drafts: &DraftLimits) -> u64 {
    let sessions: usize = listeners.iter().map(sessions).sum();
    // At most `drafts.files` sessions have a body in a file at the same time.
    (sessions + sessions.min(drafts.files)) as u64 + OTHERS
}

/// Lowers the number of sessions of listeners without an explicit `max_sessions`, if the listeners need more than
/// `allowed` files.
fn fit(listeners: &mut [ListenerConfig], drafts: &DraftLimits, allowed: u64) {
    if wanted(listeners, drafts) <= allowed {
        return;
    }
    let files = usize::try_from(allowed.saturating_sub(OTHERS)).unwrap_or(usize::MAX);
    // Each session needs one file, and the first `drafts.files` of them a second one for a body.
    let all = if files / 2 <= drafts.files { files / 2 } else { files - drafts.files };
    let (free, chosen): (Vec<_>, Vec<_>) = listeners.iter().partition(|listener| listener.limits.total_fits);
    let left = all.saturating_sub(chosen.into_iter().map(sessions).sum());
    let each = (left / free.len().max(1)).max(FEWEST);
    for listener in listeners.iter_mut().filter(|listener| listener.limits.total_fits) {
        let limits = &mut listener.limits;
        let fewer = each.min(limits.total);
        // The sessions reserved for trusted clients are lowered in proportion.
        limits.kept_for_trusted = limits.kept_for_trusted * fewer / limits.total.max(1);
        limits.total = fewer;
    }
}

/// The maximum number of sessions of a listener; its addresses share them.
fn sessions(listener: &ListenerConfig) -> usize {
    listener.limits.total
}

/// Raises the soft limit of open files to `wanted`, or as far as the hard limit allows. Never lowers it. Returns the
/// limit then in force.
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
        assert!(listener.limits.total_fits, "max_sessions is not set");
        listener.limits = pintle_inbound::SessionLimits {
            total,
            total_fits,
            kept_for_trusted: total / 10,
            ..listener.limits
        };
        listener
    }

    /// A listener's addresses share its sessions; counting them for each address would double the number of files.
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
    fn listeners_without_max_sessions_fit_the_limit_of_open_files() {
        let drafts = DraftLimits::default();
        for allowed in [4_096, 20_000, 65_536, 524_288] {
            // As on an edge gateway with submission.
            let mut listeners = vec![listener(10_000, true), listener(10_000, true), listener(10_000, true)];
            fit(&mut listeners, &drafts, allowed);
            assert!(wanted(&listeners, &drafts) <= allowed, "no warning with {allowed}");
            let limits = listeners[0].limits;
            assert!(limits.total >= 250 && limits.kept_for_trusted * 10 <= limits.total, "{limits:?}");
        }
        let mut listeners = vec![listener(10_000, false), listener(10_000, true)];
        fit(&mut listeners, &drafts, 15_000);
        assert_eq!(listeners[0].limits.total, 10_000, "an explicit max_sessions is kept");
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
