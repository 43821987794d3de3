//! The ARC chain: the servers that handled the message and vouch for their results (RFC 8617 section 5.2).

use mail_auth::AuthenticatedMessage;
use mail_auth::arc::{ChainValidation, Seal, Signature};
use mail_auth::common::headers::Header;
use mail_auth::dkim::Canonicalization;
use pintle_mail::auth_results::{self, ReportedResult};

use super::keys::{PublicKeys, key_name};
use super::signed::{self, SignatureVerdict};
use crate::AuthOutcome;

/// The most sets of a chain (section 4.2.1).
const MAX_SETS: usize = 50;

/// The result of an ARC chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArcResult {
    /// The result: `none`, `pass`, `fail` or `temperror`.
    pub outcome: AuthOutcome,
    /// The domains that sealed, the oldest first. Empty unless the chain passes, since otherwise none of them is
    /// proven.
    pub sealers: Vec<String>,
    /// The results that each of them reports of the message as it received it, in the same order.
    pub reported: Vec<Vec<ReportedResult>>,
    /// What was wrong, as text for people; none with `pass`.
    pub reason: Option<String>,
}

impl ArcResult {
    /// The result of a message without a chain.
    #[must_use]
    pub fn none() -> Self {
        Self { outcome: AuthOutcome::None, sealers: Vec::new(), reported: Vec::new(), reason: None }
    }

    pub(super) fn of(outcome: AuthOutcome, reason: &str) -> Self {
        Self { outcome, reason: Some(reason.to_owned()), ..Self::none() }
    }
}

/// The names of the keys that the chain needs: of every seal, and of the newest message signature.
pub(super) fn key_names(header: &AuthenticatedMessage<'_>) -> impl Iterator<Item = String> {
    let seals = header.as_headers.iter().take(MAX_SETS);
    let seals = seals.map(|seal| key_name(&seal.header.s, &seal.header.d));
    let last = header.ams_headers.iter().max_by_key(|field| field.header.i);
    seals.chain(last.map(|field| key_name(&field.header.s, &field.header.d)))
}

pub(super) fn judge(message: &AuthenticatedMessage<'_>, keys: &PublicKeys, now: u64) -> ArcResult {
    let count = message.as_headers.len();
    let is_empty = count == 0 && message.ams_headers.is_empty() && message.aar_headers.is_empty();
    if is_empty && !message.has_arc_errors {
        return ArcResult::none();
    }
    match verify(message, keys, now) {
        Ok(()) => ArcResult {
            outcome: AuthOutcome::Pass,
            sealers: message.as_headers.iter().map(sealer).collect(),
            reported: message.aar_headers.iter().map(|field| reported(field.value)).collect(),
            reason: None,
        },
        // A chain has only the results pass or fail (section 5.2); temporary DNS errors are reported separately.
        Err((AuthOutcome::TempError, reason)) => ArcResult::of(AuthOutcome::TempError, &reason),
        Err((_, reason)) => ArcResult::of(AuthOutcome::Fail, &reason),
    }
}

fn sealer(seal: &Header<'_, Seal>) -> String {
    pintle_mail::address::domain_to_ascii(&seal.header.d)
}

/// The results of an ARC-Authentication-Results field (section 4.1.1).
fn reported(value: &[u8]) -> Vec<ReportedResult> {
    let unfolded: Vec<u8> = value.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    let results = auth_results::reported_in_arc(&String::from_utf8_lossy(&unfolded)).into_iter();
    results.map(|result| shown(&result)).collect()
}

fn shown(result: &ReportedResult) -> ReportedResult {
    let properties = result.properties.iter();
    ReportedResult {
        method: signed::shown(&result.method),
        outcome: signed::shown(&result.outcome),
        reason: result.reason.as_deref().map(signed::shown),
        properties: properties.map(|(name, value)| (signed::shown(name), signed::shown(value))).collect(),
    }
}

fn broken(reason: &str) -> SignatureVerdict {
    (AuthOutcome::Fail, reason.to_owned())
}

