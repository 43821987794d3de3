//! The event that DMARC aggregate reports are made from: what such a report says of one message (RFC 9990).

use pintle_mail::{QueueId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::{ClientMembers, stamp};

/// A message from an untrusted client was checked against the policy of its author's domain. Such records, collected by
/// domain and day, are the raw material of the reports that the domain's owner asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DmarcEvaluation {
    /// When the check was made.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The queue id; when the message was refused, none with this id was committed.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// The client that sent it; its address is the report's `source_ip`.
    #[serde(flatten)]
    pub from: ClientMembers,
    /// The domain in the From field.
    pub header_from: String,
    /// The domain of the reverse-path; empty for the null one.
    pub envelope_from: String,
    /// The domains of the recipients.
    pub envelope_to: Vec<String>,
    /// The policy record that applied, as published.
    pub published: DmarcPublished,
    /// `pass`, `fail` or `temperror`.
    pub result: String,
    /// Whether SPF passed for a domain aligned with the author's.
    pub spf_aligned: bool,
    /// Whether a DKIM signature passed for a domain aligned with the author's.
    pub dkim_aligned: bool,
    /// What was done with the message: `none`, `quarantine`, `reject`.
    pub disposition: String,
    /// Why this is not what the domain's owner asks for: `trusted_forwarder`, `local_policy`; none when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<String>,
    /// The results of SPF, by identity.
    pub spf: Vec<SpfCheck>,
    /// The results of the DKIM signatures.
    pub dkim: Vec<DkimCheck>,
}

/// A policy record as published (RFC 9989 section 4.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DmarcPublished {
    /// The domain at which the record was found, without `_dmarc.`.
    pub domain: String,
    /// `p=`: the policy for the domain.
    pub policy: String,
    /// `sp=`: the policy for subdomains.
    pub subdomains: String,
    /// `np=`: the policy for subdomains that do not exist.
    pub missing: String,
    /// `aspf=s`: SPF must pass for exactly the author's domain.
    pub strict_spf: bool,
    /// `adkim=s`: DKIM must pass for exactly the author's domain.
    pub strict_dkim: bool,
    /// `t=y`: the owner is only testing the policy.
    pub testing: bool,
    /// `rua=`: the URIs to which the owner wants aggregate reports sent.
    pub report_to: Vec<String>,
}

/// The result of SPF for one identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SpfCheck {
    /// The domain whose SPF record was evaluated.
    pub domain: String,
    /// The identity: `mfrom` or `helo`.
    pub scope: String,
    /// The result: `pass`, `softfail`, … as in RFC 8601.
    pub result: String,
}

/// The result of one DKIM signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DkimCheck {
    /// The signing domain (`d=`).
    pub domain: String,
    /// The selector of the key (`s=`).
    pub selector: String,
    /// The result: `pass`, `fail`, … as in RFC 8601.
    pub result: String,
}
