//! Which domains authenticate a message: SPF, DKIM and ARC results for the domains of interest.

use pintle_plugin_sdk::HostError;
use pintle_plugin_sdk::sender_auth::{self, ArcResult, AuthOutcome};
use pintle_plugin_sdk::settings::Domain;

use crate::domain::ComparedDomain;

/// The authentication results of a message.
#[derive(Debug)]
pub(crate) struct Vouched {
    /// Domains of SPF (of the envelope sender, or of HELO if that is null) and of DKIM, with their results.
    by: Vec<(ComparedDomain, AuthOutcome)>,
    /// The message's ARC chain: its sealers, and the results that they reported.
    chain: ArcResult,
}

/// Whether a message is authenticated for a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Vouched,
    Not,
    /// DNS did not answer.
    Unknown,
}

impl Vouched {
    /// Requests the results from the gateway, which computes them once for all plugins.
    pub(crate) fn ask() -> Result<Self, HostError> {
        let spf = sender_auth::spf()?;
        // RFC 9989 section 4.4.2: HELO counts if there is no sender.
        let has_sender = spf.iter().any(|result| result.mail_from);
        let spf = spf.into_iter().filter(|result| result.mail_from == has_sender);
        let mut by: Vec<_> =
            spf.map(|result| (ComparedDomain::new(&result.domain), result.outcome())).collect();
        by.extend(
            sender_auth::dkim()?
                .into_iter()
                .map(|result| (ComparedDomain::new(&result.domain), result.outcome())),
        );
        Ok(Self { by, chain: sender_auth::arc()? })
    }

    /// Whether the message is authenticated for this domain, a subdomain of it, or a parent domain that is ours:
    /// DMARC's relaxed alignment, with the operator's own domains instead of a DNS tree walk.
    pub(crate) fn standing(
        &self,
        domain: &ComparedDomain,
        is_own: impl Fn(&ComparedDomain) -> bool,
    ) -> Standing {
        let aligned = |by: &ComparedDomain| by.is_within(domain) || (domain.is_within(by) && is_own(by));
        let has = |outcome| self.by.iter().any(|(by, found)| *found == outcome && aligned(by));
        if has(AuthOutcome::Pass) {
            Standing::Vouched
        } else if has(AuthOutcome::Temperror) {
            Standing::Unknown
        } else {
            Standing::Not
        }
    }

    /// Whether the message is authenticated for one of these services, or one of these sealers reports that it was
    /// authenticated for a domain of ours when they received it.
    pub(crate) fn is_by(
        &self,
        senders: &[Domain],
        sealers: &[Domain],
        is_own: impl Fn(&ComparedDomain) -> bool,
    ) -> bool {
        let is_listed = |list: &[Domain], name: &str| list.iter().any(|domain| domain.matches(name));
        let is_sealed = self
            .chain
            .vouches(|sealer| is_listed(sealers, sealer), |author| is_own(&ComparedDomain::new(author)));
        is_sealed
            || self
                .by
                .iter()
                .any(|(by, found)| *found == AuthOutcome::Pass && is_listed(senders, &by.ascii()))
    }

    /// Whether the message is authenticated for any domain.
    pub(crate) fn is_by_somebody(&self) -> bool {
        self.by.iter().any(|(_, found)| *found == AuthOutcome::Pass)
    }
}

#[cfg(test)]
mod tests {
    use pintle_plugin_sdk::sender_auth::ArcSet;
    use pintle_plugin_sdk::transaction::AuthResult;

    use super::*;

    fn passed(author: &str) -> AuthResult {
        AuthResult {
            method: "dmarc".to_owned(),
            outcome: "pass".to_owned(),
            reason: None,
            properties: vec![("header.from".to_owned(), author.to_owned())],
        }
    }

    fn vouched(by: &[(&str, AuthOutcome)], sealers: &[(&str, &str)]) -> Vouched {
        let set = |(sealer, author): &(&str, &str)| ArcSet {
            sealer: (*sealer).to_owned(),
            results: vec![passed(author)],
        };
        Vouched {
            by: by.iter().map(|(name, outcome)| (ComparedDomain::new(name), *outcome)).collect(),
            chain: ArcResult {
                outcome: if sealers.is_empty() { "none" } else { "pass" }.to_owned(),
                sets: sealers.iter().map(set).collect(),
                details: Vec::new(),
            },
        }
    }

    #[test]
    fn a_domain_stands_behind_what_it_or_its_own_vouch_for() {
        let standing = |by: &str, outcome| {
            let is_own = |name: &ComparedDomain| name.is_within(&ComparedDomain::new("ours.example"));
            vouched(&[(by, outcome)], &[]).standing(&ComparedDomain::new("news.ours.example"), is_own)
        };
        assert_eq!(standing("news.ours.example", AuthOutcome::Pass), Standing::Vouched);
        assert_eq!(standing("a.news.ours.example", AuthOutcome::Pass), Standing::Vouched);
        assert_eq!(standing("ours.example", AuthOutcome::Pass), Standing::Vouched);
        assert_eq!(standing("example", AuthOutcome::Pass), Standing::Not, "it is not ours");
        assert_eq!(standing("evil.example", AuthOutcome::Pass), Standing::Not);
        assert_eq!(standing("ours.example", AuthOutcome::Softfail), Standing::Not);
        assert_eq!(standing("ours.example", AuthOutcome::Temperror), Standing::Unknown);
        assert_eq!(standing("evil.example", AuthOutcome::Temperror), Standing::Not);
    }

    #[test]
    fn services_are_believed_when_they_prove_to_be_the_sender() {
        let list = [Domain::try_from("lists.example".to_owned()).unwrap()];
        let is_own = |name: &ComparedDomain| *name == ComparedDomain::new("ours.example");
        assert!(vouched(&[("lists.example", AuthOutcome::Pass)], &[]).is_by(&list, &[], is_own));
        assert!(!vouched(&[("lists.example", AuthOutcome::Fail)], &[]).is_by(&list, &[], is_own));
        assert!(vouched(&[], &[("lists.example", "ours.example")]).is_by(&[], &list, is_own));
        let passed_on = vouched(&[], &[("lists.example", "evil.example")]);
        assert!(!passed_on.is_by(&[], &list, is_own), "it saw somebody else");
        let since = vouched(&[], &[("lists.example", "ours.example"), ("evil.example", "ours.example")]);
        assert!(!since.is_by(&[], &list, is_own));
        assert!(!vouched(&[], &[]).is_by(&list, &list, is_own));
    }
}
