//! The test bed of a row: the gateway in its own folder with the shim between it and the kernel, a next hop, the
//! clients and the ledger.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pintle_testkit::TempDir;
use tokio::sync::watch;

use super::hop::FaultyHop;
use super::ledger::{LoadProgress, MailLedger, MailMix};
use super::load::LoadClients;
use super::powercut;
use super::shim::Shim;
use crate::{Gateway, binary};

/// How long the test bed waits for something to happen before it continues without it.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
/// The number of concurrent clients.
const CLIENTS: usize = 8;

/// The configuration of a test bed.
#[derive(Clone, Debug, Default)]
pub(super) struct BedConfig {
    pub(super) mix: MailMix,
    /// Whether the shim keeps a journal, for power cuts.
    pub(super) journal: bool,
    /// Sections to append to the configuration.
    pub(super) more: String,
    /// Whether the gateway delivers by MX instead of to the next hop directly.
    pub(super) by_mx: bool,
    /// Whether clients authenticate.
    pub(super) logins: bool,
    /// Options of the shell's `ulimit`, with their values.
    pub(super) limits: Vec<(char, u64)>,
}

/// A running test bed.
pub(super) struct TestBed {
    pub(super) book: Arc<MailLedger>,
    pub(super) hop: FaultyHop,
    pub(super) shim: Shim,
    pub(super) load: LoadClients,
    pub(super) gateway: Option<Gateway>,
    /// How often the gateway had to be restarted although the row did not stop it.
    pub(super) restarts: u64,
    /// Problems other than lost mail.
    pub(super) problems: Vec<String>,
    /// The logs of earlier gateway processes.
    logs: Vec<String>,
    setting: BedConfig,
    address: watch::Sender<Option<SocketAddr>>,
    folder: TempDir,
}

