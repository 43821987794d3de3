//! `cargo xtask plugins`: builds all guests of the repository.

use std::path::PathBuf;

use pintle_guest_build::build_all;

use crate::run::{ChoreError, step};
use crate::setup;

/// Builds all components that are out of date, and returns their paths.
pub(crate) fn plugins() -> Result<Vec<PathBuf>, ChoreError> {
    let toolchain = setup::setup()?;
    step("Building plugins");
    let components = build_all(&toolchain, |guest| println!("    {}", guest.name))?;
    println!("    {} in {}", components.len(), pintle_guest_build::plugins_dir().display());
    Ok(components)
}
