//! `pintle try`: the plugins of a configuration on one message, without a server, and what would come of it.
//!
//! The plugins are loaded as the gateway loads them, and asked by the same chain at the same stages; so what is
//! printed is what they would do, and not what somebody thinks that they would. What the gateway does itself is not
//! played here, relaying and the score's thresholds excepted: [`show::NOT_JUDGED`] names it, since an answer that
//! leaves something out has to say so.

mod diff;
mod ear;
mod mail;
mod report;
mod show;
mod stages;

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use pintle_config::Settings;
use pintle_dns::{HickoryResolver, Resolver, Servers};
use pintle_inbound::ListenerConfig;
use pintle_plugin::Plugins;
use pintle_policy::{Chain, Judge};

use self::ear::{Ear, Overheard};
use self::mail::Mail;
use self::report::Fate;
use self::stages::Trial;
use crate::cli::Try;
use crate::say::complain;
use crate::{say, stock};

type Trouble = Box<dyn std::error::Error>;

/// The plugin that defers whom it has not seen.
const GREYLIST: &str = "stock:greylist";
/// The exit code where the message would not be taken for all of its recipients.
const REFUSED: u8 = 1;
/// The exit code where it could not be found out.
const TROUBLE: u8 = 2;

/// Tries a message. All trouble has an exit code of its own, since 1 is an answer.
pub(crate) fn run(options: &Try) -> Result<ExitCode, Trouble> {
    let fate = attempt(options).unwrap_or_else(|trouble| {
        complain!("pintle: {trouble}");
        None
    });
    Ok(match fate {
        Some(Fate::Accepted) => ExitCode::SUCCESS,
        Some(_) => REFUSED.into(),
        None => TROUBLE.into(),
    })
}

fn attempt(options: &Try) -> Result<Option<Fate>, Trouble> {
    let report = pintle_config::check(&options.config, &stock::components());
    let settings = match report.into_settings() {
        Ok(settings) => adapted(settings, options)?,
        Err(report) => {
            complain!("{report}");
            return Ok(None);
        }
    };
    let mail = Mail::read(&message(&options.message)?, options)?;
    let listener = listener(&settings, options.listener.as_deref())?;
    let ear = Ear::listen(options.log.into());
    let known = known(&settings, options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let resolver: Arc<dyn Resolver> = Arc::new(HickoryResolver::new(&settings.dns)?);
        let plugins = Plugins::open(settings.plugins.clone(), resolver).await?;
        let overhear = |judge: Arc<dyn Judge>| {
            let assumed = known.iter().any(|name| **judge.name() == **name);
            Arc::new(Overheard::new(judge, Arc::clone(&ear), assumed)) as Arc<dyn Judge>
        };
        let chain = Chain::new(plugins.judges().into_iter().map(overhear).collect());
        let trial = Trial::new(&settings, listener, &chain, &ear, options);
        let report = trial.run(&mail).await;
        plugins.shutdown().await;
        report
    })?;
    if options.json {
        say::json(&report)?;
    } else {
        show::print(&report);
    }
    Ok(Some(report.fate))
}

/// What the command line says, over what the configuration says.
fn adapted(mut settings: Settings, options: &Try) -> Result<Settings, Trouble> {
    let plugins = &mut settings.plugins;
    plugins.watch = false;
    // What plugins have stored is the running gateway's, and a trial must not write over it.
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
        settings.dns.servers = Servers::List(options.dns.clone());
    }
    Ok(settings)
}

/// The plugins to which everybody is assumed to be known, by name.
fn known(settings: &Settings, options: &Try) -> Result<Vec<String>, Trouble> {
    if !options.assume_known {
        return Ok(Vec::new());
    }
    let greylists = settings.plugins.plugins.iter().filter(|plugin| plugin.component.to_string() == GREYLIST);
    let names: Vec<_> = greylists.map(|plugin| plugin.name.clone()).collect();
    if names.is_empty() {
        return Err(format!(
            "--assume-known is about {GREYLIST}, and no plugin that is asked is one: --skip NAME leaves another one out"
        )
        .into());
    }
    Ok(names)
}

fn message(path: &Path) -> Result<Vec<u8>, Trouble> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(path).map_err(|error| format!("cannot read the message {}: {error}", path.display()).into())
}

fn listener<'a>(settings: &'a Settings, name: Option<&str>) -> Result<&'a ListenerConfig, Trouble> {
    let listeners = &settings.inbound.listeners;
    let found = match name {
        None => listeners.first(),
        Some(name) => listeners.iter().find(|listener| listener.name == name),
    };
    let known: Vec<_> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    found.ok_or_else(|| format!("no such listener; there are: {}", known.join(", ")).into())
}
