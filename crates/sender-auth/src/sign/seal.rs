//! ARC sets: our authentication results of a message, signed, for those it is forwarded to (RFC 8617 section 5.1).

use std::fmt;
use std::sync::Arc;

use pintle_mail::auth_results::{self, MethodResult};
use pintle_mail::{Body, HeaderBlock, UnixTime};

use super::canonical::Canonicalization;
use super::field::{FieldText, Unsigned, seconds};
use super::{BodyHashes, SignError, SigningKey, complete};
use crate::tags::TagList;
use crate::{ArcResult, AuthOutcome};

/// The most sets of a chain (section 4.2.1).
const MAX_SETS: u32 = 50;

/// The fields of a set in the order in which a seal covers them (section 5.1.1).
const SET: [&str; 3] = ["ARC-Authentication-Results", "ARC-Message-Signature", "ARC-Seal"];

/// Our authentication results of a message, which the seal vouches for.
#[derive(Debug, Clone, Copy)]
pub struct Assessment<'a> {
    /// Our authserv-id, as in Authentication-Results (RFC 8601 section 2.5).
    pub authserv_id: &'a str,
    /// The results of SPF, DKIM, DMARC and ARC when the message arrived.
    pub results: &'a [MethodResult<'a>],
    /// The result for its ARC chain when the message arrived.
    pub chain: &'a ArcResult,
}

/// Why no set was made. The message may be sent without one.
#[derive(Debug, Clone)]
pub enum SealError {
    /// The last sealer has already marked the chain as broken, and there is nothing to add (section 5.1, step 2).
    AlreadyFailed,
    /// There are 50 sets (section 4.2.1), or one with a higher number.
    TooLong,
    /// The chain could not be verified because of DNS, so we cannot state its result.
    Undecided,
    /// The sets are not those that were verified: the header has been edited since.
    Changed,
    /// The message cannot be signed.
    Sign(SignError),
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyFailed => f.write_str("the ARC chain has been marked as broken by its last sealer"),
            Self::TooLong => write!(f, "the ARC chain has {MAX_SETS} sets, and no more are allowed"),
            Self::Undecided => f.write_str("DNS did not say whether the ARC chain is good"),
            Self::Changed => f.write_str("the ARC chain is not the one that was verified"),
            Self::Sign(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SealError {}

impl From<SignError> for SealError {
    fn from(error: SignError) -> Self {
        Self::Sign(error)
    }
}

/// Makes the three fields of a new set, to be put above `header`, which must be the message as it leaves us: sealing
/// comes after all other changes (section 5.1, step 1).
///
/// A chain that failed is sealed as failed, once (section 5.1.2).
///
/// # Errors
/// The chain must not be sealed, or the message cannot be signed.
pub async fn seal(
    key: &Arc<SigningKey>,
    found: &Assessment<'_>,
    header: &HeaderBlock,
    body: &dyn Body,
    now: UnixTime,
) -> Result<Vec<u8>, SealError> {
    let chain = SealedChain::of(header, found.chain)?;
    if header.named("From").next().is_none() {
        return Err(SignError::NoFrom.into());
    }
    let results = results_field(chain.instance, found);
    let hashes = BodyHashes::of(body, std::slice::from_ref(key)).await?;
    let signature = Unsigned::arc(key, chain.instance, header, hashes.get(key), now);
    let signature = complete(vec![signature]).await?;
    let own = [results.as_slice(), signature.as_slice()];
    let seal = complete(vec![chain.seal(key, own, now)]).await?;
    Ok([seal, signature, results].concat())
}

/// The chain as the new seal covers it.
struct SealedChain<'a> {
    /// The number of the new set.
    instance: u32,
    /// The value of `cv=`.
    validation: &'static str,
    /// The fields of the older sets that the seal covers, in order.
    covered: Vec<&'a [u8]>,
}

impl<'a> SealedChain<'a> {
    fn of(header: &'a HeaderBlock, verified: &ArcResult) -> Result<Self, SealError> {
        let fields = SET.iter().flat_map(|name| header.named(name));
        let highest = fields.filter_map(|field| instance(&field.value())).max().unwrap_or(0);
        if highest >= MAX_SETS {
            return Err(SealError::TooLong);
        }
        let (validation, covered) = match verified.outcome {
            AuthOutcome::TempError => return Err(SealError::Undecided),
            AuthOutcome::None if highest > 0 => return Err(SealError::Changed),
            AuthOutcome::None => ("none", Vec::new()),
            AuthOutcome::Pass if usize::try_from(highest) != Ok(verified.sealers.len()) => {
                return Err(SealError::Changed);
            }
            AuthOutcome::Pass => ("pass", covered(header, highest)?),
            // Section 5.1.2: in a broken chain it is not known which of its fields to cover.
            _ if ends_failed(header, highest) => return Err(SealError::AlreadyFailed),
            _ => ("fail", Vec::new()),
        };
        Ok(Self { instance: highest + 1, validation, covered })
    }

