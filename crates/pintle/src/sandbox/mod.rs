//! `pintle sandbox`: a whole gateway in a folder, for a newcomer's first five minutes.
//!
//! It is the real program with a configuration that it writes itself; only the last step differs: messages are captured
//! instead of delivered. Nothing needs privilege, and nothing leaves this machine.

mod certificate;
mod file;
mod narrator;
mod terminal;
mod welcome;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use pintle_outbound::SystemClock;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::app::{App, Extras};
use crate::cli::{Sandbox, SandboxCommand};
use crate::output::{self, CommandResult, complain, say};
use crate::signals::Signals;
use crate::{capture, logging, stock, supervisor};

/// The user that the sandbox knows.
pub(crate) const USER: &str = "sandbox";
/// Its password: shown on the screen, since it opens nothing but this.
pub(crate) const PASSWORD: &str = "open sesame";
/// So many characters of a subject are shown.
const MAX_SUBJECT: usize = 200;

/// Runs the sandbox, or lists what it has captured.
pub(crate) fn run(options: Sandbox) -> CommandResult {
    match options.command {
        Some(SandboxCommand::Messages { json }) => messages(&options.folder, json),
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .thread_name(supervisor::RUNTIME)
                .build()?;
            runtime.block_on(serve(options))
        }
    }
}

/// Where the sandbox listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SandboxAddresses {
    pub(crate) smtp: SocketAddr,
    pub(crate) submission: SocketAddr,
    pub(crate) submissions: SocketAddr,
}

impl SandboxAddresses {
    /// What the options say: each address, or `--listen` with the usual ports, which is this machine if left out.
    fn of(options: &Sandbox) -> Self {
        let ip = options.listen.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let place = |given: Option<SocketAddr>, port| given.unwrap_or_else(|| SocketAddr::new(ip, port));
        Self {
            smtp: place(options.smtp, 2525),
            submission: place(options.submission, 2587),
            submissions: place(options.submissions, 2465),
        }
    }

    /// Whether nobody but this machine can come.
    pub(crate) fn are_local(&self) -> bool {
        [self.smtp, self.submission, self.submissions].iter().all(|place| place.ip().is_loopback())
    }
}

async fn serve(options: Sandbox) -> CommandResult {
    let places = SandboxAddresses::of(&options);
    let survives = terminal::survives_hang_up();
    let mut signals = Signals::new()?;
    let config = prepare(&options, &places)?;
    // What is not told is not made into a line either: the compiler of plugins says more than anybody could wait for.
    let heard = narrator::PluginLines.with_filter(logging::filter("warn,pintle=info"));
    tracing_subscriber::registry().with(heard).init();
    let settings = match pintle_config::check(&config, &stock::components()).into_settings() {
        Ok(settings) => settings,
        Err(report) => {
            complain!("{report}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let narrator = Arc::new(narrator::Narrator::default());
    let folder = {
        let narrator = Arc::clone(&narrator);
        let folder = capture::messages_beside(&settings.spool.folder);
        capture::CaptureFolder::open(folder, move |entry| narrator.captured(entry))?
    };
    let has_example =
        settings.plugins.plugins.iter().any(|plugin| plugin.component.to_string() == "stock:example");
    let extras = Extras {
        config,
        records: narrator,
        sockets: None,
        capture: Some(Arc::new(folder)),
        clock: Arc::new(SystemClock),
    };
    say!("Starting; the first start compiles the plugins, which takes a moment.");
    let mut app = App::start(settings, extras).await?;
    welcome::print(&app, &options, &places, has_example);
    let end = tokio::select! {
        _ = signals.terminate.recv() => ExitCode::SUCCESS,
        _ = signals.interrupt.recv() => ExitCode::SUCCESS,
        // Its terminal has gone, and nobody reads what it says.
        _ = signals.hang_up.recv(), if !survives => ExitCode::SUCCESS,
        () = app.fallen() => ExitCode::FAILURE,
    };
    say!("\nStopping; what was captured stays in {}", options.folder.join("messages").display());
    app.drain().await;
    Ok(end)
}

/// Writes certificate and configuration into the folder; gives the configuration's path.
fn prepare(options: &Sandbox, places: &SandboxAddresses) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let named = |error: io::Error| format!("cannot use the folder {}: {error}", options.folder.display());
    fs::create_dir_all(&options.folder).map_err(named)?;
    let folder = options.folder.canonicalize().map_err(named)?;
    certificate::write(&folder, &file::names(places))?;
    let written = file::write(options, places, &folder)?;
    if written.kept {
        let path = written.path.display();
        say!("{path} has changes, and is used as it is; delete it to have it written anew.");
        if options.asks_for_something() {
            say!("What the command line says of addresses and plugins does not count beside it.");
        }
    }
    Ok(written.path)
}

fn messages(folder: &Path, json: bool) -> CommandResult {
    let captured = capture::list(&folder.join("messages"))?;
    if json {
        output::json(&captured)?;
        return Ok(ExitCode::SUCCESS);
    }
    for entry in &captured {
        let to: Vec<String> = entry.recipients.iter().map(ToString::to_string).collect();
        say!("{}  <{}> to {}", entry.received_ms.rfc3339(), entry.sender, to.join(", "));
        let subject = pintle_mail::shown(entry.subject.as_deref().unwrap_or(""), MAX_SUBJECT);
        say!("  \"{subject}\", {} octets", entry.size);
        say!("  {}", entry.file.display());
    }
    say!("{} messages in {}", captured.len(), folder.join("messages").display());
    Ok(ExitCode::SUCCESS)
}
