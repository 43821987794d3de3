//! Measures the stock plugins: all those of `examples/edge`, unchanged, with the DNS records that they need.
//!
//! The few settings that the benchmark must change are replaced by name: the greylist waits no time, limits are out of
//! reach, and bounce tags use the benchmark's own key. One message in two forms separates the cost of calls from that
//! of cryptography: without a signature nothing is verified, signed or sealed; with one, an RSA signature is verified
//! and a seal made for every message.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::bench::release;
use crate::run::{ChoreError, cargo, output};

/// The sender domain of the load, with everything that authenticates it.
const ZONE: &str = "load.example TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n_dmarc.load.example TXT \"v=DMARC1; p=reject\"\n\
    2.0.0.127.zen.spamhaus.org A 127.0.0.2\n2.0.0.127.list.dnswl.org A 127.0.0.2\n";

/// The configuration of a run with the stock plugins, in its own folder.
#[derive(Debug, Clone)]
pub(crate) struct StockSetup {
    /// The plugins' sections, to be appended to a configuration.
    pub(crate) sections: String,
    /// The message to send, if not the load generator's own.
    pub(crate) message: Option<PathBuf>,
}

/// A DNS server process; dropping this ends it.
pub(crate) struct ZoneProcess {
    child: Child,
    folder: PathBuf,
    key: PathBuf,
    address: SocketAddr,
}

impl ZoneProcess {
    /// Makes a key, publishes it, and starts the server.
    pub(crate) fn start(folder: PathBuf) -> Result<Self, ChoreError> {
        let key = folder.join("load.pem");
        let mut keygen = Command::new(release("pintle"));
        keygen.args(["dkim", "keygen", "--domain", "load.example", "--selector", "s1", "--algorithm", "rsa"]);
        let said = output(keygen.arg("--force").arg("--out").arg(&key))?;
        let said = String::from_utf8_lossy(&said).into_owned();
        let record = said.lines().find(|line| line.contains("._domainkey."));
        let record = record.ok_or_else(|| ChoreError::BadRun(format!("no record in: {said}")))?;
        let file = folder.join("zone");
        write(&file, &format!("{ZONE}{record}\n"))?;
        write(&folder.join("batv.key"), "the benchmark's own")?;
        let mut command = Command::new(release("pintle-zone"));
        let started = command.arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child =
            started.map_err(|cause| ChoreError::NotStarted { program: "pintle-zone".to_owned(), cause })?;
        let address = child.stdout.take().and_then(listening);
        let address =
            address.ok_or_else(|| ChoreError::BadRun("the DNS server printed no address".to_owned()))?;
        Ok(Self { child, folder, key, address })
    }

    /// The setup for a message of this size without a signature.
    pub(crate) fn unsigned(&self) -> Result<StockSetup, ChoreError> {
        let seal =
            "seal = \"example-rsa\"               # ARC, for those whom the inner server forwards to\n";
        let sections = exchanged(&self.sections()?, &[(seal, "")])?;
        Ok(StockSetup { sections, message: None })
    }

    /// The setup for the same message with a signature.
    pub(crate) fn signed(&self, size: usize) -> Result<StockSetup, ChoreError> {
        let plain = self.folder.join("plain.eml");
        let mut load = Command::new(release("pintle-load"));
        write(
            &plain,
            &String::from_utf8_lossy(&output(load.args(["--print", "--size", &size.to_string()]))?),
        )?;
        let mut sign =
            cargo(&["run", "--release", "--quiet", "--package", "pintle-sender-auth", "--example", "sign"]);
        sign.args(["--", "dkim", "load.example"]).arg(&plain).arg(format!("s1={}", self.key.display()));
        let message = self.folder.join("signed.eml");
        fs::write(&message, output(&mut sign)?).map_err(|cause| unreadable(&message, cause))?;
        Ok(StockSetup { sections: self.sections()?, message: Some(message) })
    }

    fn sections(&self) -> Result<String, ChoreError> {
        let example = pintle_guest_build::repository().join("examples/edge/pintle.toml");
        let text = fs::read_to_string(&example).map_err(|cause| unreadable(&example, cause))?;
        let plugins = text.split_once("# --- Plugins").and_then(|(_, rest)| rest.split_once("\n[log]"));
        let (plugins, _) =
            plugins.ok_or_else(|| ChoreError::BadRun("the edge example has no plugins".to_owned()))?;
        let plugins = plugins.split_once('\n').map_or("", |(_, rest)| rest);
        let exchanges =
            [("max = 600", "max = 1000000000"), ("burst = 100", "burst = 1000000000"), ("\"5m\"", "\"0s\"")];
        let plugins = exchanged(plugins, &exchanges)?;
        Ok(format!(
            "[dns]\nservers = [\"{}\"]\n[dkim_keys.example-rsa]\ndomain = \"load.example\"\nselector = \"s1\"\n\
             key = {{ file = \"{}\" }}\n[secrets.batv]\nkey = {{ file = \"{}\" }}\n{plugins}",
            self.address,
            self.key.display(),
            self.folder.join("batv.key").display()
        ))
    }
}

impl Drop for ZoneProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn exchanged(text: &str, exchanges: &[(&str, &str)]) -> Result<String, ChoreError> {
    let mut text = text.to_owned();
    for (from, to) in exchanges {
        if !text.contains(from) {
            return Err(ChoreError::BadRun(format!("the edge example does not say {from}")));
        }
        text = text.replace(from, to);
    }
    Ok(text)
}

fn listening(output: impl std::io::Read) -> Option<SocketAddr> {
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).ok()?;
    line.strip_prefix("listening ")?.trim().parse().ok()
}

fn write(path: &Path, text: &str) -> Result<(), ChoreError> {
    fs::write(path, text).map_err(|cause| unreadable(path, cause))
}

fn unreadable(path: &Path, cause: std::io::Error) -> ChoreError {
    ChoreError::Unreadable { path: path.display().to_string(), cause }
}
