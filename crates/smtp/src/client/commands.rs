//! MAIL and RCPT command lines with their parameters: those that the next hop offers and the message needs, and no
//! others.

use std::borrow::Cow;
use std::fmt::Write as _;

use pintle_mail::{Address, BodyType, EnhancedCode, Notify, Recipient, Reply, Return, xtext};

use super::config::{Channel, EightBit};
use super::core::Core;
use super::ledger::Ledger;
use super::outcome::{ContentClass, Transaction};
use crate::extension::{Extension, Offered};

/// Formats `MAIL FROM:<…>` with its parameters.
pub(super) fn mail(transaction: &Transaction, offers: &Offered) -> String {
    let params = &transaction.envelope.params;
    let utf8 = says_smtputf8(transaction, offers);
    let sender =
        transaction.envelope.sender.address().map_or(Cow::Borrowed(""), |sender| written(sender, utf8));
    let mut line = format!("MAIL FROM:<{sender}>");
    // RFC 1870 section 6: the size that will be sent, not the one that the client announced.
    if offers.has(Extension::Size) {
        let _ = write!(line, " SIZE={}", transaction.size);
    }
    if params.body == BodyType::BinaryMime {
        line.push_str(" BODY=BINARYMIME");
    } else if offers.has(Extension::EightBitMime) && transaction.content != ContentClass::SevenBit {
        line.push_str(" BODY=8BITMIME");
    }
    if utf8 {
        line.push_str(" SMTPUTF8");
    }
    if params.require_tls {
        line.push_str(" REQUIRETLS");
    }
    if offers.has(Extension::Dsn) {
        push_return(&mut line, params.ret, params.envid.as_deref());
    }
    line
}

fn push_return(line: &mut String, ret: Option<Return>, envid: Option<&str>) {
    match ret {
        Some(Return::Full) => line.push_str(" RET=FULL"),
        Some(Return::Headers) => line.push_str(" RET=HDRS"),
        None => {}
    }
    push_value(line, "ENVID", envid);
}

/// Formats `RCPT TO:<…>` of a recipient of this transaction, with its parameters.
pub(super) fn rcpt(recipient: &Recipient, transaction: &Transaction, offers: &Offered) -> String {
    let utf8 = says_smtputf8(transaction, offers);
    let mut line = format!("RCPT TO:<{}>", written(&recipient.address, utf8));
    // RFC 3461 section 5.2.1: the sender's DSN requests are relayed unchanged, and none are made up.
    if offers.has(Extension::Dsn) {
        if let Some(notify) = recipient.params.notify {
            let _ = write!(line, " NOTIFY={}", notify_words(notify));
        }
        let orcpt = recipient.params.orcpt.as_deref();
        let orcpt =
            orcpt.map(|orcpt| if utf8 { Cow::Borrowed(orcpt) } else { xtext::unicode_in_ascii(orcpt) });
        push_value(&mut line, "ORCPT", orcpt.as_deref());
    }
    line
}

/// Writes an address in a form that this transaction can carry.
fn written(address: &Address, utf8: bool) -> Cow<'_, str> {
    let ascii = if utf8 { None } else { address.ascii() };
    // Recipients without such a form were settled before.
    ascii.unwrap_or(Cow::Borrowed(address.as_str()))
}

fn says_smtputf8(transaction: &Transaction, offers: &Offered) -> bool {
    offers.has(Extension::SmtpUtf8) && needs_smtputf8(transaction)
}

fn notify_words(notify: Notify) -> String {
    let words = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    let words: Vec<&str> = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
    if words.is_empty() { "NEVER".to_owned() } else { words.join(",") }
}

/// Appends a value that is one word. Any other value would be read as further parameters, so it is left out.
fn push_value(line: &mut String, name: &str, value: Option<&str>) {
    let is_word =
        |value: &&str| !value.is_empty() && !value.chars().any(|c| c.is_whitespace() || c.is_control());
    if let Some(value) = value.filter(is_word) {
        let _ = write!(line, " {name}={value}");
    }
}

/// Whether MAIL must carry SMTPUTF8 (RFC 6531 section 3.4), because something in the transaction needs it. A message
/// that was received with SMTPUTF8 but is plain ASCII can go anywhere. (Recipients that need it where it is not offered
/// were settled before.)
fn needs_smtputf8(transaction: &Transaction) -> bool {
    sender_or_header_needs_smtputf8(transaction)
        || transaction.envelope.recipients.iter().any(|recipient| recipient.address.needs_smtputf8())
}

fn sender_or_header_needs_smtputf8(transaction: &Transaction) -> bool {
    let envelope = &transaction.envelope;
    let header = envelope.params.smtputf8 && transaction.content == ContentClass::EightBitHeader;
    let sender = envelope.sender.address().is_some_and(Address::needs_smtputf8);
    header || sender
}

/// Settles the recipients that this next hop is known to be unable to serve, before any command is sent.
pub(super) fn settle_hopeless(transaction: &Transaction, core: &Core, ledger: &mut Ledger) {
    if let Some(reply) = hopeless(transaction, core) {
        ledger.fail_unasked(None, &reply);
    }
    if core.offers().has(Extension::SmtpUtf8) {
        return;
    }
    for (at, recipient) in transaction.envelope.recipients.iter().enumerate() {
        if recipient.address.needs_smtputf8() {
            ledger.fail_unasked(Some(at), &no_smtputf8());
        }
    }
}

/// Why the whole message cannot go to this next hop, or `None` if it can.
fn hopeless(transaction: &Transaction, core: &Core) -> Option<Reply> {
    let (offers, params) = (core.offers(), &transaction.envelope.params);
    // RFC 1870 section 6.1: a message above the declared limit need not be tried; zero declares no limit.
    if offers.size().is_some_and(|limit| limit > 0 && transaction.size > limit) {
        return Some(too_big(transaction.size, offers.size().unwrap_or_default()));
    }
    // RFC 6531 section 3.5.
    if sender_or_header_needs_smtputf8(transaction) && !offers.has(Extension::SmtpUtf8) {
        return Some(no_smtputf8());
    }
    // RFC 8689 section 4.2.1: only over TLS with a verified host, and only to a next hop that offers REQUIRETLS.
    if params.require_tls && !(core.channel == Channel::VerifiedTls && offers.has(Extension::RequireTls)) {
        let text = "the message requires TLS all the way (REQUIRETLS), which the next hop does not offer";
        return Some(Reply::new(550, EnhancedCode(5, 7, 30), text));
    }
    if params.body == BodyType::BinaryMime
        && !(offers.has(Extension::Chunking) && offers.has(Extension::BinaryMime))
    {
        let text = "the message is binary, and the next hop does not offer BINARYMIME";
        return Some(Reply::new(554, EnhancedCode(5, 6, 3), text));
    }
    let strict = core.config.eight_bit == EightBit::Strict && transaction.content != ContentClass::SevenBit;
    if strict && !offers.has(Extension::EightBitMime) {
        let text = "the message has 8-bit content, and the next hop does not offer 8BITMIME";
        return Some(Reply::new(554, EnhancedCode(5, 6, 3), text));
    }
    None
}

fn too_big(size: u64, limit: u64) -> Reply {
    let text = format!("the message has {size} octets, and the next hop takes {limit}");
    Reply::new(552, EnhancedCode(5, 3, 4), text)
}

fn no_smtputf8() -> Reply {
    let text = "an address or the header needs SMTPUTF8, which the next hop does not offer";
    Reply::new(553, EnhancedCode(5, 6, 7), text)
}
