//! `pintle try`, the dry run: plays one message against a configuration without a server, and reports the outcome.
//!
//! The plugins are loaded as the gateway loads them, and the message passes through a listener's own protocol machine
//! and pipeline in memory, so that the report cannot differ from what the gateway does. [`show::NOT_JUDGED`] lists what
//! a dry run cannot cover; the report includes it.

mod build_report;
mod diff;
mod mail;
mod report;
mod show;
mod trace;

use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use pintle_config::Settings;
use pintle_dns::{HickoryResolver, NameServers, Resolver};
use pintle_inbound::Boundless;
use pintle_inbound::dry_run::DryRunClient;
use pintle_inbound::{ListenerConfig, Services, dry_run};
use pintle_plugin::Plugins;
use pintle_policy::{Chain, Judge};
use pintle_record::{Record, RecordSink};
use pintle_spool::{Memory, Spool};

use self::build_report::Played;
use self::mail::MailFile;
use self::report::{DryRunReport, FateReport};
use self::trace::{RecordingJudge, RulingRecorder};
use crate::cli::Try;
use crate::output::{CommandError, complain};
use crate::{output, stock};

/// The component of the greylist plugin, which defers unknown clients.
const GREYLIST: &str = "stock:greylist";
/// The exit code if the message would not be accepted for all recipients.
const REFUSED: u8 = 1;
/// The exit code if the outcome could not be determined.
const TROUBLE: u8 = 2;

/// Runs `pintle try`. Errors exit with code 2, since 1 means that the message was not accepted.
pub(crate) fn run(options: &Try) -> Result<ExitCode, CommandError> {
    let fate = attempt(options).unwrap_or_else(|trouble| {
        complain!("pintle: {trouble}");
        None
    });
    Ok(match fate {
        Some(FateReport::Accepted) => ExitCode::SUCCESS,
        Some(_) => REFUSED.into(),
        None => TROUBLE.into(),
    })
}

fn attempt(options: &Try) -> Result<Option<FateReport>, CommandError> {
    let report = pintle_config::check(&options.config, &stock::components());
    let settings = match report.into_settings() {
        Ok(settings) => adapted(settings, options)?,
        Err(report) => {
            complain!("{report}");
            return Ok(None);
        }
    };
    let mail = MailFile::read(&message(&options.message)?, options)?;
    let listener = listener(&settings, options.listener.as_deref())?;
    let recorder = RulingRecorder::listen(options.log.into());
    let known = known(&settings, options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let resolver: Arc<dyn Resolver> = Arc::new(HickoryResolver::new(&settings.dns)?);
        let plugins = Plugins::open(settings.plugins.clone(), resolver).await?;
        let recording = |judge: Arc<dyn Judge>| {
            let assumed = known.iter().any(|name| **judge.name() == **name);
            Arc::new(RecordingJudge::new(judge, Arc::clone(&recorder), assumed)) as Arc<dyn Judge>
        };
        let chain = Chain::new(plugins.judges().into_iter().map(recording).collect());
        let report = play(&settings, listener, chain, &recorder, (options, &mail)).await;
        plugins.shutdown().await;
        report
    })?;
    if options.json {
        output::json(&report)?;
    } else {
        show::print(&report);
    }
    Ok(Some(report.fate))
}

