//! Debian's Postfix as a contender: a separate instance in its own folder, with the default settings that matter.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bench::process;
use crate::run::ChoreError;

const DAEMONS: &str = "/usr/lib/postfix/sbin";

/// Why Postfix cannot be measured here; none if it can.
pub(crate) fn why_not() -> Option<&'static str> {
    if !Path::new(DAEMONS).join("master").exists() {
        return Some("it is not installed (Debian: apt-get install postfix)");
    }
    // std gives no user ids except those of files.
    let ours = std::env::temp_dir().join(format!("pintle-bench-owner-{}", std::process::id()));
    let root = fs::write(&ours, "").is_ok()
        && fs::metadata(&ours).is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0);
    let _ = fs::remove_file(&ours);
    (!root).then_some("it needs root")
}

/// A running Postfix instance.
pub(crate) struct Postfix {
    pub(crate) address: SocketAddr,
    config: PathBuf,
    master: u32,
}

impl Postfix {
    /// Starts an instance below `folder` that relays everything to `sink`.
    pub(crate) fn start(folder: &Path, sink: SocketAddr) -> Result<Self, ChoreError> {
        let unreadable = |cause| ChoreError::Unreadable { path: folder.display().to_string(), cause };
        // The port is free now, and no other process on this machine is likely to take it so quickly.
        let address =
            TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).map_err(unreadable)?;
        let config = folder.join("etc");
        for name in ["etc", "spool", "data"] {
            fs::create_dir_all(folder.join(name)).map_err(unreadable)?;
        }
        open_to_all(folder);
        fs::write(config.join("main.cf"), main_cf(folder, sink)).map_err(unreadable)?;
        fs::write(config.join("master.cf"), master_cf(address)).map_err(unreadable)?;
        let _ = Command::new("chown").arg("postfix").arg(folder.join("data")).status();
        postfix(&config, "start")?;
        wait_until_it_listens(address)?;
        let pid = fs::read_to_string(folder.join("spool/pid/master.pid")).map_err(unreadable)?;
        let master =
            pid.trim().parse().map_err(|_| ChoreError::BadRun(format!("Postfix's pid is {pid:?}")))?;
        Ok(Self { address, config, master })
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        process::family(self.master)
    }

    pub(crate) fn stop(&mut self) {
        let _ = postfix(&self.config, "abort");
    }
}

fn postfix(config: &Path, verb: &str) -> Result<(), ChoreError> {
    let mut command = Command::new("/usr/sbin/postfix");
    command.arg("-c").arg(config).arg(verb).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status =
        command.status().map_err(|cause| ChoreError::NotStarted { program: "postfix".to_owned(), cause })?;
    if status.success() {
        Ok(())
    } else {
        Err(ChoreError::BadRun(format!("postfix {verb} failed ({status})")))
    }
}

/// Its daemons run as another user, who needs search permission on the parent folders.
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o755));
}

fn wait_until_it_listens(address: SocketAddr) -> Result<(), ChoreError> {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        if start.elapsed() > Duration::from_secs(30) {
            return Err(ChoreError::BadRun("Postfix does not listen".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn main_cf(folder: &Path, sink: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = {DAEMONS}
maillog_file = {folder}/spool/log
maillog_file_prefixes = {folder}
myhostname = bench.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
relayhost = [{}]:{}
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
in_flow_delay = 0
default_process_limit = 100
",
        sink.ip(),
        sink.port()
    )
}

fn master_cf(address: SocketAddr) -> String {
    format!(
        "{address} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"
    )
}
