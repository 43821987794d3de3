//! SPF: may this client send mail for this domain (RFC 7208)?
//!
//! Both identities are checked, HELO and MAIL FROM. The limits of section 4.6.4 apply to a whole check: ten terms that
//! cause DNS queries, two void lookups, ten MX or PTR records.

mod evaluate;
mod macros;
mod record;

use std::net::IpAddr;

use pintle_dns::DnsError;

use self::evaluate::{Evaluation, SpfError};
use crate::{AuthOutcome, DeadlineResolver, domain};

/// Checks the HELO identity, and the MAIL FROM identity unless the reverse-path is null, in this order.
///
/// A HELO argument that is not a domain name is not checked (RFC 7208 section 2.3). A null reverse-path stands for
/// `postmaster` at the HELO name (section 2.4), which the first check covers; its result is then always present, as
/// `none` when the name cannot be queried (section 4.3).
pub async fn check(dns: DeadlineResolver<'_>, client: &SpfClient<'_>) -> Vec<SpfResult> {
    let mut results = Vec::with_capacity(2);
    if domain::is_name(client.hello) || client.sender.is_none() {
        results.push(check_host(dns, client, SpfIdentity::Hello, "postmaster", client.hello).await);
    }
    if let Some((local, domain)) = client.sender {
        results.push(check_host(dns, client, SpfIdentity::MailFrom, local, domain).await);
    }
    results
}

/// The client and the sender, from the session and the envelope.
#[derive(Debug, Clone, Copy)]
pub struct SpfClient<'a> {
    /// The IP address of the client.
    pub address: IpAddr,
    /// The HELO or EHLO argument; empty when there is none.
    pub hello: &'a str,
    /// Local part and domain (A-labels) of the reverse-path; none when it is null.
    pub sender: Option<(&'a str, &'a str)>,
    /// Our own host name, for the macro `r`; it may be "unknown".
    pub receiver: &'a str,
}

/// The SPF result of one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpfResult {
    /// The result: `none`, `neutral`, `pass`, `fail`, `softfail`, `temperror` or `permerror`.
    pub outcome: AuthOutcome,
    /// The domain whose record was evaluated.
    pub domain: String,
    /// The identity that was checked.
    pub identity: SpfIdentity,
    /// With `fail`: the explanation of the domain's owner, which must be shown as theirs (section 6.2).
    pub explanation: Option<String>,
    /// The mechanism that matched, as written in the record, or "default" when none did (section 9.1). None without a
    /// record, and with an error.
    pub mechanism: Option<String>,
    /// With an error: what was wrong, as text for people.
    pub reason: Option<String>,
}

/// The identities that SPF protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpfIdentity {
    /// The HELO or EHLO argument (section 2.3).
    Hello,
    /// The reverse-path (section 2.4).
    MailFrom,
}

/// The function `check_host()` of section 4.
async fn check_host(
    dns: DeadlineResolver<'_>,
    client: &SpfClient<'_>,
    identity: SpfIdentity,
    local: &str,
    name: &str,
) -> SpfResult {
    // Section 4.3: a name that cannot be queried has no record.
    if !domain::is_name(name) {
        return SpfResult::of(identity, name, AuthOutcome::None);
    }
    let mut evaluation = Evaluation::new(dns, client, local, name);
    let found = evaluation.check(name, 0).await;
    let mut result = SpfResult::of(identity, name, AuthOutcome::None);
    match found {
        Ok(matched) => {
            result.outcome = matched.outcome;
            result.mechanism = matched.mechanism;
            if let (AuthOutcome::Fail, Some(spec)) = (matched.outcome, &matched.explanation) {
                result.explanation = evaluation.explain(spec, &matched.domain).await;
            }
        }
        Err(SpfError::Temporary(error)) => {
            result.outcome = AuthOutcome::TempError;
            result.reason = Some(temporary(error));
        }
        Err(SpfError::Permanent(reason)) => {
            result.outcome = AuthOutcome::PermError;
            result.reason = Some(reason);
        }
    }
    result
}

fn temporary(error: DnsError) -> String {
    format!("DNS: {error}")
}

impl SpfResult {
    fn of(identity: SpfIdentity, name: &str, outcome: AuthOutcome) -> Self {
        Self {
            outcome,
            domain: domain::bare(name).to_ascii_lowercase(),
            identity,
            explanation: None,
            mechanism: None,
            reason: None,
        }
    }
}
