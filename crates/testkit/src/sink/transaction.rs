//! The part of a session from MAIL to the final reply.

use std::io;

use super::session::{SinkReply, SinkSession, StepResult};
use super::{SinkPath, SinkStep, SinkTransaction};

/// A transaction in progress.
pub(super) struct MailInProgress {
    sender: SinkPath,
    recipients: Vec<SinkPath>,
    message: Vec<u8>,
    chunked: bool,
}

impl SinkSession {
    pub(super) async fn mail(&mut self, rest: &str, line: &str) -> io::Result<()> {
        if self.hello.is_none() || self.mail.is_some() {
            return self.refuse("503 5.5.1 Not now").await;
        }
        if self.user.is_none() && self.script(|script| !script.logins.is_empty()) {
            return self.refuse("530 5.7.0 Who are you?").await;
        }
        let Some(sender) = self.path(rest, "FROM:") else {
            return self.refuse("501 5.5.4 MAIL FROM:<address>").await;
        };
        if let Some(unknown) = self.unknown_param(&sender, &MAIL_PARAMS) {
            return self.refuse(&format!("555 5.5.4 {unknown} was not offered")).await;
        }
        if self.step(SinkStep::Mail, line, "250 2.1.0 Sender taken").await? == StepResult::Ahead {
            self.mail = Some(MailInProgress { sender, recipients: vec![], message: vec![], chunked: false });
        }
        Ok(())
    }

    pub(super) async fn rcpt(&mut self, rest: &str, line: &str) -> io::Result<()> {
        if self.mail.is_none() {
            return self.refuse("503 5.5.1 Whose mail?").await;
        }
        let Some(recipient) = self.path(rest, "TO:").filter(|path| !path.address.is_empty()) else {
            return self.refuse("501 5.5.4 RCPT TO:<address>").await;
        };
        if let Some(unknown) = self.unknown_param(&recipient, &RCPT_PARAMS) {
            return self.refuse(&format!("555 5.5.4 {unknown} was not offered")).await;
        }
        if self.step(SinkStep::Rcpt, line, "250 2.1.5 Recipient taken").await? == StepResult::Ahead
            && let Some(mail) = &mut self.mail
        {
            mail.recipients.push(recipient);
        }
        Ok(())
    }

    /// `FROM:<address> PARAM PARAM=value`; no space is allowed before the bracket (RFC 5321 section 3.3).
    fn path(&mut self, rest: &str, keyword: &str) -> Option<SinkPath> {
        let after = rest.get(..keyword.len()).filter(|start| start.eq_ignore_ascii_case(keyword))?;
        let rest = rest.strip_prefix(after)?.strip_prefix('<')?;
        let end = closing_bracket(rest)?;
        let (address, params) = (&rest[..end], &rest[end + 1..]);
        if !params.is_empty() && !params.starts_with(' ') {
            return None;
        }
        let utf8 = self.mail_is_utf8(params);
        if !address.is_ascii() && !utf8 {
            self.violation("an address beyond ASCII without SMTPUTF8", address.as_bytes());
        }
        let params = params.split(' ').filter(|param| !param.is_empty()).map(str::to_owned).collect();
        Some(SinkPath { address: address.to_owned(), params })
    }

    fn mail_is_utf8(&self, params: &str) -> bool {
        let declared = |path: &SinkPath| path.param("SMTPUTF8").is_some();
        params.to_ascii_uppercase().contains("SMTPUTF8")
            || self.mail.as_ref().is_some_and(|m| declared(&m.sender))
    }

    /// RFC 5321 section 4.1.1.11: a parameter is allowed only if its extension was offered.
    fn unknown_param(&self, path: &SinkPath, known: &[(&str, &str)]) -> Option<String> {
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        let allowed = |param: &String| {
            let key = param.split('=').next().unwrap_or_default().to_ascii_uppercase();
            let extension = known.iter().find(|(name, _)| *name == key).map(|(_, extension)| *extension);
            extended && extension.is_some_and(|extension| self.offers(extension))
        };
        path.params.iter().find(|param| !allowed(param)).cloned()
    }

    fn offers(&self, extension: &str) -> bool {
        self.script(|script| script.offers(extension) || (extension == "AUTH" && !script.logins.is_empty()))
    }

    pub(super) async fn data(&mut self, line: &str) -> io::Result<()> {
        let Some(mail) = &self.mail else {
            return self.refuse("503 5.5.1 Whose mail?").await;
        };
        if mail.recipients.is_empty() || mail.chunked {
            return self.refuse("554 5.5.1 No valid recipients").await;
        }
        if self.step(SinkStep::Data, line, "354 End with a dot").await? == StepResult::Refused {
            return Ok(());
        }
        let message = self.content().await?;
        if let Some(mail) = &mut self.mail {
            mail.message = message;
        }
        self.finish().await
    }

