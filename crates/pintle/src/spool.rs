//! `pintle spool`: looks a spool folder through, and puts one in order.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use pintle_spool::{EmbeddedConfig, Inspection};

use crate::cli::{SpoolCommand, SpoolFolder, WhichSpool};
use crate::output::{CommandResult, complain, say};

/// Does what was asked for.
pub(crate) fn run(options: &SpoolFolder) -> CommandResult {
    match &options.command {
        SpoolCommand::Check(which) => check(which),
        SpoolCommand::Repair(which) => repair(which),
    }
}

fn check(which: &WhichSpool) -> CommandResult {
    let Some(config) = spool_of(which)? else { return Ok(ExitCode::FAILURE) };
    let found = pintle_spool::inspect(&config.folder, &mut ProgressLine::default().teller())?;
    tell(&config.folder, &found);
    Ok(if found.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(folder: &Path, found: &Inspection) {
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
        (true, _) => say!("all is well"),
        (false, true) => {
            say!("help: stop the gateway and run `pintle spool repair`: it sets aside what cannot be served")
        }
        (false, false) => say!("no mail is affected"),
    }
}

fn repair(which: &WhichSpool) -> CommandResult {
    let Some(config) = spool_of(which)? else { return Ok(ExitCode::FAILURE) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut progress = ProgressLine::default().teller();
    let done = runtime.block_on(pintle_spool::repair(&config, &mut progress))?;
    say!("the database has been rebuilt from the log; {} messages are served", done.served);
    if done.set_aside == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let kept = config.folder.join("damaged");
    say!("{} messages cannot be served and were set aside in {}", done.set_aside, kept.display());
    Ok(ExitCode::FAILURE)
}

/// The spool that is meant; none when the configuration does not say it well, which has been told. Mistakes elsewhere in it
/// do not matter.
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

/// Says on a terminal how far it has come, a hundred times at most.
#[derive(Default)]
struct ProgressLine {
    told: u64,
}

impl ProgressLine {
    fn teller(mut self) -> impl FnMut(u64, u64) {
        let shown = std::io::stderr().is_terminal();
        move |done, of| {
            let percent = done * 100 / of.max(1);
            if shown && (percent > self.told || done == of) {
                self.told = percent;
                let end = if done == of { "\n" } else { "" };
                // A terminal that is gone needs none.
                let _ = write!(std::io::stderr(), "\r{done} of {of} messages read{end}");
            }
        }
    }
}
