//! `pintle hash-password`: hashes a password for the configuration key `password_hash`. The password is read from the
//! terminal or from standard input, so that it appears in no shell history, process list or file.

use std::io::{self, BufRead, IsTerminal, Read};
use std::process::ExitCode;

use crate::output::say;

/// The maximum length of a password in octets, longer than any client sends.
const LONGEST: u64 = 1_024;

/// Reads a password and prints its hash.
pub(crate) fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let password = if io::stdin().is_terminal() { ask()? } else { first_line(&mut io::stdin().lock())? };
    say!("{}", pintle_inbound::hash_password(&password)?);
    Ok(ExitCode::SUCCESS)
}

fn ask() -> Result<String, Box<dyn std::error::Error>> {
    let password = rpassword::prompt_password("Password: ")?;
    let again = rpassword::prompt_password("Repeat the password: ")?;
    if password == again { checked(password) } else { Err("the passwords do not match".into()) }
}

/// Reads the first line without its line end, which `echo` adds. Blanks are kept: they may be part of the password.
fn first_line(input: &mut impl BufRead) -> Result<String, Box<dyn std::error::Error>> {
    let mut line = String::new();
    input.take(LONGEST + 2).read_line(&mut line)?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    checked(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn checked(password: String) -> Result<String, Box<dyn std::error::Error>> {
    match password.len() as u64 {
        0 => Err("no password was given: type one, or write it to standard input".into()),
        1..=LONGEST => Ok(password),
        _ => Err(format!("a password has at most {LONGEST} octets").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_password_without_its_end() {
        let read = |text: &str| first_line(&mut text.as_bytes()).map_err(|error| error.to_string());
        for text in ["sesame", "sesame\n", "sesame\r\n", "sesame\nmore\n"] {
            assert_eq!(read(text), Ok("sesame".to_owned()), "{text:?}");
        }
        assert_eq!(read(" blanks \n"), Ok(" blanks ".to_owned()));
        assert!(read("").is_err() && read("\n").is_err());
        assert!(read(&"x".repeat(1_024)).is_ok() && read(&"x".repeat(1_025)).is_err());
    }
}
