//! `session`: the SMTP session of the call.

use std::time::{Duration, SystemTime};

use pintle_mail::{Param, UnixTime};
use pintle_policy::{Edit, Hook};

use super::facts;
use crate::GrantKind;
use crate::bindings::pintle::plugin::session::{Host, Snapshot, TlsState};
use crate::bindings::pintle::plugin::types::{self, HostError};
use crate::call::unavailable;
use crate::convert;
use crate::habits::Need;
use crate::store_data::{StoreData, ip};

/// The longest wait before a reply: clients give up after five minutes (RFC 5321 section 4.5.3.2).
const MAX_DELAY: Duration = Duration::from_secs(60);
/// The most extensions that are offered.
const MAX_EXTENSIONS: usize = 64;
/// How many names of an address are looked at.
pub(crate) const MAX_NAMES: usize = 10;

impl Host for StoreData {
    fn info(&mut self) -> wasmtime::Result<Snapshot> {
        let Ok(session) = self.live.session() else {
            return Err(wasmtime::Error::msg("it asked for the session in a call that belongs to none"));
        };
        Ok(Snapshot {
            id: session.id.to_string(),
            listener: session.listener.clone(),
            client: ip(session.client.ip()),
            client_port: session.client.port(),
            local: ip(session.local.ip()),
            local_port: session.local.port(),
            hello: session.hello.clone(),
            esmtp: session.esmtp,
            tls: session.tls.is_some(),
            identity: session.identity.clone(),
            trusted: session.trusted,
            age_ms: age_ms(session.started),
        })
    }

    fn tls(&mut self) -> Option<TlsState> {
        let facts = self.live.session().ok()?.tls.as_ref()?;
        Some(TlsState {
            version: facts.version.clone(),
            cipher: facts.cipher.clone(),
            server_name: facts.server_name.clone(),
            client_certificate_sha256: facts.client_certificate_sha256.clone(),
            client_certificate_subject: facts.client_certificate_subject.clone(),
            client_certificate_verified: facts.client_certificate_verified,
        })
    }

    async fn reverse_names(&mut self) -> Result<Vec<String>, HostError> {
        self.need_any(&[GrantKind::ReverseDns, GrantKind::Dns])?;
        let address = self.live.session()?.client.ip();
        self.asks(Need::Names);
        let names = match self.ahead.names.clone() {
            Some(names) => names,
            None => pintle_dns::reverse_names(&self.dns_in_time(), address, MAX_NAMES).await,
        };
        names.map(|names| names.names().to_vec()).map_err(|error| HostError::Temporary(error.to_string()))
    }

    fn extensions(&mut self) -> Vec<types::Param> {
        let session = self.live.session().ok();
        session.map_or_else(Vec::new, |session| session.extensions.iter().map(convert::param).collect())
    }

    fn offer_extension(&mut self, keyword: String, value: Option<String>) -> Result<(), HostError> {
        self.edits_extensions()?;
        check_keyword(&keyword)?;
        if value.as_ref().is_some_and(|value| value.len() > 200 || !value.bytes().all(is_text)) {
            return Err(HostError::Invalid("the value is not printable ASCII of at most 200 octets".into()));
        }
        if self.live.session()?.extensions.len() >= MAX_EXTENSIONS {
            return Err(HostError::Limit(format!("there are at most {MAX_EXTENSIONS} extensions")));
        }
        let octets = keyword.len();
        let name = keyword.to_ascii_uppercase();
        self.live.record(Edit::Offer(Param { name, value }), octets)
    }

    fn withhold_extension(&mut self, keyword: String) -> Result<(), HostError> {
        self.edits_extensions()?;
        check_keyword(&keyword)?;
        let octets = keyword.len();
        self.live.record(Edit::Withhold(keyword.to_ascii_uppercase()), octets)
    }

    fn note(&mut self, key: String) -> Option<Vec<u8>> {
        let judge = self.live.judge().to_owned();
        let note = self.live.session().ok()?.notes.get(&judge, &key).map(<[u8]>::to_vec);
        self.charged(note, Vec::len)
    }

    fn set_note(&mut self, key: String, value: Option<Vec<u8>>) -> Result<(), HostError> {
        let judge = self.live.judge().to_owned();
        super::check_note(&self.live.session()?.notes, &judge, &key, value.as_ref())?;
        let octets = key.len() + value.as_ref().map_or(0, Vec::len);
        self.live.record(Edit::SessionNote(key, value), octets)
    }

    fn fact(&mut self, key: String) -> Option<String> {
        let judge = self.live.judge().to_owned();
        let fact = facts::find(&self.live.session().ok()?.facts, &judge, &key);
        self.charged(fact, String::len)
    }

    fn set_fact(&mut self, key: String, value: String) -> Result<(), HostError> {
        let name = self.fact_name(key)?;
        let judge = self.live.judge().to_owned();
        facts::check(&self.live.session()?.facts, &judge, &name, &value)?;
        let octets = name.len() + value.len();
        self.live.record(Edit::SessionFact(name, value), octets)
    }

    fn delay_reply(&mut self, ms: u32) {
        self.live.delay(Duration::from_millis(ms.into()), MAX_DELAY);
    }
}

impl StoreData {
    fn edits_extensions(&self) -> Result<(), HostError> {
        self.need(GrantKind::EditExtensions)?;
        if self.live.hook == Some(Hook::Hello) {
            return Ok(());
        }
        Err(unavailable("the list of extensions"))
    }
}

fn age_ms(started: UnixTime) -> u64 {
    let age = UnixTime::from(SystemTime::now()).since(started);
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 5321 section 4.1.1.1: `ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")`.
fn check_keyword(keyword: &str) -> Result<(), HostError> {
    let fits = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && keyword.len() <= 64;
    if fits {
        return Ok(());
    }
    Err(HostError::Invalid("an EHLO keyword has letters, digits and hyphens".into()))
}

fn is_text(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}
