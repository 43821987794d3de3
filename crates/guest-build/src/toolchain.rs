//! Finding a toolchain that makes WASI 0.2 components.
//!
//! Two kinds do: one with the target's standard library installed (rustup), and Debian's newest Rust, which ships the
//! library's source instead and borrows the linkers from a rustup toolchain. Finding looks at files only.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of every guest: its output is a component already.
pub const WASM_TARGET: &str = "wasm32-wasip2";

const LINKERS: [&str; 2] = ["rust-lld", "wasm-component-ld"];

/// What builds guests on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The active toolchain, which has the target.
    Active,
    /// Debian's `rustc-web`, which builds the standard library from `rust-web-src`.
    Debian(Debian),
}

/// Where the pieces of Debian's way are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debian {
    /// Holds `rust-lld` and `wasm-component-ld`, which Debian does not package.
    pub linkers: PathBuf,
}

/// Neither kind is complete; says what each one lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What was looked for in vain, in the order of looking.
    pub lacks: Vec<String>,
}

impl Toolchain {
    /// The first complete toolchain.
    ///
    /// # Errors
    ///
    /// None is complete.
    pub fn find() -> Result<Self, Missing> {
        let sysroot = active_sysroot();
        let Err(no_target) = installed(sysroot.as_deref()) else {
            return Ok(Self::Active);
        };
        match Debian::find(Path::new("/"), &sysroots(sysroot)) {
            Ok(debian) => Ok(Self::Debian(debian)),
            Err(lacks) => Err(Missing {
                lacks: [vec![no_target], lacks].concat(),
            }),
        }
    }

    /// A cargo command of this toolchain, rid of whatever an outer cargo has put into the environment for itself.
    #[must_use]
    pub fn cargo(&self) -> Command {
        match self {
            Self::Active => clean(Command::new(
                std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")),
            )),
            Self::Debian(debian) => debian.cargo(),
        }
    }

    /// What `cargo build` needs besides `--target` to use it.
    #[must_use]
    pub fn build_arguments(&self) -> &'static [&'static str] {
        match self {
            Self::Active => &[],
            Self::Debian(_) => &["-Zbuild-std=std,panic_abort"],
        }
    }
}

impl Debian {
    fn find(root: &Path, sysroots: &[PathBuf]) -> Result<Self, Vec<String>> {
        const PIECES: [(&str, &str); 4] = [
            ("usr/bin/rustc", "rustc-web"),
            ("usr/bin/cargo", "cargo-web"),
            ("usr/lib/rustlib/src/rust/library/std/Cargo.toml", "rust-web-src"),
            ("usr/lib/wasm32-wasi/libc.a", "wasi-libc"),
        ];
        let mut lacks: Vec<String> = PIECES
            .iter()
            .filter(|(path, _)| !root.join(path).exists())
            .map(|(path, package)| format!("/{path} (Debian package {package})"))
            .collect();
        let linkers = sysroots.iter().find_map(|sysroot| linkers_of(sysroot));
        if linkers.is_none() {
            lacks.push(format!("{} in a rustup toolchain", LINKERS.join(" and ")));
        }
        match linkers {
            Some(linkers) if lacks.is_empty() => Ok(Self { linkers }),
            _ => Err(lacks),
        }
    }

    fn cargo(&self) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.linkers.clone()).chain(std::env::split_paths(&path));
        let mut command = clean(Command::new("/usr/bin/cargo"));
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
        // Building the standard library is an unstable flag of cargo, and this is the stable compiler's leave to use it.
        command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        command.env("RUSTFLAGS", "-L/usr/lib/wasm32-wasi");
        command
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "nothing on this machine builds {WASM_TARGET} components; what is lacking:"
        )?;
        for lack in &self.lacks {
            writeln!(f, "  - {lack}")?;
        }
        write!(f, "`cargo xtask setup` installs a toolchain, or says how to")
    }
}

impl std::error::Error for Missing {}

/// Flags meant for the host's compiler, and the wrapper that clippy puts around it, would break a guest's build; a
/// target folder of the outer build is locked while its build scripts run.
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

/// Err says what is lacking.
fn installed(sysroot: Option<&Path>) -> Result<(), String> {
    let Some(sysroot) = sysroot else {
        return Err("rustc on the PATH".to_owned());
    };
    let library = sysroot.join("lib/rustlib").join(WASM_TARGET).join("lib");
    let has_std = std::fs::read_dir(&library).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
    });
    has_std
        .then_some(())
        .ok_or_else(|| format!("the target {WASM_TARGET} in the active toolchain"))
}

fn active_sysroot() -> Option<PathBuf> {
    let mut rustc = Command::new("rustc");
    let output = rustc.args(["--print", "sysroot"]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !path.trim().is_empty()).then(|| PathBuf::from(path.trim()))
}

/// The active sysroot and those of rustup's other toolchains, any of which may lend its linkers.
fn sysroots(active: Option<PathBuf>) -> Vec<PathBuf> {
    let home = || std::env::home_dir().map(|home| home.join(".rustup"));
    let rustup = std::env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(home);
    let entries = rustup.and_then(|rustup| std::fs::read_dir(rustup.join("toolchains")).ok());
    let mut others: Vec<_> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
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

    #[test]
    fn a_toolchain_has_the_target_when_its_standard_library_is_there() {
        let root = scratch("target");
        assert!(installed(Some(&root)).unwrap_err().contains(WASM_TARGET));
        touch(&root, "lib/rustlib/wasm32-wasip2/lib/libstd-0123.rlib");
        assert_eq!(installed(Some(&root)), Ok(()));
    }

    #[test]
    fn debian_is_complete_with_four_packages_and_borrowed_linkers() {
        let root = scratch("debian");
        let lacks = Debian::find(&root, &[]).unwrap_err();
        assert_eq!(lacks.len(), 5, "{lacks:?}");
        for path in [
            "bin/rustc",
            "bin/cargo",
            "lib/rustlib/src/rust/library/std/Cargo.toml",
        ] {
            touch(&root, &format!("usr/{path}"));
        }
        let lacks = Debian::find(&root, &[]).unwrap_err();
        assert!(
            lacks[0].contains("wasi-libc") && lacks[1].contains("rust-lld"),
            "{lacks:?}"
        );
        touch(&root, "usr/lib/wasm32-wasi/libc.a");
        touch(&root, "sysroot/lib/rustlib/host/bin/rust-lld");
        assert!(
            Debian::find(&root, &[root.join("sysroot")]).is_err(),
            "one linker of two is not enough"
        );
        touch(&root, "sysroot/lib/rustlib/host/bin/wasm-component-ld");
        let debian = Debian::find(&root, &[root.join("sysroot")]).unwrap();
        assert_eq!(debian.linkers, root.join("sysroot/lib/rustlib/host/bin"));
    }

    #[test]
    fn what_is_lacking_is_listed_with_the_remedy() {
        let text = Missing {
            lacks: vec!["a".to_owned(), "b".to_owned()],
        }
        .to_string();
        assert!(
            text.contains("  - a\n  - b\n") && text.contains("cargo xtask setup"),
            "{text}"
        );
    }
}
