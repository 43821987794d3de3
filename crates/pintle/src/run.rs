//! `pintle run`: the gateway in the foreground, until a signal ends it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pintle_config::{LogFormat, Settings};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, Extras};
use crate::cli::ConfigFile;
use crate::{logging, records, reload, stock};

type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

/// How often certificate files are looked at: a renewal is served within this time without a signal.
const CERTIFICATES: Duration = Duration::from_secs(60);

/// Reads the configuration, starts everything, and waits for the end.
pub(crate) fn run(options: &ConfigFile) -> Outcome {
    let report = pintle_config::check(&options.config, &stock::components());
    let warnings: Vec<String> =
        report.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.cause)).collect();
    let settings = match report.into_settings() {
        Ok(settings) => settings,
        Err(report) => {
            eprintln!("{report}");
            return Ok(ExitCode::FAILURE);
        }
    };
    start_log(&settings)?;
    for warning in warnings {
        tracing::warn!(warning, "configuration");
    }
    let apart = settings.log.file.is_some();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("pintle").build()?;
    let outcome = runtime.block_on(serve(settings, options.config.clone()));
    if let (true, Err(error)) = (apart, &outcome) {
        // Whoever reads the log alone would see a gateway that begins and is gone.
        tracing::error!(%error, "the gateway ends");
    }
    outcome
}

async fn serve(settings: Settings, config: PathBuf) -> Outcome {
    let mut signals = Signals::new()?;
    let extras = Extras { config, records: Arc::new(records::Log), capture: None };
    let app = App::start(settings, extras).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "ready");
    let mut certificates = tokio::time::interval(CERTIFICATES);
    loop {
        tokio::select! {
            _ = signals.hang_up.recv() => reload::by_signal(&app.parts).await,
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = certificates.tick() => reload::certificates_if_changed(&app.parts),
        }
    }
    // A second signal ends it at once: whoever sends it has reasons, and the spool has the mail.
    tokio::select! {
        () = app.drain() => Ok(ExitCode::SUCCESS),
        _ = signals.terminate.recv() => Ok(ExitCode::FAILURE),
        _ = signals.interrupt.recv() => Ok(ExitCode::FAILURE),
    }
}

/// The signals that mean something to us.
pub(crate) struct Signals {
    pub(crate) hang_up: Signal,
    pub(crate) terminate: Signal,
    pub(crate) interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

fn start_log(settings: &Settings) -> std::io::Result<()> {
    let format = match settings.log.format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    logging::start(format, settings.log.level.name(), settings.log.file.as_deref())
}
