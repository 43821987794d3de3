//! The spoofing matrix in `corpus/spoofs`: forged and suspicious headers, and what becomes of each.

use std::collections::BTreeSet;

/// A row of the matrix.
#[derive(Debug)]
pub struct SpoofCase<'a> {
    /// Its name, which its message has in the field X-Case.
    pub name: &'a str,
    /// What becomes of the message: `reject`, `hold`, `points` or `pass`.
    pub fate: &'a str,
    /// The findings of the plugin.
    pub found: BTreeSet<String>,
    /// The client is 127.0.0.n.
    pub client: u8,
    /// Empty for the null reverse-path.
    pub sender: &'a str,
    header: Vec<&'a str>,
}

impl SpoofCase<'_> {
    /// The message as it is sent.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut message = Vec::new();
        for line in &self.header {
            message.extend(unescaped(line));
            message.extend(b"\r\n");
        }
        message.extend(format!("X-Case: {}\r\nTo: b@ours.example\r\n\r\nhello\r\n", self.name).bytes());
        message
    }
}

/// The rows of the matrix.
///
/// # Panics
/// A line is no row.
#[must_use]
pub fn cases(text: &str) -> Vec<SpoofCase<'_>> {
    let mut cases: Vec<SpoofCase<'_>> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let Some(head) = line.strip_prefix("= ") else {
            cases.last_mut().expect("a row of the matrix").header.push(line);
            continue;
        };
        let parts: Vec<&str> = head.split(" | ").collect();
        let [name, fate, found, client, sender] = <[&str; 5]>::try_from(parts).expect("a row of the matrix");
        let found = found.split(',').filter(|check| *check != "-").map(str::to_owned).collect();
        let (client, sender) =
            (client.parse().expect("a row of the matrix"), sender.trim_matches(['<', '>']));
        cases.push(SpoofCase { name, fate, found, client, sender, header: Vec::new() });
    }
    cases
}

/// `\u{…}`, `\xHH`, `\t`, `\\`, and `\*N` with the character to write N times.
fn unescaped(line: &str) -> Vec<u8> {
    let mut out = String::new();
    let (mut rest, mut times) = (line, 1);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let one;
        (one, rest) = if c == '\\' { escape(rest) } else { (Some(c), rest) };
        match one {
            Some(one) => {
                out.extend(std::iter::repeat_n(one, times));
                times = 1;
            }
            None => {
                let digits = rest.find(|c: char| !c.is_ascii_digit()).expect("a row of the matrix");
                times = rest[..digits].parse().expect("a row of the matrix");
                rest = &rest[digits..];
            }
        }
    }
    out.into_bytes()
}

/// The character that an escape stands for (none for a repetition), and the text after it.
fn escape(rest: &str) -> (Option<char>, &str) {
    let number = |digits| char::from_u32(u32::from_str_radix(digits, 16).expect("a row of the matrix"));
    match rest.split_at(1) {
        ("*", rest) => (None, rest),
        ("t", rest) => (Some('\t'), rest),
        ("\\", rest) => (Some('\\'), rest),
        ("x", rest) => (number(&rest[..2]), &rest[2..]),
        ("u", rest) => {
            let (digits, rest) = rest[1..].split_once('}').expect("a row of the matrix");
            (number(digits), rest)
        }
        (other, _) => panic!("\\{other} is no escape"),
    }
}
