//! Builds guests: plugins written in Rust that live in this repository, each into one WASI 0.2 component.
//!
//! Three callers share this code, so that they never disagree about toolchain or place: `cargo xtask plugins`, the
//! build script of the `pintle` binary (which embeds stock plugins), and tests that need a component:
//!
//! ```no_run
//! let wasm = pintle_guest_build::component("example")?;
//! let bytes = std::fs::read(wasm)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It promises that the path it returns holds a component built from the sources as they are now, whoever else builds
//! at the same time. It never installs anything: that is `cargo xtask setup`'s affair, and the error of a missing
//! toolchain says so. It needs nothing but std, since a build script waits for it.

mod compile;
mod embed;
mod guests;
mod toolchain;

pub use compile::{BuildError, build, build_all};
pub use embed::embed;
pub use guests::{Guest, guests, plugins_dir, repository, sources, target_dir};
pub use toolchain::{DebianToolchain, MissingPart, MissingToolchain, Toolchain, WASM_TARGET};

use std::path::PathBuf;

/// A folder of components that are known to be fresh. `cargo xtask test` sets it for the tests it runs, so that each
/// of a few hundred test processes need not ask cargo again.
pub const FRESH_COMPONENTS: &str = "PINTLE_COMPONENTS";

/// The path of the component of the guest whose package is called `name`, built first where that is needed.
///
/// # Errors
///
/// There is no such guest, no toolchain that can build it, or its source does not compile.
pub fn component(name: &str) -> Result<PathBuf, BuildError> {
    if let Some(folder) = std::env::var_os(FRESH_COMPONENTS) {
        let path = PathBuf::from(folder).join(format!("{name}.wasm"));
        if path.is_file() {
            return Ok(path);
        }
    }
    build(&guests::find(name)?, &Toolchain::find()?)
}
