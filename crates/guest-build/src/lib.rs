//! Builds guests: the plugins written in Rust in this repository, each into one WASI 0.2 component.
//!
//! Three callers share this code, so that they always agree about toolchain and paths: `cargo xtask plugins`, the build
//! script of the `pintle` binary (which embeds stock plugins), and tests that need a component:
//!
//! ```no_run
//! let wasm = pintle_guest_build::component("example")?;
//! let bytes = std::fs::read(wasm)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The returned path always contains a component built from the current sources, whatever else builds at the same time.
//! Nothing is ever installed here: `cargo xtask setup` does that, and the error of a missing toolchain says so. This
//! crate needs only std, since a build script waits for it.

mod compile;
mod embed;
mod guests;
mod toolchain;

pub use compile::{BuildError, build, build_all};
pub use embed::embed;
pub use guests::{Guest, guests, plugins_dir, repository, sources, target_dir};
pub use toolchain::{DebianToolchain, MissingPart, MissingToolchain, Toolchain, WASM_TARGET};

use std::path::PathBuf;

/// The environment variable for a folder of components that are known to be up to date. `cargo xtask test` sets it for
/// the tests that it runs, so that hundreds of test processes need not run cargo again.
pub const FRESH_COMPONENTS: &str = "PINTLE_COMPONENTS";

/// The path of the component of the guest package called `name`, which is built first if necessary.
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
