//! Law 7, closed by default: which recipients may pass, and who may send mail elsewhere.
//!
//! The core decides this itself, after the plugins of the stage, from what they granted. So no plugin that is missing,
//! broken or slow can open the relay.

use pintle_mail::{Domains, EnhancedCode, Recipient, Reply};
use pintle_policy::Session;

/// Judges one recipient once the plugins have had their say.
///
/// # Errors
/// The refusal.
pub fn check(session: &Session, recipient: &Recipient, domains: &Domains) -> Result<(), Reply> {
    // RFC 5321 section 4.5.1: <postmaster> is always for us.
    let known = session.identity.is_some() || session.trusted || recipient.relay;
    if known || recipient.address.is_bare_postmaster() {
        return Ok(());
    }
    if !domains.contains(&recipient.address.domain_ascii()) {
        return Err(Reply::new(
            550,
            EnhancedCode(5, 7, 1),
            format!("Relaying denied: mail for {} needs authentication", recipient.address.domain()),
        ));
    }
    if routes_onward(&recipient.address.local()) {
        return Err(Reply::new(
            550,
            EnhancedCode(5, 7, 1),
            "Relaying denied: the local part may name another host (%, !, @, ::, IMCEASMTP- or an encoded word)",
        ));
    }
    Ok(())
}

/// Whether a next hop might read another address out of this local part: `user%host`, `host!user`, `user@host`, DECnet's
/// `host::user`, Exchange's capsule `IMCEASMTP-user+40host`, and any of them in an encoded word, which some programs decode
/// before they look for the `@`. A stranger who gets such a form past us relays through the server behind us.
fn routes_onward(local: &str) -> bool {
    // The wide and small forms become the sign itself under NFKC, which servers of SMTPUTF8 mail may apply.
    let signs =
        ['%', '!', '@', '\u{ff05}', '\u{fe6a}', '\u{ff01}', '\u{fe57}', '\u{fe15}', '\u{ff20}', '\u{fe6b}'];
    let capsule = "imceasmtp-";
    let is_capsule = local.get(..capsule.len()).is_some_and(|start| start.eq_ignore_ascii_case(capsule));
    is_capsule || local.contains(signs) || local.contains("::") || local.contains("=?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pintle_mail::{Address, Charset, RcptParams, SessionId, UnixTime};
    use pintle_policy::Notes;

    fn session(identity: Option<&str>, trusted: bool) -> Session {
        Session {
            id: SessionId::new(UnixTime::from_millis(0), 1),
            listener: "mx".into(),
            client: ([192, 0, 2, 1], 1).into(),
            local: ([192, 0, 2, 2], 25).into(),
            started: UnixTime::from_millis(0),
            hello: None,
            esmtp: true,
            tls: None,
            identity: identity.map(str::to_owned),
            trusted,
            extensions: Vec::new(),
            notes: Notes::default(),
            facts: std::collections::BTreeMap::new(),
        }
    }

    fn passes(address: &str, session: &Session, relay: bool) -> bool {
        let address = Address::parse(address, Charset::Utf8).unwrap();
        let recipient = Recipient { id: 0, address, params: RcptParams::default(), original: None, relay };
        check(session, &recipient, &Domains::new(["example.org", ".sub.example.org"])).is_ok()
    }

    #[test]
    fn strangers_reach_our_domains_alone() {
        let stranger = session(None, false);
        for ours in [
            "a@example.org",
            "a@EXAMPLE.org",
            "a@x.sub.example.org",
            "a@y.x.sub.example.org",
            "postmaster",
            // To whom answers to old mail within Exchange go: no host is in it.
            "IMCEAEX-_O=A_CN=b@example.org",
        ] {
            assert!(passes(ours, &stranger, false), "{ours}");
        }
        for other in [
            "a@example.net",
            "a@sub.example.org",
            "a@x.example.org",
            "a@notexample.org",
            "a%example.net@example.org",
            "example.net!a@example.org",
            "\"a@example.net\"@example.org",
            "\"example.net::a\"@example.org",
            "=?x?q?a=40example.net?=@example.org",
            "IMCEASMTP-a+40example+2Enet@example.org",
            "imceasmtp-a+40example.net@example.org",
            "a\u{ff20}example.net@example.org",
            "a@[192.0.2.9]",
        ] {
            assert!(!passes(other, &stranger, false), "{other}");
        }
    }

    #[test]
    fn relaying_needs_an_identity_a_trusted_network_or_a_grant() {
        assert!(passes("a@example.net", &session(Some("bob"), false), false));
        assert!(passes("a@example.net", &session(None, true), false));
        assert!(passes("a@example.net", &session(None, false), true));
    }
}
