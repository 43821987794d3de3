//! Generates the sandbox's configuration file, and keeps a file that the user has edited.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use pintle_plugin::GrantKind;

use super::{PASSWORD, SandboxAddresses, USER};
use crate::cli::Sandbox;
use crate::output::CommandError;

/// The start of the first line, before the checksum of all following lines. The checksum detects edits.
const MARK: &str = "# Written by `pintle sandbox`, checksum ";
/// The rest of the first line.
const PROMISE: &str = "You can edit this file: an edited file is not overwritten.";

/// The networks whose clients may send mail without a password: the loopback networks, and if the sandbox listens on
/// another address also those that are not routed on the Internet (RFC 1918, 4193, 6598, 3927, 4291). Never all
/// networks, since users start their own configuration from this file, and that would be an open relay.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];
const PRIVATE: [&str; 7] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
];

/// The configuration file that the sandbox uses.
pub(super) struct WrittenConfig {
    pub(super) path: PathBuf,
    /// Whether the file existed with the user's edits, and is used instead of a generated one.
    pub(super) kept: bool,
}

/// Writes the configuration into the folder, unless it has an edited one.
pub(super) fn write(
    options: &Sandbox,
    places: &SandboxAddresses,
    folder: &Path,
) -> Result<WrittenConfig, CommandError> {
    let path = folder.join("pintle.toml");
    let kept = match pintle_config::files::text(&path) {
        Ok(text) => !is_as_written(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(format!("cannot read {}: {error}", path.display()).into()),
    };
    if !kept {
        fs::write(&path, signed(&configuration(options, places, folder)?))?;
    }
    Ok(WrittenConfig { path, kept })
}

fn signed(text: &str) -> String {
    format!("{MARK}{:08x}. {PROMISE}\n{text}", crc32fast::hash(text.as_bytes()))
}

fn is_as_written(text: &str) -> bool {
    let Some((first, rest)) = text.split_once('\n') else { return text.is_empty() };
    let sum = first.strip_prefix(MARK).and_then(|sum| u32::from_str_radix(sum.get(..8)?, 16).ok());
    sum == Some(crc32fast::hash(rest.as_bytes()))
}

/// The text of the configuration. It is written to be readable, since users start their own configuration from it.
fn configuration(
    options: &Sandbox,
    places: &SandboxAddresses,
    folder: &Path,
) -> Result<String, CommandError> {
    let folder = toml_text(&folder.display().to_string());
    let (who, more) = match places.are_local() {
        true => ("this machine", &[][..]),
        false => ("private networks", &PRIVATE[..]),
    };
    let trusted: Vec<_> = LOOPBACK.iter().chain(more).map(|network| toml_text(network)).collect();
    let listeners = listeners(places, who, &trusted.join(", "));
    let plugins = plugins(options)?;
    Ok(format!(
        r#"hostname = "sandbox.localhost"

[spool]
dir = {spool}

[admin]
socket = {socket}

[[tls.certificate]]
chain = {chain}
key = {key}

{listeners}[[user]]
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

/// The three `[[listener]]` sections.
fn listeners(places: &SandboxAddresses, who: &str, trusted: &str) -> String {
    let SandboxAddresses { smtp, submission, submissions } = places;
    format!(
        r#"# Clients in trusted networks ({who}) may relay to any domain; the sandbox captures the mail.
[[listener]]
name = "smtp"
kind = "mx"
addresses = ["{smtp}"]
tls = "starttls"
trusted = [{trusted}]
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

"#
    )
}

fn plugins(options: &Sandbox) -> Result<String, CommandError> {
    if options.plugins.is_empty() {
        return Ok(EXAMPLE.to_owned());
    }
    let mut text = String::new();
    for (index, name) in options.plugins.iter().enumerate() {
        let (name, component) = component(name)?;
        let config = match options.plugin_configs.get(index) {
            Some(json) => {
                let json = serde_json::from_str(json)
                    .map_err(|error| format!("--plugin-config of {name} is not JSON: {error}"))?;
                format!("config = {}\n", toml_value(&json))
            }
            None => String::new(),
        };
        text.push_str(&format!(
            "# All grants: the sandbox has nothing that must be protected from a plugin.\n\
             [[plugin]]\nname = {}\ncomponent = {}\n{}{config}\n",
            toml_text(&name),
            toml_text(&component),
            grants()
        ));
    }
    Ok(text)
}

/// The name and component of a plugin, given as the path of a component file or as `stock:NAME`.
fn component(given: &str) -> Result<(String, String), CommandError> {
    if let Some(name) = given.strip_prefix("stock:") {
        return Ok((name.to_owned(), given.to_owned()));
    }
    let path = Path::new(given).canonicalize().map_err(|error| {
        format!("plugin {given}: {error}; give a component file, or stock:NAME for a stock plugin")
    })?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok((stem, path.display().to_string()))
}

const EXAMPLE: &str = r#"# A plugin gets what is granted here and nothing else.
[[plugin]]
name = "example"
component = "stock:example"
grants = ["edit-headers"]
config = { refuse = ["spammer@example.net"], header = "X-Pintle-Example" }
"#;

/// The `grants` line with all grants.
fn grants() -> String {
    let names: Vec<_> = GrantKind::ALL.iter().map(|grant| toml_text(grant.name())).collect();
    format!("grants = [{}]\n", names.join(", "))
}

fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}\"", folder.trim_end_matches('"'))
}

/// A TOML basic string. JSON escapes are valid in TOML.
fn toml_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Converts JSON to an inline TOML value. TOML has no null: members that are null are left out.
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

/// Additional names for the sandbox's certificate: the addresses it listens on, without loopback and wildcard
/// addresses.
pub(super) fn names(places: &SandboxAddresses) -> Vec<String> {
    let all = [places.smtp, places.submission, places.submissions];
    let mut ips: Vec<IpAddr> = all.iter().map(|address| address.ip()).collect();
    ips.retain(|ip| !ip.is_unspecified() && !ip.is_loopback());
    ips.dedup();
    ips.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_file_is_distinguished_from_a_generated_one() {
        let written = signed("hostname = \"sandbox.localhost\"\n");
        assert!(is_as_written(&written) && is_as_written(""));
        assert!(!is_as_written(&written.replace("sandbox.", "mx.")));
        assert!(
            !is_as_written(&written.replace(&MARK[..10], "# Mine: ")),
            "without its first line it is the user's"
        );
        assert!(!is_as_written("# Written by `pintle sandbox` at each start.\nhostname = \"a.example\"\n"));
        assert!(!is_as_written("hostname = \"a.example\""));
    }

    #[test]
    fn stock_plugins_and_files_have_names() {
        assert_eq!(component("stock:spf").unwrap(), ("spf".to_owned(), "stock:spf".to_owned()));
        let error = component("no/such.wasm").unwrap_err().to_string();
        assert!(error.contains("no/such.wasm") && error.contains("stock:NAME"), "{error}");
    }
}
