//! Embeds components into a program, for its build script.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::{BuildError, Guest, Toolchain, build, guests, sources};

/// Builds the guests called `names` and writes `components.rs` into the folder of the calling build script's output.
/// The program takes `const COMPONENTS: &[(&str, &[u8])]`, names and bytes, from there by
/// `include!(concat!(env!("OUT_DIR"), "/components.rs"));`. Cargo runs the script again when a source of one of them changes.
///
/// # Errors
///
/// As [`crate::component`]. A build script should print the error and exit with failure: its text says what to do.
pub fn embed(names: &[&str]) -> Result<(), BuildError> {
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").ok_or(BuildError::NoBuildScript)?);
    let toolchain = Toolchain::find()?;
    let chosen = names.iter().map(|name| guests::find(name)).collect::<Result<Vec<_>, _>>()?;
    for guest in &chosen {
        watch(guest);
        let target = folder.join(format!("{}.wasm", guest.name));
        std::fs::copy(build(guest, &toolchain)?, &target).map_err(|cause| BuildError::io(&target, cause))?;
    }
    let path = folder.join("components.rs");
    std::fs::write(&path, source(&chosen, &folder)).map_err(|cause| BuildError::io(&path, cause))
}

#[allow(clippy::print_stdout, reason = "a build script talks to cargo this way")]
fn watch(guest: &Guest) {
    for path in sources(guest) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}

fn source(guests: &[Guest], folder: &Path) -> String {
    let mut text = "const COMPONENTS: &[(&str, &[u8])] = &[\n".to_owned();
    for Guest { name, .. } in guests {
        let path = folder.join(format!("{name}.wasm"));
        // Writing to a String does not fail.
        let _ = writeln!(text, "    ({name:?}, include_bytes!({path:?})),");
    }
    text + "];\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_component_is_included_under_its_name() {
        let guest = |name: &str| Guest { name: name.to_owned(), folder: PathBuf::new() };
        let text = source(&[guest("a"), guest("b-c")], Path::new("out"));
        assert!(text.contains(r#"("a", include_bytes!("out/a.wasm")),"#), "{text}");
        assert!(text.contains(r#"("b-c", include_bytes!("out/b-c.wasm")),"#), "{text}");
    }
}
