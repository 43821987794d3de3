//! The sandbox's welcome screen: addresses, credentials, and example commands.

use std::net::SocketAddr;

use super::{PASSWORD, SandboxAddresses, USER};
use crate::app::App;
use crate::cli::Sandbox;
use crate::output::say;

const EXAMPLE: &str = "\nThe example plugin refuses spammer@example.net; try it as sender or recipient.";
const OPEN: &str =
    "\nClients in private networks may send mail here without a password, all others by submission.";

/// Prints the sandbox's addresses and commands that send a message.
pub(crate) fn print(app: &App, options: &Sandbox, places: &SandboxAddresses, has_example: bool) {
    let at = |name: &str, asked: SocketAddr| {
        app.inbound
            .addresses()
            .iter()
            .find(|(listener, _)| listener == name)
            .map_or(asked, |(_, address)| *address)
    };
    let smtp = at("smtp", places.smtp);
    let submission = at("submission", places.submission);
    let submissions = at("submissions", places.submissions);
    let folder = options.folder.display();
    say!(
        r#"Pintle's sandbox is up. Every message is captured; none leaves this machine.

  SMTP                   {smtp}
  submission, STARTTLS   {submission}   user {USER}, password "{PASSWORD}"
  submission, TLS        {submissions}   the same
  messages               {folder}/messages   (list them: pintle sandbox messages --folder {folder})
  configuration          {folder}/pintle.toml

Send a message, in another terminal:

  swaks --server {smtp} --from you@example.org --to friend@example.net

  swaks --server {submission} --tls --auth LOGIN --auth-user {USER} --auth-password "{PASSWORD}" \
        --from you@example.org --to friend@example.net

  printf 'From: you@example.org\r\nSubject: hello\r\n\r\nhi\r\n' |
    curl --insecure --url smtps://{submissions} --user "{USER}:{PASSWORD}" \
         --mail-from you@example.org --mail-rcpt friend@example.net --upload-file -

  python3 -c 'import smtplib; smtplib.SMTP("{host}", {port}).sendmail(
    "you@example.org", ["friend@example.net"], "Subject: hello\r\n\r\nhi\r\n")'
{example}{open}
The plugins' log lines and each message's events appear here. Ctrl-C stops the sandbox.
"#,
        host = smtp.ip(),
        port = smtp.port(),
        example = if has_example { EXAMPLE } else { "" },
        open = if places.are_local() { "" } else { OPEN },
    );
}
