//! Builds one guest and puts its component where everything looks for it.
//!
//! Cargo decides what to rebuild. All guests share one target folder next to the host's, never the host's own: cargo
//! holds its lock while it runs the build script that calls this.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::{Guest, MissingToolchain, Toolchain, WASM_TARGET, guests, plugins_dir, target_dir};

/// Why a component could not be built.
#[derive(Debug)]
pub enum BuildError {
    /// No folder holds a guest of this name.
    UnknownGuest {
        /// The name that was requested.
        name: String,
        /// The names of all guests.
        known: Vec<String>,
    },
    /// The manifest at this path has no package name.
    Nameless(PathBuf),
    /// No toolchain on this machine can build guests.
    NoToolchain(MissingToolchain),
    /// The guest does not compile.
    DoesNotBuild {
        /// The guest's name.
        guest: String,
        /// The output of cargo.
        output: String,
    },
    /// Only build scripts can embed components: OUT_DIR is not set.
    NoBuildScript,
    /// A file could not be read or written, or cargo could not be run.
    Io {
        /// The path of the file, or the program.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
}

/// Builds `guest` with `toolchain` and returns the path of its component.
///
/// # Errors
///
/// It does not compile, or a file operation fails.
pub fn build(guest: &Guest, toolchain: &Toolchain) -> Result<PathBuf, BuildError> {
    let target = target_dir().join("guests");
    let mut cargo = toolchain.cargo();
    cargo.args(["build", "--release", "--target", WASM_TARGET]);
    // On a terminal cargo's progress is shown; the output of a build script is not seen until it fails.
    if io::stderr().is_terminal() {
        cargo.stderr(Stdio::inherit());
    } else {
        cargo.arg("--quiet");
    }
    cargo.args(toolchain.build_arguments());
    cargo.arg("--manifest-path").arg(guest.folder.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(&target);
    cargo.current_dir(&guest.folder).stdin(Stdio::null());
    let output = cargo.output().map_err(|cause| BuildError::io(Path::new(cargo.get_program()), cause))?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(BuildError::DoesNotBuild { guest: guest.name.clone(), output });
    }
    let file = format!("{}.wasm", guest.name.replace('-', "_"));
    publish(&target.join(WASM_TARGET).join("release").join(file), &guest.name)
}

/// Builds every guest; `watch` is called with each one before it is built.
///
/// # Errors
///
/// As [`build`], for the first guest that fails.
pub fn build_all(toolchain: &Toolchain, mut watch: impl FnMut(&Guest)) -> Result<Vec<PathBuf>, BuildError> {
    let all = guests()?;
    all.iter()
        .map(|guest| {
            watch(guest);
            build(guest, toolchain)
        })
        .collect()
}

/// Copies a component into the plugins folder, unless the same bytes are there: an unchanged file keeps its
/// modification time, so dependents are not rebuilt. The copy replaces the old file atomically, since tests may be
/// reading it.
fn publish(component: &Path, name: &str) -> Result<PathBuf, BuildError> {
    let bytes = std::fs::read(component).map_err(|cause| BuildError::io(component, cause))?;
    let folder = plugins_dir();
    std::fs::create_dir_all(&folder).map_err(|cause| BuildError::io(&folder, cause))?;
    let path = folder.join(format!("{name}.wasm"));
    if std::fs::read(&path).is_ok_and(|present| present == bytes) {
        return Ok(path);
    }
    let draft = folder.join(format!(".{name}.{}", std::process::id()));
    std::fs::write(&draft, bytes).map_err(|cause| BuildError::io(&draft, cause))?;
    std::fs::rename(&draft, &path).map_err(|cause| BuildError::io(&path, cause))?;
    Ok(path)
}

impl BuildError {
    pub(crate) fn io(path: &Path, cause: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), cause }
    }
}

impl From<MissingToolchain> for BuildError {
    fn from(missing: MissingToolchain) -> Self {
        Self::NoToolchain(missing)
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownGuest { name, known } => {
                write!(f, "no guest is called `{name}`; there are: {}", known.join(", "))
            }
            Self::Nameless(manifest) => {
                write!(f, "{}: no `name = \"…\"` in its [package] table", manifest.display())
            }
            Self::NoToolchain(missing) => missing.fmt(f),
            Self::DoesNotBuild { guest, output } => write!(f, "guest `{guest}` does not build:\n{output}"),
            Self::NoBuildScript => {
                f.write_str("OUT_DIR is not set: only a build script can embed components")
            }
            Self::Io { path, cause } => write!(f, "{}: {cause}", path.display()),
        }
    }
}

impl std::error::Error for BuildError {}