/// Plays the session, and with `--deliver` the deliveries.
async fn play(
    settings: &Settings,
    listener: &ListenerConfig,
    chain: Chain,
    recorder: &RulingRecorder,
    (options, mail): (&Try, &MailFile),
) -> Result<DryRunReport, CommandError> {
    let (spool, records) = (Arc::new(Memory::new()), Arc::new(Records::default()));
    let services = Services::new(
        settings.inbound.hostname.clone(),
        settings.inbound.rules.clone(),
        Arc::clone(&spool) as Arc<dyn Spool>,
        Arc::new(ArcSwap::from_pointee(chain.clone())),
        Arc::clone(&records) as Arc<dyn RecordSink>,
        Arc::new(Boundless),
    );
    let client = client(options);
    let sent =
        dry_run::DryRunMail { sender: &mail.sender, recipients: &mail.recipients, octets: &mail.octets };
    let exchanges = dry_run::run(Arc::new(services), listener, &client, sent).await;
    // A message whose recipients have different fates is stored in several copies.
    let mut copies = spool.claim(None, usize::MAX).await?;
    let delivered = copies.iter().position(|copy| copy.hold.is_none()).unwrap_or(0);
    let waiting = (!copies.is_empty()).then(|| copies.swap_remove(delivered));
    let stored = match &waiting {
        Some(waiting) => Some(spool.load(waiting.id).await?),
        None => None,
    };
    let deliveries = match (waiting, &stored) {
        (Some(waiting), Some(stored)) if options.deliver => {
            let (config, now) = (&settings.outbound, SystemTime::now().into());
            pintle_outbound::dry_run::deliveries(config, &chain, &*records, (&waiting, stored), now).await
        }
        _ => Vec::new(),
    };
    let played = Played {
        options,
        mail,
        listener: &listener.name,
        hello: client.hello,
        exchanges,
        records: records.take(),
        stored,
        deliveries,
        rulings: recorder.rulings(),
        lines: recorder.lines(),
    };
    played.report().await
}

/// The client of the session. Without `--hello` it sends its address literal in EHLO (RFC 5321 section 4.1.4).
fn client(options: &Try) -> DryRunClient {
    let literal = || match options.client {
        IpAddr::V4(ip) => format!("[{ip}]"),
        IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    };
    DryRunClient {
        address: options.client,
        hello: options.hello.clone().unwrap_or_else(literal),
        tls: options.tls,
        identity: options.identity.clone(),
        trusted: options.trusted,
    }
}

/// Collects the event records that the gateway would log.
#[derive(Default)]
struct Records(Mutex<Vec<Record>>);

impl Records {
    fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RecordSink for Records {
    fn record(&self, record: &Record) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(record.clone());
    }

    /// False: the report has each plugin's verdict from the trace.
    fn wants_verdicts(&self) -> bool {
        false
    }
}

/// Applies the command line's options to the settings.
fn adapted(mut settings: Settings, options: &Try) -> Result<Settings, CommandError> {
    let plugins = &mut settings.plugins;
    plugins.watch = false;
    // The stored plugin state belongs to the running gateway; a dry run must not overwrite it.
    plugins.state_is_anothers = true;
    let mut named = options.only.iter().chain(&options.skip);
    if let Some(name) = named.find(|name| !plugins.plugins.iter().any(|plugin| plugin.name == **name)) {
        let known: Vec<_> = plugins.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        return Err(format!("there is no plugin {name:?}; there are {}", known.join(", ")).into());
    }
    plugins.plugins.retain(|plugin| {
        (options.only.is_empty() || options.only.contains(&plugin.name))
            && !options.skip.contains(&plugin.name)
    });
    if !options.dns.is_empty() {
        settings.dns.servers = NameServers::List(options.dns.clone());
    }
    Ok(settings)
}

/// The names of the greylist plugins that are assumed to know the client. Empty without `--assume-known`.
fn known(settings: &Settings, options: &Try) -> Result<Vec<String>, CommandError> {
    if !options.assume_known {
        return Ok(Vec::new());
    }
    let greylists = settings.plugins.plugins.iter().filter(|plugin| plugin.component.to_string() == GREYLIST);
    let names: Vec<_> = greylists.map(|plugin| plugin.name.clone()).collect();
    if names.is_empty() {
        return Err(format!(
            "--assume-known applies to {GREYLIST} only, and no plugin is one: --skip NAME leaves another one out"
        )
        .into());
    }
    Ok(names)
}

fn message(path: &Path) -> Result<Vec<u8>, CommandError> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(path).map_err(|error| format!("cannot read the message {}: {error}", path.display()).into())
}

fn listener<'a>(settings: &'a Settings, name: Option<&str>) -> Result<&'a ListenerConfig, CommandError> {
    let listeners = &settings.inbound.listeners;
    let found = match name {
        None => listeners.first(),
        Some(name) => listeners.iter().find(|listener| listener.name == name),
    };
    let known: Vec<_> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    found.ok_or_else(|| format!("no such listener; there are: {}", known.join(", ")).into())
}
