//! Private keys: reading them from PEM, generating them, and signing (RFC 6376 section 3.3, RFC 8301, RFC 8463).

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The longest RSA key: verifiers need not support longer ones (RFC 8301 section 3.2).
const MAX_BITS: usize = 4_096;
/// The shortest RSA key that signers should use (RFC 8301 section 3.2); the library signs with nothing shorter.
pub(super) const MIN_BITS: usize = 2_048;

/// The signature algorithm. The hash is SHA-256 in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `rsa-sha256`, which every verifier supports.
    Rsa {
        /// The length of the modulus in bits.
        bits: usize,
    },
    /// `ed25519-sha256` (RFC 8463), which many verifiers do not support yet: sign with an RSA key as well.
    Ed25519,
}

impl Algorithm {
    /// The value of the tag `a=` in signatures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rsa { .. } => "rsa-sha256",
            Self::Ed25519 => "ed25519-sha256",
        }
    }

    /// The value of the tag `k=` in published keys.
    #[must_use]
    pub const fn key_type(self) -> &'static str {
        match self {
            Self::Rsa { .. } => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { bits } => write!(f, "RSA of {bits} bits"),
            Self::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

/// The PEM text of a private key. Its `Debug` output does not contain it.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(String);

impl Pem {
    /// Takes the text as it is; errors in it show when the key is read.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The PEM text. Write it only to places that other users cannot read.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why a text cannot be used as a private key. The operator has to fix it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PemError {
    /// There is no `-----BEGIN …-----` with its end.
    NotPem,
    /// It is a public key or a certificate; the text is its label.
    NotPrivate(String),
    /// The key is encrypted.
    Encrypted,
    /// It is a private key in an unsupported form; the text is its label.
    Form(String),
    /// The text between the first and the last line is not Base64.
    Base64,
    /// It is not an RSA or Ed25519 key, or a damaged one; the text is the library's error.
    Rejected(String),
    /// An RSA key of less than 2,048 bits.
    Short,
    /// An RSA key of more than 4,096 bits.
    Long(usize),
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPem => f.write_str("it is not in PEM form: -----BEGIN PRIVATE KEY----- and its end"),
            Self::NotPrivate(label) => write!(f, "it is a {label}; the private key is needed"),
            Self::Encrypted => f.write_str(
                "it is encrypted; remove the password with `openssl pkey -in FILE -out NEW` and protect the file",
            ),
            Self::Form(label) => write!(
                f,
                "its form {label:?} is not known; make it PKCS#8 with `openssl pkey -in FILE -out NEW`"
            ),
            Self::Base64 => f.write_str("the text between its first and last line is not Base64"),
            Self::Rejected(why) => write!(f, "it is not a usable RSA or Ed25519 key ({why})"),
            Self::Short => write!(
                f,
                "it is an RSA key of less than {MIN_BITS} bits, which verifiers distrust; make a new one"
            ),
            Self::Long(bits) => write!(
                f,
                "it is an RSA key of {bits} bits, and verifiers need not understand more than {MAX_BITS}; \
                 make a shorter one"
            ),
        }
    }
}

impl std::error::Error for PemError {}

/// A private key, ready to sign.
pub struct PrivateKey(Material);

enum Material {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

impl PrivateKey {
    /// Reads a key: PKCS#8 for either algorithm, or PKCS#1 for RSA. Text around it is skipped.
    ///
    /// # Errors
    /// The text is not such a key, or one that should not be used for signatures.
    pub fn from_pem(pem: &Pem) -> Result<Self, PemError> {
        let (label, der) = decode(&pem.0)?;
        match label {
            "PRIVATE KEY" => from_pkcs8(&der),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(&der).map_err(|error| rejected(&error)).and_then(rsa),
            "ENCRYPTED PRIVATE KEY" => Err(PemError::Encrypted),
            other if other.ends_with("PRIVATE KEY") => Err(PemError::Form(other.to_owned())),
            other => Err(PemError::NotPrivate(other.to_owned())),
        }
    }

    /// The algorithm with which the key signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Material::Rsa(pair) => Algorithm::Rsa { bits: 8 * pair.public_modulus_len() },
            Material::Ed25519(_) => Algorithm::Ed25519,
        }
    }

    /// The public key for the tag `p=`, before Base64: for RSA a SubjectPublicKeyInfo (RFC 6376 section 3.6.1, in the
    /// form that others publish), for Ed25519 the bare key (RFC 8463 section 4).
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        match &self.0 {
            Material::Rsa(pair) => {
                let der: Result<PublicKeyX509Der<'_>, _> = pair.public_key().as_der();
                // The library encodes a key that it has just decoded; the bare form would be valid as well.
                der.map_or_else(|_| pair.public_key().as_ref().to_vec(), |der| der.as_ref().to_vec())
            }
            Material::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// The TXT record that publishes the public key (RFC 6376 section 3.6.1).
    #[must_use]
    pub fn record(&self) -> String {
        let key_type = self.algorithm().key_type();
        format!("v=DKIM1; k={key_type}; p={}", STANDARD.encode(self.public()))
    }

    /// Signs the canonical form of a header. None when the library fails, which is known to happen only for lack of
    /// memory.
    pub(super) fn sign(&self, input: &[u8]) -> Option<Vec<u8>> {
        match &self.0 {
            Material::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let random = SystemRandom::new();
                pair.sign(&RSA_PKCS1_SHA256, &random, input, &mut signature).ok()?;
                Some(signature)
            }
            // RFC 8463 section 3: what is signed is the hash.
            Material::Ed25519(pair) => {
                let signature = pair.try_sign(digest(&SHA256, input).as_ref()).ok()?;
                Some(signature.as_ref().to_vec())
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.algorithm())
    }
}

