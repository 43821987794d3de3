//! Host functions of `session`: the SMTP session of the current call.

use std::time::{Duration, SystemTime};

use pintle_mail::{Param, UnixTime};
use pintle_policy::{Edit, Hook};
use wasmtime::component::{HasData, Linker};

use super::checks::{self, need, need_any};
use super::facts;
use crate::bindings::pintle::plugin::session::{self, Host, Snapshot, TlsState};
use crate::bindings::pintle::plugin::types::{self, HostError};
use crate::call::CallState;
use crate::call::unavailable;
use crate::call_dns::{CallDns, MAX_REVERSE_NAMES};
use crate::habits::{Habits, Lookup, Prefetched};
use crate::store_data::{HostParts, StoreData};
use crate::{GrantKind, Grants, convert};

/// Maximum delay before a reply: clients time out after five minutes (RFC 5321 section 4.5.3.2).
const MAX_DELAY: Duration = Duration::from_secs(60);
/// Maximum number of SMTP extensions offered.
const MAX_EXTENSIONS: usize = 64;
/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    session::add_to_linker::<_, SessionInterface>(linker, |data| SessionView::of(data.parts()))
}

struct SessionInterface;

impl HasData for SessionInterface {
    type Data<'a> = SessionView<'a>;
}

/// The data that the interface accesses: the current call, its prefetched lookups, and a resolver for the client's
/// names.
pub(crate) struct SessionView<'a> {
    call: &'a mut CallState,
    grants: &'a Grants,
    ahead: &'a mut Prefetched,
    habits: &'a Habits,
    dns: CallDns<'a>,
}

impl<'a> SessionView<'a> {
    fn of(HostParts { services, state, grants, call, ahead, meter, .. }: HostParts<'a>) -> Self {
        Self { dns: CallDns::of(services, meter), call, grants, ahead, habits: &state.habits }
    }
}

impl Host for SessionView<'_> {
    fn info(&mut self) -> wasmtime::Result<Snapshot> {
        let Ok(session) = self.call.session() else {
            return Err(wasmtime::Error::msg("it asked for the session in a call that belongs to none"));
        };
        Ok(Snapshot {
            id: session.id.to_string(),
            listener: session.listener.clone(),
            client: convert::ip(session.client.ip()),
            client_port: session.client.port(),
            local: convert::ip(session.local.ip()),
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
        let facts = self.call.session().ok()?.tls.as_ref()?;
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
        need_any(self.grants, &[GrantKind::ReverseDns, GrantKind::Dns])?;
        let address = self.call.session()?.client.ip();
        self.ahead.asks(self.habits, Lookup::Names);
        let names = match self.ahead.names.clone() {
            Some(names) => names,
            None => pintle_dns::reverse_names(&self.dns.in_time(), address, MAX_REVERSE_NAMES).await,
        };
        names.map(|names| names.names().to_vec()).map_err(|error| HostError::Temporary(error.to_string()))
    }

    fn extensions(&mut self) -> Vec<types::Param> {
        let session = self.call.session().ok();
        session.map_or_else(Vec::new, |session| session.extensions.iter().map(convert::param).collect())
    }

    fn offer_extension(&mut self, keyword: String, value: Option<String>) -> Result<(), HostError> {
        self.edits_extensions()?;
        check_keyword(&keyword)?;
        if value.as_ref().is_some_and(|value| value.len() > 200 || !value.bytes().all(is_text)) {
            return Err(HostError::Invalid("the value is not printable ASCII of at most 200 octets".into()));
        }
        if self.call.session()?.extensions.len() >= MAX_EXTENSIONS {
            return Err(HostError::Limit(format!("there are at most {MAX_EXTENSIONS} extensions")));
        }
        let octets = keyword.len();
        let name = keyword.to_ascii_uppercase();
        self.call.record(Edit::Offer(Param { name, value }), octets)
    }

    fn withhold_extension(&mut self, keyword: String) -> Result<(), HostError> {
        self.edits_extensions()?;
        check_keyword(&keyword)?;
        let octets = keyword.len();
        self.call.record(Edit::Withhold(keyword.to_ascii_uppercase()), octets)
    }

    fn note(&mut self, key: String) -> Option<Vec<u8>> {
        let judge = self.call.judge().to_owned();
        let note = self.call.session().ok()?.notes.get(&judge, &key).map(<[u8]>::to_vec);
        self.call.budget.charged(note, Vec::len)
    }

    fn set_note(&mut self, key: String, value: Option<Vec<u8>>) -> Result<(), HostError> {
        let judge = self.call.judge().to_owned();
        checks::check_note(&self.call.session()?.notes, &judge, &key, value.as_ref())?;
        let octets = key.len() + value.as_ref().map_or(0, Vec::len);
        self.call.record(Edit::SessionNote(key, value), octets)
    }

    fn fact(&mut self, key: String) -> Option<String> {
        let judge = self.call.judge().to_owned();
        let fact = facts::find(&self.call.session().ok()?.facts, &judge, &key);
        self.call.budget.charged(fact, String::len)
    }

    fn set_fact(&mut self, key: String, value: String) -> Result<(), HostError> {
        let name = facts::name(self.call.judge(), key, self.grants)?;
        let judge = self.call.judge().to_owned();
        facts::check(&self.call.session()?.facts, &judge, &name, &value)?;
        let octets = name.len() + value.len();
        self.call.record(Edit::SessionFact(name, value), octets)
    }

    fn delay_reply(&mut self, ms: u32) {
        self.call.delay(Duration::from_millis(ms.into()), MAX_DELAY);
    }
}

impl SessionView<'_> {
    fn edits_extensions(&self) -> Result<(), HostError> {
        need(self.grants, GrantKind::EditExtensions)?;
        if self.call.hook == Some(Hook::Hello) {
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
