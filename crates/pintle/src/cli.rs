//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pintle_mail::{NextHop, QueueId};
use tracing::level_filters::LevelFilter;

/// The configuration file that is read when no other is given.
pub(crate) const CONFIG: &str = "/etc/pintle/pintle.toml";

/// The programmable mail gateway: SMTP in, sandboxed plugins at every stage, durable spool, SMTP out.
#[derive(Debug, Parser)]
#[command(name = "pintle", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Run the gateway. SIGHUP reloads configuration and certificates, SIGTERM drains and stops
    Run(ConfigFile),
    /// Check a configuration and report every mistake at once, with line and key. Exit code 0: no mistakes, 1: mistakes
    Check(Check),
    /// Dry run: play one message against a configuration without a server, and print what the gateway and its plugins
    /// would do. Exit code 0: accepted for all recipients, 1: not, 2: it could not be determined
    Try(Try),
    /// Try Pintle without a configuration or privileges: mail is captured, and an example plugin logs what each hook
    /// sees
    Sandbox(Sandbox),
    /// Show and change the queue of a running gateway
    Queue(QueueOptions),
    /// Show why messages are in quarantine, and release or delete them
    Quarantine(QuarantineOptions),
    /// Show and reload the plugins of a running gateway
    Plugins(PluginsOptions),
    /// Check or repair a spool folder
    Spool(SpoolFolder),
    /// Make keys that sign mail, and check what DNS publishes for them
    Dkim(Dkim),
    /// Read a password and print its hash, for `password_hash` of a user. On a terminal it asks twice and does not show
    /// the password; otherwise it reads the first line of standard input
    HashPassword,
    /// Read configuration and certificates again, as SIGHUP does, and report what changed. Exit code 1: it failed, and
    /// nothing has changed
    Reload(SocketOptions),
    /// Show the health of a running gateway, and what waits for a restart. Exit code 0: it accepts mail, 1: it does not
    Status(SocketOptions),
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// Exit with code 1 for warnings, too
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SpoolFolder {
    #[command(subcommand)]
    pub(crate) command: SpoolCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SpoolCommand {
    /// Read every record of the log, the database and every body, without changing anything. A gateway may be running.
    /// Exit code 0: no damage, 1: damage
    Check(WhichSpool),
    /// Rebuild the database from the log, read every message, and set aside those that cannot be read. The gateway must
    /// be stopped. Exit code 0: every message can be read, 1: some were set aside
    Repair(WhichSpool),
}

#[derive(Debug, Args)]
pub(crate) struct WhichSpool {
    /// The configuration that names the folder
    #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
    pub(crate) config: PathBuf,
    /// The spool folder itself
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Try {
    /// The message, header and body; `-` is standard input
    #[arg(value_name = "MESSAGE")]
    pub(crate) message: PathBuf,
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
    pub(crate) config: PathBuf,
    /// The client's address
    #[arg(long, value_name = "ADDRESS", default_value = "192.0.2.1")]
    pub(crate) client: IpAddr,
    /// The listener that the client connects to. Default: the first
    #[arg(long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// The client's name in EHLO. Default: its address
    #[arg(long, value_name = "NAME")]
    pub(crate) hello: Option<String>,
    /// The identity that the client has authenticated as
    #[arg(long, value_name = "NAME")]
    pub(crate) identity: Option<String>,
    /// Take the client to be in a trusted network, whatever the configuration says
    #[arg(long)]
    pub(crate) trusted: bool,
    /// Take the session to be encrypted
    #[arg(long)]
    pub(crate) tls: bool,
    /// The envelope's sender, "" for the null reverse-path. Default: from Return-Path, Sender or From
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) sender: Option<String>,
    /// A recipient; may be given several times. Default: from To, Cc and Bcc
    #[arg(long = "recipient", value_name = "ADDRESS")]
    pub(crate) recipients: Vec<String>,
    /// Call the hooks of deliveries, too
    #[arg(long)]
    pub(crate) deliver: bool,
    /// Call only this plugin; may be given several times
    #[arg(long, value_name = "PLUGIN")]
    pub(crate) only: Vec<String>,
    /// Skip this plugin; may be given several times
    #[arg(long, value_name = "PLUGIN")]
    pub(crate) skip: Vec<String>,
    /// Pretend that the greylist (stock:greylist) has seen this client, sender and recipient before: where it would
    /// defer them, that is reported and ignored
    #[arg(long)]
    pub(crate) assume_known: bool,
    /// Ask this name server; may be given several times. Default: those of the configuration
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) dns: Vec<SocketAddr>,
    /// The lowest level of plugins' log lines to print
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevelOption::Info)]
    pub(crate) log: LogLevelOption,
    /// Print changes to the body, too
    #[arg(long)]
    pub(crate) diff_body: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogLevelOption {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevelOption> for LevelFilter {
    fn from(level: LogLevelOption) -> Self {
        match level {
            LogLevelOption::Error => Self::ERROR,
            LogLevelOption::Warn => Self::WARN,
            LogLevelOption::Info => Self::INFO,
            LogLevelOption::Debug => Self::DEBUG,
            LogLevelOption::Trace => Self::TRACE,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Sandbox {
    #[command(subcommand)]
    pub(crate) command: Option<SandboxCommand>,
    /// The folder for captured messages and the spool
    #[arg(long, value_name = "FOLDER", default_value = "pintle-sandbox", global = true)]
    pub(crate) folder: PathBuf,
    /// Listen on this address, such as 0.0.0.0 for all addresses of this machine, instead of 127.0.0.1. Clients in
    /// private networks may then send mail here, and others by submission
    #[arg(long, value_name = "IP")]
    pub(crate) listen: Option<IpAddr>,
    /// The SMTP listener, which accepts mail for any domain. Default: 127.0.0.1:2525
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) smtp: Option<SocketAddr>,
    /// The submission listener: STARTTLS, then user and password. Default: 127.0.0.1:2587
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) submission: Option<SocketAddr>,
    /// The submission listener with implicit TLS. Default: 127.0.0.1:2465
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) submissions: Option<SocketAddr>,
    /// A plugin to load: a component file, which is reloaded whenever it changes, or stock:NAME. May be given several
    /// times, in the order of the calls. Default: the example plugin
    #[arg(long = "plugin", value_name = "FILE")]
    pub(crate) plugins: Vec<String>,
    /// The settings of these plugins as JSON, in the same order
    #[arg(long = "plugin-config", value_name = "JSON")]
    pub(crate) plugin_configs: Vec<String>,
}

impl Sandbox {
    /// Whether any option is given that would have to be written to the configuration.
    pub(crate) fn asks_for_something(&self) -> bool {
        let places = [self.smtp, self.submission, self.submissions];
        self.listen.is_some()
            || places.iter().any(Option::is_some)
            || !self.plugins.is_empty()
            || !self.plugin_configs.is_empty()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// List the captured messages
    Messages {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which running gateway to connect to.
#[derive(Debug, Args)]
pub(crate) struct SocketOptions {
    /// The admin socket. Default: the one that -c FILE names, else the environment variable PINTLE_SOCKET, else the one
    /// that /etc/pintle/pintle.toml names, else /run/pintle/admin.sock
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) socket: Option<PathBuf>,
    /// The configuration that names the admin socket; mistakes elsewhere in it do not matter
    #[arg(short, long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct QueueOptions {
    #[command(subcommand)]
    pub(crate) command: QueueCommand,
    #[command(flatten)]
    pub(crate) socket: SocketOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List messages, oldest first, with the next hop, the next attempt and the last reply for each pending recipient
    List {
        #[command(flatten)]
        which: Which,
        /// Print at most this many
        #[arg(long, default_value_t = pintle_admin::wire::DEFAULT_LIMIT)]
        limit: usize,
        /// Print only those after this id
        #[arg(long, value_name = "ID")]
        after: Option<QueueId>,
    },
    /// Show everything about one message
    Show {
        /// The queue id
        id: QueueId,
    },
    /// Deliver now, whatever the schedule says. Exit code 1 if a named message is unknown or held
    Retry(Which),
    /// Send by another next hop: by the current routes, or by the given one. Attempts that are running finish first
    Reroute {
        #[command(flatten)]
        which: Which,
        /// The next hop to use, whatever the routes say, until another `reroute`: relay:NAME, lmtp:NAME or mx:DOMAIN
        #[arg(long, value_name = "HOP")]
        via: Option<NextHop>,
    },
    /// Do not deliver until released
    Hold(Which),
    /// Deliver held messages. Messages in a quarantine are released by id, or by `pintle quarantine release`
    Release(Which),
    /// Give up: the senders get a bounce for pending recipients. Messages in a quarantine stay there
    Bounce(Which),
}

/// Which messages to act on: those that meet every condition.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Queue ids
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<QueueId>,
    /// The sender contains this text; "" means the null reverse-path, which reports have
    #[arg(long, value_name = "TEXT")]
    pub(crate) sender: Option<String>,
    /// A recipient is in this domain
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: Option<String>,
    /// A recipient is pending for this next hop, as `list` shows it: relay:NAME, lmtp:NAME, mx:DOMAIN or discard
    #[arg(long, value_name = "HOP")]
    pub(crate) next_hop: Option<NextHop>,
    /// Only held messages (`true`) or only others (`false`)
    #[arg(long, value_name = "BOOL")]
    pub(crate) held: Option<bool>,
    /// Every message
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct QuarantineOptions {
    #[command(subcommand)]
    pub(crate) command: QuarantineCommand,
    #[command(flatten)]
    pub(crate) socket: SocketOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List messages in quarantines, oldest first: who decided, and why
    List {
        /// List only this quarantine
        name: Option<String>,
        /// The sender contains this text; "" means the null reverse-path
        #[arg(long, value_name = "TEXT")]
        sender: Option<String>,
        /// A recipient's address contains this text
        #[arg(long, value_name = "TEXT")]
        recipient: Option<String>,
        /// Print at most this many
        #[arg(long, default_value_t = pintle_admin::wire::DEFAULT_LIMIT)]
        limit: usize,
        /// Print only those after this id
        #[arg(long, value_name = "ID")]
        after: Option<QueueId>,
    },
    /// Show everything about one message, with its header
    Show {
        /// The queue id
        id: QueueId,
        /// Print only the header, unchanged
        #[arg(long, conflicts_with_all = ["raw", "body", "json"])]
        header: bool,
        /// Print the whole message as it would be delivered, unchanged
        #[arg(long, conflicts_with_all = ["body", "json"])]
        raw: bool,
        /// Print only the body, unchanged
        #[arg(long, conflicts_with = "json")]
        body: bool,
    },
    /// Deliver messages. Exit code 1 if any could not be released
    Release(Leaving),
    /// Delete messages without a report to their senders. Exit code 1 if any could not be deleted
    Delete(Leaving),
}

/// Which messages to release or delete.
#[derive(Debug, Args)]
pub(crate) struct Leaving {
    /// Queue ids
    #[arg(value_name = "ID", conflicts_with_all = ["all", "older_than"])]
    pub(crate) ids: Vec<QueueId>,
    /// All messages in quarantines, or in the one of this name
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    pub(crate) all: Option<Option<String>>,
    /// Messages that have been in quarantine for longer than this, like `7d`; with --all NAME, only there
    #[arg(long, value_name = "TIME")]
    pub(crate) older_than: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PluginsOptions {
    #[command(subcommand)]
    pub(crate) command: PluginsCommand,
    #[command(flatten)]
    pub(crate) socket: SocketOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginsCommand {
    /// List plugins with their generations, calls and faults
    List,
    /// Load a plugin again, or all of them. If loading fails, the old version goes on serving
    Reload {
        /// The plugin's name in the configuration
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Dkim {
    #[command(subcommand)]
    pub(crate) command: DkimCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DkimCommand {
    /// Make a key, and print what to publish and what to configure
    Keygen(Keygen),
    /// Look up a key in DNS, and report what is wrong with it. Exit code 0: good, 1: not
    Check(DkimCheckOptions),
}

#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// The signing domain: that of the addresses in From
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: String,
    /// The selector, which distinguishes the keys of a domain; use a new one for each key
    #[arg(long, value_name = "NAME")]
    pub(crate) selector: String,
    /// The kind of key. Every verifier supports RSA. `both` also makes an Ed25519 key, whose selector ends in
    /// `-ed25519`
    #[arg(long, value_name = "KIND", value_enum, default_value_t = KeyKind::Rsa)]
    pub(crate) algorithm: KeyKind,
    /// The length of an RSA key: 2048, 3072 or 4096
    #[arg(long, default_value_t = 2048)]
    pub(crate) bits: usize,
    /// Where to write the private key: a new file, or a folder, in which the file is called SELECTOR.DOMAIN.pem
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyKind {
    Rsa,
    Ed25519,
    Both,
}

#[derive(Debug, Args)]
pub(crate) struct DkimCheckOptions {
    /// The signing domain
    pub(crate) domain: String,
    /// The selector of the key
    pub(crate) selector: String,
    /// The private key to compare with
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// The configuration with the key to compare with and the name servers to ask
    #[arg(short, long, value_name = "FILE", conflicts_with = "key")]
    pub(crate) config: Option<PathBuf>,
    /// The name server to ask, as ADDRESS or ADDRESS:PORT. Default: those of the configuration, else those of this
    /// machine
    #[arg(long, value_name = "ADDRESS", value_parser = name_server)]
    pub(crate) dns: Option<SocketAddr>,
}

fn name_server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.parse().map(|address: IpAddr| SocketAddr::new(address, 53));
    bare.or_else(|_| text.parse())
        .map_err(|_| "write it as 192.0.2.53, 192.0.2.53:53 or [2001:db8::53]:53".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn walk(command: &mut clap::Command, told: &mut Vec<String>) {
        told.push(command.render_long_help().to_string());
        command.get_subcommands_mut().for_each(|command| walk(command, told));
    }

    #[test]
    fn help_is_written_for_people() {
        let mut told = Vec::new();
        walk(&mut Cli::command(), &mut told);
        assert!(told.len() > 20);
        for text in told {
            assert!(!text.contains('\\'), "an escape that is shown as it is: {text}");
        }
        Cli::command().debug_assert();
    }
}
