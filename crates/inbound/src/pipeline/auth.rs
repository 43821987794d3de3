//! AUTH: asks the plugins and the configured users, rate-limits failed logins of a network, and logs logins.
//!
//! The lines `login failed` and `login refused` have a format that operations.md guarantees, because programs that
//! block password guessers (fail2ban) parse them: the client's address comes first, and text from the client comes
//! last, in quotes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pintle_mail::{EnhancedCode, Reply};
use pintle_policy::{AuthVerdict, Credentials, Hook, LoginOutcome, LoginResult, Session, View};
use pintle_smtp::server;

use super::StageAnswer;
use crate::config::Rules;
use crate::guesses::Guess;
use crate::services::Services;

/// The target of these log lines, which operations.md guarantees, independent of where this code is.
const LOG: &str = "pintle_inbound::login";
/// How many characters of a client's user name are logged.
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
        Err(wait) => {
            let refusal = refuse(&view.session, &credentials.username, wait);
            tell(services, view, &credentials, LoginOutcome::Refused).await;
            return refusal;
        }
    };
    let verdict = ask(services, view, &credentials, &rules).await;
    log_login(&view.session, &credentials.username, &verdict);
    if let AuthVerdict::Granted(identity) = &verdict {
        Arc::make_mut(&mut view.session).identity = Some(identity.clone());
    }
    tell(services, view, &credentials, outcome(&verdict)).await;
    match verdict {
        AuthVerdict::Denied(_) | AuthVerdict::Next => slow_down(guess, &rules).await,
        AuthVerdict::Granted(_) | AuthVerdict::Unavailable(_) => {
            guess.into_iter().for_each(|guess| guess.give_back(Instant::now()));
        }
    }
    match verdict {
        AuthVerdict::Granted(identity) => StageAnswer::Granted { identity },
        AuthVerdict::Denied(reply) => StageAnswer::Denied(reply),
        AuthVerdict::Unavailable(reply) => StageAnswer::Unavailable(reply),
        AuthVerdict::Next => StageAnswer::Denied(None),
    }
}

/// Charges a login to the client's networks, unless its failures are not counted.
fn begin(services: &Services, session: &Session, rules: &Rules) -> Result<Option<Guess>, Duration> {
    let client = session.client.ip().to_canonical();
    if session.trusted || rules.logins.exempt.iter().any(|network| network.contains(&client)) {
        return Ok(None);
    }
    services.guesses.begin(client, &rules.logins, Instant::now()).map(Some)
}

/// Asks the plugins first, then the users of the configuration.
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

/// Informs the plugins of how the login ended.
async fn tell(services: &Services, view: &mut View, credentials: &Credentials, outcome: LoginOutcome) {
    let chain = services.chain.load_full();
    if chain.wants(Hook::AuthResult) {
        let Credentials { mechanism, username, .. } = credentials.clone();
        chain.auth_result(&Arc::new(LoginResult { mechanism, username, outcome }), view).await;
    }
}

/// Credentials that no plugin and no user of the configuration knows are wrong.
fn outcome(verdict: &AuthVerdict) -> LoginOutcome {
    match verdict {
        AuthVerdict::Granted(_) => LoginOutcome::Granted,
        AuthVerdict::Denied(_) | AuthVerdict::Next => LoginOutcome::Denied,
        AuthVerdict::Unavailable(_) => LoginOutcome::Unavailable,
    }
}

async fn slow_down(guess: Option<Guess>, rules: &Rules) {
    let delay = guess.map_or(Duration::ZERO, |guess| guess.delay(&rules.logins, Instant::now()));
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

/// Refuses a login without checking it, because its network has failed too often.
fn refuse(session: &Session, username: &str, wait: Duration) -> StageAnswer {
    let (client, listener, id) = (session.client.ip().to_canonical(), &session.listener, session.id);
    tracing::info!(target: LOG, %client, listener, session = %id, username = shown(username), "login refused");
    metrics::counter!("pintle_authentications_total", "verdict" => "refused").increment(1);
    let minutes = wait.as_secs().div_ceil(60).max(1);
    let text = format!("Too many failed logins from your network; try again in {minutes} minutes");
    StageAnswer::Close(Reply::new(421, EnhancedCode(4, 7, 0), text))
}

fn log_login(session: &Session, username: &str, verdict: &AuthVerdict) {
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
            tracing::warn!(target: LOG, %client, listener, session = %id, username, "login could not be checked");
        }
    }
}

fn shown(username: &str) -> &str {
    username.char_indices().nth(SHOWN).map_or(username, |(end, _)| &username[..end])
}
