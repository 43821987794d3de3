//! DMARC: does the author's domain authenticate this message, and what does it ask for if not (RFC 9989)?
//!
//! Records are found by the DNS tree walk of section 4.10, without a list of public suffixes. Tags of RFC 7489 that its
//! successor no longer has are supported as far as possible: `pct=0` was the way to ask for a test and is read as
//! `t=y`; other percentages are ignored.

use pintle_dns::{DnsError, DnsRecordKind};
use pintle_mail::HeaderBlock;

use crate::spf::{SpfIdentity, SpfResult};
use crate::tags::TagList;
use crate::{AuthOutcome, DeadlineResolver, DkimResult, author, domain};

/// Section 4.10: longer names are walked from their seventh label on.
const MAX_LABELS: usize = 7;
/// The most addresses of `rua=` that are kept (section 4.7 lets receivers limit them).
const MAX_URIS: usize = 10;

/// The DMARC result of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmarcResult {
    /// The result: `none`, `pass`, `fail`, `temperror` or `permerror`.
    pub outcome: AuthOutcome,
    /// The author's domain, in A-labels; empty when there is no single one.
    pub from_domain: String,
    /// The domain owner's policy for messages that fail. It is also `none` when there is no policy.
    pub policy: DmarcPolicy,
    /// Whether SPF passed for a domain that is aligned with the author's.
    pub spf_aligned: bool,
    /// Whether a DKIM signature passed for a domain that is aligned with the author's.
    pub dkim_aligned: bool,
    /// The policy record that applied, as published; none when there is none.
    pub published: Option<PublishedPolicy>,
    /// What was wrong, as text for people; none with `pass`.
    pub reason: Option<String>,
}

/// A published policy record, for reports to its owner (RFC 9990).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPolicy {
    /// The domain at which it was found, without `_dmarc.`.
    pub domain: String,
    /// `p=`: the policy for the domain.
    pub policy: DmarcPolicy,
    /// `sp=`, or its default: the policy for subdomains.
    pub subdomains: DmarcPolicy,
    /// `np=`, or its default: the policy for subdomains that do not exist.
    pub missing: DmarcPolicy,
    /// `aspf=s`: SPF must pass for exactly the author's domain.
    pub strict_spf: bool,
    /// `adkim=s`: DKIM must pass for exactly the author's domain.
    pub strict_dkim: bool,
    /// `t=y`: the owner is only testing the policy.
    pub testing: bool,
    /// `rua=`: the addresses to which aggregate reports are to be sent, as URIs.
    pub report_to: Vec<String>,
}

impl DmarcPolicy {
    /// The policy's name in records and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }
}

/// What a domain's owner asks receivers to do with messages that fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DmarcPolicy {
    /// `none`: no action is requested.
    None,
    /// `quarantine`: treat the message as suspicious.
    Quarantine,
    /// `reject`: refuse the message.
    Reject,
}

/// Evaluates the policy of the author's domain with the results of SPF and DKIM.
///
/// A message without an author's domain, with several From fields, or with authors of several domains is a `permerror`:
/// it is not known which of them a reader would see.
pub async fn check(
    dns: DeadlineResolver<'_>,
    header: &HeaderBlock,
    spf: &[SpfResult],
    dkim: &[DkimResult],
) -> DmarcResult {
    let author = match author_domain(header) {
        Ok(author) => author,
        Err(reason) => return DmarcResult::of("", AuthOutcome::PermError, Some(reason.to_owned())),
    };
    let checked = judge(dns, &author, spf, dkim).await;
    checked.unwrap_or_else(|error| {
        DmarcResult::of(&author, AuthOutcome::TempError, Some(format!("DNS: {error}")))
    })
}

