//! Shared code of the scenarios: it starts the real binary in its own folder and talks to it over loopback.
//!
//! A [`Gateway`] is a child process that ends when its value is dropped. The system picks its ports and they are read
//! from its log, so that any number of scenarios can run at once; code always waits for a line or a message, never for
//! a time.

pub mod corpus;
pub mod faults;
pub mod spoofs;

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take before a scenario fails. It is long, since machines are shared: this is not a
/// measurement.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The binary under test: the one in the target folder of this test, or `PINTLE_BIN`.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn binary() -> PathBuf {
    built("pintle", "PINTLE_BIN")
}

/// A binary of this package or of the product, by name.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn built(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let own = std::env::current_exe().expect("a program knows its own path");
    let folder = own.parent().expect("a program lies in a folder");
    // Tests are in target/PROFILE/deps, programs in the folder above.
    let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask test`, or `cargo build -p {name}`",
        path.display()
    );
    path
}

/// A running gateway.
pub struct Gateway {
    child: Child,
    log: Arc<GatewayLog>,
    /// The address of each listener, by name.
    addresses: BTreeMap<String, SocketAddr>,
}

/// The most log lines that are kept, the latest ones: a gateway that runs for an hour must not fill the test's memory.
const KEPT_LINES: usize = 100_000;

/// The log that the gateway has written.
#[derive(Default)]
struct GatewayLog {
    lines: Mutex<LogLines>,
    changed: Condvar,
}

#[derive(Default)]
struct LogLines {
    all: VecDeque<String>,
    closed: bool,
}

impl Gateway {
    /// Starts the gateway with this configuration file and waits until it serves.
    ///
    /// # Panics
    /// When it does not start; the message has its log.
    #[must_use]
    pub fn start(config: &Path) -> Self {
        let command = &mut Command::new(binary());
        Self::attempt(command.arg("run").arg("--config").arg(config)).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts the gateway by this command and waits until it serves.
    ///
    /// # Errors
    /// It does not start; the text has its log.
    ///
    /// # Panics
    /// When it cannot be started at all.
    pub fn attempt(command: &mut Command) -> Result<Self, String> {
        let mut gateway = Self::spawn(command);
        gateway.log.try_wait(&["ready"])?;
        gateway.addresses = gateway.listening();
        Ok(gateway)
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Starts a command of the binary without waiting.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary can be started");
        let log = Arc::new(GatewayLog::default());
        let stderr = child.stderr.take().expect("the log is piped");
        let follower = Arc::clone(&log);
        std::thread::spawn(move || follower.follow(stderr));
        Self { child, log, addresses: BTreeMap::new() }
    }

    /// The address of this listener.
    ///
    /// # Panics
    /// When there is no such listener.
    #[must_use]
    pub fn address(&self, listener: &str) -> SocketAddr {
        *self
            .addresses
            .get(listener)
            .unwrap_or_else(|| panic!("no listener {listener} in {:?}", self.addresses))
    }

    /// Waits for a log line that contains this text, and returns it.
    ///
    /// # Panics
    /// When the gateway has ended, or [`PATIENCE`] has passed.
    #[must_use]
    pub fn line(&self, text: &str) -> String {
        self.line_of_any(&[text])
    }

    /// Waits for a log line that contains one of these texts, and returns it.
    ///
    /// # Panics
    /// As [`Gateway::line`].
    #[must_use]
    pub fn line_of_any<T: AsRef<str> + std::fmt::Debug>(&self, texts: &[T]) -> String {
        self.log.wait(texts)
    }

    /// Waits for a log line that contains this text.
    ///
    /// # Panics
    /// As [`Gateway::line`].
    pub fn wait_for(&self, text: &str) {
        let _ = self.line(text);
    }

    /// The log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lines.lock().expect("the log").text()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, which is like a power cut, except for the page cache.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("our own child can be awaited");
    }

    /// Lets it drain, and waits for its end.
    ///
    /// # Panics
    /// When it does not end, or ends with an error.
    pub fn stop(mut self) {
        self.signal("TERM");
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child can be awaited") {
                assert!(status.success(), "the gateway ended with {status}:\n{}", self.log());
                return;
            }
            assert!(start.elapsed() < PATIENCE, "the gateway does not stop:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// Sends it a signal by name.
    ///
    /// # Panics
    /// When `kill` cannot be run.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.expect("kill can be run").success());
    }

    fn listening(&self) -> BTreeMap<String, SocketAddr> {
        let lines = self.log.lines.lock().expect("the log");
        lines.all.iter().filter_map(|line| listener(line)).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl GatewayLog {
    fn follow(&self, stderr: impl std::io::Read) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            self.lines.lock().expect("the log").push(line);
            self.changed.notify_all();
        }
        self.lines.lock().expect("the log").closed = true;
        self.changed.notify_all();
    }

    fn wait<T: AsRef<str> + std::fmt::Debug>(&self, texts: &[T]) -> String {
        self.try_wait(texts).unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_wait<T: AsRef<str> + std::fmt::Debug>(&self, texts: &[T]) -> Result<String, String> {
        let mut lines = self.lines.lock().expect("the log");
        // For all waits together: a gateway that logs without a pause must not keep the test waiting for ever.
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) =
                lines.all.iter().find(|line| texts.iter().any(|text| line.contains(text.as_ref())))
            {
                return Ok(line.clone());
            }
            if lines.closed {
                return Err(format!("the gateway ended before {texts:?}:\n{}", lines.text()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            lines = self.changed.wait_timeout(lines, left).expect("the log").0;
            if left.is_zero() {
                return Err(format!("no {texts:?} in the log:\n{}", lines.text()));
            }
        }
    }
}

impl LogLines {
    fn push(&mut self, line: String) {
        if self.all.len() == KEPT_LINES {
            self.all.pop_front();
        }
        self.all.push_back(line);
    }

    fn text(&self) -> String {
        self.all.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// The listener and address in a JSON log line, if it has them.
fn listener(line: &str) -> Option<(String, SocketAddr)> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    if value.get("message")? != "listening" {
        return None;
    }
    let name = value.get("listener")?.as_str()?.to_owned();
    Some((name, value.get("address")?.as_str()?.parse().ok()?))
}

/// Writes a configuration that relays everything to `next_hop`, with its spool in `folder`; `more` is added at the end.
///
/// # Panics
/// When the file cannot be written.
#[must_use]
pub fn configuration(folder: &Path, next_hop: SocketAddr, more: &str) -> PathBuf {
    let path = folder.join("pintle.toml");
    let text = format!(
        r#"hostname = "gate.example"

[spool]
dir = "spool"
reserve = "1MiB"

[admin]
socket = "admin.sock"

[log]
format = "json"

[domains]
accepted = ["ours.example"]

[[listener]]
name = "mx"
addresses = ["127.0.0.1:0"]
tls = "none"

[[listener]]
name = "inside"
kind = "relay"
addresses = ["127.0.0.1:0"]
tls = "none"
trusted = ["127.0.0.0/8"]

[relays.sink]
hosts = ["{next_hop}"]

[[route]]
domain = "*"
via = "sink"

{more}
"#
    );
    std::fs::write(&path, text).expect("a scratch folder can be written to");
    // It may contain passwords that a scenario adds later.
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("our own file");
    path
}

/// The `[[plugin]]` section of the example plugin, with everything that it can do.
///
/// All scenarios share the folder of compiled code, as the restarts of one gateway do: an unoptimised compiler takes
/// seconds where the real one takes a tenth.
#[must_use]
pub fn example_plugin() -> String {
    let cache = binary().with_file_name("plugin-cache");
    format!(
        r#"[plugins]
cache = "{}"

[[plugin]]
name = "example"
component = "stock:example"
grants = ["edit-headers"]
config = {{ refuse = ["spammer@bad.example"], header = "X-Seen" }}
"#,
        cache.display()
    )
}

/// Runs the binary to its end; returns exit code, standard output and standard error.
///
/// # Panics
/// When it cannot be run.
#[must_use]
pub fn run(arguments: &[&str], folder: &Path) -> (i32, String, String) {
    let output = Command::new(binary()).args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.expect("the binary can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
