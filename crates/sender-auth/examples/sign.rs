//! Signs a message file, so that other implementations can verify it. For developers.
//!
//! `sign dkim DOMAIN FILE SELECTOR=KEY.pem…` adds a DKIM-Signature for each key; `sign arc DOMAIN FILE SELECTOR=KEY.pem
//! [SEALER…]` adds an ARC set after those of the named sealers, which are assumed to be valid. The message, with CRLF
//! line ends, is written to standard output.

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::SystemTime;

use pintle_mail::auth_results::MethodResult;
use pintle_mail::{Bytes, HeaderBlock, UnixTime};
use pintle_sender_auth::sign::{Assessment, KeyConfig, Keyring, Pem, SigningKey, seal, sign};
use pintle_sender_auth::{ArcResult, AuthOutcome};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, domain, file, rest @ ..] = arguments.as_slice() else {
        return Err("usage: sign dkim|arc DOMAIN FILE SELECTOR=KEY.pem… [SEALER…]".into());
    };
    let (keys, sealers): (Vec<&String>, Vec<&String>) = rest.iter().partition(|part| part.contains('='));
    let keys = keys.into_iter().map(|pair| key(domain, pair)).collect::<Result<Vec<_>, _>>()?;
    let message = std::fs::read(file)?;
    let end = message.windows(4).position(|at| at == b"\r\n\r\n").ok_or("no empty line behind the header")?;
    let header = HeaderBlock::parse(Bytes::copy_from_slice(&message[..end + 2]));
    let body = Bytes::copy_from_slice(&message[end + 4..]);
    let now = UnixTime::from(SystemTime::now());
    let fields = match kind.as_str() {
        "dkim" => sign(&keys, &header, &body, now).await?,
        _ => {
            let outcome = if sealers.is_empty() { AuthOutcome::None } else { AuthOutcome::Pass };
            let chain =
                ArcResult { outcome, sealers: sealers.into_iter().cloned().collect(), ..ArcResult::none() };
            let properties = [("header.d".to_owned(), domain.clone())];
            let result =
                MethodResult { method: "dkim", outcome: "pass", reason: None, properties: &properties };
            let found = Assessment { authserv_id: domain, results: &[result], chain: &chain };
            seal(keys.first().ok_or("no key")?, &found, &header, &body, now).await?
        }
    };
    let mut out = std::io::stdout().lock();
    out.write_all(&fields)?;
    out.write_all(&message)?;
    Ok(())
}

fn key(domain: &str, pair: &str) -> Result<Arc<SigningKey>, Box<dyn Error>> {
    let (selector, file) = pair.split_once('=').unwrap_or_default();
    let config = KeyConfig::new(selector, domain, selector, Pem::new(std::fs::read_to_string(file)?));
    let ring = Keyring::new(vec![config])
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    ring.get(selector).cloned().ok_or_else(|| "no key".into())
}
