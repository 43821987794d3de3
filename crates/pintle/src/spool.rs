//! `pintle spool`: checks a spool folder for damage, and repairs it.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use pintle_spool::{EmbeddedConfig, Inspection};

use crate::cli::{SpoolCommand, SpoolFolder, WhichSpool};
use crate::output::{CommandResult, complain, say};

/// Runs the subcommand.
pub(crate) fn run(options: &SpoolFolder) -> CommandResult {
    match &options.command {
        SpoolCommand::Check(which) => check(which),
        SpoolCommand::Repair(which) => repair(which),
    }
}

fn check(which: &WhichSpool) -> CommandResult {
    let Some(config) = spool_of(which)? else { return Ok(ExitCode::FAILURE) };
    let found = pintle_spool::inspect(&config.folder, &mut ProgressLine::default().callback())?;
    print_inspection(&config.folder, &found);
    Ok(if found.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_inspection(folder: &Path, found: &Inspection) {
    let identity = found.identity.as_deref().unwrap_or("none yet");
    say!("spool {}, identity {identity}", folder.display());
    say!("  log: {} segments, {} records", found.segments, found.records);
    say!("  messages: {}, {} octets", found.messages, found.octets);
    say!("  set aside earlier, in damaged/: {}", found.set_aside);
    say!("  files that nothing refers to, in unreferenced/: {}", found.unreferenced);
    for problem in &found.problems {
        let kind = if problem.costs_mail { "error" } else { "warning" };
        say!("{kind}: {problem}");
    }
    let costs_mail = found.problems.iter().any(|problem| problem.costs_mail);
    match (found.problems.is_empty(), costs_mail) {
        (true, _) => say!("no problems found"),
        (false, true) => {
            say!(
                "help: stop the gateway and run `pintle spool repair`: it sets aside messages that cannot be served"
            )
        }
        (false, false) => say!("no mail is affected"),
    }
}

fn repair(which: &WhichSpool) -> CommandResult {
    let Some(config) = spool_of(which)? else { return Ok(ExitCode::FAILURE) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut progress = ProgressLine::default().callback();
    let done = runtime.block_on(pintle_spool::repair(&config, &mut progress))?;
    say!("the database has been rebuilt from the log; {} messages are served", done.served);
    if done.set_aside == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let kept = config.folder.join("damaged");
    say!("{} messages cannot be served and were set aside in {}", done.set_aside, kept.display());
    Ok(ExitCode::FAILURE)
}

/// The spool that the options name. None if the configuration's `[spool]` section has mistakes, which are then printed;
/// mistakes in other sections do not matter.
fn spool_of(which: &WhichSpool) -> Result<Option<EmbeddedConfig>, String> {
    if let Some(folder) = &which.dir {
        return Ok(Some(EmbeddedConfig::new(folder)));
    }
    let part = pintle_config::parts::spool(&which.config)
        .map_err(|error| format!("{}: {error}; name the folder with --dir", which.config.display()))?;
    if part.report.mistakes.is_empty() {
        return Ok(Some(part.value));
    }
    complain!("{}", part.report);
    Ok(None)
}

/// A progress line on standard error, if that is a terminal. Updated at most once for each percent.
#[derive(Default)]
struct ProgressLine {
    /// The percentage shown last.
    shown_percent: u64,
}

impl ProgressLine {
    /// The callback of the spool: messages read so far, and all messages.
    fn callback(mut self) -> impl FnMut(u64, u64) {
        let is_terminal = std::io::stderr().is_terminal();
        move |done, of| {
            let percent = done * 100 / of.max(1);
            if is_terminal && (percent > self.shown_percent || done == of) {
                self.shown_percent = percent;
                let end = if done == of { "\n" } else { "" };
                // Progress is optional: the error of a closed terminal is ignored.
                let _ = write!(std::io::stderr(), "\r{done} of {of} messages read{end}");
            }
        }
    }
}
