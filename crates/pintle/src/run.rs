//! `pintle run`: runs the gateway in the foreground until a signal stops it.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pintle_config::{LogFormat, Settings};
use pintle_inbound::Sockets;
use pintle_outbound::SystemClock;
use tokio::task::JoinHandle;

use crate::app::{App, Extras};
use crate::cli::ConfigFile;
use crate::output::{CommandResult, complain};
use crate::privileges::Who;
use crate::signals::Signals;
use crate::{logging, privileges, records, reload, stock, supervisor};

/// The interval of checks for changed certificate files: a renewed certificate is served within this time.
const CERTIFICATES: Duration = Duration::from_secs(60);

/// How long blocking threads may take to end after everything else has ended.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// The maximum time of a drain after a part has died.
const LONGEST_DRAIN: Duration = Duration::from_secs(90);

/// Reads the configuration, starts the gateway, and runs it until shutdown.
pub(crate) fn run(options: &ConfigFile) -> CommandResult {
    let report = pintle_config::check(&options.config, &stock::components());
    let warnings: Vec<String> =
        report.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.cause)).collect();
    let settings = match report.into_settings() {
        Ok(settings) => settings,
        Err(report) => {
            complain!("{report}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let apart = settings.log.file.is_some();
    let prepared = prepare(&settings);
    if prepared.is_ok() || settings.run_as.is_none() {
        // If `prepare` failed, the process may still be root, and the user could not write to a log file made by root.
        start_log(&settings)?;
    }
    let (sockets, who) = prepared.inspect_err(|error| {
        if apart {
            tracing::error!(%error, "the gateway cannot start");
        }
    })?;
    privileges::say(&who);
    for warning in warnings {
        tracing::warn!(warning, "configuration");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_name(supervisor::RUNTIME).build()?;
    let extras = Extras {
        config: options.config.clone(),
        records: Arc::new(records::RecordLog),
        sockets: Some(sockets),
        capture: None,
        clock: Arc::new(SystemClock),
    };
    let outcome = runtime.block_on(serve(settings, extras));
    // All parts have ended, so threads that still block can be abandoned.
    runtime.shutdown_timeout(LAST_WORDS);
    if let (true, Err(error)) = (apart, &outcome) {
        // `main` prints the error on standard error; the log file needs it, too.
        tracing::error!(%error, "the gateway stops with an error");
    }
    outcome
}

/// Makes folders and binds sockets, as root if started so, and then gives up root privileges. Must be called while the
/// process has one thread.
fn prepare(settings: &Settings) -> Result<(Sockets, Who), Box<dyn std::error::Error>> {
    privileges::make_folders(settings)?;
    let sockets = Sockets::bind(&settings.inbound.listeners)?;
    let who = privileges::give_up(settings.run_as.as_ref())?;
    Ok((sockets, who))
}

async fn serve(settings: Settings, extras: Extras) -> CommandResult {
    let signals = Signals::new()?;
    let app = App::start(settings, extras).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "ready");
    Ok(until_the_end(app, signals).await)
}

/// Handles signals until one of them stops the gateway, or a part of it has died. Then drains.
async fn until_the_end(mut app: App, mut signals: Signals) -> ExitCode {
    let mut certificates = tokio::time::interval(CERTIFICATES);
    let mut reloading: Option<JoinHandle<()>> = None;
    let end = loop {
        tokio::select! {
            // Reloads run one at a time. Signals that arrive during a reload cause one more reload after it.
            _ = signals.hang_up.recv(), if reloading.is_none() => reloading = Some(reload::by_signal(&app.parts)),
            () = ended(&mut reloading) => reloading = None,
            _ = signals.terminate.recv() => break ExitCode::SUCCESS,
            _ = signals.interrupt.recv() => break ExitCode::SUCCESS,
            () = app.fallen() => break ExitCode::FAILURE,
            _ = certificates.tick() => reload::certificates_if_changed(&app.parts),
        }
    };
    // A second signal stops the gateway at once, without finishing the drain; no mail is lost, since it is in the
    // spool.
    tokio::select! {
        () = app.drain() => end,
        // If a part has died, others may wait for it forever.
        () = tokio::time::sleep(LONGEST_DRAIN), if end != ExitCode::SUCCESS => end,
        _ = signals.terminate.recv() => ExitCode::FAILURE,
        _ = signals.interrupt.recv() => ExitCode::FAILURE,
    }
}

/// Waits for the task, forever if there is none. The panic hook has logged a panic of the task.
async fn ended(task: &mut Option<JoinHandle<()>>) {
    match task {
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}

fn start_log(settings: &Settings) -> std::io::Result<()> {
    let format = match settings.log.format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    logging::start(format, settings.log.level.name(), settings.log.file.as_deref())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::future::BoxFuture;
    use pintle_admin::Operator;
    use pintle_mail::UnixTime;
    use pintle_outbound::Clock;

    use super::*;
    use crate::operator::AdminOperator;

    /// A clock that panics once the flag is set. The runner reads it first.
    #[derive(Default)]
    struct Broken(AtomicBool);

    impl Clock for Broken {
        fn now(&self) -> UnixTime {
            assert!(!self.0.load(Ordering::Relaxed), "as the test wants it");
            SystemClock.now()
        }

        fn monotonic(&self) -> Duration {
            SystemClock.monotonic()
        }

        fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
            SystemClock.sleep(wait)
        }
    }

    fn settings(folder: &std::path::Path, clock: &Arc<Broken>) -> (Settings, Extras) {
        let config = folder.join("pintle.toml");
        let text = format!(
            "hostname = \"gate.example.org\"\n[spool]\ndir = \"{0}/spool\"\n[admin]\nsocket = \"{0}/admin.sock\"\n\
             [[listener]]\nname = \"in\"\nkind = \"mx\"\naddresses = [\"127.0.0.1:0\"]\ntls = \"none\"\n\
             trusted = [\"127.0.0.0/8\"]\n",
            folder.display()
        );
        std::fs::write(&config, text).unwrap();
        let settings = pintle_config::check(&config, &stock::components()).into_settings().unwrap();
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        (
            settings,
            Extras { config, records: Arc::new(records::RecordLog), sockets: None, capture: None, clock },
        )
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_runner_that_panics_is_seen_by_health_and_ends_the_process_with_an_error() {
        let folder = pintle_testkit::TempDir::new().unwrap();
        let clock = Arc::new(Broken::default());
        let (settings, extras) = settings(folder.path(), &clock);
        let app = App::start(settings, extras).await.unwrap();
        let parts = Arc::clone(&app.parts);
        let gateway = AdminOperator::new(Arc::clone(&parts));
        assert!(gateway.health().await.ready);
        let breaking = async {
            clock.0.store(true, Ordering::Relaxed);
            while parts.fallen.get().is_none() {
                tokio::task::yield_now().await;
            }
            clock.0.store(false, Ordering::Relaxed);
            gateway.health().await
        };
        let both = async { tokio::join!(until_the_end(app, Signals::new().unwrap()), breaking) };
        let (end, health) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
        assert_eq!(end, ExitCode::FAILURE);
        let part = health.components.iter().find(|component| component.name == "tasks").unwrap();
        assert!(!health.ready && !part.ok);
        let detail = part.detail.as_deref().unwrap();
        assert!(detail.contains("runner") && detail.contains("as the test wants it"), "{detail}");
    }
}
