//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pintle_mail::{NextHop, QueueId};
use tracing::level_filters::LevelFilter;

/// Where the configuration is looked for when nobody says.
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
    /// Check a configuration: every mistake at once, with line and key. Exit code 0: good, 1: not
    Check(Check),
    /// Ask the plugins of a configuration about one message, without a server, and print what they would do. Exit code 0:
    /// taken for all recipients, 1: not, 2: it could not be found out
    Try(Try),
    /// Try Pintle without a file or privilege: mail is captured, and every hook says what it sees
    Sandbox(Sandbox),
    /// See and steer the queue of a running gateway
    Queue(QueueOptions),
    /// See why messages were put aside, and release or delete them
    Quarantine(QuarantineOptions),
    /// See and reload the plugins of a running gateway
    Plugins(PluginsOptions),
    /// Look a spool folder through, or put one in order
    Spool(SpoolFolder),
    /// Make keys that sign mail, and compare what DNS publishes with them
    Dkim(Dkim),
    /// Read a password and print a hash of it, for `password_hash` of a user. A terminal is asked twice and shows nothing;
    /// otherwise the first line of standard input is taken
    HashPassword,
    /// Read configuration and certificates again, as SIGHUP does, and say what came of it. Exit code 1: nothing has changed
    Reload(SocketOptions),
    /// Say how a running gateway is, and what waits for a restart. Exit code 0: it takes mail, 1: it does not
    Status(SocketOptions),
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// Exit code 1 for warnings, too
    #[arg(long)]
    pub(crate) strict: bool,
    /// Answer in JSON
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
    /// Read each record of the log, the database beside it, and each body, and change nothing. A gateway may be running.
    /// Exit code 0: all is well, 1: something is wrong
    Check(WhichSpool),
    /// Make the database anew from the log, read each message, and set aside what cannot be served. The gateway must be
    /// stopped. Exit code 0: every message is served, 1: some are set aside
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
    /// Where the client comes from
    #[arg(long, value_name = "ADDRESS", default_value = "192.0.2.1")]
    pub(crate) client: IpAddr,
    /// The listener that it talks to; the first one, if left out
    #[arg(long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// What it says in EHLO; its address, if left out
    #[arg(long, value_name = "NAME")]
    pub(crate) hello: Option<String>,
    /// Whom it has authenticated as
    #[arg(long, value_name = "NAME")]
    pub(crate) identity: Option<String>,
    /// It is in a trusted network, whatever the configuration says
    #[arg(long)]
    pub(crate) trusted: bool,
    /// The session is encrypted
    #[arg(long)]
    pub(crate) tls: bool,
    /// The envelope's sender, "" for the null one; taken from Return-Path, Sender or From, if left out
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) sender: Option<String>,
    /// A recipient; may be given several times. Taken from To, Cc and Bcc, if left out
    #[arg(long = "recipient", value_name = "ADDRESS")]
    pub(crate) recipients: Vec<String>,
    /// Ask about the deliveries as well
    #[arg(long)]
    pub(crate) deliver: bool,
    /// Only this plugin; may be given several times
    #[arg(long, value_name = "PLUGIN")]
    pub(crate) only: Vec<String>,
    /// Leave this plugin out; may be given several times
    #[arg(long, value_name = "PLUGIN")]
    pub(crate) skip: Vec<String>,
    /// As if the greylist (stock:greylist) had seen this client, sender and recipient before: where it would have them come
    /// again, that is told and passed over
    #[arg(long)]
    pub(crate) assume_known: bool,
    /// Ask this name server; may be given several times. Those of the configuration, if left out
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) dns: Vec<SocketAddr>,
    /// The least that is told of what plugins log
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = LogLevelOption::Info)]
    pub(crate) log: LogLevelOption,
    /// Print how the body was changed, too
    #[arg(long)]
    pub(crate) diff_body: bool,
    /// Answer in JSON
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
    /// Where captured messages and the spool are kept
    #[arg(long, value_name = "FOLDER", default_value = "pintle-sandbox", global = true)]
    pub(crate) folder: PathBuf,
    /// Listen at this address of this machine, such as 0.0.0.0 for all of them, instead of 127.0.0.1. Clients in
    /// private networks may then send mail here, and others by submission
    #[arg(long, value_name = "IP")]
    pub(crate) listen: Option<IpAddr>,
    /// SMTP: takes mail for any domain; 127.0.0.1:2525 if left out
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) smtp: Option<SocketAddr>,
    /// Submission: STARTTLS, then a user and a password; 127.0.0.1:2587 if left out
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) submission: Option<SocketAddr>,
    /// Submission over implicit TLS; 127.0.0.1:2465 if left out
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) submissions: Option<SocketAddr>,
    /// A plugin to try, as a component file, which is loaded again whenever it changes, or stock:NAME. May be given several
    /// times, in the order of the calls. Without one the example plugin is loaded
    #[arg(long = "plugin", value_name = "FILE")]
    pub(crate) plugins: Vec<String>,
    /// The configuration of these plugins, as JSON, in the same order
    #[arg(long = "plugin-config", value_name = "JSON")]
    pub(crate) plugin_configs: Vec<String>,
}

