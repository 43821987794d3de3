//! The targets of impersonation: our domains, the domains that the operator protects, and our people.

use std::collections::{BTreeMap, HashSet};

use pintle_plugin_sdk::settings::Mailbox;
use pintle_plugin_sdk::{Address, HostError};

use crate::check::{Check, SpoofFinding};
use crate::domain::{ComparedDomain, OwnedDomain, shapes};

/// Minimum length for a known name to be found as a word in a longer name.
const SHORTEST_COUSIN: usize = 4;

/// The domains to compare with.
#[derive(Debug, Default)]
pub(crate) struct Known {
    targets: Vec<KnownDomain>,
    pub(crate) likeness: Likeness,
}

/// Which kinds of similarity count, in addition to visual similarity.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Likeness {
    /// Whether a known name as one word among others counts.
    pub(crate) cousins: bool,
    /// Minimum length of a name, in letters, for which one wrong letter counts as a typo.
    pub(crate) typos_from: Option<usize>,
}

#[derive(Debug)]
struct KnownDomain {
    name: ComparedDomain,
    shape: String,
    is_own: bool,
}

impl Known {
    /// Both lists may have patterns such as ".example.org", which stand for the name without the dot here.
    pub(crate) fn new<'a>(
        own: impl Iterator<Item = &'a str>,
        protected: impl Iterator<Item = &'a str>,
        likeness: Likeness,
    ) -> Result<Self, HostError> {
        let named = |pattern: &str| ComparedDomain::new(pattern.trim_start_matches('.'));
        let all = own.map(|pattern| (named(pattern), true));
        let all: Vec<_> = all.chain(protected.map(|pattern| (named(pattern), false))).collect();
        let shapes = shapes(all.iter().map(|(name, _)| name.as_str()))?;
        let target = |((name, is_own), shape)| KnownDomain { name, shape, is_own };
        Ok(Self { targets: all.into_iter().zip(shapes).map(target).collect(), likeness })
    }

    /// Whether it is one of our domains or a subdomain, which readers take for ours too.
    pub(crate) fn is_own(&self, name: &ComparedDomain) -> bool {
        self.targets.iter().any(|target| target.is_own && name.is_within(&target.name))
    }

    /// Whether it is one of our domains or one that the operator protects.
    pub(crate) fn is_known(&self, name: &ComparedDomain) -> bool {
        self.targets.iter().any(|target| name.is_within(&target.name))
    }

    /// Whether both domains belong to one owner. Those of a known domain are exactly it and the domains below it.
    pub(crate) fn are_one_owners(&self, shown: &OwnedDomain, real: &OwnedDomain) -> bool {
        if self.is_own(&shown.name) && self.is_own(&real.name) {
            true
        } else if self.is_known(&shown.name) {
            real.name.is_within(&shown.name) || shown.name.is_within(&real.name)
        } else {
            shown.is_related(real)
        }
    }

    /// The finding about a foreign domain, if it resembles a known one; `typed` is its form in the message.
    pub(crate) fn examine(
        &self,
        name: &ComparedDomain,
        typed: &str,
    ) -> Result<Option<SpoofFinding>, HostError> {
        if self.is_known(name) {
            return Ok(None);
        }
        let shapes = shapes([name.as_str(), typed].into_iter())?;
        let shapes: Vec<_> = shapes.into_iter().map(ComparedDomain::of_shape).collect();
        Ok(self.likeness_of(name, &shapes))
    }

    /// The finding about a domain that is not known. `shapes` are those of its name and of its form in the message.
    fn likeness_of(&self, name: &ComparedDomain, shapes: &[ComparedDomain]) -> Option<SpoofFinding> {
        let like = |check: Check, how: &str, target: &KnownDomain| {
            SpoofFinding::new(
                check,
                format!("The sender's domain {name} {how} {}, which it is not", target.name),
            )
        };
        if let Some(target) = self.targets.iter().find(|target| target.looks_like(name, shapes)) {
            return Some(like(Check::LookalikeDomain, "looks like", target));
        }
        if let Some(label) = name.mixed_label() {
            let script = crate::check::quoted(label);
            let text = format!("The sender's domain {name} mixes letters of several scripts: {script}");
            return Some(SpoofFinding::new(Check::MixedScript, text));
        }
        if let Some(target) = self.targets.iter().find(|target| self.is_typo(target, name)) {
            return Some(like(Check::TypoDomain, "is one letter away from", target));
        }
        let shape = shapes.first()?.as_str();
        let cousin = self.targets.iter().find(|target| self.likeness.cousins && target.is_word_of(shape));
        cousin.map(|target| like(Check::CousinDomain, "uses the name of", target))
    }

    /// Whether the names differ by one letter, under the same top-level domain, and are long enough that this is not
    /// accidental.
    fn is_typo(&self, target: &KnownDomain, name: &ComparedDomain) -> bool {
        let Some(shortest) = self.likeness.typos_from else { return false };
        let last = name.last(target.name.labels().count());
        let Some((mine, top)) = target.name.as_str().rsplit_once('.') else { return false };
        let Some((theirs, their_top)) = last.as_ref().and_then(|name| name.as_str().rsplit_once('.')) else {
            return false;
        };
        top == their_top && mine.chars().count() >= shortest && is_one_edit(mine, theirs)
    }
}

