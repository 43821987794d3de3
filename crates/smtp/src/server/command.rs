//! Parses command lines (RFC 5321 section 4.1) into a [`Command`]. Whether a command is allowed is decided by the
//! states.

use super::event::HelloVerb;
use super::fault::{OtherProtocol, SessionFault, Syntax};

/// A command. Arguments whose meaning depends on the session are still text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    Hello(HelloVerb, &'a str),
    /// The text after `FROM:`.
    Mail(&'a str),
    /// The text after `TO:`.
    Rcpt(&'a str),
    Data,
    Bdat {
        size: u64,
        last: bool,
    },
    Rset,
    Noop,
    Quit,
    Vrfy,
    Help,
    StartTls,
    Auth {
        mechanism: &'a str,
        initial: Option<&'a str>,
    },
}

impl<'a> Command<'a> {
    /// Parses a line without its line end.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self, SessionFault> {
        let line = std::str::from_utf8(line).map_err(|_| SessionFault::Syntax(Syntax::Characters))?;
        if line.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f) {
            return Err(SessionFault::Syntax(Syntax::Characters));
        }
        let line = line.trim_end_matches(BLANKS);
        let (verb, argument) = line.split_once(BLANKS).unwrap_or((line, ""));
        parse_verb(verb, argument.trim_start_matches(BLANKS))
    }
}

/// Returns the verb of a line in upper case, and its length; only the first 16 octets count.
fn upper(verb: &str) -> ([u8; 16], usize) {
    let mut letters = [0; 16];
    let len = verb.len().min(16);
    letters[..len].copy_from_slice(&verb.as_bytes()[..len]);
    letters.make_ascii_uppercase();
    (letters, len)
}

fn parse_verb<'a>(verb: &str, argument: &'a str) -> Result<Command<'a>, SessionFault> {
    let (letters, len) = upper(verb);
    // RFC 5321 section 2.4: verbs may be in any case.
    match &letters[..len] {
        b"EHLO" => hello(HelloVerb::Ehlo, argument),
        b"HELO" => hello(HelloVerb::Helo, argument),
        b"MAIL" => path(argument, "FROM").map(Command::Mail),
        b"RCPT" => path(argument, "TO").map(Command::Rcpt),
        b"DATA" => bare(argument, Command::Data),
        b"BDAT" => chunk(argument),
        b"RSET" => bare(argument, Command::Rset),
        // RFC 5321 section 4.1.1.9: NOOP may have a parameter, which is ignored.
        b"NOOP" => Ok(Command::Noop),
        // QUIT with an argument is accepted: there is no reason to keep the client.
        b"QUIT" => Ok(Command::Quit),
        b"VRFY" => some(argument).map(|_| Command::Vrfy),
        b"HELP" => Ok(Command::Help),
        b"STARTTLS" => bare(argument, Command::StartTls),
        b"AUTH" => auth(argument),
        b"EXPN" | b"TURN" | b"ATRN" | b"ETRN" | b"SEND" | b"SOML" | b"SAML" | b"XEXCH50" | b"X-EXPS"
        | b"X-ANONYMOUSTLS" | b"XRDST" | b"XCLIENT" | b"XFORWARD" | b"BURL" | b"LHLO" => {
            Err(SessionFault::NotImplemented)
        }
        b"GET" | b"POST" | b"PUT" | b"HEAD" | b"OPTIONS" | b"DELETE" | b"PATCH" | b"CONNECT" | b"TRACE"
        | b"PRI" => Err(SessionFault::OtherProtocol(OtherProtocol::Http)),
        _ => Err(SessionFault::UnknownCommand),
    }
}

/// RFC 5321 section 4.1.1.1 requires a domain or an address literal. Many clients send neither, and RFC 5321 section
/// 4.1.4 forbids refusing mail for that alone. So any text is accepted, including `EHLO front desk` from a device with
/// such a name, and the host decides.
fn hello(verb: HelloVerb, name: &str) -> Result<Command<'_>, SessionFault> {
    if name.is_empty() || name.len() > 255 {
        Err(SessionFault::Syntax(Syntax::Hello))
    } else {
        Ok(Command::Hello(verb, name))
    }
}

/// What separates the words of a command line. RFC 5321 section 4.1.1 allows only the space; tabs are a common and
/// harmless mistake, so every command accepts both.
pub(super) const BLANKS: [char; 2] = [' ', '\t'];

/// Returns the text after `FROM:` or `TO:`. Blanks around the colon are a common and harmless mistake.
fn path<'a>(argument: &'a str, keyword: &str) -> Result<&'a str, SessionFault> {
    let after = argument
        .split_at_checked(keyword.len())
        .filter(|(word, _)| word.eq_ignore_ascii_case(keyword))
        .and_then(|(_, rest)| rest.trim_start_matches(BLANKS).strip_prefix(':'));
    after.map(|path| path.trim_start_matches(BLANKS)).ok_or(SessionFault::Syntax(Syntax::Path))
}

