//! Host functions of `secrets`: codes made with keys that the guest never sees, and random octets. Requires the grant
//! `secrets`.

use arc_swap::ArcSwap;
use aws_lc_rs::{hmac, rand};
use wasmtime::component::{HasData, Linker};

use super::checks::{bounded, need};
use crate::bindings::pintle::plugin::secrets::{self, Host};
use crate::bindings::pintle::plugin::types::HostError;
use crate::call::{CallState, unavailable};
use crate::store_data::{HostParts, StoreData};
use crate::{Gateway, GrantKind, Grants};

/// Maximum size of the data that one code is made of, in octets.
const MAX_DATA: usize = 1 << 20;
/// Maximum number of random octets of one call.
const MAX_RANDOM: usize = 1_024;
/// Budget charge of a code, in octets: setting up the key hashes two blocks.
const CODE_COST: u64 = 512;

/// Adds the interface to the linker.
pub(crate) fn link(linker: &mut Linker<StoreData>) -> wasmtime::Result<()> {
    secrets::add_to_linker::<_, SecretsInterface>(linker, |data| SecretsView::of(data.parts()))
}

struct SecretsInterface;

impl HasData for SecretsInterface {
    type Data<'a> = SecretsView<'a>;
}

/// The data that the interface accesses: the gateway's secrets, and the current call.
pub(crate) struct SecretsView<'a> {
    gateway: &'a ArcSwap<Gateway>,
    grants: &'a Grants,
    call: &'a mut CallState,
}

impl<'a> SecretsView<'a> {
    pub(super) fn of(HostParts { services, grants, call, .. }: HostParts<'a>) -> Self {
        Self { gateway: &services.gateway, grants, call }
    }
}

impl Host for SecretsView<'_> {
    fn hmac(&mut self, key: String, algorithm: String, data: Vec<u8>) -> Result<Vec<u8>, HostError> {
        need(self.grants, GrantKind::Secrets)?;
        if !self.grants.permits(GrantKind::Secrets, &key) {
            return Err(HostError::Denied(format!("{}:{key}", GrantKind::Secrets)));
        }
        self.call.hook.ok_or_else(|| unavailable("a secret"))?;
        let algorithm = named(&algorithm)?;
        bounded("the data of a code", data.len(), MAX_DATA)?;
        self.call.budget.charge(CODE_COST + data.len() as u64)?;
        let gateway = self.gateway.load();
        let secret = gateway.secrets.get(&key).ok_or_else(|| {
            HostError::Invalid(format!("there is no secret {key:?} in the configuration ([secrets.NAME])"))
        })?;
        let key = hmac::Key::new(algorithm, secret.octets());
        Ok(hmac::sign(&key, &data).as_ref().to_vec())
    }

    fn random_bytes(&mut self, len: u32) -> Result<Vec<u8>, HostError> {
        need(self.grants, GrantKind::Secrets)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        bounded("a random value", len, MAX_RANDOM)?;
        self.call.budget.charge(len as u64)?;
        let mut octets = vec![0; len];
        rand::fill(&mut octets).map_err(|error| HostError::Temporary(error.to_string()))?;
        Ok(octets)
    }
}

/// HMAC-SHA1 is sound as a code, although SHA-1 no longer is as a digest (RFC 6194 section 3.3); BATV and SRS use it.
fn named(algorithm: &str) -> Result<hmac::Algorithm, HostError> {
    match algorithm {
        "sha1" => Ok(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        "sha256" => Ok(hmac::HMAC_SHA256),
        _ => Err(HostError::Unavailable("this host makes codes by \"sha1\" and \"sha256\"".into())),
    }
}
