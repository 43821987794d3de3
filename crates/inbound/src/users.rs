//! Authentication against the users in the configuration, for gateways without a directory; passwords in plaintext or
//! as Argon2 hashes.
//!
//! The time that a refusal takes must not reveal whether a user exists: the password for an unknown name is compared
//! with the secret of some user, always the same one for that name, and refused whatever the result.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use argon2::Params;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use pintle_mail::{EnhancedCode, Reply};
use pintle_policy::{AuthVerdict, Credentials};
use subtle::ConstantTimeEq;

use crate::hashing::{Busy, Hashing};

/// The most memory that one hash may take, in KiB.
const MAX_MEMORY: u32 = 128 << 10;
/// The largest product of memory in KiB and passes, which determines how long a hash takes.
const MAX_WORK: u64 = 512 << 10;
/// The most lanes. They are computed one after the other.
const MAX_LANES: u32 = 16;

/// The hash key that assigns a secret to an unknown name. It stays the same for the life of the process: a name whose
/// secret changed with each reload would be recognized as unknown.
static STAND_INS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The users and their secrets, by name. A clone shares them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Users(Arc<UserTable>);

#[derive(Debug, Default, PartialEq)]
struct UserTable {
    secrets: HashMap<String, StoredPassword>,
    /// Sorted, so that a name selects the same user every time.
    names: Vec<String>,
}

/// A user's secret, which a password is compared with.
#[derive(Clone, PartialEq, Eq)]
pub enum StoredPassword {
    /// The password itself.
    Plain(String),
    /// The Argon2 hash in PHC string format (`$argon2id$…`).
    Argon2(String),
}

/// Why a text is not an acceptable password hash. The operator must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashFault {
    /// It is not an Argon2 hash, or truncated.
    NoHash,
    /// Its parameters are not valid for Argon2.
    Parameters,
    /// A login would take too much memory: this many KiB.
    Memory(u32),
    /// A login would take too long: this product of memory in KiB and passes.
    Work(u64),
    /// It has this many lanes, which is too many.
    Lanes(u32),
}

impl fmt::Display for HashFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHash => f.write_str("this is not an Argon2 hash"),
            Self::Parameters => f.write_str("its parameters are not valid for Argon2"),
            Self::Memory(m) => write!(
                f,
                "each login would take {} MiB of memory (m={m}); at most {} are allowed",
                m >> 10,
                MAX_MEMORY >> 10
            ),
            Self::Work(work) => {
                write!(
                    f,
                    "each login would take too long: m times t is {work}; at most {MAX_WORK} is allowed"
                )
            }
            Self::Lanes(p) => write!(f, "p={p} lanes; at most {MAX_LANES} are allowed"),
        }
    }
}

impl std::error::Error for HashFault {}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredPassword(..)")
    }
}

impl Users {
    /// Returns a table of these users, by name.
    #[must_use]
    pub fn new(secrets: HashMap<String, StoredPassword>) -> Self {
        let mut names: Vec<String> = secrets.keys().cloned().collect();
        names.sort();
        Self(Arc::new(UserTable { secrets, names }))
    }

    /// Whether there are no users.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.names.is_empty()
    }

    /// Checks a user name and password.
    pub(crate) async fn judge(
        &self,
        credentials: &Credentials,
        hashing: &Hashing,
        trusted: bool,
    ) -> AuthVerdict {
        let name = &credentials.username;
        let acts_for_itself =
            credentials.authorization_id.as_deref().is_none_or(|id| id.is_empty() || id == name);
        let Some((secret, is_theirs)) = self.secret_for(name).filter(|_| acts_for_itself) else {
            return AuthVerdict::Denied(None);
        };
        let (secret, password) = (secret.clone(), credentials.password.clone());
        match hashing.run(trusted, move || secret.matches(&password)).await {
            Ok(Some(true)) if is_theirs => AuthVerdict::Granted(name.clone()),
            Ok(Some(_)) => AuthVerdict::Denied(None),
            Ok(None) => AuthVerdict::Unavailable(None),
            Err(Busy) => {
                let text = "Too many logins at once; try again later";
                AuthVerdict::Unavailable(Some(Reply::new(454, EnhancedCode(4, 7, 0), text)))
            }
        }
    }

    /// Returns the secret to compare the password for this name with, and whether it belongs to a user of this name. So
    /// the times for unknown names are distributed like those of the users, whatever mixture of secrets they have.
    fn secret_for(&self, name: &str) -> Option<(&StoredPassword, bool)> {
        let UserTable { secrets, names } = &*self.0;
        if let Some(secret) = secrets.get(name) {
            return Some((secret, true));
        }
        let one_of = u64::try_from(names.len()).ok().filter(|count| *count > 0)?;
        let at = usize::try_from(STAND_INS.hash_one(name) % one_of).ok()?;
        names.get(at).and_then(|other| secrets.get(other)).map(|secret| (secret, false))
    }
}

