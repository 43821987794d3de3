//! The resources that processes use, read from `/proc`.

use std::fs;

/// Clock ticks per second in `/proc/PID/stat`; 100 on every Linux that we know.
const TICKS: f64 = 100.0;

/// The CPU time and memory of some processes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ProcessUsage {
    /// CPU seconds, user and system, including those of children that have ended.
    pub(crate) cpu_seconds: f64,
    /// Resident memory now, in KiB.
    pub(crate) resident_kb: u64,
    /// The sum of each process's peak resident memory, in KiB.
    pub(crate) peak_kb: u64,
}

impl ProcessUsage {
    /// The CPU time since `before`; memory as it is now.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self { cpu_seconds: self.cpu_seconds - before.cpu_seconds, ..*self }
    }
}

/// The usage of these processes together.
pub(crate) fn usage(pids: &[u32]) -> ProcessUsage {
    pids.iter().fold(ProcessUsage::default(), |sum, pid| ProcessUsage {
        cpu_seconds: sum.cpu_seconds + cpu_seconds(*pid),
        resident_kb: sum.resident_kb + memory(*pid, "VmRSS:"),
        peak_kb: sum.peak_kb + memory(*pid, "VmHWM:"),
    })
}

/// A process with all its descendants.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, u32::try_from(*stat(pid)?.get(1)?).ok()?)))
        .collect();
    let mut family = vec![root];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    family
}

#[expect(clippy::cast_precision_loss, reason = "ticks of one run")]
fn cpu_seconds(pid: u32) -> f64 {
    // proc(5): utime, stime, cutime and cstime are fields 14 to 17, and the list here begins with field 3.
    let fields = stat(pid).unwrap_or_default();
    fields.iter().skip(11).take(4).sum::<u64>() as f64 / TICKS
}

/// The fields after the process name; a field that is not a number counts as 0.
fn stat(pid: u32) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect())
}

fn memory(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_uses_something() {
        let usage = usage(&[std::process::id()]);
        assert!(usage.resident_kb > 0 && usage.peak_kb >= usage.resident_kb);
        assert!(family(std::process::id()).contains(&std::process::id()));
    }
}