fn verify(message: &AuthenticatedMessage<'_>, keys: &PublicKeys, now: u64) -> Result<(), SignatureVerdict> {
    check_form(message)?;
    let last = message.ams_headers.last();
    verify_message(message, last.ok_or_else(|| broken("there is no set"))?, keys, now)?;
    // Step 6: seals are verified from the newest to the oldest.
    (0..message.as_headers.len()).rev().try_for_each(|at| verify_seal(message, at, keys))
}

/// Steps 1 to 3: complete sets, numbered from 1 without a gap, the first one without a chain before it.
fn check_form(message: &AuthenticatedMessage<'_>) -> Result<(), SignatureVerdict> {
    let count = message.as_headers.len();
    if message.has_arc_errors {
        return Err(broken("a field of the chain cannot be read"));
    }
    if count > MAX_SETS || message.ams_headers.len() != count || message.aar_headers.len() != count {
        return Err(broken("the sets of the chain are not whole, or too many"));
    }
    for at in 0..count {
        let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let seal = &message.as_headers[at].header;
        let numbers = [seal.i, message.ams_headers[at].header.i, message.aar_headers[at].header.i];
        if numbers != [number; 3] {
            return Err(broken("the sets of the chain are not numbered one by one"));
        }
        let expected = if at == 0 { ChainValidation::None } else { ChainValidation::Pass };
        if seal.cv != expected {
            return Err(broken("a sealer found the chain broken"));
        }
    }
    Ok(())
}

/// Step 4: the newest message signature, which covers the message as it is.
fn verify_message(
    message: &AuthenticatedMessage<'_>,
    field: &Header<'_, Signature>,
    keys: &PublicKeys,
    now: u64,
) -> Result<(), SignatureVerdict> {
    let signature = &field.header;
    signed::check_algorithm(signature.a)?;
    if signed::tags(field.value).is_none() {
        return Err(broken("the tags of the newest message signature cannot be read, or one occurs twice"));
    }
    if signature.x != 0 && signature.x < signature.t.max(now) {
        return Err(broken("the newest message signature has expired"));
    }
    // Section 4.1.2: seals must not be covered.
    if signature.h.iter().any(|name| name.eq_ignore_ascii_case("arc-seal")) {
        return Err(broken("the newest message signature covers a seal"));
    }
    signed::check_body(message, signature.cb, signature.a, &signature.bh)?;
    let key = keys.get(&signature.s, &signature.d).map_err(signed::without_key)?;
    let own = signed::unsigned(field.value);
    let headers = signed::covered(message, &signature.h, (field.name, &own));
    key.verifier
        .verify(&mut headers.into_iter(), &signature.b, signature.ch, signature.a)
        .map_err(|error| signed::unverified(&error))
}

/// Section 5.1.1: a seal covers all fields of the sets up to its own, in this order, itself without its signature.
fn verify_seal(
    message: &AuthenticatedMessage<'_>,
    at: usize,
    keys: &PublicKeys,
) -> Result<(), SignatureVerdict> {
    let field = &message.as_headers[at];
    let seal = &field.header;
    signed::check_algorithm(seal.a)?;
    if signed::tags(field.value).is_none() {
        return Err(broken("the tags of a seal cannot be read, or one occurs twice"));
    }
    let key = keys.get(&seal.s, &seal.d).map_err(signed::without_key)?;
    let own = signed::unsigned(field.value);
    let mut covered: Vec<(&[u8], &[u8])> = Vec::with_capacity(3 * at + 3);
    for number in 0..=at {
        let (results, signature) = (&message.aar_headers[number], &message.ams_headers[number]);
        covered.push((results.name, results.value));
        covered.push((signature.name, signature.value));
        let before = &message.as_headers[number];
        covered.push((before.name, if number == at { &own } else { before.value }));
    }
    key.verifier
        .verify(&mut covered.into_iter(), &seal.b, Canonicalization::Relaxed, seal.a)
        .map_err(|error| signed::unverified(&error))
}