    /// RFC 5321 section 4.5.2. Only CRLF, dot, CRLF ends it; a line with a bare LF is kept, and recorded as a
    /// violation.
    async fn content(&mut self) -> io::Result<Vec<u8>> {
        let mut message = Vec::new();
        let mut at_line_start = true;
        loop {
            let line = self.wire.line().await?;
            if !line.ends_with(b"\n") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if at_line_start && line == b".\r\n" {
                return Ok(message);
            }
            if at_line_start && line.len() > 1_001 {
                self.violation("a line of content over 1,000 bytes, beginning with", &line[..40]);
            }
            let unstuffed = line.strip_prefix(b".").filter(|_| at_line_start);
            message.extend_from_slice(unstuffed.unwrap_or(&line));
            at_line_start = line.ends_with(b"\r\n");
            if !at_line_start {
                self.violation("a bare LF in DATA, in", &line);
            }
        }
    }

    /// RFC 3030 section 2: the octets follow the command at once, whatever the reply will be.
    pub(super) async fn bdat(&mut self, rest: &str, line: &str) -> io::Result<()> {
        let (size, last) = rest.split_once(' ').unwrap_or((rest, ""));
        let Ok(size) = size.parse() else {
            return self.refuse("501 5.5.4 BDAT size [LAST]").await;
        };
        let chunk = self.wire.exactly(size).await?;
        if !self.offers("CHUNKING") {
            return self.refuse("502 5.5.1 Not offered").await;
        }
        let Some(mail) = self.mail.as_mut().filter(|mail| !mail.recipients.is_empty()) else {
            return self.refuse("503 5.5.1 No valid recipients").await;
        };
        mail.chunked = true;
        mail.message.extend_from_slice(&chunk);
        if last.eq_ignore_ascii_case("LAST") {
            return self.finish().await;
        }
        if self.step(SinkStep::Chunk, line, "250 2.0.0 Chunk taken").await? == StepResult::Refused {
            self.mail = None;
        }
        Ok(())
    }

    /// The end of the content: the final reply, or in LMTP one for each recipient (RFC 2033 section 4.2).
    async fn finish(&mut self) -> io::Result<()> {
        let Some(mail) = self.mail.take() else {
            return Ok(());
        };
        self.check_content(&mail);
        let lines: Vec<String> = match self.script(|script| script.lmtp) {
            true => mail.recipients.iter().map(|path| path.address.clone()).collect(),
            false => vec![String::new()],
        };
        let mut says = Vec::new();
        for line in lines {
            says.push(self.ask_script(SinkStep::Message, &line, "250 2.6.0 Message taken").await);
        }
        self.record(mail, &says);
        for say in says {
            self.say(say).await?;
        }
        Ok(())
    }

    /// Recorded before the reply is sent: a test that has seen the reply must find the message here.
    fn record(&self, mail: MailInProgress, says: &[SinkReply]) {
        let hello = self.hello.as_ref();
        let replies: Vec<&str> = says.iter().map(SinkReply::text).collect();
        let transaction = SinkTransaction {
            session: self.number,
            peer: self.peer,
            hello: hello.map(|hello| hello.name.clone()).unwrap_or_default(),
            extended: hello.is_some_and(|hello| hello.extended),
            tls: self.tls.clone(),
            user: self.user.clone(),
            sender: mail.sender,
            recipients: mail.recipients,
            message: mail.message,
            chunked: mail.chunked,
            reply: replies.join("\n"),
            accepted: says.iter().any(SinkReply::accepts),
        };
        self.note(|log, _| log.transactions.push(transaction));
    }

    fn check_content(&mut self, mail: &MailInProgress) {
        let declared = mail.sender.param("BODY").is_some_and(|body| !body.eq_ignore_ascii_case("7BIT"));
        let utf8 = mail.sender.param("SMTPUTF8").is_some();
        if !mail.message.is_ascii() && !declared && !utf8 {
            self.violation("content of 8 bits that was not declared", b"");
        }
    }
}

/// The parameters of MAIL and the extensions that define them: RFC 1870, 6152, 6531, 3461, 4954, 8689.
const MAIL_PARAMS: [(&str, &str); 7] = [
    ("SIZE", "SIZE"),
    ("BODY", "8BITMIME"),
    ("SMTPUTF8", "SMTPUTF8"),
    ("RET", "DSN"),
    ("ENVID", "DSN"),
    ("AUTH", "AUTH"),
    ("REQUIRETLS", "REQUIRETLS"),
];
const RCPT_PARAMS: [(&str, &str); 2] = [("NOTIFY", "DSN"), ("ORCPT", "DSN")];

/// The end of the path: the first bracket outside a quoted local part.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}