impl StoredPassword {
    /// Parses an Argon2 hash in PHC string format, and checks that its cost is acceptable.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn argon2(text: &str) -> Result<Self, HashFault> {
        let hash = PasswordHash::new(text).map_err(|_| HashFault::NoHash)?;
        let is_argon2 = matches!(hash.algorithm.as_str(), "argon2id" | "argon2i" | "argon2d");
        if !is_argon2 || hash.salt.is_none() || hash.hash.is_none() {
            return Err(HashFault::NoHash);
        }
        let params = Params::try_from(&hash).map_err(|_| HashFault::Parameters)?;
        let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
        if params.m_cost() > MAX_MEMORY {
            Err(HashFault::Memory(params.m_cost()))
        } else if work > MAX_WORK {
            Err(HashFault::Work(work))
        } else if params.p_cost() > MAX_LANES {
            Err(HashFault::Lanes(params.p_cost()))
        } else {
            Ok(Self::Argon2(text.to_owned()))
        }
    }

    fn matches(&self, password: &str) -> bool {
        match self {
            Self::Plain(secret) => secret.as_bytes().ct_eq(password.as_bytes()).into(),
            Self::Argon2(hash) => PasswordHash::new(hash).is_ok_and(|hash| {
                argon2::Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
            }),
        }
    }
}

/// Hashes a password with a random salt and the cost that OWASP recommends, in the format of
/// [`StoredPassword::argon2`].
///
/// # Errors
/// The system gives no random numbers, or the password is longer than Argon2 accepts.
pub fn hash_password(password: &str) -> Result<String, HashError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| HashError(error.to_string()))?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| HashError(error.to_string()))?;
    let hash = argon2::Argon2::default().hash_password(password.as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| HashError(error.to_string()))
}

/// Why a password could not be hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashError(String);

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the password cannot be hashed: {}", self.0)
    }
}

impl std::error::Error for HashError {}

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
        let salt = SaltString::encode_b64(b"saltsaltsalt").unwrap();
        let hash = argon2::Argon2::default().hash_password(b"sesame", &salt).unwrap().to_string();
        let users = Users::new(HashMap::from([
            ("plain".to_owned(), StoredPassword::Plain("open".to_owned())),
            ("hashed".to_owned(), StoredPassword::Argon2(hash)),
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
            let verdict = users.judge(&given, &Hashing::default(), false).await;
            assert_eq!(
                matches!(verdict, AuthVerdict::Granted(name) if name == given.username),
                granted,
                "{given:?}"
            );
        }
    }

    #[test]
    fn an_unknown_name_takes_as_long_as_a_users_name() {
        let secret = |n: usize| {
            if n < 50 { StoredPassword::Plain(n.to_string()) } else { StoredPassword::Argon2(n.to_string()) }
        };
        let users = Users::new((0..100).map(|n| (format!("user{n}"), secret(n))).collect());
        let is_hash = |name: &String| {
            let (secret, is_theirs) = users.secret_for(name).unwrap();
            assert_eq!(is_theirs, name.starts_with("user"), "{name}");
            assert_eq!(users.secret_for(name), Some((secret, is_theirs)), "the same each time");
            assert_eq!(users.clone().secret_for(name), Some((secret, is_theirs)));
            matches!(secret, StoredPassword::Argon2(_))
        };
        let hashed = |prefix: &str, count: usize| {
            (0..count).map(|n| format!("{prefix}{n}")).filter(is_hash).count() * 100 / count
        };
        assert_eq!(hashed("user", 100), 50);
        // Of 2,000 draws at one half, fewer than 40 % never happen.
        assert!((40..=60).contains(&hashed("nobody", 2_000)));
    }

    #[tokio::test]
    async fn an_unknown_name_is_denied_with_any_password() {
        let users = Users::new(HashMap::from([("ann".to_owned(), StoredPassword::Plain("open".to_owned()))]));
        let verdict = users.judge(&credentials("nobody", "open", None), &Hashing::default(), false).await;
        assert!(matches!(verdict, AuthVerdict::Denied(None)), "{verdict:?}");
    }

    #[test]
    fn a_hash_that_is_made_here_is_taken_here() {
        let hash = hash_password("sesame").unwrap();
        let secret = StoredPassword::argon2(&hash).unwrap();
        assert!(secret.matches("sesame") && !secret.matches("sesam"));
        assert_ne!(hash_password("sesame").unwrap(), hash, "each has a salt of its own");
    }

    #[test]
    fn a_hash_that_costs_too_much_is_a_mistake() {
        let hash =
            |parameters: &str| format!("$argon2id$v=19${parameters}$c2FsdHNhbHQ$YWJjZGVmZ2hpamtsbW5vcA");
        for good in ["m=19456,t=2,p=1", "m=65536,t=3,p=4", "m=131072,t=4,p=1", "m=7168,t=5,p=1"] {
            assert!(StoredPassword::argon2(&hash(good)).is_ok(), "{good}");
        }
        for (bad, fault) in [
            ("m=2097152,t=1,p=4", HashFault::Memory(2_097_152)),
            ("m=131072,t=5,p=1", HashFault::Work(655_360)),
            ("m=8,t=4294967295,p=1", HashFault::Work(34_359_738_360)),
            ("m=65536,t=1,p=255", HashFault::Lanes(255)),
            ("m=1,t=1,p=1", HashFault::Parameters),
        ] {
            assert_eq!(StoredPassword::argon2(&hash(bad)), Err(fault), "{bad}");
        }
        for none in
            ["", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ", "$scrypt$ln=15,r=8,p=1$c2FsdHNhbHQ$YWJjZGVm"]
        {
            assert_eq!(StoredPassword::argon2(none), Err(HashFault::NoHash), "{none}");
        }
    }
}
