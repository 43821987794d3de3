//! What an aggregate report says of one message (RFC 9990).

use pintle_mail::{QueueId, UnixTime};
use serde::{Deserialize, Serialize};

use crate::{Client, stamp};

/// A stranger's message was held against the policy of its author's domain. Such records, gathered by domain and day, are
/// the raw material of the reports that the domain's owner wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DmarcEvaluation {
    /// When.
    #[serde(with = "stamp")]
    pub time: UnixTime,
    /// The queue id; no message of this id was committed when it was refused.
    #[serde(rename = "queue-id", alias = "id")]
    pub id: QueueId,
    /// Who brought it; its address is the report's `source_ip`.
    #[serde(flatten)]
    pub from: Client,
    /// The author's domain.
    pub header_from: String,
    /// The domain of the reverse-path; empty for the null one.
    pub envelope_from: String,
    /// The domains of the recipients.
    pub envelope_to: Vec<String>,
    /// The record that applied, as published.
    pub published: DmarcPublished,
    /// `pass`, `fail` or `temperror`.
    pub result: String,
    /// SPF vouches for the author's domain.
    pub spf_aligned: bool,
    /// A DKIM signature does.
    pub dkim_aligned: bool,
    /// What was done for it: `none`, `quarantine`, `reject`.
    pub disposition: String,
    /// Why not what the owner wants: `trusted_forwarder`, `local_policy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<String>,
    /// What SPF gave.
    pub spf: Vec<SpfCheck>,
    /// What each signature gave.
    pub dkim: Vec<DkimCheck>,
}

/// A policy record as published (RFC 9989 section 4.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DmarcPublished {
    /// Where it stands.
    pub domain: String,
    /// `p=`
    pub policy: String,
    /// `sp=`
    pub subdomains: String,
    /// `np=`
    pub missing: String,
    /// `aspf=s`
    pub strict_spf: bool,
    /// `adkim=s`
    pub strict_dkim: bool,
    /// `t=y`
    pub testing: bool,
    /// `rua=`: who wants reports.
    pub report_to: Vec<String>,
}

/// SPF for one identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SpfCheck {
    /// Whose record was asked.
    pub domain: String,
    /// `mfrom` or `helo`.
    pub scope: String,
    /// As in RFC 8601.
    pub result: String,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DkimCheck {
    /// Who signed.
    pub domain: String,
    /// With which key.
    pub selector: String,
    /// As in RFC 8601.
    pub result: String,
}
