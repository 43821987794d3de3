//! Host functions of `session`: the SMTP session of the current call.

use std::time::{Duration, SystemTime};

use pintle_mail::{Param, UnixTime};
use pintle_policy::facts::CLIENT_NAME;
use pintle_policy::{Edit, Hook, TlsFacts};
use wasmtime::component::{HasData, Linker};

use super::checks::{self, need, need_any};
use super::facts;
use crate::bindings::pintle::plugin::session::{self, Certificate, Host, Snapshot, TlsState};
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
    pub(super) fn of(HostParts { services, state, grants, call, ahead, meter, .. }: HostParts<'a>) -> Self {
        Self { dns: CallDns::of(services, meter), call, grants, ahead, habits: &state.habits }
    }
}

impl Host for SessionView<'_> {
    fn info(&mut self) -> Result<Snapshot, HostError> {
        let session = self.call.session()?;
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
            known: !session.is_stranger(),
            age_ms: age_ms(session.started),
        })
    }

    fn tls(&mut self) -> Result<Option<TlsState>, HostError> {
        let state = |facts: &TlsFacts| TlsState {
            version: facts.version.clone(),
            cipher: facts.cipher.clone(),
            server_name: facts.server_name.clone(),
        };
        Ok(self.call.session()?.tls.as_ref().map(state))
    }

    fn client_certificate(&mut self) -> Result<Option<Certificate>, HostError> {
        let certificate = |facts: &TlsFacts| {
            Some(Certificate {
                sha256: facts.client_certificate_sha256.clone()?,
                subject: facts.client_certificate_subject.clone().unwrap_or_default(),
                issuer: String::new(),
                names: Vec::new(),
                verified: facts.client_certificate_verified,
            })
        };
        Ok(self.call.session()?.tls.as_ref().and_then(certificate))
    }

    async fn reverse_names(&mut self) -> Result<Vec<String>, HostError> {
        need_any(self.grants, &[GrantKind::ReverseDns, GrantKind::Dns])?;
        let address = self.call.session()?.client.ip();
        self.ahead.asks(self.habits, Lookup::Names);
        let found = match self.ahead.names.clone() {
            Some(names) => names,
            None => pintle_dns::reverse_names(&self.dns.in_time(), address, MAX_REVERSE_NAMES).await,
        };
        let names = found.map_err(|error| HostError::Temporary(error.to_string()))?.names().to_vec();
        self.publish_client_name(names.first())?;
        Ok(names)
    }

    fn extensions(&mut self) -> Result<Vec<types::Param>, HostError> {
        self.is_hello()?;
        Ok(self.call.session()?.extensions.iter().map(convert::param).collect())
    }

    fn offer_extension(&mut self, keyword: String, value: Option<String>) -> Result<(), HostError> {
        self.edits_extensions()?;
        check_keyword(&keyword)?;
        if value.as_ref().is_some_and(|value| value.len() > 200 || !value.bytes().all(is_text)) {
            return Err(HostError::Invalid("the value is not printable ASCII of at most 200 octets".into()));
        }
        let offered = &self.call.session()?.extensions;
        let is_new = !offered.iter().any(|param| param.name.eq_ignore_ascii_case(&keyword));
        if is_new && offered.len() >= MAX_EXTENSIONS {
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

    fn note(&mut self, key: String) -> Result<Option<Vec<u8>>, HostError> {
        let judge = self.call.judge().to_owned();
        let note = self.call.session()?.notes.get(&judge, &key).map(<[u8]>::to_vec);
        self.call.budget.charge(note.as_ref().map_or(0, Vec::len) as u64)?;
        Ok(note)
    }

    fn set_note(&mut self, key: String, value: Option<Vec<u8>>) -> Result<(), HostError> {
        self.is_kept()?;
        let judge = self.call.judge().to_owned();
        checks::check_note(&self.call.session()?.notes, &judge, &key, value.as_ref())?;
        let octets = key.len() + value.as_ref().map_or(0, Vec::len);
        self.call.record(Edit::SessionNote(key, value), octets)
    }

    fn facts(&mut self, keys: Vec<String>) -> Result<Vec<Option<String>>, HostError> {
        facts::charge(&mut self.call.budget, keys.len())?;
        let found = facts::find(&self.call.session()?.facts, &keys);
        let octets: usize = found.iter().flatten().map(String::len).sum();
        self.call.budget.charge(octets as u64)?;
        Ok(found)
    }

    fn set_fact(&mut self, key: String, value: String) -> Result<(), HostError> {
        self.is_kept()?;
        let judge = self.call.judge().to_owned();
        let name = facts::name(&judge, &key)?;
        facts::check(&self.call.session()?.facts, &judge, &name, &value)?;
        let octets = name.len() + value.len();
        self.call.record(Edit::SessionFact(name, value), octets)
    }

    fn delay_reply(&mut self, ms: u32) -> Result<(), HostError> {
        self.has_reply("delaying the reply")?;
        self.call.delay(Duration::from_millis(ms.into()), MAX_DELAY);
        Ok(())
    }

    fn close(&mut self) -> Result<(), HostError> {
        self.has_reply("closing the session")?;
        self.call.record(Edit::Close, 0)
    }
}

impl SessionView<'_> {
    fn edits_extensions(&self) -> Result<(), HostError> {
        need(self.grants, GrantKind::EditExtensions)?;
        self.is_hello()
    }

    /// Checks that the session goes on after this call, and that it is not a snapshot.
    fn is_kept(&self) -> Result<(), HostError> {
        match self.call.hook {
            Some(Hook::Disconnect | Hook::Queued) => Err(unavailable("changing the session")),
            _ => Ok(()),
        }
    }

    fn is_hello(&self) -> Result<(), HostError> {
        if self.call.hook == Some(Hook::Hello) {
            return Ok(());
        }
        Err(unavailable("the list of extensions"))
    }

    /// Checks that the reply of this stage is sent by the pipeline, which can delay it or close the session after it.
    fn has_reply(&self, what: &str) -> Result<(), HostError> {
        match self.call.hook {
            Some(
                Hook::Connect
                | Hook::Hello
                | Hook::Mail
                | Hook::Rcpt
                | Hook::Data
                | Hook::Headers
                | Hook::Message,
            ) => Ok(()),
            _ => Err(unavailable(what)),
        }
    }

    /// Publishes the client's confirmed name as a fact, which the Received field shows.
    fn publish_client_name(&mut self, name: Option<&String>) -> Result<(), HostError> {
        let known = self.call.session()?.facts.contains_key(CLIENT_NAME);
        match name {
            Some(name) if !known => {
                self.call.record(Edit::SessionFact(CLIENT_NAME.to_owned(), name.clone()), name.len())
            }
            _ => Ok(()),
        }
    }
}

fn age_ms(started: UnixTime) -> u32 {
    let age = UnixTime::from(SystemTime::now()).since(started);
    u32::try_from(age.as_millis()).unwrap_or(u32::MAX)
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