impl KnownDomain {
    fn looks_like(&self, name: &ComparedDomain, shapes: &[ComparedDomain]) -> bool {
        let count = self.name.labels().count();
        let tail = |shape: &ComparedDomain| shape.last(count).is_some_and(|tail| tail.as_str() == self.shape);
        // An identical name or a subdomain is not a visual imitation.
        !name.is_within(&self.name) && shapes.iter().any(tail)
    }

    /// Whether its first label is one of the words in this shape of a name.
    fn is_word_of(&self, shape: &str) -> bool {
        let Some(word) = self.shape.split('.').next().filter(|word| word.len() >= SHORTEST_COUSIN) else {
            return false;
        };
        let mut words = shape.rsplit_once('.').map_or("", |(words, _)| words).split(['.', '-']);
        words.any(|theirs| theirs == word)
    }
}

/// Whether the texts differ by one inserted, deleted, replaced or transposed letter.
fn is_one_edit(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[start..], &b[start..]);
    match (a, b) {
        ([_, rest @ ..], longer) | (longer, [_, rest @ ..]) if rest == longer => true,
        ([_, a @ ..], [_, b @ ..]) if a == b => true,
        ([a1, a2, a @ ..], [b1, b2, b @ ..]) => a1 == b2 && a2 == b1 && a == b,
        _ => false,
    }
}

/// Our people, by the words of their names.
#[derive(Debug, Default)]
pub(crate) struct People(Vec<Person>);

#[derive(Debug)]
pub(crate) struct Person {
    name: String,
    words: [Vec<String>; 2],
    addresses: Vec<Mailbox>,
}

impl People {
    pub(crate) fn new(people: &BTreeMap<String, Vec<Mailbox>>) -> Result<Self, HostError> {
        let words = words(people.keys().map(String::as_str))?;
        let person = |((name, addresses), words): ((&String, &Vec<Mailbox>), _)| Person {
            name: name.clone(),
            words,
            addresses: addresses.clone(),
        };
        Ok(Self(people.iter().zip(words).map(person).collect()))
    }

    /// The people whose name has no letters, so that no display name can contain it.
    pub(crate) fn without_letters(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|person| person.words[0].is_empty()).map(|person| person.name.as_str())
    }

    /// Our people whose name this display name contains. Computed once for all addresses beside it, of which there may
    /// be thousands.
    pub(crate) fn meant_by(&self, shown: &str) -> Result<Vec<&Person>, HostError> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        // "Ann Lee (Ours Ltd)", "Ann Lee | Director", and other additions to a name.
        let parts = shown
            .split(['(', ')', '[', ']', '|', '/', '–', '—', '<', '>'])
            .flat_map(|part| part.split(" - "));
        let forms = words(parts)?.into_iter().flat_map(|forms| forms.into_iter().enumerate());
        let names: HashSet<(usize, Vec<String>)> = forms.filter(|(_, words)| !words.is_empty()).collect();
        let is_meant =
            |person: &&Person| person.words.iter().cloned().enumerate().any(|form| names.contains(&form));
        Ok(self.0.iter().filter(is_meant).collect())
    }
}

/// The name of a person among `meant` who does not use this address; `None` if the address belongs to one of them.
pub(crate) fn posed_as<'p>(meant: &[&'p Person], address: &Address) -> Option<&'p str> {
    let domain = ComparedDomain::new(&address.domain_shown).ascii();
    let is_theirs =
        |person: &&Person| person.addresses.iter().any(|known| known.names(&address.local, &domain));
    // If two people have the same name, the address of either is permitted.
    if meant.iter().any(is_theirs) { None } else { meant.last().map(|person| person.name.as_str()) }
}

/// The words of each name by their shapes, sorted, so that "Lee, Ann" equals "Ann Lee". Computed twice, with and without
/// lower-casing first: a capital I looks like an l only before it is lower-cased.
fn words<'n>(names: impl Iterator<Item = &'n str>) -> Result<Vec<[Vec<String>; 2]>, HostError> {
    let plain: Vec<[Vec<String>; 2]> =
        names.map(|name| [plain_words(name), plain_words(&name.to_lowercase())]).collect();
    // In one call of the gateway, since a name may have thousands of words.
    let mut shapes = shapes(plain.iter().flatten().flatten().map(String::as_str))?.into_iter();
    let mut sorted = |words: &Vec<String>| {
        let mut words: Vec<String> =
            shapes.by_ref().take(words.len()).filter(|word| !word.is_empty()).collect();
        words.sort();
        words
    };
    Ok(plain.iter().map(|[as_written, lower]| [sorted(as_written), sorted(lower)]).collect())
}