impl Sandbox {
    /// Whether anything is given that a configuration says too.
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
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which running gateway is meant.
#[derive(Debug, Args)]
pub(crate) struct SocketOptions {
    /// The admin socket. Left out: the one that -c FILE names, else the environment variable PINTLE_SOCKET, else the one
    /// that /etc/pintle/pintle.toml names, else /run/pintle/admin.sock
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) socket: Option<PathBuf>,
    /// The configuration that names the admin socket; mistakes elsewhere in it do not matter
    #[arg(short, long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Answer in JSON
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
    /// List messages, oldest first, and for each pending recipient the next hop, the next attempt and the last reply
    List {
        #[command(flatten)]
        which: Which,
        /// At most so many
        #[arg(long, default_value_t = pintle_admin::wire::DEFAULT_LIMIT)]
        limit: usize,
        /// Only those after this id
        #[arg(long, value_name = "ID")]
        after: Option<QueueId>,
    },
    /// Show all about one message
    Show {
        /// The queue id
        id: QueueId,
    },
    /// Deliver now, whatever the schedule says. Exit code 1 if a message that was named is unknown or held
    Retry(Which),
    /// Send by another next hop: by the routes of now, or by the one given. What is under way goes there afterwards
    Reroute {
        #[command(flatten)]
        which: Which,
        /// Send by this next hop, whatever the routes say, until another `reroute`: relay:NAME, lmtp:NAME or mx:DOMAIN
        #[arg(long, value_name = "HOP")]
        via: Option<NextHop>,
    },
    /// Do not deliver until released
    Hold(Which),
    /// Deliver what was held. What lies in a quarantine is released by its id, or by `pintle quarantine release`
    Release(Which),
    /// Give up: the senders get a bounce for what is pending. What is in quarantine stays there
    Bounce(Which),
}

/// Which messages are meant: those that meet every condition.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Queue ids
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<QueueId>,
    /// The sender contains this text; "" means the null sender, which reports have
    #[arg(long, value_name = "TEXT")]
    pub(crate) sender: Option<String>,
    /// A recipient is in this domain
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: Option<String>,
    /// A recipient waits for this next hop, as `list` shows it: relay:NAME, lmtp:NAME, mx:DOMAIN or discard
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
        /// Only in the quarantine of this name
        name: Option<String>,
        /// The sender contains this text; "" means the null sender
        #[arg(long, value_name = "TEXT")]
        sender: Option<String>,
        /// A recipient's address contains this text
        #[arg(long, value_name = "TEXT")]
        recipient: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = pintle_admin::wire::DEFAULT_LIMIT)]
        limit: usize,
        /// Only those after this id
        #[arg(long, value_name = "ID")]
        after: Option<QueueId>,
    },
    /// Show all about one message, and its header
    Show {
        /// The queue id
        id: QueueId,
        /// Only the header, octet by octet
        #[arg(long, conflicts_with_all = ["raw", "body", "json"])]
        header: bool,
        /// The whole message as it would be delivered, octet by octet
        #[arg(long, conflicts_with_all = ["body", "json"])]
        raw: bool,
        /// Only the body, octet by octet
        #[arg(long, conflicts_with = "json")]
        body: bool,
    },
    /// Deliver messages after all. Exit code 1 if any could not be released
    Release(Leaving),
    /// Drop messages; their senders hear nothing. Exit code 1 if any could not be deleted
    Delete(Leaving),
}

/// Which messages leave.
#[derive(Debug, Args)]
pub(crate) struct Leaving {
    /// Queue ids
    #[arg(value_name = "ID", conflicts_with_all = ["all", "older_than"])]
    pub(crate) ids: Vec<QueueId>,
    /// Everything in quarantines, or in the one of this name
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    pub(crate) all: Option<Option<String>>,
    /// What has been in quarantine for longer than this, like `7d`; with --all NAME, only there
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
    /// List plugins, their generations and how they fare
    List,
    /// Load one again, or all; what fails leaves the old version serving
    Reload {
        /// Its name in the configuration
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
    /// Make a key, and say what to publish and what to configure
    Keygen(Keygen),
    /// Ask DNS for a key, and say what is wrong with it. Exit code 0: good, 1: not
    Check(DkimCheckOptions),
}

#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// The domain that signs: that of the addresses in From
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: String,
    /// What tells this key from others of the domain; a new key gets a new one
    #[arg(long, value_name = "NAME")]
    pub(crate) selector: String,
    /// Every verifier knows RSA. `both` makes an Ed25519 key beside it, whose selector ends in `-ed25519`
    #[arg(long, value_name = "KIND", value_enum, default_value_t = KeyKind::Rsa)]
    pub(crate) algorithm: KeyKind,
    /// The length of an RSA key: 2048, 3072 or 4096
    #[arg(long, default_value_t = 2048)]
    pub(crate) bits: usize,
    /// Where the private key goes: a new file, or a folder, in which it is called SELECTOR.DOMAIN.pem
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Replace a file that is there
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
    /// The domain that signs
    pub(crate) domain: String,
    /// The selector of the key
    pub(crate) selector: String,
    /// The private key to compare with
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// The configuration that has the key to compare with, and says whom to ask
    #[arg(short, long, value_name = "FILE", conflicts_with = "key")]
    pub(crate) config: Option<PathBuf>,
    /// The name server to ask, as ADDRESS or ADDRESS:PORT; otherwise the configuration's or the machine's own
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
            assert!(!text.contains('\\'), "an escape that nobody undoes: {text}");
        }
        Cli::command().debug_assert();
    }
}
