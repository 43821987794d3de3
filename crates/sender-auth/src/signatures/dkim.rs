//! DKIM signatures, each with its own result (RFC 6376 section 6.1).

use base64::Engine;
use mail_auth::AuthenticatedMessage;
use mail_auth::common::headers::Header;
use mail_auth::dkim::Signature;
use pintle_mail::address::domain_to_ascii;

use super::keys::{PublicKeys, SignerKey, key_name};
use super::signed::{self, SignatureVerdict};
use crate::{AuthOutcome, author, domain};

/// The most signatures that are verified: each costs a query and a public-key operation. RFC 6376 section 8.4 asks for
/// such a limit.
const MAX_SIGNATURES: usize = 10;

/// The result of one signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimResult {
    /// The result: `pass`, `fail`, `policy`, `temperror` or `permerror`.
    pub outcome: AuthOutcome,
    /// The signing domain (`d=`), as far as the field could be read.
    pub domain: String,
    /// The selector of the key (`s=`).
    pub selector: String,
    /// The identity that the signer acts for (`i=`), if the field has one.
    pub identity: Option<String>,
    /// The algorithm as in the field: `rsa-sha256`, `ed25519-sha256`; empty when it cannot be read.
    pub algorithm: &'static str,
    /// The first characters of the signature, which distinguish it from others in reports (RFC 6008 section 4).
    pub signature: String,
    /// What was wrong, as text for people; none with `pass`.
    pub reason: Option<String>,
}

impl DkimResult {
    pub(super) fn of(outcome: AuthOutcome, reason: &str) -> Self {
        Self {
            outcome,
            domain: String::new(),
            selector: String::new(),
            identity: None,
            algorithm: "",
            signature: String::new(),
            reason: Some(reason.to_owned()),
        }
    }
}

/// The names of the keys that the signatures need.
pub(super) fn key_names(header: &AuthenticatedMessage<'_>) -> impl Iterator<Item = String> {
    looked_at(header).map(|signed| key_name(&signed.header.s, &signed.header.d))
}

/// The signatures that are verified, in their order. When there are too many, those that may be aligned with the author
/// come first: a valid one must not be lost below others that anyone can add above it.
fn looked_at<'m, 'x>(
    message: &'m AuthenticatedMessage<'x>,
) -> impl Iterator<Item = &'m Header<'x, Signature>> + use<'m, 'x> {
    let all = &message.dkim_headers;
    let mut chosen: Vec<usize> = (0..all.len()).collect();
    if all.len() > MAX_SIGNATURES {
        let authors = authors(message);
        chosen.sort_by_key(|at| !may_be_aligned(&authors, &all[*at].header.d));
        chosen.truncate(MAX_SIGNATURES);
        chosen.sort_unstable();
    }
    chosen.into_iter().map(|at| &all[at])
}

/// The author's domains, as DMARC reads them. None for mail with more than one From field, which passes nowhere.
fn authors(message: &AuthenticatedMessage<'_>) -> Vec<String> {
    let is_from = |name: &[u8]| name.trim_ascii_end().eq_ignore_ascii_case(b"From");
    let fields = message.headers.iter().filter(|(name, _)| is_from(name));
    fields.take(MAX_SIGNATURES).flat_map(|(_, value)| author::domains(value)).collect()
}

/// Whether the signer's domain is the author's, or above or below it. Which of these are aligned, DMARC finds out by
/// DNS.
fn may_be_aligned(authors: &[String], signer: &str) -> bool {
    let signer = domain_to_ascii(signer);
    authors.iter().any(|author| domain::is_within(&signer, author) || domain::is_within(author, &signer))
}

