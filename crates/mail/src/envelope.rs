//! The envelope: reverse-path, recipients and their parameters (RFC 5321 section 2.3.1), as negotiated with the client.
//!
//! DSN parameters (RFC 3461) are parsed and kept so that they can be handed on or obeyed; parameters that we do not know
//! were refused by the server machine and never get here, those that a plugin offered stand in `other`.

use serde::{Deserialize, Serialize};

use crate::{Address, ReversePath};

/// Who a message comes from and who gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Where bounces go.
    pub sender: ReversePath,
    /// The parameters of MAIL.
    pub params: MailParams,
    /// In the order of the RCPT commands.
    pub recipients: Vec<Recipient>,
}

/// One accepted RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Stable within the transaction and in the spool.
    pub id: u32,
    /// Where the message goes; written back exactly as received.
    pub address: Address,
    /// The parameters of RCPT.
    pub params: RcptParams,
    /// As the client sent it, when a plugin has rewritten it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Address>,
    /// A plugin or the operator's rules let this recipient's mail leave for a domain that is not ours.
    #[serde(default)]
    pub relay: bool,
}

/// The parameters of MAIL FROM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MailParams {
    /// `SIZE=`, in octets (RFC 1870).
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152, RFC 3030).
    pub body: BodyType,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `REQUIRETLS` (RFC 8689).
    pub require_tls: bool,
    /// `RET=` (RFC 3461 section 4.3).
    pub ret: Option<Return>,
    /// `ENVID=`, still in xtext (RFC 3461 section 4.4).
    pub envid: Option<String>,
    /// `AUTH=`, still in xtext, `<>` included (RFC 4954 section 5).
    pub auth: Option<String>,
    /// Parameters of extensions that a plugin offered.
    pub other: Vec<Param>,
}

/// `BODY=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BodyType {
    /// `7BIT`, or nothing said.
    #[default]
    SevenBit,
    /// `8BITMIME` (RFC 6152).
    EightBitMime,
    /// `BINARYMIME` (RFC 3030).
    BinaryMime,
}

/// `RET=`: how much of the message a report brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Return {
    /// The whole message.
    Full,
    /// The header alone.
    Headers,
}

/// The parameters of RCPT TO.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RcptParams {
    /// `NOTIFY=` (RFC 3461 section 4.1); none when the client did not say.
    pub notify: Option<Notify>,
    /// `ORCPT=`, address type included, still in xtext (RFC 3461 section 4.2).
    pub orcpt: Option<String>,
    /// Parameters of extensions that a plugin offered.
    pub other: Vec<Param>,
}

/// `NOTIFY=`: when the sender wants to hear. All false is `NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Notify {
    /// `SUCCESS`: on delivery.
    pub success: bool,
    /// `FAILURE`: when it cannot be delivered.
    pub failure: bool,
    /// `DELAY`: when delivery takes long.
    pub delay: bool,
}

impl Notify {
    /// `NOTIFY=NEVER`: no report of any kind.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };
    /// What RFC 3461 section 4.1 leaves to us where the client says nothing: failures and delays.
    pub const DEFAULT: Self = Self { success: false, failure: true, delay: true };

    /// All that either of them asks for.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            success: self.success || other.success,
            failure: self.failure || other.failure,
            delay: self.delay || other.delay,
        }
    }
}

impl RcptParams {
    /// What the sender wants to hear about this recipient.
    #[must_use]
    pub fn notify(&self) -> Notify {
        self.notify.unwrap_or(Notify::DEFAULT)
    }
}

/// An ESMTP parameter or keyword: `SIZE=1000`, `SMTPUTF8`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// The keyword, in upper case.
    pub name: String,
    /// What follows the `=`.
    pub value: Option<String>,
}
