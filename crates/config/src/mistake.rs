//! What an operator can have got wrong: place, cause and remedy of each mistake.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use crate::Exposed;

/// A mistake, or something worth a warning, at its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key, from the top: `listener[2].tls`. List items count from 1. Empty where the file's form is wrong.
    pub key: String,
    /// The octets of the file that it is about.
    pub span: Range<usize>,
    /// What is wrong.
    pub cause: Cause,
}

/// What is wrong. The operator owns every one of these.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The configuration file itself cannot be read.
    NoFile(String),
    /// It is not TOML; the text is the parser's.
    Syntax(String),
    /// There is no such key here.
    UnknownKey {
        /// The name that was probably meant.
        nearest: Option<&'static str>,
        /// The names that there are.
        known: Vec<&'static str>,
    },
    /// A key without which nothing works.
    Missing {
        /// What it must hold.
        expected: String,
    },
    /// A value of another type.
    WrongType {
        /// What it must hold.
        expected: String,
        /// What stands there.
        found: &'static str,
    },
    /// The value has the right type but cannot be read.
    Malformed {
        /// What it must hold.
        expected: String,
        /// What is wrong with it.
        why: String,
    },
    /// The word is none of those allowed.
    NoSuchWord {
        /// What stands there.
        given: String,
        /// Probably meant.
        nearest: Option<&'static str>,
        /// Those allowed.
        known: Vec<&'static str>,
    },
    /// It names something that the file does not define.
    Undefined {
        /// Of which kind: `relay`.
        what: &'static str,
        /// The name.
        name: String,
        /// Those that are defined.
        known: Vec<String>,
    },
    /// It was already said.
    Duplicate {
        /// Of which kind: `listener name`.
        what: &'static str,
        /// The name or address.
        name: String,
        /// The line of the first one.
        line: usize,
    },
    /// A file that the configuration names cannot be used.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A certificate, a key or a file of roots cannot be used; the text says which and why.
    Certificate(String),
    /// A key for signatures cannot be used; the text says why.
    SigningKey(String),
    /// Others can read or change what only the gateway may.
    Exposed(Exposed),
    /// The environment lacks this variable.
    Environment(String),
    /// Keys that contradict each other.
    Rule(ConfigRule),
}

/// Rules between keys, and between the file and the world.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigRule {
    /// TLS without a certificate.
    TlsWithoutCertificate,
    /// TLS is demanded where none is served.
    RequireTlsWithoutTls,
    /// AUTH that no client could ever use.
    AuthNeverOffered,
    /// AUTH with nobody who could authenticate.
    AuthWithoutUsers,
    /// Passwords in the clear (a warning).
    PlainPasswords,
    /// `password` and `password_hash` both, or neither.
    OnePassword,
    /// A user name without a password, or the reverse.
    HalfCredentials,
    /// Credentials over sessions with this relay that may be in the clear.
    CredentialsInTheClear(String),
    /// Credentials for this relay, whose certificate nobody verifies.
    CredentialsUnverified(String),
    /// A secret stands in the file (a warning).
    InlineSecret,
    /// There is no such user on this system.
    NoSuchUser(String),
    /// There is no such group on this system.
    NoSuchGroup(String),
    /// A user by number, whose group the system does not know.
    NumberWithoutGroup,
    /// A group, and no user.
    GroupWithoutUser,
    /// The user to become is root.
    UserIsRoot,
    /// A refusal where mail was accepted already (a warning).
    RefusedAfterAcceptance,
    /// `hostname` is in no certificate (a warning).
    HostnameNotCovered(String),
    /// A listener without a purpose: it accepts nobody's mail (a warning).
    AcceptsNothing,
    /// All sessions are kept for trusted clients.
    NothingForStrangers,
    /// The whole Internet may relay.
    OpenRelay,
    /// The sender is warned after the message has expired.
    WarnAfterExpiry,
    /// The quarantine threshold lies above the one for refusal (a warning).
    QuarantineAboveReject,
    /// Mail for `<postmaster>` is taken from anybody and leads back to us (a warning).
    PostmasterNowhere,
    /// A relay's name is a word with another meaning.
    ReservedName(String),
    /// A plugin's settings given twice.
    TwoSettings,
    /// What stands where a folder must be is none.
    NotAFolder(PathBuf),
    /// What stands where a file must be is a folder.
    NotAFile(PathBuf),
    /// What stands where the admin socket must be is something else.
    NotASocket(PathBuf),
    /// The folder in which something is made is missing.
    NoFolder(PathBuf),
    /// The same, where the service manager makes it at each start (a warning).
    NoRuntimeFolder(PathBuf),
    /// A file that the user whom the gateway becomes cannot read (a warning).
    Unreadable(PathBuf, u32),
    /// A folder that must be the gateway's own belongs to another user.
    NotOurs(PathBuf, u32),
    /// Two sockets would listen at one address; the line is the other's.
    Overlap(SocketAddr, SocketAddr, usize),
    /// A relay is one of our own listeners.
    RelayIsUs(String),
    /// A relay has our name and the port of a listener (a warning).
    RelayMayBeUs(String),
    /// Nobody can bring mail (a warning).
    NoListener,
    /// Mail for a domain of ours goes by its MX, which leads here (a warning).
    NoRoute(String),
    /// A certificate's time is over, since this day (a warning).
    Expired(String),
    /// A certificate's time is over soon, on this day (a warning).
    ExpiresSoon(String),
    /// A certificate's time has not begun (a warning).
    NotYetValid(String),
}