async fn judge(
    dns: DeadlineResolver<'_>,
    author: &str,
    spf: &[SpfResult],
    dkim: &[DkimResult],
) -> Result<DmarcResult, DnsError> {
    let walk = TreeWalk::up(dns, author).await?;
    let Some(found) = walk.policy_record() else {
        return Ok(DmarcResult::of(author, AuthOutcome::None, None));
    };
    let mut result = DmarcResult::of(author, AuthOutcome::Fail, None);
    result.policy = policy(dns, &found, author).await?;
    result.published = Some(found.record.published(found.name));
    let aligned = Alignment { dns, author, organization: walk.organization() };
    let sender = spf_identity(spf).map(|spf| (spf.domain.as_str(), spf.outcome));
    let signers: Vec<_> = dkim.iter().map(|dkim| (dkim.domain.as_str(), dkim.outcome)).collect();
    let by_spf = aligned.best(sender.as_slice(), found.record.strict_spf).await;
    let by_dkim = aligned.best(&signers, found.record.strict_dkim).await;
    result.spf_aligned = by_spf == AuthOutcome::Pass;
    result.dkim_aligned = by_dkim == AuthOutcome::Pass;
    if result.spf_aligned || result.dkim_aligned {
        result.outcome = AuthOutcome::Pass;
    } else if by_spf == AuthOutcome::TempError || by_dkim == AuthOutcome::TempError {
        // Section 5.3.6: a check that could not be finished may still turn out to be aligned.
        result.outcome = AuthOutcome::TempError;
        result.reason = Some("a check that may be aligned could not be finished".into());
    }
    Ok(result)
}

/// Section 4.4.2: the MAIL FROM identity, or HELO where the reverse-path is null.
fn spf_identity(spf: &[SpfResult]) -> Option<&SpfResult> {
    let sender = spf.iter().find(|result| result.identity == SpfIdentity::MailFrom);
    sender.or_else(|| spf.first())
}

/// The domain of the only From field, if there is exactly one (section 5.3.1).
fn author_domain(header: &HeaderBlock) -> Result<String, &'static str> {
    let mut fields = header.named("From");
    let field = match (fields.next(), fields.next()) {
        (Some(field), None) => field,
        (None, _) => return Err("there is no From field"),
        (Some(_), Some(_)) => return Err("there are several From fields"),
    };
    let raw = field.raw();
    let value = raw.get(field.name().len() + 1..).unwrap_or_default();
    let domains = author::domains(value);
    match domains.as_slice() {
        [one] if domain::is_name(one) => Ok(one.clone()),
        [] | [_] => Err("the From field has no address with a domain"),
        _ => Err("the From field has authors of several domains"),
    }
}

/// The policy for the author's domain (sections 4.7 and 4.10.1).
async fn policy(
    dns: DeadlineResolver<'_>,
    found: &FoundRecord<'_>,
    author: &str,
) -> Result<DmarcPolicy, DnsError> {
    let record = found.record;
    let policy = if found.name == author {
        record.policy
    } else if record.missing != record.subdomains && !exists(dns, author).await? {
        record.missing
    } else {
        record.subdomains
    };
    Ok(match policy {
        // Section 4.7: in test mode the policy is one step weaker than published.
        DmarcPolicy::Reject if record.testing => DmarcPolicy::Quarantine,
        DmarcPolicy::Quarantine if record.testing => DmarcPolicy::None,
        policy => policy,
    })
}

async fn exists(dns: DeadlineResolver<'_>, name: &str) -> Result<bool, DnsError> {
    match dns.records(name, DnsRecordKind::A).await {
        Err(DnsError::NxDomain) => Ok(false),
        Err(error) if error.is_temporary() => Err(error),
        _ => Ok(true),
    }
}

/// A policy record (section 4.7).
#[derive(Debug, Clone, PartialEq, Eq)]
struct DmarcRecord {
    report_to: Vec<String>,
    policy: DmarcPolicy,
    subdomains: DmarcPolicy,
    /// The policy for subdomains that do not exist.
    missing: DmarcPolicy,
    strict_spf: bool,
    strict_dkim: bool,
    testing: bool,
    /// `psd=`: whether the name is a public suffix; none when the record does not say.
    suffix: Option<bool>,
}

impl DmarcRecord {
    /// Parses a record. None when it is not a DMARC record, or has no effect.
    fn parse(text: &[u8]) -> Option<Self> {
        let tags = TagList::readable(std::str::from_utf8(text).ok()?)?;
        if tags.first() != Some(("v", "DMARC1")) {
            return None;
        }
        let policy = match tags.get("p").and_then(policy_named) {
            Some(policy) => policy,
            // Section 4.10.1: without a valid policy, but with an address for reports, the policy is `none`.
            None if tags.get("rua").is_some_and(|rua| rua.contains(':')) => DmarcPolicy::None,
            None => return None,
        };
        let subdomains = tags.get("sp").and_then(policy_named).unwrap_or(policy);
        let is = |name, value: &str| tags.get(name).is_some_and(|it| it.eq_ignore_ascii_case(value));
        let uris = tags.get("rua").unwrap_or_default().split(',').map(str::trim);
        Some(Self {
            report_to: uris.filter(|uri| !uri.is_empty()).take(MAX_URIS).map(str::to_owned).collect(),
            policy,
            subdomains,
            missing: tags.get("np").and_then(policy_named).unwrap_or(subdomains),
            strict_spf: is("aspf", "s"),
            strict_dkim: is("adkim", "s"),
            testing: is("t", "y") || is("pct", "0"),
            suffix: if is("psd", "y") {
                Some(true)
            } else if is("psd", "n") {
                Some(false)
            } else {
                None
            },
        })
    }

