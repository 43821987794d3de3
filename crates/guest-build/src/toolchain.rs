//! Finds a toolchain that builds WASI 0.2 components.
//!
//! There are two kinds: one with the target's standard library installed (rustup), and Debian's newest Rust, which
//! ships the library's source instead and uses the linkers of a rustup toolchain. The search only looks at files.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target triple of every guest: its output is already a component.
pub const WASM_TARGET: &str = "wasm32-wasip2";

/// The compiler version that the workspace requires, without the leading "1.".
const MINIMUM_MINOR: u32 = 95;

const LINKERS: [&str; 2] = ["rust-lld", "wasm-component-ld"];

/// The toolchain that builds guests on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The active toolchain, which has the target.
    Active,
    /// Debian's `rustc-web`, which builds the standard library from `rust-web-src`.
    Debian(DebianToolchain),
}

/// The parts of Debian's toolchain that have no fixed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianToolchain {
    /// The folder of `rust-lld` and `wasm-component-ld`, which Debian does not package.
    pub linkers: PathBuf,
}

/// Neither kind is complete: what each one lacks, in the order of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingToolchain(pub Vec<MissingPart>);

/// A part of a toolchain that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissingPart {
    /// The target's standard library in the active toolchain.
    Target,
    /// A file of one of Debian's packages, in a recent enough version.
    Package {
        /// The path of the file.
        path: &'static str,
        /// The package that contains it.
        package: &'static str,
    },
    /// `rust-lld` and `wasm-component-ld`, for Debian's toolchain.
    Linkers,
}

impl Toolchain {
    /// Finds the first complete toolchain.
    ///
    /// # Errors
    ///
    /// No toolchain is complete.
    pub fn find() -> Result<Self, MissingToolchain> {
        let sysroot = active_sysroot();
        if sysroot.as_deref().is_some_and(has_target) {
            return Ok(Self::Active);
        }
        let found = DebianToolchain::find(Path::new("/"), &sysroots(sysroot), minor_version);
        found.map(Self::Debian).map_err(|lacks| MissingToolchain([vec![MissingPart::Target], lacks].concat()))
    }

    /// A cargo command of this toolchain, without the environment that an outer cargo has set for itself.
    #[must_use]
    pub fn cargo(&self) -> Command {
        match self {
            Self::Active => {
                clean(Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))))
            }
            Self::Debian(debian) => debian.cargo(),
        }
    }

    /// The arguments that `cargo build` needs besides `--target` to use it.
    #[must_use]
    pub fn build_arguments(&self) -> &'static [&'static str] {
        match self {
            Self::Active => &[],
            Self::Debian(_) => &["-Zbuild-std=std,panic_abort"],
        }
    }
}

/// The files that show whether Debian's packages are installed.
const PACKAGES: [(&str, &str); 4] = [
    (DEBIAN_RUSTC, "rustc-web"),
    (DEBIAN_CARGO, "cargo-web"),
    ("/usr/lib/rustlib/src/rust/library/std/Cargo.toml", "rust-web-src"),
    ("/usr/lib/wasm32-wasi/libc.a", "wasi-libc"),
];
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

impl DebianToolchain {
    /// `version` returns a compiler's minor version: Debian's plain `rustc` has the same path and is years older.
    fn find(
        root: &Path,
        sysroots: &[PathBuf],
        version: impl Fn(&Path) -> Option<u32>,
    ) -> Result<Self, Vec<MissingPart>> {
        let there = |path: &str| {
            let path = root.join(path.trim_start_matches('/'));
            path.exists() && (!path.ends_with("bin/rustc") || version(&path) >= Some(MINIMUM_MINOR))
        };
        let missing = PACKAGES.iter().filter(|(path, _)| !there(path));
        let part = |&(path, package): &(_, _)| MissingPart::Package { path, package };
        let mut lacks: Vec<_> = missing.map(part).collect();
        let linkers = sysroots.iter().find_map(|sysroot| linkers_of(sysroot));
        if linkers.is_none() {
            lacks.push(MissingPart::Linkers);
        }
        match linkers {
            Some(linkers) if lacks.is_empty() => Ok(Self { linkers }),
            _ => Err(lacks),
        }
    }

    fn cargo(&self) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.linkers.clone()).chain(std::env::split_paths(&path));
        let mut command = clean(Command::new(DEBIAN_CARGO));
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
        // Building the standard library is an unstable feature of cargo; this allows it in the stable compiler.
        command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        command.env("RUSTFLAGS", "-L/usr/lib/wasm32-wasi");
        // An outer cargo sets it to the libraries of its own toolchain.
        command.env_remove("LD_LIBRARY_PATH");
        command
    }
}

impl fmt::Display for MissingToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "nothing on this machine builds {WASM_TARGET} components; what is missing:")?;
        for lack in &self.0 {
            writeln!(f, "  - {lack}")?;
        }
        write!(f, "`cargo xtask setup` installs a toolchain, or says how to")
    }
}

impl std::error::Error for MissingToolchain {}