impl Mistake {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        self.cause.remedy()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile(why) => write!(f, "the configuration file cannot be read: {why}"),
            Self::Syntax(text) => write!(f, "this is not TOML: {text}"),
            Self::UnknownKey { .. } => f.write_str("unknown key"),
            Self::Missing { .. } => f.write_str("a required key is missing"),
            Self::WrongType { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::Malformed { why, .. } => f.write_str(why),
            Self::NoSuchWord { given, .. } => write!(f, "{given:?} is not allowed here"),
            Self::Undefined { what, name, .. } => write!(f, "there is no {what} named {name:?}"),
            Self::Duplicate { what, name, line } => {
                write!(f, "{what} {name:?} was already given at line {line}")
            }
            Self::File { path, why } => write!(f, "{} cannot be used: {why}", path.display()),
            Self::Certificate(why) | Self::SigningKey(why) => f.write_str(why),
            Self::Exposed(exposed) => exposed.fmt(f),
            Self::Environment(name) => write!(f, "the environment variable {name} is not set"),
            Self::Rule(rule) => rule.fmt(f),
        }
    }
}

impl Cause {
    /// Whether a line that could not be read may be what is missed here.
    pub(crate) fn is_an_absence(&self) -> bool {
        let rule = |rule: &ConfigRule| {
            matches!(
                rule,
                ConfigRule::TlsWithoutCertificate
                    | ConfigRule::AuthWithoutUsers
                    | ConfigRule::OnePassword
                    | ConfigRule::HalfCredentials
                    | ConfigRule::AcceptsNothing
            )
        };
        match self {
            Self::Missing { .. } | Self::Undefined { .. } => true,
            Self::Rule(found) => rule(found),
            _ => false,
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::NoFile(_) => "name an existing, readable file with -c".into(),
            Self::Syntax(_) => "mend the line; strings stand in quotes, tables in [brackets]".into(),
            Self::UnknownKey { nearest, known } => suggestion(*nearest, known),
            Self::Missing { expected } => format!("add it: {expected}"),
            Self::WrongType { expected, .. } | Self::Malformed { expected, .. } => {
                format!("write {expected}")
            }
            Self::NoSuchWord { nearest, known, .. } => suggestion(*nearest, known),
            Self::Undefined { what, known, .. } if known.is_empty() => {
                format!("there is no {what} at all here")
            }
            Self::Undefined { what, known, .. } => {
                format!("define the {what}, or name one of: {}", known.join(", "))
            }
            Self::Duplicate { .. } => "remove one of them, or rename it".into(),
            Self::File { .. } | Self::Certificate(_) => {
                "check path, content and permissions; relative paths start at the configuration file's folder"
                    .into()
            }
            Self::SigningKey(_) => "mend it, or make a new key with `pintle dkim keygen`".into(),
            Self::Exposed(exposed) => exposed.remedy(),
            Self::Environment(name) => {
                format!("set {name} for the gateway's process, or use {{ file = \"...\" }}")
            }
            Self::Rule(rule) => rule.remedy(),
        }
    }
}