    fn published(&self, domain: &str) -> PublishedPolicy {
        PublishedPolicy {
            domain: domain.to_owned(),
            policy: self.policy,
            subdomains: self.subdomains,
            missing: self.missing,
            strict_spf: self.strict_spf,
            strict_dkim: self.strict_dkim,
            testing: self.testing,
            report_to: self.report_to.clone(),
        }
    }
}

fn policy_named(name: &str) -> Option<DmarcPolicy> {
    let known = [
        ("none", DmarcPolicy::None),
        ("quarantine", DmarcPolicy::Quarantine),
        ("reject", DmarcPolicy::Reject),
    ];
    let found = known.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
    found.map(|(_, policy)| *policy)
}

/// The records found on the tree walk from a name up to the top (section 4.10).
struct TreeWalk<'a> {
    start: &'a str,
    found: Vec<(&'a str, DmarcRecord)>,
}

/// The record that applies, and the domain at which it was found.
struct FoundRecord<'w> {
    name: &'w str,
    record: &'w DmarcRecord,
}

impl<'a> TreeWalk<'a> {
    async fn up(dns: DeadlineResolver<'_>, start: &'a str) -> Result<Self, DnsError> {
        let mut walk = Self { start, found: Vec::new() };
        let mut next = Some(start);
        while let Some(name) = next {
            if let Some(record) = record_at(dns, name).await? {
                let suffix = record.suffix;
                walk.found.push((name, record));
                if suffix.is_some() {
                    break;
                }
            }
            next = above(name);
        }
        Ok(walk)
    }

    /// The organizational domain (section 4.10.2): the name whose record says that it is not a suffix; else the name
    /// below a suffix; else the shortest name that has a record.
    fn organization(&self) -> &'a str {
        let Some((name, record)) = self.found.last() else {
            return self.start;
        };
        if record.suffix == Some(true) && *name != self.start {
            return below(self.start, name);
        }
        name
    }

    /// The policy record (section 4.10.1): the author's own record, else that of the organizational domain, else that
    /// of the suffix.
    fn policy_record(&self) -> Option<FoundRecord<'_>> {
        let at = |name: &str| self.found.iter().find(|(known, _)| *known == name);
        let found = at(self.start).or_else(|| at(self.organization())).or_else(|| self.found.last());
        found.map(|(name, record)| FoundRecord { name, record })
    }
}

/// The record at a name. Several cancel each other.
async fn record_at(dns: DeadlineResolver<'_>, name: &str) -> Result<Option<DmarcRecord>, DnsError> {
    let texts = dns.texts(&format!("_dmarc.{name}")).await?;
    let mut records = texts.iter().filter_map(|text| DmarcRecord::parse(text));
    Ok(records.next().filter(|_| records.next().is_none()))
}

/// The next name of the walk: one label less, and at most seven labels.
fn above(name: &str) -> Option<&str> {
    let labels = name.split('.').count();
    let skip = if labels > MAX_LABELS { labels - MAX_LABELS } else { 1 };
    let mut rest = name;
    for _ in 0..skip {
        rest = rest.split_once('.')?.1;
    }
    Some(rest)
}

/// The part of `name` that is one label longer than `suffix`.
fn below<'a>(name: &'a str, suffix: &str) -> &'a str {
    let mut rest = name;
    while let Some((_, shorter)) = rest.split_once('.') {
        if shorter == suffix {
            break;
        }
        rest = shorter;
    }
    rest
}

/// Decides which domains are aligned with the author's (section 4.10.2).
struct Alignment<'a> {
    dns: DeadlineResolver<'a>,
    author: &'a str,
    organization: &'a str,
}

