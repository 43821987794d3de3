//! Tag lists, `v=DKIM1; p=…`, as in keys and DMARC records (RFC 6376 section 3.2).

/// The tags of a list, in their order.
#[derive(Debug, Default)]
pub(crate) struct TagList<'a>(Vec<(&'a str, &'a str)>);

impl<'a> TagList<'a> {
    /// Parses a list. None when it is not one, or has a tag twice, which makes the whole list invalid.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        Self::of(text.split(';').map(str::trim).filter(|part| !part.is_empty()))
    }

    /// Parses as much as possible: parts that are not tags are left out (RFC 9989 section 4.7 wants a policy to be
    /// honoured despite errors after it).
    pub(crate) fn readable(text: &'a str) -> Option<Self> {
        Self::of(text.split(';').map(str::trim).filter(|part| part.contains('=')))
    }

    fn of(parts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut tags: Vec<(&str, &str)> = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=')?;
            let name = name.trim_end();
            if tags.iter().any(|(known, _)| *known == name) {
                return None;
            }
            tags.push((name, value.trim_start()));
        }
        Some(Self(tags))
    }

    /// The value of a tag, which may be empty.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The first tag, which must be the version in some lists.
    pub(crate) fn first(&self) -> Option<(&'a str, &'a str)> {
        self.0.first().copied()
    }

    /// Whether a tag with a list of words separated by colons has this word; `absent` when there is no such tag.
    pub(crate) fn lists(&self, name: &str, word: &str, absent: bool) -> bool {
        self.get(name)
            .map_or(absent, |words| words.split(':').any(|known| known.trim().eq_ignore_ascii_case(word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_broken_ones_refused() {
        let tags = TagList::parse(" v = DKIM1; h=sha1 : sha256 ;p=ab=;; ").unwrap();
        assert_eq!(tags.first(), Some(("v", "DKIM1")));
        assert_eq!(tags.get("p"), Some("ab="));
        assert!(tags.lists("h", "SHA256", false));
        assert!(!tags.lists("h", "sha512", true));
        assert!(tags.lists("s", "email", true));
        assert!(TagList::parse("v=1; v=2").is_none());
        assert!(TagList::parse("words").is_none());
        let slips = TagList::readable("v=DMARC1; p=reject; ruf; =;").unwrap();
        assert_eq!(slips.get("p"), Some("reject"));
        assert!(TagList::readable("p=none; p=reject").is_none());
    }
}
