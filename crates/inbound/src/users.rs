//! The users that the configuration names: a judge of credentials for gateways that have no directory to ask.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordVerifier};
use pintle_policy::{AuthVerdict, Credentials};
use subtle::ConstantTimeEq;

/// Users and their secrets, by name.
#[derive(Debug, Clone, Default)]
pub struct Users(Arc<HashMap<String, Secret>>);

/// What a password is compared with.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself.
    Plain(String),
    /// Its Argon2 hash in the PHC string form (`$argon2id$…`).
    Argon2(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Users {
    /// These users.
    #[must_use]
    pub fn new(users: HashMap<String, Secret>) -> Self {
        Self(Arc::new(users))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Judges a name and password. A hash is computed on a thread of its own, since it takes milliseconds on purpose.
    pub async fn judge(&self, credentials: &Credentials) -> AuthVerdict {
        let acts_for_itself = credentials
            .authorization_id
            .as_deref()
            .is_none_or(|id| id.is_empty() || id == credentials.username);
        let Some(secret) = self.0.get(&credentials.username).filter(|_| acts_for_itself).cloned() else {
            return AuthVerdict::Denied(None);
        };
        let password = credentials.password.clone();
        match tokio::task::spawn_blocking(move || secret.matches(&password)).await {
            Ok(true) => AuthVerdict::Granted(credentials.username.clone()),
            Ok(false) => AuthVerdict::Denied(None),
            Err(_) => AuthVerdict::Unavailable(None),
        }
    }
}

impl Secret {
    fn matches(&self, password: &str) -> bool {
        match self {
            Self::Plain(secret) => secret.as_bytes().ct_eq(password.as_bytes()).into(),
            Self::Argon2(hash) => PasswordHash::new(hash).is_ok_and(|hash| {
                argon2::Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(username: &str, password: &str, authorization_id: Option<&str>) -> Credentials {
        Credentials {
            mechanism: "PLAIN".into(),
            authorization_id: authorization_id.map(str::to_owned),
            username: username.into(),
            password: password.into(),
        }
    }

    #[tokio::test]
    async fn only_the_right_password_is_granted() {
        // The hash is the one of "sesame" with the salt "saltsaltsalt" and the smallest costs.
        use argon2::password_hash::{PasswordHasher, SaltString};
        let salt = SaltString::encode_b64(b"saltsaltsalt").unwrap();
        let hash = argon2::Argon2::default().hash_password(b"sesame", &salt).unwrap().to_string();
        let users = Users::new(HashMap::from([
            ("plain".to_owned(), Secret::Plain("open".to_owned())),
            ("hashed".to_owned(), Secret::Argon2(hash)),
        ]));
        for (given, granted) in [
            (credentials("plain", "open", None), true),
            (credentials("plain", "open", Some("plain")), true),
            (credentials("plain", "open", Some("other")), false),
            (credentials("plain", "Open", None), false),
            (credentials("hashed", "sesame", Some("")), true),
            (credentials("hashed", "sesam", None), false),
            (credentials("nobody", "", None), false),
        ] {
            let verdict = users.judge(&given).await;
            assert_eq!(
                matches!(verdict, AuthVerdict::Granted(name) if name == given.username),
                granted,
                "{given:?}"
            );
        }
    }
}
