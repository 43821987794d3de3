//! The server's default replies, except for faults, whose replies are made by [`super::SessionFault`].

use std::borrow::Cow;

use pintle_mail::{EnhancedCode, Reply};

const fn reply(code: u16, subject: u16, detail: u16, text: &'static str) -> Reply {
    #[allow(clippy::cast_possible_truncation, reason = "a reply code's first digit is at most 5")]
    let class = (code / 100) as u8;
    Reply { code, enhanced: Some(EnhancedCode(class, subject, detail)), text: Cow::Borrowed(text) }
}

const fn plain(code: u16, text: &'static str) -> Reply {
    Reply { code, enhanced: None, text: Cow::Borrowed(text) }
}

pub(crate) const SENDER: Reply = reply(250, 1, 0, "Sender ok");
pub(crate) const RECIPIENT: Reply = reply(250, 1, 5, "Recipient ok");
pub(crate) const RESET: Reply = reply(250, 0, 0, "Transaction forgotten");
pub(crate) const NOOP: Reply = reply(250, 0, 0, "Ok");
pub(crate) const BYE: Reply = reply(221, 0, 0, "Bye");
pub(crate) const HELP: Reply = reply(
    214,
    0,
    0,
    "Commands: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS AUTH\nSee RFC 5321",
);
/// RFC 5321 section 3.5.3: gives no information and does not refuse.
pub(crate) const VRFY: Reply = reply(252, 5, 0, "Addresses are not verified; try RCPT");
pub(crate) const START_TLS: Reply = reply(220, 0, 0, "Ready to start TLS");
pub(crate) const AUTHENTICATED: Reply = reply(235, 7, 0, "Authentication succeeded");
pub(crate) const DATA: Reply = plain(354, "End data with <CR><LF>.<CR><LF>");
/// Announces a reply for each recipient (PRDR, draft-hall-prdr-00).
pub(crate) const EACH_RECIPIENT: Reply =
    plain(353, "One reply for each recipient follows, then one for the message");
pub(crate) const RECIPIENT_ACCEPTED: Reply = reply(250, 1, 5, "Message accepted for this recipient");
pub(crate) const DISCARDED: Reply = reply(250, 0, 0, "Ok");

pub(crate) const REFUSED: Reply = reply(550, 7, 1, "Refused by local policy");
pub(crate) const REFUSED_CONNECTION: Reply = reply(554, 7, 1, "No service for you here");
pub(crate) const REFUSED_RECIPIENT: Reply =
    reply(550, 7, 1, "Message refused for this recipient by local policy");
pub(crate) const REFUSED_MESSAGE: Reply = reply(554, 7, 1, "Message refused by local policy");
pub(crate) const DENIED: Reply = reply(535, 7, 8, "Authentication credentials invalid");
pub(crate) const UNAVAILABLE: Reply = reply(454, 7, 0, "Authentication is not possible now; try again later");
pub(crate) const CLOSING: Reply = reply(421, 7, 0, "Closing this session");
pub(crate) const SHUTDOWN: Reply = reply(421, 3, 2, "Server is shutting down; try again later");

/// Returns the host's reply if its code is one of `codes`, else the default.
pub(crate) fn positive(wish: Option<Reply>, codes: &[u16], usual: &Reply) -> Reply {
    wish.filter(|reply| codes.contains(&reply.code) && fits(reply)).unwrap_or_else(|| usual.clone())
}

/// Returns the host's refusal. If its code is not 4xx or 5xx, or contradicts its enhanced code, it keeps its text and
/// gets the default codes. A missing enhanced code becomes X.0.0.
pub(crate) fn negative(wish: Reply, usual: &Reply) -> Reply {
    if !(400..=599).contains(&wish.code) || !fits(&wish) {
        return Reply { text: wish.text, ..usual.clone() };
    }
    let class = if wish.code < 500 { 4 } else { 5 };
    Reply { enhanced: wish.enhanced.or(Some(EnhancedCode(class, 0, 0))), ..wish }
}

/// RFC 2034 section 4: the class of the enhanced code equals the first digit of the code.
fn fits(reply: &Reply) -> bool {
    reply.enhanced.is_none_or(|enhanced| u16::from(enhanced.0) == reply.code / 100)
}
