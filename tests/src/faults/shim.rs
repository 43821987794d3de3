//! Controls the shim: faults between the gateway and the kernel, which can be changed while it runs.
//!
//! `tests/shim/shim.c` describes how it works; the layout of its control file is repeated here.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOURCE: &str = include_str!("../../shim/shim.c");
const MAGIC: u64 = 0x31_454c_544e_4950;
/// Offsets in the control file.
const OFFSET: u64 = 8;
const DRIFT: u64 = 16;
const SINCE: u64 = 24;
const JOURNAL: u64 = 32;
const ROOT: u64 = 40;
const SIDE: u64 = ROOT + 256;
const RULES: u64 = SIDE + 256;
const RULE: u64 = 128;
const RULE_COUNT: u64 = 8;
const SIZE: u64 = RULES + RULE * RULE_COUNT;

/// The kinds of calls on files, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOps(u32);

impl FileOps {
    /// Writes octets.
    pub const WRITE: Self = Self(1);
    /// Syncs a file.
    pub const SYNC: Self = Self(2);
    /// Creates a file.
    pub const CREATE: Self = Self(4);
    /// Allocates space.
    pub const ALLOCATE: Self = Self(8);
    /// Truncates a file.
    pub const TRUNCATE: Self = Self(16);
    /// Renames a file.
    pub const RENAME: Self = Self(32);
    /// Removes a file.
    pub const UNLINK: Self = Self(64);
    /// Syncs a folder.
    pub const FOLDER_SYNC: Self = Self(128);
    /// Opens a file.
    pub const OPEN: Self = Self(256);

    /// The union of both sets.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What happens to a matching call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShimAction {
    /// It fails with this error.
    Fail(Errno),
    /// Only the first half is written.
    Short,
    /// The process dies before the call.
    DieBefore,
    /// The process dies after the call.
    DieAfter,
}

/// The errors that calls can fail with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// The medium fails (EIO).
    Io,
    /// The disk is full (ENOSPC).
    Full,
    /// No descriptor is free (EMFILE).
    Descriptors,
    /// The file system has become read-only (EROFS), as after an error of its own.
    ReadOnly,
}

/// The calls that a fault applies to.
#[derive(Clone, Copy, Debug)]
pub struct ShimRule {
    /// The kinds of calls.
    pub ops: FileOps,
    /// A part of the path below the spool's folder.
    pub path: &'static str,
    /// What happens to a matching call.
    pub act: ShimAction,
}

/// The shim of one gateway.
#[derive(Debug)]
pub(super) struct Shim {
    library: PathBuf,
    control: PathBuf,
    file: File,
    side: PathBuf,
}

impl Shim {
    /// Compiles the shim if necessary and creates its files in `folder`; it watches `root`.
    pub(super) fn new(folder: &Path, root: &Path, journal: bool) -> Result<Self, String> {
        let side = folder.join("shim");
        let control = folder.join("control");
        let said = |error: std::io::Error| format!("{}: {error}", control.display());
        std::fs::create_dir_all(&side).map_err(said)?;
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&control);
        let file = file.map_err(said)?;
        let shim = Self { library: library()?, control: control.clone(), file, side };
        shim.lay_out(root, journal).map_err(said)?;
        Ok(shim)
    }

    fn lay_out(&self, root: &Path, journal: bool) -> std::io::Result<()> {
        self.file.set_len(SIZE)?;
        self.file.write_all_at(&MAGIC.to_ne_bytes(), 0)?;
        self.file.write_all_at(&u32::from(journal).to_ne_bytes(), JOURNAL)?;
        self.file.write_all_at(root.as_os_str().as_encoded_bytes(), ROOT)?;
        self.file.write_all_at(self.side.as_os_str().as_encoded_bytes(), SIDE)
    }

    /// The environment variables that load the shim.
    pub(super) fn environment(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.library), ("PINTLE_SHIM", &self.control)]
    }

    /// The folder of the journal and of unlinked files.
    pub(super) fn side(&self) -> &Path {
        &self.side
    }

    /// Applies the rule to `times` calls after `skip` others.
    pub(super) fn arm(&self, rule: ShimRule, skip: u64, times: u64) {
        let (act, error) = match rule.act {
            ShimAction::Fail(error) => (0_u32, error.number()),
            ShimAction::Short => (1, 0),
            ShimAction::DieBefore => (2, 0),
            ShimAction::DieAfter => (3, 0),
        };
        let mut octets = Vec::with_capacity(128);
        octets.extend_from_slice(&0_u32.to_ne_bytes());
        octets.extend_from_slice(&rule.ops.0.to_ne_bytes());
        octets.extend_from_slice(&error.to_ne_bytes());
        octets.extend_from_slice(&act.to_ne_bytes());
        octets.extend_from_slice(&skip.to_ne_bytes());
        octets.extend_from_slice(&times.to_ne_bytes());
        octets.extend_from_slice(&0_u64.to_ne_bytes());
        octets.extend_from_slice(rule.path.as_bytes());
        octets.resize(128, 0);
        self.write(RULES, &octets);
        self.write(RULES, &1_u32.to_ne_bytes());
    }

    /// Removes the rule.
    pub(super) fn disarm(&self) {
        self.write(RULES, &0_u32.to_ne_bytes());
    }

    /// The number of calls that matched since the rule was set.
    pub(super) fn hits(&self) -> u64 {
        let mut octets = [0; 8];
        let read = self.file.read_exact_at(&mut octets, RULES + 32);
        read.map_or(0, |()| u64::from_ne_bytes(octets))
    }

    /// Sets the clock ahead, or back, by this many seconds from the true time.
    pub(super) fn step(&self, seconds: i64) {
        self.write(OFFSET, &seconds.saturating_mul(1_000_000_000).to_ne_bytes());
    }

    /// Makes the clock run fast, or slow, by this many parts in a million.
    pub(super) fn drift(&self, parts: i64) {
        self.write(SINCE, &steady().to_ne_bytes());
        self.write(DRIFT, &parts.to_ne_bytes());
    }

    fn write(&self, at: u64, octets: &[u8]) {
        self.file.write_all_at(octets, at).expect("the control file can be written");
    }
}

impl Errno {
    fn number(self) -> i32 {
        // The same on all architectures of Linux.
        match self {
            Self::Io => 5,
            Self::Full => 28,
            Self::Descriptors => 24,
            Self::ReadOnly => 30,
        }
    }
}

/// The monotonic clock in nanoseconds, precise enough for a drift: it starts with the machine, as /proc/uptime does.
fn steady() -> i64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, reason = "centuries fit")]
    let nanoseconds = (seconds * 1e9) as i64;
    nanoseconds
}

/// The shim as a library next to this program, compiled if its source has changed.
fn library() -> Result<PathBuf, String> {
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = own.with_file_name(format!("pintle-shim-{:x}.so", hasher.finish()));
    if path.exists() {
        return Ok(path);
    }
    let fresh = path.with_extension(format!("{}", std::process::id()));
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-x", "c", "-", "-ldl", "-o"]).arg(&fresh);
    let failed = |error: std::io::Error| format!("the shim of tests/shim cannot be compiled by cc: {error}");
    let mut child = compiler.stdin(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(SOURCE.as_bytes()).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(format!("cc did not compile the shim of tests/shim: {status}"));
    }
    std::fs::rename(&fresh, &path).map_err(failed)?;
    Ok(path)
}