fn from_pkcs8(der: &[u8]) -> Result<PrivateKey, PemError> {
    // The form may or may not contain the public key, as that of RFC 5958 allows.
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return Ok(PrivateKey(Material::Ed25519(pair)));
    }
    RsaKeyPair::from_pkcs8(der).map_err(|error| rejected(&error)).and_then(rsa)
}

fn rsa(pair: RsaKeyPair) -> Result<PrivateKey, PemError> {
    let bits = 8 * pair.public_modulus_len();
    if bits > MAX_BITS {
        return Err(PemError::Long(bits));
    }
    Ok(PrivateKey(Material::Rsa(Box::new(pair))))
}

fn rejected(error: &aws_lc_rs::error::KeyRejected) -> PemError {
    match error.to_string().as_str() {
        "TooSmall" => PemError::Short,
        other => PemError::Rejected(other.to_owned()),
    }
}

/// The first block of PEM (RFC 7468): its label and its octets.
fn decode(text: &str) -> Result<(&str, Vec<u8>), PemError> {
    let (_, block) = text.split_once("-----BEGIN ").ok_or(PemError::NotPem)?;
    let (label, block) = block.split_once("-----").ok_or(PemError::NotPem)?;
    let (content, _) = block.split_once(&format!("-----END {label}-----")).ok_or(PemError::NotPem)?;
    // Encrypted PKCS#1 has header lines.
    if content.contains("ENCRYPTED") {
        return Err(PemError::Encrypted);
    }
    let content: String = content.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(content).map_err(|_| PemError::Base64)?;
    Ok((label, der))
}

/// A new key pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The private key in PKCS#8 form, as OpenSSL and others read it.
    pub private_pem: Pem,
    /// The text of the TXT record at `SELECTOR._domainkey.DOMAIN`.
    pub record: String,
}

/// Why no key could be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerateError {
    /// The requested length of an RSA key is not 2,048, 3,072 or 4,096 bits.
    Bits(usize),
    /// The library failed: no memory, or no random numbers.
    Library,
}

impl fmt::Display for GenerateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits(bits) => write!(f, "RSA keys have 2048, 3072 or 4096 bits here, not {bits}"),
            Self::Library => f.write_str("there is not enough memory or randomness for a key"),
        }
    }
}

impl std::error::Error for GenerateError {}

/// Generates a key pair. RSA takes a good part of a second or more; call it where blocking is allowed.
///
/// # Errors
/// The length is not supported, or the library failed.
pub fn generate(algorithm: Algorithm) -> Result<KeyPair, GenerateError> {
    let (key, der) = match algorithm {
        Algorithm::Rsa { bits } => generate_rsa(bits)?,
        Algorithm::Ed25519 => {
            let pair = Ed25519KeyPair::generate().map_err(|_| GenerateError::Library)?;
            let der = pair.to_pkcs8v1().map_err(|_| GenerateError::Library)?.as_ref().to_vec();
            (PrivateKey(Material::Ed25519(pair)), der)
        }
    };
    Ok(KeyPair { private_pem: encode(&der), record: key.record() })
}

fn generate_rsa(bits: usize) -> Result<(PrivateKey, Vec<u8>), GenerateError> {
    let size = match bits {
        2_048 => KeySize::Rsa2048,
        3_072 => KeySize::Rsa3072,
        4_096 => KeySize::Rsa4096,
        other => return Err(GenerateError::Bits(other)),
    };
    let pair = RsaKeyPair::generate(size).map_err(|_| GenerateError::Library)?;
    let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| GenerateError::Library)?;
    let der = der.as_ref().to_vec();
    Ok((PrivateKey(Material::Rsa(Box::new(pair))), der))
}

