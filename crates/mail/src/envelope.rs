//! The envelope: reverse-path, recipients and their parameters (RFC 5321 section 2.3.1), as negotiated with the client.
//!
//! DSN parameters (RFC 3461) are parsed and kept, to be passed on or obeyed. Parameters that we do not know are refused
//! by the server machine and never get here; those that a plugin offered are in `other`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Address, Reply, ReversePath};

/// The sender and the recipients of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The reverse-path: where bounces are sent.
    pub sender: ReversePath,
    /// The parameters of MAIL.
    pub params: MailParams,
    /// The recipients in the order of the RCPT commands.
    pub recipients: Vec<Recipient>,
}

/// One recipient: an accepted RCPT command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The recipient's number, which does not change within the transaction and in the spool.
    pub id: u32,
    /// The forward-path; written back exactly as received.
    pub address: Address,
    /// The parameters of RCPT.
    pub params: RcptParams,
    /// The address as the client sent it, when a plugin has rewritten it; otherwise none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Address>,
    /// A plugin or the operator's rules allow this recipient's mail to be relayed to a domain that is not ours.
    #[serde(default)]
    pub relay: bool,
    /// The groups that plugins have put the recipient into, by plugin. Recipients whose groups differ never share a
    /// delivery.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, String>,
    /// The reply with which plugins have refused this recipient after the client could no longer be told. Its delivery
    /// fails with this reply, which is reported to the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Reply>,
}

impl Recipient {
    /// A recipient without parameters, which no plugin has changed.
    #[must_use]
    pub fn new(id: u32, address: Address) -> Self {
        Self {
            id,
            address,
            params: RcptParams::default(),
            original: None,
            relay: false,
            groups: BTreeMap::new(),
            refused: None,
        }
    }
}

/// The parameters of MAIL FROM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MailParams {
    /// `SIZE=`, in octets (RFC 1870).
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152, RFC 3030).
    pub body: BodyType,
    /// `SMTPUTF8` (RFC 6531): addresses and header fields may be in UTF-8.
    pub smtputf8: bool,
    /// `REQUIRETLS` (RFC 8689): every further hop must use verified TLS.
    pub require_tls: bool,
    /// `PRDR` (draft-hall-prdr-00): the client reads a reply for each recipient at the end of data. It concerns the
    /// session with this client alone and is not passed on to next hops.
    pub prdr: bool,
    /// `RET=` (RFC 3461 section 4.3).
    pub ret: Option<Return>,
    /// `ENVID=`, still in xtext (RFC 3461 section 4.4).
    pub envid: Option<String>,
    /// `AUTH=`, still in xtext, `<>` included (RFC 4954 section 5).
    pub auth: Option<String>,
    /// Parameters of extensions that a plugin offered.
    pub other: Vec<Param>,
}

/// The values of `BODY=`: the encoding of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BodyType {
    /// `7BIT`, also when the parameter is absent.
    #[default]
    SevenBit,
    /// `8BITMIME` (RFC 6152): lines of text with octets above 127.
    EightBitMime,
    /// `BINARYMIME` (RFC 3030): any octets, without limits on lines.
    BinaryMime,
}

/// `RET=`: how much of the message a report brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Return {
    /// `FULL`: the whole message.
    Full,
    /// `HDRS`: only the header.
    Headers,
}

/// The parameters of RCPT TO.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RcptParams {
    /// `NOTIFY=` (RFC 3461 section 4.1); none when the client did not give it.
    pub notify: Option<Notify>,
    /// `ORCPT=`, address type included, still in xtext (RFC 3461 section 4.2).
    pub orcpt: Option<String>,
    /// Parameters of extensions that a plugin offered.
    pub other: Vec<Param>,
}

/// `NOTIFY=`: the events about which the sender requests a report. All false is `NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Notify {
    /// `SUCCESS`: the message was delivered.
    pub success: bool,
    /// `FAILURE`: the message cannot be delivered.
    pub failure: bool,
    /// `DELAY`: delivery takes long.
    pub delay: bool,
}

impl Notify {
    /// `NOTIFY=NEVER`: no report of any kind.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };
    /// The default when the client gives no `NOTIFY`: failures and delays. RFC 3461 section 4.1 lets the server choose
    /// it.
    pub const DEFAULT: Self = Self { success: false, failure: true, delay: true };

    /// The union: the events that either of the two asks for.
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
    /// The events about which the sender requests a report for this recipient; [`Notify::DEFAULT`] when the client did
    /// not say.
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
    /// The text after the `=`; none when there is no `=`.
    pub value: Option<String>,
}
