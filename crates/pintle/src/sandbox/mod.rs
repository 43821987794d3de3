//! `pintle sandbox`: a whole gateway in a folder, for a newcomer's first five minutes.
//!
//! It is the real program with a configuration that it writes itself; only the last step differs: messages are captured
//! instead of delivered. Nothing needs privilege, and nothing leaves this machine.

pub(crate) mod capture;
mod certificate;
mod narrator;
mod welcome;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use pintle_outbound::SystemClock;
use pintle_plugin::Grant;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::app::{App, Extras};
use crate::cli::{Sandbox, SandboxCommand};
use crate::run::Signals;
use crate::say::{self, say};
use crate::{stock, supervisor};

type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

/// The user that the sandbox knows.
pub(crate) const USER: &str = "sandbox";
/// Its password: shown on the screen, since it opens nothing but this.
pub(crate) const PASSWORD: &str = "open sesame";

/// Runs the sandbox, or lists what it has captured.
pub(crate) fn run(options: Sandbox) -> Outcome {
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

/// Where captured messages lie, given the spool's folder.
pub(crate) fn messages_beside(spool: &Path) -> PathBuf {
    spool.with_file_name("messages")
}

async fn serve(options: Sandbox) -> Outcome {
    let config = prepare(&options)?;
    tracing_subscriber::registry().with(narrator::PluginLines).init();
    let settings = match pintle_config::check(&config, &stock::components()).into_settings() {
        Ok(settings) => settings,
        Err(report) => {
            eprintln!("{report}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let narrator = Arc::new(narrator::Narrator::default());
    let folder = capture::Folder::open(messages_beside(&settings.spool.folder), Arc::clone(&narrator))?;
    let extras = Extras {
        config,
        records: narrator,
        sockets: None,
        capture: Some(Arc::new(folder)),
        clock: Arc::new(SystemClock),
    };
    let mut signals = Signals::new()?;
    println!("Starting; the first start compiles the plugins, which takes a moment.");
    let mut app = App::start(settings, extras).await?;
    welcome::print(&app, &options);
    let end = tokio::select! {
        _ = signals.terminate.recv() => ExitCode::SUCCESS,
        _ = signals.interrupt.recv() => ExitCode::SUCCESS,
        () = app.fallen() => ExitCode::FAILURE,
    };
    say!("\nStopping; what was captured stays in {}", options.folder.join("messages").display());
    app.drain().await;
    Ok(end)
}

/// Writes certificate and configuration into the folder; gives the configuration's path.
fn prepare(options: &Sandbox) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let named = |error: io::Error| format!("cannot use the folder {}: {error}", options.folder.display());
    fs::create_dir_all(&options.folder).map_err(named)?;
    let folder = options.folder.canonicalize().map_err(named)?;
    certificate::write(&folder)?;
    let config = folder.join("pintle.toml");
    fs::write(&config, configuration(options, &folder)?)?;
    Ok(config)
}

fn messages(folder: &Path, json: bool) -> Outcome {
    let captured = capture::list(&folder.join("messages"))?;
    if json {
        say::json(&captured)?;
        return Ok(ExitCode::SUCCESS);
    }
    for entry in &captured {
        let to: Vec<String> = entry.recipients.iter().map(ToString::to_string).collect();
        say!("{}  <{}> to {}", entry.received_ms.rfc3339(), entry.sender, to.join(", "));
        say!("  {:?}, {} octets", entry.subject.as_deref().unwrap_or(""), entry.size);
        say!("  {}", entry.file.display());
    }
    say!("{} messages in {}", captured.len(), folder.join("messages").display());
    Ok(ExitCode::SUCCESS)
}

/// The configuration, as a person would write it: a start for one's own.
fn configuration(options: &Sandbox, folder: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let folder = toml_text(&folder.display().to_string());
    let Sandbox { smtp, submission, submissions, .. } = options;
    let plugins = plugins(options)?;
    Ok(format!(
        r#"# Written by `pintle sandbox` at each start. Copy it to begin a configuration of your own.
hostname = "sandbox.localhost"

[spool]
dir = {spool}

[admin]
socket = {socket}

[[tls.certificate]]
chain = {chain}
key = {key}

# Mail from this machine may go anywhere; here it goes nowhere, since the sandbox captures it.
[[listener]]
name = "smtp"
kind = "mx"
addresses = ["{smtp}"]
tls = "starttls"
trusted = ["127.0.0.0/8", "::1/128"]
max_sessions = 200

[[listener]]
name = "submission"
kind = "submission"
addresses = ["{submission}"]
tls = "starttls"
max_sessions = 200

[[listener]]
name = "submissions"
kind = "submission"
addresses = ["{submissions}"]
tls = "implicit"
max_sessions = 200

[[user]]
name = "{USER}"
password = "{PASSWORD}"

[plugins]
cache = {cache}

{plugins}"#,
        spool = join(&folder, "spool"),
        socket = join(&folder, "admin.sock"),
        chain = join(&folder, "certificate.pem"),
        key = join(&folder, "key.pem"),
        cache = join(&folder, "cache"),
    ))
}

fn plugins(options: &Sandbox) -> Result<String, Box<dyn std::error::Error>> {
    if options.plugins.is_empty() {
        return Ok(EXAMPLE.to_owned());
    }
    let mut text = String::new();
    for (index, path) in options.plugins.iter().enumerate() {
        let path = path.canonicalize().map_err(|error| format!("plugin {}: {error}", path.display()))?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let config = match options.plugin_configs.get(index) {
            Some(json) => format!("config = {}\n", toml_value(&serde_json::from_str(json)?)),
            None => String::new(),
        };
        text.push_str(&format!(
            "[[plugin]]\nname = {}\ncomponent = {}\n{}{config}\n",
            toml_text(&stem),
            toml_text(&path.display().to_string()),
            grants()
        ));
    }
    Ok(text)
}

const EXAMPLE: &str = r#"# A plugin gets what is granted here and nothing else.
[[plugin]]
name = "example"
component = "stock:example"
grants = ["edit-headers"]
config = { refuse = ["spammer@example.net"], header = "X-Pintle-Example" }
"#;

/// All that there are: in a sandbox there is nothing to protect from a plugin that one tries.
fn grants() -> String {
    let names: Vec<_> = Grant::ALL.iter().map(|grant| toml_text(grant.name())).collect();
    format!("grants = [{}]\n", names.join(", "))
}

fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}\"", folder.trim_end_matches('"'))
}

/// A TOML basic string; JSON's escapes are among TOML's.
fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// JSON as an inline TOML value. TOML has no null: such members are left out.
fn toml_value(json: &serde_json::Value) -> String {
    use serde_json::Value;
    match json {
        Value::Object(members) => {
            let member =
                |(key, value): (&String, &Value)| format!("{} = {}", toml_text(key), toml_value(value));
            let members: Vec<_> = members.iter().filter(|(_, value)| !value.is_null()).map(member).collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Null => "\"\"".to_owned(),
        plain => plain.to_string(),
    }
}
