//! Conversion between the types of `pintle_mail` and `pintle_policy` and the types of the plugin contract.

use std::borrow::Cow;
use std::net::IpAddr;

use pintle_mail::{
    Address, BodyType, EnhancedCode, MailParams, Notify, Param, RcptParams, Recipient, Reply, ReversePath,
};
use pintle_policy::{AuthVerdict, DeliveryOutcome, Edit, FaultKind, Hook, Verdict};

use crate::bindings::exports::pintle::plugin::on_delivery_result::Outcome as GuestOutcome;
use crate::bindings::pintle::plugin::auth_types::AuthVerdict as GuestAuthVerdict;
use crate::bindings::pintle::plugin::types;
use crate::{FailurePolicy, Gateway, GrantKind, Grants};

/// Maximum length of reply text that a plugin may return, in octets.
const MAX_REPLY: usize = 2_000;

pub(crate) fn address(address: &Address) -> types::Address {
    types::Address {
        text: address.as_str().to_owned(),
        local: address.local().into_owned(),
        domain: address.domain_ascii(),
        domain_shown: address.domain().to_lowercase(),
    }
}

/// Converts an IP address to the contract's type.
pub(crate) fn ip(address: IpAddr) -> types::IpAddress {
    match address {
        IpAddr::V4(v4) => types::IpAddress { text: dotted(v4.octets()), octets: v4.octets().to_vec() },
        IpAddr::V6(v6) => types::IpAddress { text: v6.to_string(), octets: v6.octets().to_vec() },
    }
}

