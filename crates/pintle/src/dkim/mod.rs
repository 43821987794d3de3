//! `pintle dkim`: generates DKIM keys, and compares them with the records in DNS.
//!
//! Nothing here talks to a running gateway. Private keys are never printed.

mod check;
mod keygen;

use std::path::Path;

use pintle_sender_auth::sign::Pem;

use crate::cli::{Dkim, DkimCommand};
use crate::output::CommandResult;

pub(crate) fn run(options: &Dkim) -> CommandResult {
    match &options.command {
        DkimCommand::Keygen(options) => keygen::keygen(options),
        DkimCommand::Check(options) => check::check(options),
    }
}

fn read_key(file: &Path) -> Result<Pem, String> {
    let text = pintle_config::files::text(file);
    text.map(Pem::new).map_err(|error| format!("cannot read the private key {}: {error}", file.display()))
}
