//! `pintle sandbox`: a complete gateway in a folder, to try Pintle without configuration or privileges.
//!
//! It is the real gateway with a generated configuration. Only the last step differs: messages are captured as files
//! instead of delivered. No mail leaves this machine.

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

/// The user name for submission.
pub(crate) const USER: &str = "sandbox";
/// The password of [`USER`]. It is printed, since it gives access to the sandbox only.
pub(crate) const PASSWORD: &str = "open sesame";
/// The maximum length of a subject in a list, in characters.
const MAX_SUBJECT: usize = 200;

/// Runs the sandbox, or lists the captured messages.
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

/// The addresses that the sandbox listens on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SandboxAddresses {
    pub(crate) smtp: SocketAddr,
    pub(crate) submission: SocketAddr,
    pub(crate) submissions: SocketAddr,
}

impl SandboxAddresses {
    /// Takes each address from its option. Default: the address of `--listen`, or else 127.0.0.1, with the ports 2525,
    /// 2587 and 2465.
    fn of(options: &Sandbox) -> Self {
        let ip = options.listen.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let place = |given: Option<SocketAddr>, port| given.unwrap_or_else(|| SocketAddr::new(ip, port));
        Self {
            smtp: place(options.smtp, 2525),
            submission: place(options.submission, 2587),
            submissions: place(options.submissions, 2465),
        }
    }

    /// Whether all addresses are loopback addresses, so that only clients on this machine can connect.
    pub(crate) fn are_local(&self) -> bool {
        [self.smtp, self.submission, self.submissions].iter().all(|place| place.ip().is_loopback())
    }
}

async fn serve(options: Sandbox) -> CommandResult {
    let places = SandboxAddresses::of(&options);
    let survives = terminal::survives_hang_up();
    let mut signals = Signals::new()?;
    let config = prepare(&options, &places)?;
    // The filter keeps lines that are not shown from being formatted: the plugin compiler logs so much that formatting
    // takes minutes.
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
        // The terminal was closed, and `nohup` was not used.
        _ = signals.hang_up.recv(), if !survives => ExitCode::SUCCESS,
        () = app.fallen() => ExitCode::FAILURE,
    };
    say!("\nStopping; captured messages stay in {}", options.folder.join("messages").display());
    app.drain().await;
    Ok(end)
}

/// Writes the certificate and the configuration into the folder. Returns the path of the configuration.
fn prepare(options: &Sandbox, places: &SandboxAddresses) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let named = |error: io::Error| format!("cannot use the folder {}: {error}", options.folder.display());
    fs::create_dir_all(&options.folder).map_err(named)?;
    let folder = options.folder.canonicalize().map_err(named)?;
    certificate::write(&folder, &file::names(places))?;
    let written = file::write(options, places, &folder)?;
    if written.kept {
        let path = written.path.display();
        say!("{path} has changes, and is used as it is; delete it to have it written again.");
        if options.asks_for_something() {
            say!("Addresses and plugins given on the command line are ignored.");
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
