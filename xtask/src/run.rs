//! Runs other programs in the repository's root, and prints their command lines.

use std::fmt;
use std::io;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Why a task failed.
#[derive(Debug)]
pub(crate) enum ChoreError {
    /// A program could not be started.
    NotStarted { program: String, cause: io::Error },
    /// A program ended with an error, which it has printed itself.
    Failed { command: String, status: ExitStatus },
    /// A program was still running after this time, and was killed.
    TooSlow { command: String, limit: Duration },
    /// A toolchain is missing; the text says what to do.
    NoToolchain(String),
    /// A guest could not be built.
    Guest(pintle_guest_build::BuildError),
    /// Something in the repository violates the rules of `tidy`; each line names a place.
    Untidy(Vec<String>),
    /// A measurement is not valid; the text says why.
    BadRun(String),
    /// A version of the plugin contract cannot be frozen; the text says why.
    NotFrozen(String),
    /// A file could not be read.
    Unreadable { path: String, cause: io::Error },
    /// A program printed something else than its documentation says.
    Unexpected { command: String, cause: serde_json::Error },
}

/// Prints the next step.
pub(crate) fn step(text: impl fmt::Display) {
    println!("\n==> {text}");
}

/// A command to be run in the repository's root.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(pintle_guest_build::repository());
    command
}

/// A command of the cargo that runs this.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    command(&cargo, arguments)
}

/// Prints the command, runs it with its output shown, and waits for its end.
pub(crate) fn run(command: &mut Command) -> Result<(), ChoreError> {
    println!("    {}", shown(command));
    let status = command.status().map_err(|cause| not_started(command, cause))?;
    if status.success() { Ok(()) } else { Err(ChoreError::Failed { command: shown(command), status }) }
}

/// As [`run`], but kills it after `limit`: for programs that may wait for a network that is not there.
pub(crate) fn run_at_most(command: &mut Command, limit: Duration) -> Result<(), ChoreError> {
    println!("    {}", shown(command));
    let mut child = command.spawn().map_err(|cause| not_started(command, cause))?;
    let start = Instant::now();
    loop {
        let status = child.try_wait().map_err(|cause| not_started(command, cause))?;
        match status {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                return Err(ChoreError::Failed { command: shown(command), status });
            }
            None if start.elapsed() > limit => break,
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    // It may have just ended, and then neither call has an effect.
    drop(child.kill());
    drop(child.wait());
    Err(ChoreError::TooSlow { command: shown(command), limit })
}

/// Whether it can be run and succeeds; its output is not shown.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Runs it and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>, ChoreError> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|cause| not_started(command, cause))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(ChoreError::Failed { command: shown(command), status: output.status })
    }
}

/// The command as it would be typed.
fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn not_started(command: &Command, cause: io::Error) -> ChoreError {
    ChoreError::NotStarted { program: command.get_program().to_string_lossy().into_owned(), cause }
}

impl From<pintle_guest_build::BuildError> for ChoreError {
    fn from(fault: pintle_guest_build::BuildError) -> Self {
        Self::Guest(fault)
    }
}

impl fmt::Display for ChoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted { program, cause } => write!(f, "`{program}` cannot be run: {cause}"),
            Self::Failed { command, status } => write!(f, "`{command}` failed ({status})"),
            Self::TooSlow { command, limit } => {
                write!(f, "`{command}` did not end within {} s", limit.as_secs())
            }
            Self::NoToolchain(text) | Self::BadRun(text) | Self::NotFrozen(text) => f.write_str(text),
            Self::Guest(fault) => fault.fmt(f),
            Self::Untidy(lines) => {
                write!(f, "{} violation(s) of the house rules:\n{}", lines.len(), lines.join("\n"))
            }
            Self::Unreadable { path, cause } => write!(f, "{path}: {cause}"),
            Self::Unexpected { command, cause } => {
                write!(f, "the output of `{command}` is not understood: {cause}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_typed() {
        assert_eq!(shown(&command("/usr/bin/cargo", &["build", "--locked"])), "cargo build --locked");
    }

    #[test]
    fn a_program_that_fails_is_told_from_one_that_is_missing() {
        assert!(matches!(run(&mut command("false", &[])), Err(ChoreError::Failed { .. })));
        assert!(matches!(run(&mut command("no-such-program", &[])), Err(ChoreError::NotStarted { .. })));
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let fault = run_at_most(&mut command("sleep", &["600"]), Duration::ZERO);
        assert!(matches!(fault, Err(ChoreError::TooSlow { .. })));
    }
}