impl Alignment<'_> {
    /// `pass` when a check passed for an aligned domain, `temperror` when one may have, otherwise `fail`.
    async fn best(&self, checks: &[(&str, AuthOutcome)], strict: bool) -> AuthOutcome {
        let mut best = AuthOutcome::Fail;
        for &(name, outcome) in checks {
            if !matches!(outcome, AuthOutcome::Pass | AuthOutcome::TempError) {
                continue;
            }
            match (self.is_aligned(name, strict).await, outcome) {
                (Ok(true), AuthOutcome::Pass) => return AuthOutcome::Pass,
                (Ok(false), _) => {}
                _ => best = AuthOutcome::TempError,
            }
        }
        best
    }

    async fn is_aligned(&self, name: &str, strict: bool) -> Result<bool, DnsError> {
        if domain::same(name, self.author) {
            return Ok(true);
        }
        if strict || !domain::is_within(name, self.organization) {
            return Ok(false);
        }
        let name = domain::bare(name).to_ascii_lowercase();
        let walk = TreeWalk::up(self.dns, &name).await?;
        Ok(walk.organization() == self.organization)
    }
}

impl DmarcResult {
    fn of(author: &str, outcome: AuthOutcome, reason: Option<String>) -> Self {
        Self {
            outcome,
            from_domain: author.to_owned(),
            policy: DmarcPolicy::None,
            spf_aligned: false,
            dkim_aligned: false,
            published: None,
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use pintle_mail::Bytes;

    use super::*;

    fn author(header: &str) -> Result<String, &'static str> {
        author_domain(&HeaderBlock::parse(Bytes::copy_from_slice(header.as_bytes())))
    }

    #[test]
    fn the_author_is_one_or_none() {
        assert_eq!(author("From: a@A.Example\r\n").as_deref(), Ok("a.example"));
        let shown = "From: \"ceo@good.example\" <x@evil.example>\r\n";
        assert_eq!(author(shown).as_deref(), Ok("evil.example"));
        let both = "From: a@a.example, b@A.example\r\n";
        assert_eq!(author(both).as_deref(), Ok("a.example"));
        assert_eq!(author("From: x <x@b\u{fc}cher.example>\r\n").as_deref(), Ok("xn--bcher-kva.example"));
        for bad in [
            "From: a@a.example%b.example\r\n",
            "From: a@a.example A\r\n",
            "From: a@[192.0.2.1]\r\n",
            "Subject: x\r\n",
            "From: a@a.example\r\nFROM: b@b.example\r\n",
            "From: a@a.example, b@b.example\r\n",
            "From: \"a\" <x@a.example> <y@b.example>\r\n",
            "From: undisclosed:;\r\n",
            "From: a@localhost\r\n",
            "From:\r\n",
        ] {
            assert!(author(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn records_are_read_as_published() {
        let record = DmarcRecord::parse(b"v=DMARC1; p=reject; sp=quarantine; aspf=s; pct=50").unwrap();
        assert_eq!((record.policy, record.subdomains), (DmarcPolicy::Reject, DmarcPolicy::Quarantine));
        assert_eq!((record.strict_spf, record.strict_dkim, record.testing), (true, false, false));
        assert_eq!(record.missing, DmarcPolicy::Quarantine);
        assert!(DmarcRecord::parse(b"v=DMARC1; p=reject; pct=0").unwrap().testing);
        let slip = DmarcRecord::parse(b"v=DMARC1; p=reject; rua").unwrap();
        assert_eq!(slip.policy, DmarcPolicy::Reject);
        let reporting = DmarcRecord::parse(b"v=DMARC1; p=maybe; rua=mailto:a@a.example").unwrap();
        assert_eq!(reporting.policy, DmarcPolicy::None);
        for bad in
            [&b"v=DMARC1"[..], b"p=reject; v=DMARC1", b"v=dmarc1; p=none", b"v=DMARC1; p=oops", b"\xff"]
        {
            assert_eq!(DmarcRecord::parse(bad), None);
        }
    }

    #[test]
    fn the_walk_is_at_most_eight_names() {
        let long = "a.b.c.d.e.f.g.h.i.j.mail.example";
        let names: Vec<&str> = std::iter::successors(Some(long), |name| above(name)).collect();
        assert_eq!(names.len(), 8);
        assert_eq!(names[1], "f.g.h.i.j.mail.example");
        assert_eq!(names[7], "example");
        assert_eq!(below("x.y.shop.co.uk", "co.uk"), "shop.co.uk");
    }
}