fn suggestion(nearest: Option<&str>, known: &[&str]) -> String {
    match nearest {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("possible here: {}", known.join(", ")),
    }
}

impl fmt::Display for ConfigRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TlsWithoutCertificate => f.write_str("TLS needs a certificate, and [tls] names none"),
            Self::RequireTlsWithoutTls => f.write_str("TLS is required on a listener that does not serve it"),
            Self::AuthNeverOffered => f.write_str("nobody can authenticate here: there is no TLS"),
            Self::AuthWithoutUsers => {
                f.write_str("there is neither a user nor a plugin that could say who is who")
            }
            Self::PlainPasswords => f.write_str("passwords may cross the network in the clear"),
            Self::OnePassword => f.write_str("a user has either a password or a password_hash"),
            Self::HalfCredentials => f.write_str("username and password go together"),
            Self::CredentialsInTheClear(relay) => {
                write!(f, "the password for relay {relay:?} could be sent in the clear")
            }
            Self::CredentialsUnverified(relay) => {
                write!(
                    f,
                    "the password for relay {relay:?} would go to whoever answers: no certificate is verified"
                )
            }
            Self::InlineSecret => f.write_str("a secret stands in the configuration file"),
            Self::NoSuchUser(name) => write!(f, "this system has no user {name:?}"),
            Self::NoSuchGroup(name) => write!(f, "this system has no group {name:?}"),
            Self::NumberWithoutGroup => {
                f.write_str("this user has no entry in /etc/passwd, and so no group of its own")
            }
            Self::GroupWithoutUser => f.write_str("a group is given, and no user"),
            Self::UserIsRoot => f.write_str("who becomes root gives nothing up"),
            Self::RefusedAfterAcceptance => f.write_str(
                "a fault before a delivery refuses nothing, since the mail was accepted: it defers",
            ),
            Self::HostnameNotCovered(name) => write!(f, "no certificate covers the hostname {name:?}"),
            Self::AcceptsNothing => f.write_str("this listener takes mail from nobody"),
            Self::NothingForStrangers => f.write_str("no session is left for anybody else"),
            Self::OpenRelay => f.write_str("this network is the whole Internet: an open relay"),
            Self::WarnAfterExpiry => {
                f.write_str("the delay warning would come after the message has expired")
            }
            Self::QuarantineAboveReject => f.write_str("no score is held: the message is refused before"),
            Self::PostmasterNowhere => f.write_str(
                "mail for <postmaster>, which every server must take, leads back to this one and bounces",
            ),
            Self::ReservedName(name) => write!(f, "{name:?} has a meaning of its own in routes"),
            Self::TwoSettings => f.write_str("config and config_file are both given"),
            Self::NotAFolder(path) => write!(f, "{} is no folder", path.display()),
            Self::NotAFile(path) => write!(f, "{} is no file that can be written to", path.display()),
            Self::NotASocket(path) => write!(f, "{} exists and is no socket", path.display()),
            Self::NoFolder(path) | Self::NoRuntimeFolder(path) => {
                write!(f, "the folder {} does not exist", path.display())
            }
            Self::Unreadable(path, uid) => write!(
                f,
                "user {uid}, whom the gateway becomes, cannot read {}: a reload fails, if not the start",
                path.display()
            ),
            Self::NotOurs(path, uid) => {
                write!(f, "{} belongs to user {uid}, and the gateway's user must own it", path.display())
            }
            Self::Overlap(address, other, line) => {
                write!(f, "{address} cannot be listened on beside {other} of line {line}")
            }
            Self::RelayIsUs(host) => {
                write!(f, "{host} is a listener of this gateway: mail would go round in a loop")
            }
            Self::RelayMayBeUs(host) => {
                write!(f, "{host} has our own name and the port of a listener: mail may go round in a loop")
            }
            Self::NoListener => f.write_str("there is no listener: nobody can bring mail"),
            Self::NoRoute(domain) => write!(
                f,
                "mail for {domain} is taken and then goes by its MX records, which lead back here: it would be bounced"
            ),
            Self::Expired(at) => write!(f, "this certificate has expired on {at}"),
            Self::ExpiresSoon(at) => write!(f, "this certificate expires on {at}"),
            Self::NotYetValid(at) => write!(f, "this certificate is not valid before {at}"),
        }
    }
}

