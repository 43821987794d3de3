//! `pintle dkim keygen`: generates DKIM keys, writes the private keys with mode 0600, and prints DNS records and
//! configuration.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pintle_sender_auth::sign::{Algorithm, KeyConfig, KeyPair, Keyring, SigningKey, generate, zone_line};

use crate::cli::{KeyKind, Keygen};
use crate::output::CommandResult;
use crate::output::say;

/// Generates the keys, checks them as the gateway does at startup, writes them, and prints what to publish and
/// configure.
pub(super) fn keygen(options: &Keygen) -> CommandResult {
    let domain = pintle_mail::address::domain_to_ascii(&options.domain);
    let mut pairs = Vec::new();
    for (algorithm, selector) in algorithms(options) {
        let place = place(options, &format!("{selector}.{domain}.pem"))?;
        if !options.force && place.exists() {
            return Err(taken(&place).into());
        }
        pairs.push((generate(algorithm)?, selector, place));
    }
    let config = |(pair, selector, _): &(KeyPair, String, PathBuf)| {
        KeyConfig::new(&name(&domain, selector), &domain, selector, pair.private_pem.clone())
    };
    let ring = Keyring::new(pairs.iter().map(config).collect()).map_err(|errors| {
        errors.iter().map(|error| error.fault.to_string()).collect::<Vec<_>>().join("\npintle: ")
    })?;
    for (pair, selector, place) in &pairs {
        write(place, pair.private_pem.reveal(), options.force)?;
        if let Some(key) = ring.get(&name(&domain, selector)) {
            print(key, &pair.record, place)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The algorithms, each with its selector. A DNS name holds one key, so two keys need two selectors.
fn algorithms(options: &Keygen) -> Vec<(Algorithm, String)> {
    let rsa = (Algorithm::Rsa { bits: options.bits }, options.selector.clone());
    match options.algorithm {
        KeyKind::Rsa => vec![rsa],
        KeyKind::Ed25519 => vec![(Algorithm::Ed25519, options.selector.clone())],
        KeyKind::Both => vec![rsa, (Algorithm::Ed25519, format!("{}-ed25519", options.selector))],
    }
}

/// The absolute path of the key file, for the configuration. If `--out` is a folder, `name` is the file's name.
fn place(options: &Keygen, name: &str) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let out = std::path::absolute(&options.out)?;
    if out.is_dir() {
        // A slash must not lead to another folder. It is invalid in a domain or selector, and the keyring rejects the
        // key before anything is written.
        return Ok(out.join(name.replace('/', "_")));
    }
    if options.algorithm == KeyKind::Both {
        return Err(
            format!("{} is not a folder, and two keys need one: create it first", out.display()).into()
        );
    }
    Ok(out)
}

/// The key's name in the configuration: a TOML key that needs no quotes.
fn name(domain: &str, selector: &str) -> String {
    format!("{domain}-{selector}").replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// Writes and syncs a file with mode 0600. With `force`, an existing file is replaced atomically.
fn write(place: &Path, text: &str, force: bool) -> Result<(), String> {
    let fail = |error: &io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => taken(place),
        io::ErrorKind::NotFound => {
            let folder = place.parent().unwrap_or(Path::new("/")).display();
            format!(
                "cannot write the private key {}: make its folder first: mkdir -m 700 {folder}",
                place.display()
            )
        }
        _ => format!("cannot write the private key {}: {error}", place.display()),
    };
    let new = if force { place.with_added_extension("new") } else { place.to_owned() };
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            if force { std::fs::rename(&new, place) } else { Ok(()) }
        });
    written.map_err(
        |error| if force { format!("cannot write {}: {error}", new.display()) } else { fail(&error) },
    )?;
    // The folder is synced too: otherwise a crash could lose a private key whose public key is already published.
    let folder = place.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| fail(&error))
}

fn taken(place: &Path) -> String {
    format!("{} already exists; name another file, or replace it with --force", place.display())
}

fn print(key: &SigningKey, record: &str, place: &Path) -> Result<(), serde_json::Error> {
    let (domain, selector) = (key.domain(), key.selector());
    say!("{}, in {}, readable only by its owner", key.algorithm(), place.display());
    say!("");
    say!("Publish in DNS:");
    say!("");
    say!("{}", zone_line(selector, domain, record));
    say!("");
    say!("Then configure:");
    say!("");
    say!("[dkim_keys.{}]", key.name());
    say!("domain = \"{domain}\"");
    say!("selector = \"{selector}\"");
    // A JSON string is a TOML string too.
    say!("key = {{ file = {} }}", serde_json::to_string(&place.to_string_lossy())?);
    say!("");
    say!("Then check what DNS publishes:");
    say!("");
    say!("pintle dkim check {domain} {selector} --key {}", place.display());
    say!("");
    Ok(())
}
