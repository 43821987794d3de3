//! Rewriting rules: their conditions and actions.

use pintle_plugin_sdk::Recipient;
use pintle_plugin_sdk::message::{MAX_VALUE, can_be_written};
use pintle_plugin_sdk::settings::Mailbox;
use regex_lite::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::block::{Block, FieldLine, Glob};
use crate::mail::{Direction, MailAtStage, RewriteStage};

/// One rule. It matches when all of its conditions do; a list matches when one of its items does. It has at least one
/// action; several are applied in the order of the fields below.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    #[serde(default)]
    pub(crate) stage: RewriteStage,
    #[serde(default)]
    direction: Direction,
    #[serde(default)]
    listeners: Vec<String>,
    #[serde(default)]
    senders: Vec<Mailbox>,
    #[serde(default)]
    recipients: Vec<Mailbox>,
    /// A field of this name exists …
    if_header: Option<Glob>,
    /// … and its value matches this pattern.
    if_matches: Option<String>,
    remove: Option<RemoveRule>,
    rename: Option<RenameRule>,
    replace: Option<ReplaceRule>,
    /// Adds the field and removes all others of its name.
    set: Option<AddRule>,
    add: Option<AddRule>,
    #[serde(skip)]
    condition: Option<Regex>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddRule {
    name: String,
    value: String,
    #[serde(default)]
    at: FieldPosition,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FieldPosition {
    #[default]
    Top,
    Bottom,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveRule {
    name: Glob,
    /// Only fields whose value matches.
    matches: Option<String>,
    #[serde(skip)]
    regex: Option<Regex>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RenameRule {
    from: String,
    to: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplaceRule {
    name: Glob,
    matches: String,
    /// The replacement text; `$1` is the first capture.
    with: String,
    #[serde(skip)]
    regex: Option<Regex>,
}

/// Maximum size of a compiled pattern, in octets; limits the cost of matching each octet of a value.
const MAX_PATTERN: usize = 1 << 20;
/// Maximum size of one expanded replacement, in octets.
const MAX_EXPANDED: usize = 4 << 20;

impl Rule {
    /// Compiles the patterns; returns each mistake with its key.
    pub(crate) fn prepare(&mut self) -> Vec<(String, String)> {
        let mut mistakes = Vec::new();
        let mut regex = |key: &str, text: &str| {
            compiled(text).map_err(|error| mistakes.push((key.to_owned(), error))).ok()
        };
        self.condition = self.if_matches.as_ref().and_then(|text| regex("/if_matches", text));
        if let Some(remove) = &mut self.remove {
            remove.regex = remove.matches.as_ref().and_then(|text| regex("/remove/matches", text));
        }
        if let Some(replace) = &mut self.replace {
            replace.regex = regex("/replace/matches", &replace.matches);
        }
        for (key, name) in self.new_names().filter(|(_, name)| !is_name(name)) {
            mistakes.push((key.to_owned(), format!("{name:?} is not the name of a header field")));
        }
        let added = self.set.iter().map(|set| ("/set/value", &set.value));
        let added = added.chain(self.add.iter().map(|add| ("/add/value", &add.value)));
        let texts = added.chain(self.replace.iter().map(|replace| ("/replace/with", &replace.with)));
        for (key, _) in texts.filter(|(_, text)| text.contains(|c: char| c.is_control() && c != '\t')) {
            mistakes.push((
                key.to_owned(),
                "it holds a control character; long values are folded by the gateway".to_owned(),
            ));
        }
        let set = self.set.iter().map(|set| ("/set/value", set));
        for (key, add) in set.chain(self.add.iter().map(|add| ("/add/value", add))) {
            if is_name(&add.name)
                && !add.value.contains(char::is_control)
                && !can_be_written(&add.name, &add.value)
            {
                mistakes.push((
                    key.to_owned(),
                    "it does not fit in a header: one of its words is too long for a line".to_owned(),
                ));
            }
        }
        if self.remove.is_none() && self.replace.is_none() && self.new_names().next().is_none() {
            mistakes.push((
                String::new(),
                "this rule does nothing: add `remove`, `rename`, `replace`, `set` or `add`".to_owned(),
            ));
        }
        if self.if_matches.is_some() && self.if_header.is_none() {
            mistakes
                .push(("/if_matches".to_owned(), "`if_header` is missing: it names the field".to_owned()));
        }
        mistakes
    }

    pub(crate) fn apply(&self, block: &mut Block, mail: &MailAtStage) {
        if !self.fits(block, mail) {
            return;
        }
        if let Some(remove) = &self.remove {
            block.remove(|line| remove.name.matches(&line.name) && fits(remove.regex.as_ref(), line));
        }
        if let Some(rename) = &self.rename {
            let named = block.fields_mut().filter(|line| line.is(&rename.from));
            named.for_each(|line| line.name.clone_from(&rename.to));
        }
        if let Some(replace) = &self.replace {
            replace.apply(block);
        }
        if let Some(set) = &self.set {
            block.remove(|line| line.is(&set.name));
            set.apply(block);
        }
        if let Some(add) = &self.add {
            add.apply(block);
        }
    }

    /// The field names that the rule writes, with their keys.
    fn new_names(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let set = self.set.as_ref().map(|set| ("/set/name", &set.name));
        let add = self.add.as_ref().map(|add| ("/add/name", &add.name));
        let rename = self.rename.as_ref().map(|rename| ("/rename/to", &rename.to));
        rename.into_iter().chain(set).chain(add)
    }

    fn fits(&self, block: &Block, mail: &MailAtStage) -> bool {
        let has = |glob: &Glob| {
            block.fields().any(|line| glob.matches(&line.name) && fits(self.condition.as_ref(), line))
        };
        self.direction.fits(mail.way)
            && (self.listeners.is_empty() || self.listeners.contains(&mail.listener))
            && (self.senders.is_empty() || self.senders.iter().any(|sender| sender.matches(&mail.sender)))
            && (self.recipients.is_empty()
                || self.recipients.iter().any(|one| names_any(one, &mail.recipients)))
            && self.if_header.as_ref().is_none_or(has)
    }
}

impl AddRule {
    fn apply(&self, block: &mut Block) {
        block.add(self.at == FieldPosition::Top, &self.name, self.value.clone());
    }
}

impl ReplaceRule {
    fn apply(&self, block: &mut Block) {
        let Some(regex) = &self.regex else { return };
        block.rewrite(|line| self.name.matches(&line.name), |line| self.replaced(regex, &line.value));
    }

    /// The new value; `None` if it exceeds the length limit of a field: a sender may repeat the matched text any number
    /// of times.
    fn replaced(&self, regex: &Regex, value: &str) -> Option<String> {
        let (mut new, mut from) = (String::new(), 0);
        for captures in regex.captures_iter(value) {
            let found = captures.get(0)?;
            // Each reference takes at least two octets and expands to at most the whole match.
            if self.with.len() / 2 * found.len() > MAX_EXPANDED {
                return None;
            }
            new.push_str(&value[from..found.start()]);
            captures.expand(&self.with, &mut new);
            from = found.end();
            if new.len() > MAX_VALUE {
                return None;
            }
        }
        Some(new + &value[from..])
    }
}

/// RFC 8601 section 2.2: the identifier comes first, after comments; a version may follow it.
pub(crate) fn authserv_id(value: &str) -> String {
    let mut depth = 0_usize;
    let outside = |c: &char| match c {
        '(' => {
            depth += 1;
            false
        }
        ')' => {
            depth = depth.saturating_sub(1);
            false
        }
        _ => depth == 0,
    };
    let plain: String = value.chars().filter(outside).collect();
    let id = plain.split(';').next().unwrap_or_default().split_whitespace().next().unwrap_or_default();
    let id = id.trim_matches('"');
    // A trailing dot does not change the name.
    id.strip_suffix('.').unwrap_or(id).to_owned()
}

fn names_any(mailbox: &Mailbox, recipients: &[Recipient]) -> bool {
    recipients.iter().any(|rcpt| mailbox.matches(&rcpt.address))
}

fn fits(regex: Option<&Regex>, line: &FieldLine) -> bool {
    regex.is_none_or(|regex| regex.is_match(&line.value))
}

/// The regex library matches in linear time for every pattern and value.
fn compiled(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).case_insensitive(true).size_limit(MAX_PATTERN).build();
    built.map_err(|error| format!("not a regular expression: {error}"))
}

/// RFC 5322 section 2.2: printable ASCII without the colon; short enough to leave room for a value in a line of section
/// 2.1.1.
fn is_name(name: &str) -> bool {
    (1..=256).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::block::tests::{block, lines};
    use crate::mail::MailDirection;

    fn rule() -> Rule {
        Rule {
            stage: RewriteStage::Receive,
            direction: Direction::Any,
            listeners: Vec::new(),
            senders: Vec::new(),
            recipients: Vec::new(),
            if_header: None,
            if_matches: None,
            remove: None,
            rename: None,
            replace: None,
            set: None,
            add: None,
            condition: None,
        }
    }

    pub(crate) fn adding(name: &str, value: &str) -> Rule {
        let add = AddRule { name: name.to_owned(), value: value.to_owned(), at: FieldPosition::Top };
        Rule { add: Some(add), ..rule() }
    }

    fn applied(mut rule: Rule, text: &str) -> Vec<String> {
        assert_eq!(rule.prepare(), []);
        let mut block = block(text);
        rule.apply(&mut block, &MailAtStage::of(MailDirection::Inbound));
        lines(&block)
    }

    fn replace(matches: &str, with: &str) -> Rule {
        let replace = ReplaceRule {
            name: Glob::new("Subject"),
            matches: matches.to_owned(),
            with: with.to_owned(),
            regex: None,
        };
        Rule { replace: Some(replace), ..rule() }
    }

    #[test]
    fn values_are_replaced_with_captures() {
        let header = "Subject: [list] Hello\nX-Subject: [list]";
        assert_eq!(
            applied(replace(r"^\[(\w+)\] ", "$1: "), header),
            ["Subject: list: Hello", "X-Subject: [list]"]
        );
        // The form of a value that is not UTF-8 (`octets`).
        let latin = "Subject: [list] caf\u{10ffe9}";
        assert_eq!(applied(replace("list", "x"), latin), ["Subject: [x] caf\u{10ffe9}"]);
        assert_eq!(applied(replace("[^ -~]$", "e"), latin), ["Subject: [list] cafe"]);
    }

    #[test]
    fn what_becomes_too_long_is_left_alone() {
        let many = format!("Subject: {}", "x ".repeat(10_000));
        assert_eq!(applied(replace("x", "ten or more"), &many), [many.as_str()]);
        let whole = format!("Subject: {}", "x".repeat(60_000));
        let wide = "$0".repeat(1_000);
        assert_eq!(applied(replace("x.*", &wide), &whole), [whole.as_str()]);
        assert_eq!(applied(replace("(x)", "$1$1"), "Subject: axbxc"), ["Subject: axxbxxc"]);
        assert_eq!(applied(replace("", "-"), "Subject: \u{e9}b"), ["Subject: -\u{e9}-b-"]);
    }

    #[test]
    fn a_pattern_made_to_explode_does_not() {
        let value = format!("Subject: {}!", "a".repeat(5_000));
        assert_eq!(applied(replace("(a*)*b", "x"), &value), [value]);
    }

    #[test]
    fn fields_are_set_removed_and_renamed() {
        let add = |name: &str| {
            Some(AddRule { name: name.to_owned(), value: "new".to_owned(), at: FieldPosition::Bottom })
        };
        let header = "X-A: 1\nx-a: 2\nB: 3";
        assert_eq!(applied(Rule { set: add("X-A"), ..rule() }, header), ["B: 3", "X-A: new"]);
        assert_eq!(applied(Rule { add: add("C"), ..rule() }, header)[3], "C: new");
        let remove = RemoveRule { name: Glob::new("X-*"), matches: Some("^2$".to_owned()), regex: None };
        assert_eq!(applied(Rule { remove: Some(remove), ..rule() }, header), ["X-A: 1", "B: 3"]);
        let rename = RenameRule { from: "b".to_owned(), to: "X-B".to_owned() };
        assert_eq!(applied(Rule { rename: Some(rename), ..rule() }, header)[2], "X-B: 3");
    }

    #[test]
    fn all_conditions_must_fit() {
        let mut conditional = replace("Hello", "Bye");
        conditional.if_header = Some(Glob::new("List-Id"));
        conditional.if_matches = Some("news".to_owned());
        assert_eq!(conditional.prepare(), []);
        let after = |text: &str, way: MailDirection, rule: &Rule| {
            let mut block = block(text);
            rule.apply(&mut block, &MailAtStage::of(way));
            lines(&block)[0].clone()
        };
        assert_eq!(
            after("Subject: Hello\nList-Id: News", MailDirection::Inbound, &conditional),
            "Subject: Bye"
        );
        assert_eq!(
            after("Subject: Hello\nList-Id: other", MailDirection::Inbound, &conditional),
            "Subject: Hello"
        );
        conditional.direction = Direction::Outbound;
        assert_eq!(
            after("Subject: Hello\nList-Id: News", MailDirection::Inbound, &conditional),
            "Subject: Hello"
        );
        assert_eq!(
            after("Subject: Hello\nList-Id: News", MailDirection::Outbound, &conditional),
            "Subject: Bye"
        );
        conditional.senders = vec!["y.example".to_owned().try_into().unwrap()];
        assert_eq!(
            after("Subject: Hello\nList-Id: News", MailDirection::Outbound, &conditional),
            "Subject: Hello"
        );
    }

    #[test]
    fn an_authserv_id_is_found_behind_comments_and_before_versions() {
        for value in [
            "mx.example; spf=pass",
            "mx.example.; spf=pass",
            "\"mx.example.\" 1; none",
            " (x (y)) mx.example 1; none",
            "\"mx.example\";",
            "mx.example",
        ] {
            assert_eq!(authserv_id(value), "mx.example", "{value}");
        }
    }

    #[test]
    fn patterns_and_names_that_are_none_are_mistakes() {
        let mut wrong = replace("(", "");
        wrong.if_matches = Some("x".to_owned());
        let keys: Vec<_> = wrong.prepare().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["/replace/matches", "/if_matches"]);
        let mut rename = rule();
        rename.rename = Some(RenameRule { from: "a".to_owned(), to: "b c".to_owned() });
        assert_eq!(rename.prepare()[0].0, "/rename/to");
        assert_eq!(rule().prepare()[0].0, "", "it does nothing");
        assert_eq!(replace("x", "two\r\nlines").prepare()[0].0, "/replace/with");
        let long = |value: usize| adding("X-Add", &"w".repeat(value)).prepare();
        assert_eq!((long(900).len(), long(1_000)[0].0.as_str()), (0, "/add/value"));
    }
}
