//! Conditions under which a hook is called, as the plugin states them in `configure`. A call whose conditions do not
//! hold does not enter the guest.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use pintle_mail::{Address, Charset, Domains, ReversePath};
use pintle_policy::{Hook, Session, View};

/// The longest text that is read as a domain, in octets.
const MAX_DOMAIN: usize = 1_024;

/// The conditions of a plugin's hooks; a hook without an entry is always called.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct CallConditions(BTreeMap<Hook, Vec<CallCondition>>);

/// One condition; all conditions of a hook must hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CallCondition {
    /// Does not hold: the hook is not called.
    Never,
    /// The client is known (true) or a stranger (false).
    Known(bool),
    /// The session is of one of these listeners.
    Listeners(HashSet<String>),
    /// The client is in none of these networks.
    NotNetworks(Vec<ClientNetwork>),
    /// The sender matches one of these patterns.
    Senders(AddressPatterns),
    /// A recipient matches one of these patterns.
    Recipients(AddressPatterns),
    /// The message has a field of one of these names, in lower case.
    Headers(HashSet<Vec<u8>>),
    /// The body has at least and at most this many octets.
    Sizes(u64, u64),
}

/// A network: the address, and the length of the prefix that clients share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientNetwork {
    address: IpAddr,
    prefix: u8,
}

/// Patterns of addresses. They are looked up rather than searched: an operator may list thousands, and each mail is
/// compared with all.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AddressPatterns {
    /// Whether the null reverse-path matches.
    null: bool,
    /// The mailboxes that match: local part in lower case, and domain.
    mailboxes: HashSet<(String, String)>,
    /// The domains of which all mailboxes match, and those below which all do.
    domains: Option<Domains>,
}

impl CallConditions {
    /// Adds a condition.
    pub(crate) fn add(&mut self, hook: Hook, condition: CallCondition) {
        self.0.entry(hook).or_default().push(condition);
    }

    /// The number of conditions of all hooks.
    pub(crate) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether all conditions of the hook hold. `recipient` is the recipient of a call at [`Hook::Rcpt`].
    pub(crate) fn hold(&self, hook: Hook, recipient: Option<u32>, view: &View) -> bool {
        let conditions = self.0.get(&hook);
        conditions.is_none_or(|all| all.iter().all(|condition| condition.holds(recipient, view)))
    }
}

impl CallCondition {
    /// The first hook at which the condition can be evaluated, and whether it can at this one.
    pub(crate) fn applies_at(&self, hook: Hook) -> bool {
        match self {
            Self::Never => hook != Hook::Timer,
            Self::Known(_) | Self::Listeners(_) | Self::NotNetworks(_) => hook != Hook::Timer,
            Self::Senders(_) => has_transaction(hook),
            Self::Recipients(_) => has_transaction(hook) && hook != Hook::Mail,
            Self::Headers(_) => matches!(hook, Hook::Headers | Hook::Message | Hook::Deliver),
            Self::Sizes(..) => matches!(hook, Hook::Message | Hook::Deliver),
        }
    }

    fn holds(&self, recipient: Option<u32>, view: &View) -> bool {
        match self {
            Self::Never => false,
            Self::Known(known) => *known != view.session.is_stranger(),
            Self::Listeners(names) => names.contains(&view.session.listener),
            Self::NotNetworks(networks) => !networks.iter().any(|network| network.contains(&view.session)),
            Self::Senders(patterns) => sender(view).is_none_or(|path| patterns.match_path(path)),
            Self::Recipients(patterns) => concerns(patterns, recipient, view),
            Self::Headers(names) => view.message.as_ref().is_none_or(|message| {
                message.header.iter().any(|field| names.contains(&field.name().to_ascii_lowercase()))
            }),
            Self::Sizes(min, max) => {
                let body = view.message.as_ref().and_then(|message| message.body.as_ref());
                body.is_none_or(|body| (*min..=*max).contains(&body.size()))
            }
        }
    }
}

fn has_transaction(hook: Hook) -> bool {
    matches!(
        hook,
        Hook::Mail
            | Hook::Rcpt
            | Hook::Data
            | Hook::Headers
            | Hook::Message
            | Hook::Queued
            | Hook::Deliver
            | Hook::DeliveryResult
    )
}

fn sender(view: &View) -> Option<&ReversePath> {
    view.transaction.as_ref().map(|transaction| &transaction.envelope.sender)
}

/// Whether one of the recipients in question matches: that of the call, those of the delivery, or all.
fn concerns(patterns: &AddressPatterns, recipient: Option<u32>, view: &View) -> bool {
    let matches = |address: &Address| patterns.match_address(address);
    if let Some(delivery) = &view.delivery {
        return delivery.recipients.iter().any(|recipient| matches(&recipient.address));
    }
    let Some(transaction) = &view.transaction else { return true };
    match recipient {
        Some(id) => transaction.recipient(id).is_none_or(|recipient| matches(&recipient.address)),
        None => transaction.envelope.recipients.iter().any(|recipient| matches(&recipient.address)),
    }
}