impl TestBed {
    /// Sets up the test bed and starts the gateway.
    pub(super) async fn start(setting: BedConfig) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let book = Arc::new(MailLedger::new(setting.mix));
        let hop = FaultyHop::start(Arc::clone(&book)).await.map_err(|error| error.to_string())?;
        let shim = Shim::new(folder.path(), &folder.path().join("spool"), setting.journal)?;
        let (address, there) = watch::channel(None);
        let load = LoadClients::start(CLIENTS, &book, &there, setting.logins);
        let mut stage = Self {
            book,
            hop,
            shim,
            load,
            gateway: None,
            restarts: 0,
            problems: Vec::new(),
            logs: Vec::new(),
            setting,
            address,
            folder,
        };
        stage.configure("");
        stage.run()?;
        Ok(stage)
    }

    /// Writes the configuration, with `more` at its end.
    pub(super) fn configure(&self, more: &str) {
        let hop = self.hop.address();
        let via = if self.setting.by_mx { "mx" } else { "hop" };
        let cache = binary().with_file_name("plugin-cache");
        let text = format!(
            include_str!("pintle.toml.in"),
            hop = hop,
            port = hop.port(),
            via = via,
            cache = cache.display(),
            more = format_args!("{}\n{more}", self.setting.more)
        );
        std::fs::write(self.config(), text).expect("a scratch folder can be written to");
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder.path().join("pintle.toml")
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    /// Starts the gateway.
    pub(super) fn run(&mut self) -> Result<(), String> {
        let gateway = Gateway::attempt(&mut self.command())?;
        self.address.send_replace(Some(gateway.address("inside")));
        self.gateway = Some(gateway);
        Ok(())
    }

    /// The command that starts the gateway behind the shim and its limits.
    pub(super) fn command(&self) -> Command {
        let limits: String =
            self.setting.limits.iter().map(|(which, value)| format!("ulimit -{which} {value}; ")).collect();
        let mut command = Command::new("sh");
        // The shell itself must not run with the shim, whose filter would outlive it.
        command.arg("-c").arg(format!("{limits}exec env \"$@\"")).arg("sh");
        for (name, value) in self.shim.environment() {
            command.arg(format!("{name}={}", value.display()));
        }
        command.arg(binary()).arg("run").arg("--config").arg(self.config());
        command
    }

    /// Starts another process on the same spool, with its own admin socket, which must refuse to start and say why.
    pub(super) fn second_is_refused(&mut self, why: &str) {
        let config = self.config().with_file_name("second.toml");
        let text = std::fs::read_to_string(self.config()).unwrap_or_default();
        let written = std::fs::write(&config, text.replace("admin.sock", "second.sock"));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        let private = written.and_then(|()| std::fs::set_permissions(&config, mode));
        self.problems.extend(private.err().map(|error| error.to_string()));
        match Gateway::attempt(Command::new(binary()).arg("run").arg("--config").arg(&config)) {
            Ok(_) => self.problems.push(format!("another process came up, though {why}")),
            Err(log) if !log.contains(why) => {
                self.problems.push(format!("another process was refused, and not since {why}: {log}"));
            }
            Err(_) => {}
        }
    }

    /// Kills the gateway with kill -9.
    pub(super) fn kill(&mut self) {
        self.address.send_replace(None);
        if let Some(gateway) = self.gateway.take() {
            self.logs.push(gateway.log());
            gateway.kill();
        }
    }

    /// Asks the gateway to stop, and waits until it has.
    pub(super) async fn stop(&mut self) {
        self.address.send_replace(None);
        if let Some(gateway) = &self.gateway {
            gateway.signal("TERM");
        }
        if !self.until_ended().await {
            self.problems.push("it does not end when it is asked to".to_owned());
        }
    }

    /// Kills the gateway with kill -9 and undoes what it had not synced.
    pub(super) fn cut_power(&mut self, keep: powercut::UnsyncedFate, seed: u64) -> Result<usize, String> {
        self.kill();
        powercut::cut(self.shim.side(), &self.spool(), keep, seed)
            .map_err(|error| format!("power cut: {error}"))
    }

    /// Starts the gateway again; if it does not start, that is a problem.
    pub(super) fn again(&mut self) {
        if let Err(why) = self.run() {
            let why = tail(&why).replace(&self.folder.path().display().to_string(), "FOLDER");
            self.problems.push(format!("it does not start: {why}"));
        }
    }

    /// Permits messages, and makes the gateway reload its configuration while they come.
    pub(super) fn send(&self, messages: usize) {
        self.load.send(messages);
        self.reload();
    }

    /// Sends SIGHUP to the gateway, if it runs.
    pub(super) fn reload(&self) {
        if let Some(gateway) = &self.gateway {
            // It may have just died.
            let _ = Command::new("kill").arg("-HUP").arg(gateway.pid().to_string()).status();
        }
    }

    /// Writes the configuration with `more` at its end and reloads it.
    pub(super) fn reconfigure(&mut self, more: &str) {
        self.setting.more = more.to_owned();
        self.configure("");
        let mut command = Command::new(binary());
        command.arg("reload").arg("-c").arg(self.config());
        let output = tokio::task::block_in_place(|| command.output());
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output) => self.problems.push(format!("reload: {}", String::from_utf8_lossy(&output.stderr))),
            Err(error) => self.problems.push(format!("reload: {error}")),
        }
    }

    /// Waits until `more` outcomes have come since `from`; false if they do not.
    pub(super) async fn outcomes(&self, from: LoadProgress, more: u64) -> bool {
        self.book.wait(PATIENCE, |now| now.outcomes() >= from.outcomes() + more).await
    }

    /// Whether the gateway has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        self.gateway.as_mut().is_none_or(Gateway::has_ended)
    }

    /// Waits until the gateway has ended by itself.
    pub(super) async fn until_ended(&mut self) -> bool {
        let start = std::time::Instant::now();
        while start.elapsed() < PATIENCE {
            if self.has_ended() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// Sends mail until the gateway ends by itself.
    pub(super) async fn send_until_ended(&mut self) -> bool {
        let start = std::time::Instant::now();
        while start.elapsed() < PATIENCE && !self.has_ended() {
            let from = self.book.progress();
            self.send(40);
            self.book.wait(Duration::from_secs(1), |now| now.outcomes() >= from.outcomes() + 40).await;
        }
        self.until_ended().await
    }

    /// Starts the gateway if it has died, and reports whether it accepts mail again: by itself, or after a restart.
    pub(super) async fn recover(&mut self) {
        if self.has_ended() {
            self.restarts += 1;
            self.kill();
            self.again();
        }
        if self.gateway.is_some() && !self.takes_mail().await {
            self.restarts += 1;
            self.kill();
            self.again();
            if !self.takes_mail().await {
                self.problems.push("it takes no mail after a restart".to_owned());
            }
        }
    }

    async fn takes_mail(&self) -> bool {
        let from = self.book.progress();
        let start = std::time::Instant::now();
        for _ in 0..40 {
            if self.gateway.is_none() || start.elapsed() > PATIENCE {
                break;
            }
            let before = self.book.progress();
            self.load.send(1);
            self.book.wait(PATIENCE, |now| now.outcomes() > before.outcomes()).await;
            if self.book.progress().promised > from.promised {
                return true;
            }
        }
        false
    }

    /// Waits until all acknowledged mail is accounted for, or nothing arrives any more.
    pub(super) async fn drain(&self) {
        loop {
            let before = self.book.progress();
            if self.book.missing().is_empty() {
                return;
            }
            if !self.book.wait(PATIENCE, |now| now.arrived > before.arrived).await {
                return;
            }
        }
    }

    /// Limits the gateway's memory to this many KiB more than it uses.
    pub(super) fn limit_memory(&self, more: u64) -> Result<(), String> {
        let pid = self.gateway.as_ref().ok_or("no gateway to limit")?.pid().to_string();
        let status =
            std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
        let has: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let most = (has.ok_or("no VmData in its status")? + more) * 1_024;
        let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--data={most}")]).status();
        match limited {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("prlimit: {status}")),
            Err(error) => Err(format!("prlimit: {error}")),
        }
    }

    /// The gateway's address, while it runs.
    pub(super) fn address(&self) -> super::load::GatewayAddress {
        self.address.subscribe()
    }

    /// Makes the clients open new sessions.
    pub(super) fn renew_sessions(&self) {
        self.address.send_modify(|_| ());
    }

    /// The queue's contents after a while; none if it becomes empty.
    pub(super) async fn queue_left(&self) -> Option<String> {
        let start = std::time::Instant::now();
        loop {
            let left = self.said(&["queue", "list", "--json"]);
            let ids = serde_json::from_str::<serde_json::Value>(&left).ok()?;
            let empty = ids.get("messages").and_then(serde_json::Value::as_array).is_some_and(Vec::is_empty);
            if empty {
                return None;
            }
            if start.elapsed() > PATIENCE {
                return Some(left);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The output of a command of the binary about this gateway.
    fn said(&self, what: &[&str]) -> String {
        let mut command = Command::new(binary());
        command.args(what).arg("-c").arg(self.config());
        let output = tokio::task::block_in_place(|| command.output());
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }

    /// The number of these queue ids that an operator can see: set aside, held, in a list, or named in a warning.
    pub(super) fn visible<'a>(&self, ids: impl Iterator<Item = &'a String>) -> usize {
        let mut text = String::new();
        names(&self.spool(), &mut text);
        for what in [["queue", "list"], ["quarantine", "list"]] {
            text.push_str(&self.said(&what));
        }
        let warns = |line: &&str| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
        let log = self.log();
        log.lines().filter(warns).for_each(|line| text.push_str(line));
        ids.filter(|id| text.contains(id.as_str())).count()
    }

    /// All logs.
    pub(super) fn log(&self) -> String {
        let now = self.gateway.as_ref().map(Gateway::log).unwrap_or_default();
        format!("{}\n{now}", self.logs.join("\n"))
    }
}

/// The names of all files below a folder.
fn names(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        into.push_str(&entry.file_name().to_string_lossy());
        into.push('\n');
        if entry.path().is_dir() {
            names(&entry.path(), into);
        }
    }
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}