/// The results of all signatures: first those that could be read, in their order, then those that could not.
pub(super) fn judge(message: &AuthenticatedMessage<'_>, keys: &PublicKeys, now: u64) -> Vec<DkimResult> {
    let mut results: Vec<_> =
        looked_at(message).map(|signed| result(&signed.header, verify(message, signed, keys, now))).collect();
    let unread = message.errors.iter().filter(|field| field.name.eq_ignore_ascii_case(b"DKIM-Signature"));
    let unread = unread.map(|field| DkimResult::of(AuthOutcome::PermError, &field.header.to_string()));
    results.extend(unread.take(MAX_SIGNATURES));
    if message.dkim_headers.len() > MAX_SIGNATURES {
        let reason = format!("no more than {MAX_SIGNATURES} signatures are verified");
        results.push(DkimResult::of(AuthOutcome::Policy, &reason));
    }
    results
}

fn result(signature: &Signature, verdict: Result<(), SignatureVerdict>) -> DkimResult {
    let (outcome, reason) = match verdict {
        Ok(()) => (AuthOutcome::Pass, None),
        Err((outcome, reason)) => (outcome, Some(reason)),
    };
    DkimResult {
        outcome,
        domain: signed::shown(&domain_to_ascii(&signature.d)),
        selector: signed::shown(&signature.s),
        identity: Some(signed::shown(&signature.i)).filter(|identity| !identity.is_empty()),
        algorithm: signed::algorithm_name(signature.a),
        signature: beginning(&signature.b),
        reason,
    }
}

/// RFC 6008 section 4: at least eight characters.
fn beginning(signature: &[u8]) -> String {
    let octets = signature.get(..6).unwrap_or(signature);
    base64::engine::general_purpose::STANDARD.encode(octets)
}

fn verify(
    message: &AuthenticatedMessage<'_>,
    field: &Header<'_, Signature>,
    keys: &PublicKeys,
    now: u64,
) -> Result<(), SignatureVerdict> {
    let signature = &field.header;
    check_form(field, now)?;
    signed::check_body(message, signature.cb, signature.a, &signature.bh)?;
    let key = keys.get(&signature.s, &signature.d).map_err(signed::without_key)?;
    check_identity(signature, key)?;
    let own = signed::unsigned(field.value);
    let headers = signed::covered(message, &signature.h, (field.name, &own));
    key.verifier
        .verify(&mut headers.into_iter(), &signature.b, signature.ch, signature.a)
        .map_err(|error| signed::unverified(&error))
}

/// The checks of section 6.1.1 that the parser does not make.
fn check_form(field: &Header<'_, Signature>, now: u64) -> Result<(), SignatureVerdict> {
    let signature = &field.header;
    signed::check_algorithm(signature.a)?;
    let permanent = |reason: &str| Err((AuthOutcome::PermError, reason.to_owned()));
    let Some(tags) = signed::tags(field.value) else {
        return permanent("its tags cannot be read, or one occurs twice");
    };
    // Section 3.5: the version is required.
    if tags.get("v").is_none() {
        return permanent("it has no version");
    }
    // Section 5.4: From must be signed.
    if !signature.h.iter().any(|name| name.eq_ignore_ascii_case("from")) {
        return permanent("From is not signed");
    }
    if signature.x != 0 && signature.x < signature.t.max(now) {
        return permanent("the signature has expired");
    }
    if !domain::is_name(&domain_to_ascii(&signature.d)) {
        return permanent("its domain is not a domain name");
    }
    Ok(())
}

/// Section 3.5: the identity is within the signing domain; section 3.6.1: it is exactly in that domain, when the key
/// requires it.
fn check_identity(signature: &Signature, key: &SignerKey) -> Result<(), SignatureVerdict> {
    if signature.i.is_empty() {
        return Ok(());
    }
    // RFC 8616 section 5: either may be in U-labels, so both are compared in A-labels.
    let of = signature.i.rsplit_once('@').map_or_else(String::new, |(_, of)| domain_to_ascii(of));
    let signer = domain_to_ascii(&signature.d);
    let fits = if key.same_domain { domain::same(&of, &signer) } else { domain::is_within(&of, &signer) };
    if fits {
        return Ok(());
    }
    Err((AuthOutcome::PermError, "its identity is not of the signing domain".into()))
}