impl ClientNetwork {
    /// Parses `192.0.2.0/24`, or a single address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        (prefix <= longest).then_some(Self { address, prefix })
    }

    fn contains(&self, session: &Session) -> bool {
        match (self.address, session.client.ip().to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                shares(ours.to_bits().into(), theirs.to_bits().into(), 32, self.prefix)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                shares(ours.to_bits(), theirs.to_bits(), 128, self.prefix)
            }
            _ => false,
        }
    }
}

/// Whether two addresses of `width` bits share their first `prefix` bits.
fn shares(one: u128, other: u128, width: u8, prefix: u8) -> bool {
    (one ^ other).checked_shr(u32::from(width - prefix)).unwrap_or(0) == 0
}

impl AddressPatterns {
    /// Parses patterns: a mailbox in its wire form, a domain in any form, `.` and a domain for all domains below it, or ""
    /// for the null reverse-path.
    ///
    /// # Errors
    /// The first text that is no pattern.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, String> {
        let (mut null, mut mailboxes, mut domains) = (false, HashSet::new(), Vec::new());
        for text in texts {
            if text.is_empty() {
                null = true;
            } else if text.contains('@') || text.eq_ignore_ascii_case("postmaster") {
                let address = Address::parse(text, Charset::Utf8).map_err(|_| text.clone())?;
                mailboxes.insert(mailbox(&address));
            } else if is_domain(text.strip_prefix('.').unwrap_or(text)) {
                domains.push(text.as_str());
            } else {
                return Err(text.clone());
            }
        }
        let domains = (!domains.is_empty()).then(|| Domains::new(domains));
        Ok(Self { null, mailboxes, domains })
    }

    fn match_path(&self, path: &ReversePath) -> bool {
        path.address().map_or(self.null, |address| self.match_address(address))
    }

    fn match_address(&self, address: &Address) -> bool {
        let in_domain = |domains: &Domains| domains.contains(&address.domain_ascii());
        self.domains.as_ref().is_some_and(in_domain)
            || (!self.mailboxes.is_empty() && self.mailboxes.contains(&mailbox(address)))
    }
}

/// The form in which mailboxes are compared: the local part without quotes, in lower case, and the domain in A-labels.
fn mailbox(address: &Address) -> (String, String) {
    (address.local().to_lowercase(), address.domain_ascii())
}

