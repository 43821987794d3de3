//! `pintle dkim check`: looks up a DKIM key record in DNS and compares it with the private key.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use pintle_dns::{Config, DnsError, DnsRecord, DnsRecordKind, HickoryResolver, NameServers, Resolver};
use pintle_sender_auth::sign::{
    KeyFinding, PrivateKey, PublishedKey, SigningKey, examine, key_name, zone_line,
};

use super::read_key;
use crate::cli::DkimCheckOptions;
use crate::output::{CommandResult, say};

/// The private key that is compared with DNS, and how DNS is asked.
struct Own {
    /// None if the command line names neither a key file nor a configuration: only the record is checked then.
    key: Option<Key>,
    /// Where the key comes from, for the output: a path or `[dkim_keys.NAME]`. Empty without a key.
    from: String,
    dns: Config,
}

enum Key {
    File(PrivateKey),
    Configured(Arc<SigningKey>),
}

impl Own {
    fn private(&self) -> Option<&PrivateKey> {
        self.key.as_ref().map(|key| match key {
            Key::File(key) => key,
            Key::Configured(key) => key.private(),
        })
    }
}

/// Prints every problem of the published record, with its remedy. The exit code is 1 if there is one.
pub(super) fn check(options: &DkimCheckOptions) -> CommandResult {
    let domain = pintle_mail::address::domain_to_ascii(&options.domain);
    let name = key_name(&options.selector, &domain);
    let mut own = own(options, &domain)?;
    if let Some(address) = options.dns {
        own.dns.servers = NameServers::List(vec![address]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let texts = runtime.block_on(texts(&own.dns, &name)).map_err(|error| format!("{name}: DNS: {error}"))?;
    let published = examine(&texts, own.private());
    if published.findings.is_empty() {
        print_good(&name, &published, &own);
        return Ok(ExitCode::SUCCESS);
    }
    published.findings.iter().for_each(|finding| say!("{name}: {finding}"));
    if let Some(own) = own.private().filter(|_| published.findings.iter().any(wants_record)) {
        say!("The record of the private key:");
        say!("");
        say!("{}", zone_line(&options.selector, &domain, &own.record()));
    }
    Ok(ExitCode::FAILURE)
}

fn own(options: &DkimCheckOptions, domain: &str) -> Result<Own, Box<dyn std::error::Error>> {
    if let Some(file) = &options.config {
        return configured(file, domain, &options.selector);
    }
    let Some(file) = &options.key else {
        return Ok(Own { key: None, from: String::new(), dns: Config::default() });
    };
    let key = PrivateKey::from_pem(&read_key(file)?)
        .map_err(|error| format!("the private key {} cannot be used: {error}", file.display()))?;
    Ok(Own { key: Some(Key::File(key)), from: file.display().to_string(), dns: Config::default() })
}

fn configured(file: &Path, domain: &str, selector: &str) -> Result<Own, Box<dyn std::error::Error>> {
    let part = pintle_config::parts::signing(file).map_err(|error| format!("{}: {error}", file.display()))?;
    if !part.report.mistakes.is_empty() {
        return Err(part.report.to_string().into());
    }
    let (ring, dns) = part.value;
    let mut keys = ring.for_domain(domain);
    let key = keys.find(|key| key.selector().eq_ignore_ascii_case(selector)).ok_or_else(|| {
        format!(
            "no [dkim_keys.NAME] of {} has the domain {domain} and the selector {selector}",
            file.display()
        )
    })?;
    let from = format!("[dkim_keys.{}]", key.name());
    Ok(Own { key: Some(Key::Configured(Arc::clone(key))), from, dns })
}

fn print_good(name: &str, published: &PublishedKey, own: &Own) {
    let kind = published.algorithm.map(|algorithm| algorithm.to_string()).unwrap_or_default();
    if own.key.is_some() {
        say!("{name}: good, {kind}, the key of {}", own.from);
    } else {
        say!("{name}: good, {kind}; to compare it with your private key, give --key FILE or -c FILE");
    }
}

/// Whether publishing the right record fixes the problem. A weak key needs a new key instead.
fn wants_record(finding: &KeyFinding) -> bool {
    !matches!(finding, KeyFinding::Weak(_))
}

async fn texts(dns: &Config, name: &str) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
    let resolver = HickoryResolver::new(dns)?;
    match resolver.lookup(name, DnsRecordKind::Txt).await {
        Ok(answer) => Ok(answer
            .records
            .into_iter()
            .filter_map(|record| match record {
                DnsRecord::Txt(text) => Some(text),
                _ => None,
            })
            .collect()),
        Err(DnsError::NxDomain | DnsError::NoData) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
