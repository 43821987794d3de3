//! `pintle dkim keygen`: a private key in a file that nobody else can read, and what to do with its public half.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pintle_sender_auth::sign::{Algorithm, KeyConfig, KeyPair, Keyring, SigningKey, generate, zone_line};

use crate::cli::{KeyKind, Keygen};
use crate::output::CommandResult;
use crate::output::say;

/// Makes the keys, checks them as a start would, writes them, and says what to publish and configure.
pub(super) fn keygen(options: &Keygen) -> CommandResult {
    let domain = pintle_mail::address::domain_to_ascii(&options.domain);
    let mut pairs = Vec::new();
    for (algorithm, selector) in wanted(options) {
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

/// One DNS name holds one key, so two of them have two selectors.
fn wanted(options: &Keygen) -> Vec<(Algorithm, String)> {
    let rsa = (Algorithm::Rsa { bits: options.bits }, options.selector.clone());
    match options.algorithm {
        KeyKind::Rsa => vec![rsa],
        KeyKind::Ed25519 => vec![(Algorithm::Ed25519, options.selector.clone())],
        KeyKind::Both => vec![rsa, (Algorithm::Ed25519, format!("{}-ed25519", options.selector))],
    }
}

/// The file for a key of this name, absolute, since the configuration is to name it.
fn place(options: &Keygen, name: &str) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let out = std::path::absolute(&options.out)?;
    if out.is_dir() {
        // A name that leads elsewhere is no domain or selector, which is told before anything is written.
        return Ok(out.join(name.replace('/', "_")));
    }
    if options.algorithm == KeyKind::Both {
        return Err(
            format!("{} is not a folder, and two keys need one: create it first", out.display()).into()
        );
    }
    Ok(out)
}

/// What the configuration may call the key, written without quotes.
fn name(domain: &str, selector: &str) -> String {
    format!("{domain}-{selector}").replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// Writes and syncs a file that only its owner can read. What was there is replaced as a whole or not at all.
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
    // Without the folder's own sync a crash could leave a published key whose private half is gone.
    let folder = place.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| fail(&error))
}

fn taken(place: &Path) -> String {
    format!("{} is there already; name another file, or replace it with --force", place.display())
}

fn print(key: &SigningKey, record: &str, place: &Path) -> Result<(), serde_json::Error> {
    let (domain, selector) = (key.domain(), key.selector());
    say!("{}, in {}, for its owner's eyes alone", key.algorithm(), place.display());
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
    say!("And see whether the world sees it:");
    say!("");
    say!("pintle dkim check {domain} {selector} --key {}", place.display());
    say!("");
    Ok(())
}