/// Whether the text can be a domain. Longer ones are refused before they are converted.
fn is_domain(text: &str) -> bool {
    text.len() <= MAX_DOMAIN && !text.split('.').any(str::is_empty)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pintle_mail::{
        Bytes, Charset, Envelope, HeaderBlock, MailParams, QueueId, Recipient, SessionId, UnixTime,
    };
    use pintle_policy::{Message, Transaction};

    use super::*;

    fn view(client: [u8; 4], sender: &str, recipients: &[&str]) -> View {
        let address = |text: &str| Address::parse(text, Charset::Utf8).unwrap();
        let recipient = |(id, text): (u32, &&str)| Recipient::new(id, address(text));
        let envelope = Envelope {
            sender: ReversePath::parse(sender, Charset::Utf8).unwrap(),
            params: MailParams::default(),
            recipients: (0..).zip(recipients).map(recipient).collect(),
        };
        let header = HeaderBlock::parse(Bytes::from_static(b"Subject: x\r\nX-Spam: yes\r\n"));
        let body: Arc<dyn pintle_mail::Body> = Arc::new(Bytes::from_static(b"0123456789"));
        View {
            transaction: Some(Arc::new(Transaction::new(
                QueueId::new(UnixTime::from_millis(0), 1),
                envelope,
            ))),
            message: Some(Arc::new(Message::new(header, Some(body)))),
            ..View::of(Session::new(
                SessionId::new(UnixTime::from_millis(0), 1),
                "mx".into(),
                (client, 1).into(),
                ([192, 0, 2, 2], 25).into(),
                UnixTime::from_millis(0),
            ))
        }
    }

    fn patterns(texts: &[&str]) -> AddressPatterns {
        AddressPatterns::parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    fn holds(condition: CallCondition, recipient: Option<u32>) -> bool {
        let view = view([192, 0, 2, 9], "ann@Sub.Example.org", &["a@here.example", "b@bücher.example"]);
        let mut conditions = CallConditions::default();
        conditions.add(Hook::Message, condition);
        conditions.hold(Hook::Message, recipient, &view)
    }

    #[test]
    fn each_condition_is_evaluated_on_the_mail() {
        let networks = |texts: &[&str]| {
            CallCondition::NotNetworks(texts.iter().map(|text| ClientNetwork::parse(text).unwrap()).collect())
        };
        for (condition, expected) in [
            (CallCondition::Never, false),
            (CallCondition::Known(false), true),
            (CallCondition::Known(true), false),
            (CallCondition::Listeners(["mx".into()].into()), true),
            (CallCondition::Listeners(["smarthost".into()].into()), false),
            (networks(&["192.0.2.0/29", "2001:db8::/32"]), true),
            (networks(&["192.0.2.8/29"]), false),
            (networks(&["192.0.2.9"]), false),
            (networks(&["0.0.0.0/0"]), false),
            (CallCondition::Senders(patterns(&["", "example.org"])), false),
            (CallCondition::Senders(patterns(&[".example.org"])), true),
            (CallCondition::Senders(patterns(&["ANN@sub.example.org"])), true),
            (CallCondition::Recipients(patterns(&["xn--bcher-kva.example"])), true),
            (CallCondition::Recipients(patterns(&["c@here.example"])), false),
            (CallCondition::Headers([b"x-spam".to_vec()].into()), true),
            (CallCondition::Headers([b"x-virus".to_vec()].into()), false),
            (CallCondition::Sizes(0, 10), true),
            (CallCondition::Sizes(11, 20), false),
        ] {
            assert_eq!(holds(condition.clone(), None), expected, "{condition:?}");
        }
        let ours = CallCondition::Recipients(patterns(&["here.example"]));
        assert!(holds(ours.clone(), Some(0)) && !holds(ours, Some(1)), "the recipient of the call");
    }

    #[test]
    fn conditions_are_stated_where_they_can_be_evaluated() {
        let at = |condition: &CallCondition| -> Vec<&str> {
            let hooks = Hook::ALL.iter().filter(|hook| condition.applies_at(**hook));
            hooks.map(|hook| hook.name()).collect()
        };
        let mail = ["mail", "rcpt", "data", "headers", "message", "queued", "deliver", "delivery-result"];
        assert_eq!(at(&CallCondition::Senders(patterns(&[""]))), mail);
        assert_eq!(at(&CallCondition::Recipients(patterns(&[""]))), mail[1..]);
        assert_eq!(at(&CallCondition::Headers(Default::default())), ["headers", "message", "deliver"]);
        assert!(at(&CallCondition::Known(true)).contains(&"auth-result"));
    }

    #[test]
    fn all_conditions_of_a_hook_must_hold_and_other_hooks_have_none() {
        let view = view([192, 0, 2, 9], "", &[]);
        let mut conditions = CallConditions::default();
        conditions.add(Hook::Mail, CallCondition::Senders(patterns(&[""])));
        assert!(conditions.hold(Hook::Mail, None, &view));
        conditions.add(Hook::Mail, CallCondition::Known(true));
        assert!(!conditions.hold(Hook::Mail, None, &view));
        assert!(conditions.hold(Hook::Rcpt, None, &view));
    }

    #[test]
    fn quoted_local_parts_match_in_any_form() {
        let patterns = patterns(&["\"a b\"@x.example", "\"Ann\"@x.example", "postmaster"]);
        for (sender, expected) in
            [("\"a b\"@x.example", true), ("ann@x.example", true), ("a@x.example", false), ("", false)]
        {
            let path = ReversePath::parse(sender, Charset::Utf8).unwrap();
            assert_eq!(patterns.match_path(&path), expected, "{sender}");
        }
    }

    /// An honest plugin with a long list must not make every mail expensive: this took minutes when lists were searched.
    #[test]
    fn long_lists_of_patterns_and_recipients_are_cheap() {
        let texts: Vec<_> = (0..10_000).map(|n| format!("u{n}@b{n}.example")).collect();
        let recipients: Vec<_> = (0..10_000).map(|n| format!("r{n}@nowhere.example")).collect();
        let view = view([192, 0, 2, 9], "", &recipients.iter().map(String::as_str).collect::<Vec<_>>());
        let condition = CallCondition::Recipients(AddressPatterns::parse(&texts).unwrap());
        let mut conditions = CallConditions::default();
        conditions.add(Hook::Message, condition);
        assert!(!conditions.hold(Hook::Message, None, &view));
    }

    #[test]
    fn what_matches_nothing_is_no_pattern_and_no_network() {
        for bad in ["@example.org", "ann@", ".", "a..b"] {
            assert_eq!(AddressPatterns::parse(&[bad.to_owned()]), Err(bad.to_owned()));
        }
        for bad in ["", "192.0.2.0/33", "192.0.2", "2001:db8::/129", "192.0.2.0/x"] {
            assert_eq!(ClientNetwork::parse(bad), None, "{bad}");
        }
    }
}