/// Formats an IPv4 address. Nearly every call of a plugin needs two of them, and `Display` takes ten times as long.
fn dotted(octets: [u8; 4]) -> String {
    let mut text = String::with_capacity("255.255.255.255".len());
    for (at, octet) in octets.into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        for (unit, shown) in [(100, octet >= 100), (10, octet >= 10), (1, true)] {
            if shown {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
    text
}

pub(crate) fn reverse_path(path: &ReversePath) -> types::Address {
    path.address().map_or_else(
        || types::Address {
            text: String::new(),
            local: String::new(),
            domain: String::new(),
            domain_shown: String::new(),
        },
        address,
    )
}

pub(crate) fn recipient(recipient: &Recipient, gateway: &Gateway) -> types::Recipient {
    let address = address(&recipient.address);
    types::Recipient {
        id: recipient.id,
        local: gateway.domains.contains(&address.domain),
        address,
        params: rcpt_params(&recipient.params),
        original: recipient.original.as_ref().map(self::address),
        groups: recipient.groups.iter().map(|(plugin, group)| (plugin.clone(), group.clone())).collect(),
    }
}

/// A size, an offset or a time in the contract's numbers; larger ones become the largest.
pub(crate) fn size(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(crate) fn param(param: &Param) -> types::Param {
    types::Param { name: param.name.clone(), value: param.value.clone() }
}

/// The parameters of the MAIL command as the client sent them.
pub(crate) fn mail_params(params: &MailParams) -> Vec<types::Param> {
    let mut all = Vec::new();
    let mut push = |name: &str, value: Option<String>| {
        all.push(types::Param { name: name.to_owned(), value });
    };
    if let Some(size) = params.size {
        push("SIZE", Some(size.to_string()));
    }
    match params.body {
        BodyType::SevenBit => {}
        BodyType::EightBitMime => push("BODY", Some("8BITMIME".into())),
        BodyType::BinaryMime => push("BODY", Some("BINARYMIME".into())),
    }
    if params.smtputf8 {
        push("SMTPUTF8", None);
    }
    if params.require_tls {
        push("REQUIRETLS", None);
    }
    if let Some(ret) = params.ret {
        let value = match ret {
            pintle_mail::Return::Full => "FULL",
            pintle_mail::Return::Headers => "HDRS",
        };
        push("RET", Some(value.into()));
    }
    for (name, value) in [("ENVID", &params.envid), ("AUTH", &params.auth)] {
        if value.is_some() {
            push(name, value.clone());
        }
    }
    all.extend(params.other.iter().map(param));
    all
}

fn rcpt_params(params: &RcptParams) -> Vec<types::Param> {
    let given = [("NOTIFY", params.notify.map(notify)), ("ORCPT", params.orcpt.clone())];
    let known = given.into_iter().filter(|(_, value)| value.is_some());
    known
        .map(|(name, value)| types::Param { name: name.to_owned(), value })
        .chain(params.other.iter().map(param))
        .collect()
}

fn notify(notify: Notify) -> String {
    let asked = [("SUCCESS", notify.success), ("FAILURE", notify.failure), ("DELAY", notify.delay)];
    let words: Vec<_> = asked.iter().filter(|(_, asked)| *asked).map(|(word, _)| *word).collect();
    if words.is_empty() { "NEVER".into() } else { words.join(",") }
}

pub(crate) fn outcome(outcome: &DeliveryOutcome) -> GuestOutcome {
    GuestOutcome {
        recipient: outcome.recipient,
        next_hop: outcome.next_hop.clone(),
        reply: outcome.reply.as_ref().map(|reply| types::Reply {
            code: reply.code,
            enhanced: reply.enhanced.map(|code| code.to_string()),
            text: reply.text.clone().into_owned(),
        }),
        status: outcome.status.name().to_owned(),
        details: outcome.details.clone(),
    }
}

/// Converts a guest's verdict.
pub(crate) fn verdict(verdict: types::Verdict) -> Verdict {
    match verdict {
        types::Verdict::Next => Verdict::Next,
        types::Verdict::Accept => Verdict::Accept,
        types::Verdict::Reject(words) => Verdict::Reject(words.map(|words| reply(&words, REJECT))),
        types::Verdict::Defer(words) => Verdict::Defer(words.map(|words| reply(&words, DEFER))),
    }
}

/// Converts the reply with which a single recipient is refused, permanently or temporarily.
///
/// # Errors
/// The code is neither 4xx nor 5xx.
pub(crate) fn refusal(words: &types::Reply) -> Result<Reply, String> {
    match words.code {
        400..=499 => Ok(reply(words, DEFER)),
        500..=599 => Ok(reply(words, REJECT)),
        code => Err(format!("a recipient is refused with a code from 400 to 599, not {code}")),
    }
}

/// Refuses a verdict that gives up a delivery, unless `drop-mail` is granted: after the client received 250, only the
/// gateway has the message.
pub(crate) fn check_drop(verdict: &Verdict, hook: Hook, grants: &Grants) -> Result<(), String> {
    if !matches!(verdict, Verdict::Reject(_)) || hook != Hook::Deliver || grants.contains(GrantKind::DropMail)
    {
        return Ok(());
    }
    Err(format!(
        "it answered `reject` in on-{hook}, which gives up mail that was accepted and needs the grant `{}`",
        GrantKind::DropMail
    ))
}

/// Refuses to remove recipients without a replacement, unless `drop-mail` is granted: they would not receive the mail.
pub(crate) fn check_removals(edits: &[Edit], grants: &Grants) -> Result<(), String> {
    let count = |what: fn(&Edit) -> bool| edits.iter().filter(|edit| what(edit)).count();
    let removed = count(|edit| matches!(edit, Edit::RemoveRecipient(_)));
    let added = count(|edit| matches!(edit, Edit::AddRecipient(..)));
    if removed <= added || grants.contains(GrantKind::DropMail) {
        return Ok(());
    }
    Err(format!(
        "it removed {removed} recipients and added {added}: recipients that the client believes to be served would get \
         nothing, which needs the grant `{}`",
        GrantKind::DropMail
    ))
}

/// Converts a guest's verdict about credentials.
pub(crate) fn auth_verdict(verdict: GuestAuthVerdict) -> Result<AuthVerdict, String> {
    Ok(match verdict {
        GuestAuthVerdict::Next => AuthVerdict::Next,
        GuestAuthVerdict::Granted(identity) if identity.is_empty() => {
            return Err("it granted an identity with an empty name".into());
        }
        GuestAuthVerdict::Granted(identity) => AuthVerdict::Granted(identity),
        GuestAuthVerdict::Denied(words) => AuthVerdict::Denied(words.map(|words| reply(&words, REJECT))),
        GuestAuthVerdict::Unavailable(words) => {
            AuthVerdict::Unavailable(words.map(|words| reply(&words, DEFER)))
        }
    })
}

/// Applies the operator's failure policy to a fault. A fault that the message itself may have caused never lets the
/// message pass; otherwise its author could choose which plugins examine it. After the 250 reply no mail is refused
/// because of a fault, which may be transient: the delivery is deferred.
pub(crate) fn after_fault(policy: FailurePolicy, hook: Hook, kind: FaultKind) -> Verdict {
    let sees_message = matches!(hook, Hook::Headers | Hook::Message | Hook::Deliver);
    match policy {
        FailurePolicy::Accept | FailurePolicy::Skip if sees_message && kind.may_be_provoked() => {
            Verdict::Defer(None)
        }
        FailurePolicy::Reject if hook == Hook::Deliver => Verdict::Defer(None),
        FailurePolicy::Defer => Verdict::Defer(None),
        FailurePolicy::Accept => Verdict::Accept,
        FailurePolicy::Reject => Verdict::Reject(None),
        FailurePolicy::Skip => Verdict::Next,
    }
}

/// Applies the failure policy to a fault in an AUTH hook. A fault never authenticates a client (law 7).
pub(crate) fn auth_after_fault(policy: FailurePolicy) -> AuthVerdict {
    match policy {
        FailurePolicy::Defer => AuthVerdict::Unavailable(None),
        FailurePolicy::Reject => AuthVerdict::Denied(None),
        FailurePolicy::Accept | FailurePolicy::Skip => AuthVerdict::Next,
    }
}

/// Constraints on a verdict's reply, and the defaults for parts that violate them.
#[derive(Clone, Copy)]
struct ReplyFrame {
    codes: (u16, u16),
    code: u16,
    text: &'static str,
}

const REJECT: ReplyFrame = ReplyFrame { codes: (500, 599), code: 550, text: "refused" };
const DEFER: ReplyFrame = ReplyFrame { codes: (400, 499), code: 451, text: "not now, try again later" };

/// Converts a guest's reply. A code that contradicts the verdict is replaced by the verdict's default.
fn reply(words: &types::Reply, frame: ReplyFrame) -> Reply {
    let fits = (frame.codes.0..=frame.codes.1).contains(&words.code);
    if !fits {
        tracing::warn!(
            target: "pintle::plugin",
            code = words.code, instead = frame.code, "the reply's code contradicts the verdict"
        );
    }
    let code = if fits { words.code } else { frame.code };
    let text = if words.text.trim().is_empty() {
        Cow::Borrowed(frame.text)
    } else {
        Cow::Owned(words.text[..words.text.floor_char_boundary(MAX_REPLY)].to_owned())
    };
    Reply { code, enhanced: Some(enhanced(words.enhanced.as_deref(), code)), text }
}

/// The enhanced status code if its class matches the reply code (RFC 2034 section 4); otherwise `X.7.0`, since a
/// plugin's refusal is a policy decision (RFC 3463 section 3.8).
fn enhanced(given: Option<&str>, code: u16) -> EnhancedCode {
    let class = if code / 100 == 4 { 4 } else { 5 };
    given
        .and_then(|given| given.trim().parse::<EnhancedCode>().ok())
        .filter(|given| given.0 == class)
        .unwrap_or(EnhancedCode(class, 7, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(code: u16, enhanced: Option<&str>, text: &str) -> types::Reply {
        types::Reply { code, enhanced: enhanced.map(str::to_owned), text: text.to_owned() }
    }

    #[test]
    fn a_code_that_contradicts_the_verdict_becomes_its_own() {
        let said = |words, frame| reply(&words, frame).to_string();
        assert_eq!(said(words(554, Some("5.7.1"), "no"), REJECT), "554 5.7.1 no");
        assert_eq!(said(words(250, Some("2.0.0"), "no"), REJECT), "550 5.7.0 no");
        assert_eq!(said(words(550, Some("nonsense"), " "), DEFER), "451 4.7.0 not now, try again later");
        assert_eq!(said(words(421, None, "bye"), DEFER), "421 4.7.0 bye");
        assert_eq!(refusal(&words(452, None, "full")).unwrap().to_string(), "452 4.7.0 full");
        assert!(refusal(&words(250, None, "fine")).is_err());
    }

    #[test]
    fn no_plugin_gives_up_accepted_mail_without_the_grant() {
        let (none, granted) = (Grants::default(), Grants::from([GrantKind::DropMail]));
        let reject = Verdict::Reject(None);
        assert!(check_drop(&reject, Hook::Deliver, &none).unwrap_err().contains("drop-mail"));
        assert_eq!(check_drop(&reject, Hook::Deliver, &granted), Ok(()));
        assert_eq!(check_drop(&reject, Hook::Message, &none), Ok(()), "the client still has it");
        for verdict in [Verdict::Next, Verdict::Accept, Verdict::Defer(None)] {
            assert_eq!(check_drop(&verdict, Hook::Deliver, &none), Ok(()));
        }
        assert!(auth_verdict(GuestAuthVerdict::Granted(String::new())).is_err());
    }

    #[test]
    fn no_plugin_takes_recipients_away_without_the_grant() {
        let (none, granted) = (Grants::default(), Grants::from([GrantKind::DropMail]));
        let another = Address::parse("b@example.org", pintle_mail::Charset::Ascii).unwrap();
        let (away, added) = (Edit::RemoveRecipient(0), Edit::AddRecipient(1 << 31, another));
        assert!(check_removals(std::slice::from_ref(&away), &none).unwrap_err().contains("drop-mail"));
        assert_eq!(check_removals(std::slice::from_ref(&away), &granted), Ok(()));
        assert_eq!(check_removals(&[away.clone(), added.clone()], &none), Ok(()), "in its place");
        assert!(check_removals(&[away, added, Edit::RemoveRecipient(1)], &none).is_err());
    }

    #[test]
    fn a_fault_after_the_commit_point_never_refuses() {
        assert_eq!(after_fault(FailurePolicy::Reject, Hook::Message, FaultKind::Busy), Verdict::Reject(None));
        assert_eq!(after_fault(FailurePolicy::Reject, Hook::Deliver, FaultKind::Busy), Verdict::Defer(None));
        assert_eq!(after_fault(FailurePolicy::Skip, Hook::Deliver, FaultKind::Busy), Verdict::Next);
    }

    #[test]
    fn no_message_gets_past_a_plugin_by_making_it_fail() {
        for policy in [FailurePolicy::Skip, FailurePolicy::Accept] {
            for kind in [
                FaultKind::Trap,
                FaultKind::Timeout,
                FaultKind::Memory,
                FaultKind::Limit,
                FaultKind::BadAnswer,
            ] {
                assert_eq!(after_fault(policy, Hook::Headers, kind), Verdict::Defer(None));
                assert_eq!(after_fault(policy, Hook::Message, kind), Verdict::Defer(None));
                assert_ne!(after_fault(policy, Hook::Rcpt, kind), Verdict::Defer(None));
            }
        }
        assert_eq!(after_fault(FailurePolicy::Skip, Hook::Message, FaultKind::Busy), Verdict::Next);
        assert_eq!(after_fault(FailurePolicy::Accept, Hook::Message, FaultKind::NotLoaded), Verdict::Accept);
        assert_eq!(after_fault(FailurePolicy::Reject, Hook::Message, FaultKind::Trap), Verdict::Reject(None));
    }

    #[test]
    fn no_failure_policy_authenticates() {
        for policy in
            [FailurePolicy::Defer, FailurePolicy::Accept, FailurePolicy::Reject, FailurePolicy::Skip]
        {
            assert!(!matches!(auth_after_fault(policy), AuthVerdict::Granted(_)));
        }
    }

    #[test]
    fn addresses_read_as_the_library_writes_them() {
        for n in 0..=255 {
            let address = std::net::Ipv4Addr::new(n, 255 - n, n / 2, n / 7);
            assert_eq!(ip(address.into()).text, address.to_string());
        }
        assert_eq!(ip("2001:db8::1".parse().unwrap()).text, "2001:db8::1");
    }
}