    /// Makes the ARC-Seal field (section 4.1.3), without its signature.
    fn seal(&self, key: &Arc<SigningKey>, own: [&[u8]; 2], now: UnixTime) -> Unsigned {
        let mut field = FieldText::new("ARC-Seal");
        field.tag("i", &self.instance.to_string());
        field.tag("a", key.algorithm().name());
        field.tag("cv", self.validation);
        field.tag("d", key.domain());
        field.tag("s", key.selector());
        field.tag("t", &seconds(now).to_string());
        let mut input = Vec::with_capacity(4_096);
        for covered in self.covered.iter().copied().chain(own) {
            Canonicalization::Relaxed.write_field(covered, &mut input);
        }
        Unsigned::new(key, field, input, Canonicalization::Relaxed)
    }
}

/// The number of the set that a field belongs to.
fn instance(value: &str) -> Option<u32> {
    let mut tags = value.split(';').filter_map(|tag| tag.split_once('='));
    let (_, number) = tags.find(|(name, _)| name.trim() == "i")?;
    number.trim().parse().ok()
}

/// All fields of the sets up to this number, in the order of section 5.1.1.
fn covered(header: &HeaderBlock, highest: u32) -> Result<Vec<&[u8]>, SealError> {
    let mut covered = Vec::new();
    for number in 1..=highest {
        for name in SET {
            let mut fields = header.named(name).filter(|field| instance(&field.value()) == Some(number));
            let (Some(field), None) = (fields.next(), fields.next()) else {
                return Err(SealError::Changed);
            };
            covered.push(field.index);
        }
    }
    Ok(covered.into_iter().filter_map(|index| header.get(index)).map(|field| field.raw()).collect())
}

/// Whether the newest seal marks the chain as broken.
fn ends_failed(header: &HeaderBlock, highest: u32) -> bool {
    header.named("ARC-Seal").any(|field| {
        let value = field.value();
        let validation = TagList::parse(&value).and_then(|tags| tags.get("cv"));
        instance(&value) == Some(highest)
            && validation.is_some_and(|cv| cv.trim().eq_ignore_ascii_case("fail"))
    })
}

/// Makes the ARC-Authentication-Results field (section 4.1.1): the number of the set, then what Authentication-Results
/// would say.
fn results_field(instance: u32, found: &Assessment<'_>) -> Vec<u8> {
    let plain = auth_results::to_field(found.authserv_id, found.results.iter().copied());
    let colon = plain.iter().position(|b| *b == b':').map_or(0, |at| at + 1);
    let payload = plain[colon..].strip_suffix(b"\r\n").unwrap_or(&plain[colon..]);
    let mut field = format!("{}: i={instance};\r\n", SET[0]).into_bytes();
    field.extend_from_slice(payload);
    // RFC 8601 section 2.2: an empty list of results is written as `none`.
    if found.results.is_empty() {
        field.extend_from_slice(b"; none");
    }
    field.extend_from_slice(b"\r\n");
    field
}