impl ConfigRule {
    fn remedy(&self) -> String {
        match self {
            Self::TlsWithoutCertificate => "add [[tls.certificate]] with chain and key, or set tls = \"none\"",
            Self::RequireTlsWithoutTls => "set tls = \"starttls\" or \"implicit\", or require_tls = false",
            Self::AuthNeverOffered => "serve TLS here, or set plain_without_tls = true in a closed network",
            Self::AuthWithoutUsers => "add a [[user]], or a [[plugin]] with the hook on-auth",
            Self::PlainPasswords => "keep this listener inside a trusted network",
            Self::OnePassword => "give exactly one of the two",
            Self::HalfCredentials => "give both, or neither",
            Self::CredentialsInTheClear(_) => {
                "set tls = \"verified\" for the relay; plain_without_tls = true lets the password travel in the clear"
            }
            Self::CredentialsUnverified(_) => {
                "set tls = \"verified\" for the relay, with [tls] roots where its authority is your own; \
                 credentials_without_verified_tls = true lets the password go to an unverified host"
            }
            Self::InlineSecret => "better: { file = \"...\" } or { env = \"NAME\" }",
            Self::NoSuchUser(_) | Self::NoSuchGroup(_) => {
                "make it (`useradd --system pintle`), or give its number; only /etc/passwd and /etc/group are looked at"
            }
            Self::NumberWithoutGroup => "give a group too",
            Self::GroupWithoutUser => "give a user too, or neither",
            Self::UserIsRoot => "name a user without privileges, or leave it out",
            Self::RefusedAfterAcceptance => {
                "write \"defer\", which is what happens: the mail is tried again until max_age ends it with a bounce"
            }
            Self::HostnameNotCovered(_) => {
                "clients that verify (Exchange does) will refuse; get a certificate for it, or change hostname"
            }
            Self::AcceptsNothing => "name your domains in [domains], trust networks, or offer AUTH",
            Self::NothingForStrangers => "make it smaller than max_sessions",
            Self::OpenRelay => "name the networks of your own hosts",
            Self::WarnAfterExpiry => "make warn_after shorter than max_age, or \"never\"",
            Self::QuarantineAboveReject => "make quarantine lower than reject",
            Self::PostmasterNowhere => {
                "name a mailbox: postmaster = \"you@example.org\"; or a route for the hostname, or an accepted domain"
            }
            Self::ReservedName(_) => "choose another name",
            Self::TwoSettings => "keep one of the two",
            Self::NotAFolder(_) => "name a folder, or move away what stands there",
            Self::NotAFile(_) => "name a file in it",
            Self::NotASocket(_) => "remove it, or name another path",
            Self::NoFolder(path) => return format!("make it first: mkdir -p {}", path.display()),
            Self::NoRuntimeFolder(_) => {
                "the service manager must make it at each start (systemd: RuntimeDirectory=), or name another path"
            }
            Self::Unreadable(path, uid) => return format!("chown {uid} {}", path.display()),
            Self::NotOurs(path, _) => {
                return format!("chown -R it to the gateway's user, or remove it: {}", path.display());
            }
            Self::Overlap(..) => "leave one of them out: a wildcard address takes in all others of its family and port",
            Self::RelayIsUs(_) | Self::RelayMayBeUs(_) => "name the server behind this gateway, or its port",
            Self::NoListener => "add a [[listener]] with name and addresses",
            Self::NoRoute(_) => {
                "add a [[route]] for it, to a relay or, where other exchangers are preferred to us, via = \"mx\""
            }
            Self::Expired(_) | Self::ExpiresSoon(_) => "renew it; the gateway serves the new one by itself",
            Self::NotYetValid(_) => "look at this machine's clock, or wait",
        }
        .into()
    }
}