fn encode(der: &[u8]) -> Pem {
    let content = STANDARD.encode(der);
    let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = content.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    Pem(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The private key of RFC 8032 section 7.1, test 1, which RFC 8463 appendix A publishes.
    const RFC8463: &str = "
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";

    /// A key made for this test only.
    const SHORT: &str = "\
-----BEGIN RSA PRIVATE KEY-----
MIICWwIBAAKBgQCcs034hCtCkJoBjNTAMGcHlc7Ok1MveqVxw+rGLvy7J5kzlCiK
mjf9pVHW876ydp+wplgg9hnmksTI4o6YIKNvPa122OpWmG/SuCgDGxq4nHUoX0uh
3JzQfFAkpDXQdR4DHUbsZUQMv/UI64+41BDtTJ+OBQevI84CVwexcmeqUQIDAQAB
AoGACL50pl5xr4g0H8wE/yh0R1cTsDFGXgrg+oUtL5vlnGfsQ5WL4ZgTccLs2yrE
xF6cMJZHqqcw8M3Vz0PdIx4HIJKcjYt4RBXHM249V/X7gHd+V2otcCEYEeWdJBTb
eTim7jKwwOa/6rO0hS962hBZ/LPWpTDDly9EgV8yNpVwUkECQQDLWCGgg9/p5c0C
j/TVsXgl4G4MLzHR0zdfAKIBwet3oGcluJd5zi2S3+OoDyPTe/APtpsvk+RqtFgy
IXB0+aRJAkEAxUcchDn5GANkdlPJ/uLQq05zledskyONYEzxB22EzDK3gS9L7Jfc
it7mrmTSqRMzStDvg9gt7UYkP/MUbC5FyQJAV4prf6UGYrWx2qaK6uxqIzRJbClt
Mz3RGq81D7iiXG/LuCuN2rxuVkrYwWMzMzqqELm2eXcb4OwfBAXtWg6XMQJALxBn
Ajieb5cnmX8l2pQb+jJuKt4aLgQ2Tzor6ny7SMf0tXImJ9yW9d51pDdTdpipDPlJ
muexFUE9lrAUODbV2QJAWXZMBW8npPOR/dr6eUu/LFsE789Km5rh4O+TnlK0J8GA
lUU3rIiBPUspxuPI4vdrUxPON5VlyWdyZ9qR1AzMqA==
-----END RSA PRIVATE KEY-----
";

    fn error(text: &str) -> PemError {
        PrivateKey::from_pem(&Pem::new(text.to_owned())).unwrap_err()
    }

    #[test]
    fn the_key_of_the_rfc_has_the_public_half_of_the_rfc() {
        let key = PrivateKey::from_pem(&Pem::new(RFC8463.to_owned())).unwrap();
        assert_eq!(key.algorithm(), Algorithm::Ed25519);
        assert_eq!(key.record(), "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    }

    #[test]
    fn new_keys_are_read_again_and_publish_what_they_said() {
        for algorithm in [Algorithm::Ed25519, Algorithm::Rsa { bits: 2_048 }] {
            let pair = generate(algorithm).unwrap();
            let key = PrivateKey::from_pem(&pair.private_pem).unwrap();
            assert_eq!((key.algorithm(), key.record()), (algorithm, pair.record.clone()));
            assert!(!format!("{pair:?} {key:?}").contains("BEGIN"));
        }
        assert_eq!(generate(Algorithm::Rsa { bits: 1_024 }).unwrap_err(), GenerateError::Bits(1_024));
    }

    #[test]
    fn the_older_form_of_rsa_keys_is_read_too() {
        let pair = generate(Algorithm::Rsa { bits: 2_048 }).unwrap();
        let (_, der) = decode(pair.private_pem.reveal()).unwrap();
        // PKCS#8 wraps PKCS#1 in 26 octets: version, algorithm, and the heads of its octet string.
        let bare = STANDARD.encode(&der[26..]);
        let text = format!("-----BEGIN RSA PRIVATE KEY-----\r\n{bare}\r\n-----END RSA PRIVATE KEY-----\r\n");
        let key = PrivateKey::from_pem(&Pem::new(text)).unwrap();
        assert_eq!(key.record(), pair.record);
    }

    #[test]
    fn what_is_no_private_key_is_told_apart() {
        let block = |label: &str, content: &str| {
            format!("-----BEGIN {label}-----\n{content}\n-----END {label}-----\n")
        };
        assert_eq!(error("secret"), PemError::NotPem);
        assert_eq!(error(SHORT), PemError::Short);
        assert_eq!(error("-----BEGIN PRIVATE KEY-----\nAAAA\n"), PemError::NotPem);
        assert_eq!(error(&block("PUBLIC KEY", "AAAA")), PemError::NotPrivate("PUBLIC KEY".into()));
        assert_eq!(error(&block("EC PRIVATE KEY", "AAAA")), PemError::Form("EC PRIVATE KEY".into()));
        assert_eq!(error(&block("ENCRYPTED PRIVATE KEY", "AAAA")), PemError::Encrypted);
        assert_eq!(error(&block("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\n\nAAAA")), PemError::Encrypted);
        assert_eq!(error(&block("PRIVATE KEY", "?")), PemError::Base64);
        assert!(matches!(error(&block("PRIVATE KEY", "AAAA")), PemError::Rejected(_)));
        assert!(matches!(error(&block("RSA PRIVATE KEY", "AAAA")), PemError::Rejected(_)));
    }
}