/// The words of a name, without signs and addresses.
fn plain_words(name: &str) -> Vec<String> {
    let is_between = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '.' | '-' | '_');
    let plain = |word: &str| -> String { word.chars().filter(|c| c.is_alphanumeric()).collect() };
    let words = name.split(is_between).filter(|word| !word.contains('@')).map(plain);
    words.filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let likeness = Likeness { cousins: true, typos_from: Some(5) };
        Known::new(["ours.example", ".corp.example"].into_iter(), ["paypal.example"].into_iter(), likeness)
            .unwrap()
    }

    fn check(domain: &str) -> Option<Check> {
        known().examine(&ComparedDomain::new(domain), domain).unwrap().map(|finding| finding.check)
    }

    #[test]
    fn lookalikes_typos_and_cousins_are_told_from_the_real_ones() {
        for real in ["ours.example", "a.b.ours.example", "corp.example", "mail.paypal.example"] {
            assert_eq!(check(real), None, "{real}");
        }
        for (domain, found) in [
            ("0urs.example", Check::LookalikeDomain),
            ("xn--pypal-4ve.example", Check::LookalikeDomain),
            ("login.paypa1.example", Check::LookalikeDomain),
            ("paypaI.example", Check::LookalikeDomain),
            ("p\u{430}yday.example", Check::MixedScript),
            ("paypall.example", Check::TypoDomain),
            ("payapl.example", Check::TypoDomain),
            ("secure-paypal.example", Check::CousinDomain),
            ("paypal.example.evil.example", Check::CousinDomain),
        ] {
            assert_eq!(check(domain), Some(found), "{domain}");
        }
        for other in [
            "tours.example",
            "hours.example",
            "paypaltogo.example",
            "pay-pal.other",
            "example",
            "xn--ls8h.example",
        ] {
            assert_eq!(check(other), None, "{other}");
        }
        let plain =
            Known::new(["paypal.example"].into_iter(), std::iter::empty(), Likeness::default()).unwrap();
        for off in ["paypall.example", "secure-paypal.example"] {
            assert_eq!(plain.examine(&ComparedDomain::new(off), off).unwrap(), None, "{off}");
        }
    }

    #[test]
    fn a_neighbour_of_ours_is_not_us() {
        let known =
            Known::new(["a.host.example", "b.example"].into_iter(), std::iter::empty(), Likeness::default())
                .unwrap();
        let one = |shown: &str, real: &str| {
            let both = OwnedDomain::all([shown, real].map(ComparedDomain::new).into()).unwrap();
            known.are_one_owners(&both[0], &both[1])
        };
        assert!(one("a.host.example", "x.a.host.example") && one("x.a.host.example", "b.example"));
        assert!(!one("a.host.example", "evil.host.example"));
        assert!(one("c.host.example", "evil.host.example"), "one registered domain");
    }

    #[test]
    fn one_edit_is_one() {
        for (a, b) in [("abc", "abcd"), ("abc", "ac"), ("abc", "axc"), ("abc", "acb"), ("abc", "xabc")] {
            assert!(is_one_edit(a, b) && is_one_edit(b, a), "{a} {b}");
        }
        for (a, b) in [("abc", "abc"), ("abc", "a"), ("abcd", "badc"), ("abc", "xyz"), ("", "ab")] {
            assert!(!is_one_edit(a, b) && !is_one_edit(b, a), "{a} {b}");
        }
    }

    #[test]
    fn people_are_known_however_their_names_are_written() {
        let mailbox = |text: &str| Mailbox::try_from(text.to_owned()).unwrap();
        let addresses = vec![mailbox("ann@ours.example"), mailbox("ann@home.example")];
        let people = People::new(&BTreeMap::from([("Ann-Kathrin Müller".to_owned(), addresses)])).unwrap();
        let posed = |shown: &str, local: &str, domain: &str| {
            posed_as(&people.meant_by(shown).unwrap(), &Address::new(local, domain)).is_some()
        };
        for shown in [
            "Ann-Kathrin Müller",
            "MULLER, Ann Kathrin",
            "ann  kathrin muller",
            "\u{410}nn-K\u{430}thrin Müller",
            "Ann-Kathrin Müller (Ours Ltd)",
            "Ann-Kathrin Müller | Director",
            "Director - Ann-Kathrin Müller",
        ] {
            assert!(posed(shown, "eve", "evil.example"), "{shown}");
        }
        for shown in ["Ann-Kathrin Müller via List", "Kathrin Müller", "", "Ann-Kathrin Müller-Lee"] {
            assert!(!posed(shown, "eve", "evil.example"), "{shown}");
        }
        assert!(!posed("Ann-Kathrin Müller", "Ann", "home.example"));
        assert!(posed("Ann-Kathrin Müller", "eve", "home.example"));
    }
}
