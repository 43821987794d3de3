//! AUTH, which is logins: who is asked, what a failure costs its network, and the line of the log that others read.
//!
//! The lines `login failed` and `login refused` have a form that operations.md promises: programs that shut out who
//! guesses read them, so that the client's address comes first and what a client wrote comes last, in quotes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pintle_mail::{EnhancedCode, Reply};
use pintle_policy::{AuthVerdict, Credentials, Session, View};
use pintle_smtp::server;

use super::StageAnswer;
use crate::config::Rules;
use crate::guesses::Guess;
use crate::services::Services;

/// The target of these lines: operations.md promises it, wherever this code stands.
const LOG: &str = "pintle_inbound::login";
/// Of a name that a client made up, the log wants so many characters.
const SHOWN: usize = 128;

/// Decides on a client's credentials.
pub(super) async fn answer(
    services: &Services,
    view: &mut View,
    given: server::SaslCredentials,
) -> StageAnswer {
    let credentials = Arc::new(Credentials {
        mechanism: given.mechanism.name().to_owned(),
        authorization_id: given.authorization_id,
        username: given.username,
        password: given.password.expose().to_owned(),
    });
    let rules = services.rules.load_full();
    let guess = match begin(services, &view.session, &rules) {
        Ok(guess) => guess,
        Err(wait) => return refuse(&view.session, &credentials.username, wait),
    };
    let verdict = ask(services, view, &credentials, &rules).await;
    tell(&view.session, &credentials.username, &verdict);
    match verdict {
        AuthVerdict::Denied(_) | AuthVerdict::Next => slow_down(guess, &rules).await,
        AuthVerdict::Granted(_) | AuthVerdict::Unavailable(_) => {
            guess.into_iter().for_each(|guess| guess.give_back(Instant::now()));
        }
    }
    match verdict {
        AuthVerdict::Granted(identity) => {
            Arc::make_mut(&mut view.session).identity = Some(identity.clone());
            StageAnswer::Granted { identity }
        }
        AuthVerdict::Denied(reply) => StageAnswer::Denied(reply),
        AuthVerdict::Unavailable(reply) => StageAnswer::Unavailable(reply),
        AuthVerdict::Next => StageAnswer::Denied(None),
    }
}

/// Charges the client's networks, unless nothing that comes from there is a guess.
fn begin(services: &Services, session: &Session, rules: &Rules) -> Result<Option<Guess>, Duration> {
    let client = session.client.ip().to_canonical();
    if session.trusted || rules.logins.exempt.iter().any(|network| network.contains(&client)) {
        return Ok(None);
    }
    services.guesses.begin(client, &rules.logins, Instant::now()).map(Some)
}

/// The plugins first, then the users of the configuration.
async fn ask(
    services: &Services,
    view: &mut View,
    credentials: &Arc<Credentials>,
    rules: &Rules,
) -> AuthVerdict {
    let chain = services.chain.load_full();
    match chain.authenticate(credentials, view).await.verdict {
        AuthVerdict::Next => rules.users.judge(credentials, &services.hashing, view.session.trusted).await,
        verdict => verdict,
    }
}

async fn slow_down(guess: Option<Guess>, rules: &Rules) {
    let delay = guess.map_or(Duration::ZERO, |guess| guess.delay(&rules.logins, Instant::now()));
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

/// A login that is not heard: its network has guessed too often.
fn refuse(session: &Session, username: &str, wait: Duration) -> StageAnswer {
    let (client, listener, id) = (session.client.ip().to_canonical(), &session.listener, session.id);
    tracing::info!(target: LOG, %client, listener, session = %id, username = shown(username), "login refused");
    metrics::counter!("pintle_authentications_total", "verdict" => "refused").increment(1);
    let minutes = wait.as_secs().div_ceil(60).max(1);
    let text = format!("Too many failed logins from your network; try again in {minutes} minutes");
    StageAnswer::Close(Reply::new(421, EnhancedCode(4, 7, 0), text))
}

fn tell(session: &Session, username: &str, verdict: &AuthVerdict) {
    let (client, listener, id) = (session.client.ip().to_canonical(), &session.listener, session.id);
    let username = shown(username);
    metrics::counter!("pintle_authentications_total", "verdict" => verdict.name()).increment(1);
    match verdict {
        AuthVerdict::Granted(identity) => {
            tracing::info!(target: LOG, %client, listener, session = %id, username, identity, "login");
        }
        AuthVerdict::Denied(_) | AuthVerdict::Next => {
            tracing::info!(target: LOG, %client, listener, session = %id, username, "login failed");
        }
        AuthVerdict::Unavailable(_) => {
            tracing::warn!(target: LOG, %client, listener, session = %id, username, "login not decided");
        }
    }
}

fn shown(username: &str) -> &str {
    username.char_indices().nth(SHOWN).map_or(username, |(end, _)| &username[..end])
}
