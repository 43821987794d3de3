//! The per-recipient part of a delivery status notification: action, status code and reason (RFC 3464 section 2.3).

use std::borrow::Cow;
use std::net::IpAddr;

use crate::{EnhancedCode, Recipient, Reply, UnixTime};

/// The per-recipient fields (RFC 3464 section 2.3) of one recipient.
#[derive(Debug, Clone)]
pub struct RecipientStatus<'a> {
    /// The recipient, with the RCPT parameters that came with the address.
    pub recipient: &'a Recipient,
    /// The fate of the message for this recipient.
    pub action: DsnAction,
    /// The status code. Its class is changed to fit the action; none is written as X.0.0.
    pub status: Option<EnhancedCode>,
    /// The host that replied: a name, or an IP address without brackets; none when no host did.
    pub remote_mta: Option<&'a str>,
    /// The next hop's reply, if there was one.
    pub diagnostic: Option<&'a Reply>,
    /// The cause as one plain sentence, when it is ours and not in the next hop's reply.
    pub cause: Option<&'a str>,
    /// When the last attempt was made, if there was one.
    pub last_attempt: Option<UnixTime>,
    /// For delays: when we will give up.
    pub will_retry_until: Option<UnixTime>,
}

/// The action-value of RFC 3464 section 2.3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DsnAction {
    /// The message will not be delivered.
    Failed,
    /// Delivery is still being tried.
    Delayed,
    /// The message has reached its mailbox, or the mail store that we deliver to.
    Delivered,
    /// The message was passed to a host that may not report further.
    Relayed,
}

impl DsnAction {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
        }
    }

    /// RFC 3464 section 2.3.4: the class of the status must agree with the action.
    pub(super) fn class(self) -> u8 {
        match self {
            Self::Failed => 5,
            Self::Delayed => 4,
            Self::Delivered | Self::Relayed => 2,
        }
    }

    pub(super) fn subject(self) -> &'static str {
        match self {
            Self::Failed => "Your message could not be delivered",
            Self::Delayed => "Your message is delayed",
            Self::Delivered => "Your message was delivered",
            Self::Relayed => "Your message was relayed",
        }
    }

    pub(super) fn opening(self) -> &'static str {
        match self {
            Self::Failed => "Your message could not be delivered to:",
            Self::Delayed => "Your message has not been delivered yet to:",
            Self::Delivered => "Your message was delivered to:",
            Self::Relayed => {
                "Your message was relayed to a system that may not report\r\nwhether it was delivered, for:"
            }
        }
    }

    pub(super) fn outlook(self) -> &'static str {
        match self {
            Self::Failed => {
                "Delivery to these recipients will not be tried again. A copy of the message or\r\nof its header is attached."
            }
            Self::Delayed => "You need not send it again: delivery will be tried again.",
            Self::Delivered | Self::Relayed => "You asked for this notice; you need not do anything.",
        }
    }
}

impl RecipientStatus<'_> {
    pub(super) fn code(&self) -> EnhancedCode {
        let class = self.action.class();
        match self.status {
            Some(EnhancedCode(found, subject, detail)) if found == class => {
                EnhancedCode(class, subject, detail)
            }
            // The code of a deferral that became a failure keeps its subject: 4.4.1 becomes 5.4.1.
            Some(EnhancedCode(_, subject, detail)) if class != 2 => EnhancedCode(class, subject, detail),
            _ => EnhancedCode(class, 0, 0),
        }
    }

    pub(super) fn reason(&self) -> String {
        match (self.cause, self.remote_mta, self.diagnostic) {
            (Some(cause), _, None) => cause.to_owned(),
            (Some(cause), host, Some(reply)) => {
                format!("{cause} {} said: {reply}", host.map_or("The last host tried".into(), mta_name))
            }
            (None, host, Some(reply)) => {
                format!("{} said: {reply}", host.map_or("The next host".into(), mta_name))
            }
            (None, _, None) => String::new(),
        }
    }
}

/// RFC 3464 section 2.1.2, RFC 1123 section 5.2.17: a host without a name is written as an address literal.
pub(super) fn mta_name(host: &str) -> Cow<'_, str> {
    match host.parse() {
        Ok(IpAddr::V4(address)) => format!("[{address}]").into(),
        Ok(IpAddr::V6(address)) => format!("[IPv6:{address}]").into(),
        Err(_) => host.into(),
    }
}