fn bare<'a>(argument: &str, command: Command<'a>) -> Result<Command<'a>, SessionFault> {
    if argument.is_empty() { Ok(command) } else { Err(SessionFault::Syntax(Syntax::UnexpectedArgument)) }
}

fn some(argument: &str) -> Result<&str, SessionFault> {
    if argument.is_empty() { Err(SessionFault::Syntax(Syntax::MissingArgument)) } else { Ok(argument) }
}

/// RFC 3030 section 2: `BDAT size [LAST]`. A size that cannot be parsed ends the session: what follows may be content,
/// and content must never be taken for commands (SMTP smuggling).
fn chunk(argument: &str) -> Result<Command<'_>, SessionFault> {
    let (size, rest) = argument.split_once(BLANKS).unwrap_or((argument, ""));
    let is_number = !size.is_empty() && size.len() <= 20 && size.bytes().all(|byte| byte.is_ascii_digit());
    let size = size.parse().ok().filter(|_| is_number).ok_or(SessionFault::ChunkSize)?;
    match rest.trim_matches(BLANKS) {
        "" => Ok(Command::Bdat { size, last: false }),
        last if last.eq_ignore_ascii_case("LAST") => Ok(Command::Bdat { size, last: true }),
        _ => Err(SessionFault::ChunkSize),
    }
}

/// RFC 4954 section 4: `AUTH mechanism [initial-response]`.
fn auth(argument: &str) -> Result<Command<'_>, SessionFault> {
    let mut words = some(argument)?.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(mechanism), initial, None) => Ok(Command::Auth { mechanism, initial }),
        _ => Err(SessionFault::Syntax(Syntax::UnexpectedArgument)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_commands() {
        for (line, command) in [
            ("ehlo a.example", Command::Hello(HelloVerb::Ehlo, "a.example")),
            ("HELO [192.0.2.1] ", Command::Hello(HelloVerb::Helo, "[192.0.2.1]")),
            ("MAIL FROM:<a@b.c> SIZE=1", Command::Mail("<a@b.c> SIZE=1")),
            ("mail from : <>", Command::Mail("<>")),
            ("RCPT TO: <a@b.c>", Command::Rcpt("<a@b.c>")),
            ("BDAT 12", Command::Bdat { size: 12, last: false }),
            ("bdat 0 last", Command::Bdat { size: 0, last: true }),
            ("BDAT\t10\tLAST\t", Command::Bdat { size: 10, last: true }),
            ("BDAT \t 10", Command::Bdat { size: 10, last: false }),
            ("MAIL\tFROM:\t<a@b.c>\tSIZE=1", Command::Mail("<a@b.c>\tSIZE=1")),
            ("RCPT TO\t:\t<a@b.c>", Command::Rcpt("<a@b.c>")),
            ("EHLO front desk", Command::Hello(HelloVerb::Ehlo, "front desk")),
            ("HELO\tfront\tdesk ", Command::Hello(HelloVerb::Helo, "front\tdesk")),
            ("NOOP whatever", Command::Noop),
            ("AUTH PLAIN =", Command::Auth { mechanism: "PLAIN", initial: Some("=") }),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Ok(command), "{line}");
        }
    }

    #[test]
    fn other_lines_name_their_fault() {
        for (line, fault) in [
            ("", SessionFault::UnknownCommand),
            ("EHLO", SessionFault::Syntax(Syntax::Hello)),
            ("MAIL", SessionFault::Syntax(Syntax::Path)),
            ("MAIL TO:<a@b.c>", SessionFault::Syntax(Syntax::Path)),
            ("MAIL FRÖM:<a@b.c>", SessionFault::Syntax(Syntax::Path)),
            ("DATA now", SessionFault::Syntax(Syntax::UnexpectedArgument)),
            ("BDAT", SessionFault::ChunkSize),
            ("BDAT x", SessionFault::ChunkSize),
            ("BDAT +1", SessionFault::ChunkSize),
            ("BDAT -1", SessionFault::ChunkSize),
            ("BDAT 99999999999999999999", SessionFault::ChunkSize),
            ("BDAT 1 FIRST", SessionFault::ChunkSize),
            ("AUTH", SessionFault::Syntax(Syntax::MissingArgument)),
            ("AUTH PLAIN a b", SessionFault::Syntax(Syntax::UnexpectedArgument)),
            ("GET / HTTP/1.1", SessionFault::OtherProtocol(OtherProtocol::Http)),
            ("EXPN list", SessionFault::NotImplemented),
            ("DATADATADATADATADATA", SessionFault::UnknownCommand),
            ("NOOP \u{1}", SessionFault::Syntax(Syntax::Characters)),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Err(fault), "{line}");
        }
        assert_eq!(Command::parse(b"NOOP \xff"), Err(SessionFault::Syntax(Syntax::Characters)));
    }
}
