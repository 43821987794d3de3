//! SIGHUP and the sandbox: whether the sandbox keeps running after its terminal is closed.

/// Whether SIGHUP was ignored when the process started, as under `nohup`; then the sandbox keeps running without its
/// terminal. Must be called before a handler for SIGHUP is installed, since the handler replaces the disposition.
pub(super) fn survives_hang_up() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hang_up(&status))
}

/// Parses the `SigIgn` line of `/proc/self/status`: a hexadecimal mask, whose lowest bit is SIGHUP.
fn ignores_hang_up(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_ignored_is_seen() {
        assert!(ignores_hang_up("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"));
        assert!(!ignores_hang_up("Name:\tx\nSigIgn:\t0000000000001000\nSigCgt:\t1\n"));
        assert!(!ignores_hang_up(""));
    }
}