impl fmt::Display for MissingPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target => write!(f, "the target {WASM_TARGET} in the active toolchain"),
            Self::Package { path, package } => write!(f, "{path}, from Debian's package {package}"),
            Self::Linkers => write!(f, "{} in a rustup toolchain", LINKERS.join(" and ")),
        }
    }
}

/// Flags for the host's compiler, and the wrapper that clippy uses, would break a guest's build; a target folder of the
/// outer build is locked while its build scripts run.
fn clean(mut command: Command) -> Command {
    let names = [
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MAKEFLAGS",
        "CARGO_TARGET_DIR",
        "MAKEFLAGS",
        "RUSTC",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "TARGET",
    ];
    for name in names {
        command.env_remove(name);
    }
    command
}

fn has_target(sysroot: &Path) -> bool {
    let library = sysroot.join("lib/rustlib").join(WASM_TARGET).join("lib");
    std::fs::read_dir(&library).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
    })
}

/// The minor version: 96 for "rustc 1.96.0 (…)".
fn minor_version(rustc: &Path) -> Option<u32> {
    let output = Command::new(rustc).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(1)?.split('.').nth(1)?.parse().ok()
}

fn active_sysroot() -> Option<PathBuf> {
    let mut rustc = Command::new("rustc");
    let output = rustc.args(["--print", "sysroot"]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !path.trim().is_empty()).then(|| PathBuf::from(path.trim()))
}

/// The active sysroot and those of rustup's other toolchains, any of which may have the linkers.
fn sysroots(active: Option<PathBuf>) -> Vec<PathBuf> {
    let home = || std::env::home_dir().map(|home| home.join(".rustup"));
    let rustup = std::env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(home);
    let entries = rustup.and_then(|rustup| std::fs::read_dir(rustup.join("toolchains")).ok());
    let mut others: Vec<_> = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    others.sort();
    active.into_iter().chain(others).collect()
}

fn linkers_of(sysroot: &Path) -> Option<PathBuf> {
    let hosts = std::fs::read_dir(sysroot.join("lib/rustlib")).ok()?;
    let mut folders = hosts.flatten().map(|host| host.path().join("bin"));
    folders.find(|folder| LINKERS.iter().all(|linker| folder.join(linker).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn touch(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    fn scratch(name: &str) -> PathBuf {
        let folder = crate::target_dir().join("guest-build-tests").join(name);
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn packages(lacks: &[MissingPart]) -> Vec<&str> {
        let package = |lack: &MissingPart| match lack {
            MissingPart::Package { package, .. } => Some(*package),
            MissingPart::Target | MissingPart::Linkers => None,
        };
        lacks.iter().filter_map(package).collect()
    }

    #[test]
    fn a_toolchain_has_the_target_when_its_standard_library_is_there() {
        let root = scratch("target");
        assert!(!has_target(&root));
        touch(&root, "lib/rustlib/wasm32-wasip2/lib/libstd-0123.rlib");
        assert!(has_target(&root));
    }

    #[test]
    fn debian_is_complete_with_four_packages_and_borrowed_linkers() {
        let root = scratch("debian");
        let recent = |_: &Path| Some(96);
        let lacks = DebianToolchain::find(&root, &[], recent).unwrap_err();
        assert_eq!(packages(&lacks), ["rustc-web", "cargo-web", "rust-web-src", "wasi-libc"]);
        for (path, _) in PACKAGES {
            touch(&root, path.trim_start_matches('/'));
        }
        assert_eq!(DebianToolchain::find(&root, &[], recent), Err(vec![MissingPart::Linkers]));
        let sysroot = root.join("sysroot");
        touch(&sysroot, "lib/rustlib/host/bin/rust-lld");
        assert!(
            DebianToolchain::find(&root, std::slice::from_ref(&sysroot), recent).is_err(),
            "one linker of two"
        );
        touch(&sysroot, "lib/rustlib/host/bin/wasm-component-ld");
        let debian = DebianToolchain::find(&root, std::slice::from_ref(&sysroot), recent).unwrap();
        assert_eq!(debian.linkers, sysroot.join("lib/rustlib/host/bin"));
        let lacks = DebianToolchain::find(&root, &[sysroot], |_| Some(63)).unwrap_err();
        assert_eq!(packages(&lacks), ["rustc-web"], "Debian's plain rustc is too old");
    }

    #[test]
    fn what_is_lacking_is_listed_with_the_remedy() {
        let text = MissingToolchain(vec![MissingPart::Target, MissingPart::Linkers]).to_string();
        assert!(text.contains("  - the target") && text.contains("  - rust-lld and"), "{text}");
        assert!(text.ends_with("or says how to"), "{text}");
    }

    #[test]
    fn the_version_of_a_compiler_is_read() {
        assert!(minor_version(Path::new("rustc")) >= Some(MINIMUM_MINOR));
        assert_eq!(minor_version(Path::new("/nonexistent/rustc")), None);
    }

    #[test]
    fn the_minimum_is_the_workspaces() {
        assert_eq!(env!("CARGO_PKG_RUST_VERSION"), format!("1.{MINIMUM_MINOR}"));
    }
}
