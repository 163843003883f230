//! Issuers and their verification keys. Each key states its algorithms, and a token never chooses another one.
//! Room is left for issuers whose keys are fetched: another variant of `KeySource`.

use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// Least length of an HS256, HS384 or HS512 secret, in bytes.
pub const SECRET_MIN: usize = 32;

/// Somebody whose tokens are accepted.
#[derive(Debug)]
pub struct Issuer {
    /// The `iss` of its tokens, exactly.
    pub name: String,
    /// What `aud` must hold.
    pub audience: String,
    /// Where its keys come from.
    pub keys: KeySource,
    /// The claim that names the tenant.
    pub tenant_claim: TenantClaimName,
    /// The claim that lists roles.
    pub roles_claim: String,
}

/// Which claim names the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantClaimName {
    /// This one, which must be there.
    Named(String),
    /// `tenant`, or if a token has none, its `sub`, as a tenant of one person. A person's tenant and a team's tenant
    /// are apart even if they have the same name.
    TenantOrSubject,
}

/// Where an issuer's keys come from.
#[derive(Debug)]
pub enum KeySource {
    /// Files, read at the start.
    Static(Vec<Key>),
}

/// One verification key.
pub struct Key {
    /// The only `kid` it answers to; none answers to any.
    pub kid: Option<String>,
    /// The only algorithms it verifies.
    pub algorithms: Vec<Algorithm>,
    /// The key itself.
    pub decoding: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

impl KeySource {
    /// The keys that may have signed a token with this header.
    pub fn candidates<'a>(&'a self, kid: Option<&'a str>, algorithm: Algorithm) -> impl Iterator<Item = &'a Key> {
        let Self::Static(keys) = self;
        keys.iter().filter(move |key| {
            let kid_fits = key.kid.is_none() || kid.is_none() || key.kid.as_deref() == kid;
            kid_fits && key.algorithms.contains(&algorithm)
        })
    }
}

/// Why the issuers cannot be read. The text says what to change.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is not what it should be.
    #[error("is not a JSON list of issuers")]
    Malformed(#[source] serde_json::Error),
    /// An issuer is defined twice.
    #[error("defines the issuer {0} twice")]
    Duplicate(String),
    /// An issuer or audience is empty, or an issuer has no key.
    #[error("issuer {0:?} needs a name, an audience and at least one key")]
    Incomplete(String),
    /// The algorithms of one key do not belong together.
    #[error("the key {0} must list algorithms of one family: HS*, RS* and PS*, ES*, or EdDSA")]
    Algorithms(PathBuf),
    /// A shared secret that could be guessed.
    #[error("the secret in {0} must be at least {SECRET_MIN} bytes long")]
    ShortSecret(PathBuf),
    /// The file holds no key of the family.
    #[error("{0} does not hold a PEM public key for its algorithms")]
    Key(PathBuf, #[source] jsonwebtoken::errors::Error),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerDefinition {
    issuer: String,
    audience: String,
    keys: Vec<KeyDefinition>,
    tenant_claim: Option<String>,
    #[serde(default = "default_roles_claim")]
    roles_claim: String,
}

fn default_roles_claim() -> String {
    "roles".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyDefinition {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    file: PathBuf,
}

/// Reads the issuers and their key files; relative key files are beside the definition.
///
/// # Errors
/// See [`KeyError`].
pub fn load(path: &Path) -> Result<Vec<Issuer>, KeyError> {
    let text = std::fs::read(path).map_err(|error| KeyError::Read(path.to_owned(), error))?;
    let definitions: Vec<IssuerDefinition> = serde_json::from_slice(&text).map_err(KeyError::Malformed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut issuers: Vec<Issuer> = Vec::with_capacity(definitions.len());
    for definition in definitions {
        if definition.issuer.is_empty() || definition.audience.is_empty() || definition.keys.is_empty() {
            return Err(KeyError::Incomplete(definition.issuer));
        }
        if issuers.iter().any(|issuer| issuer.name == definition.issuer) {
            return Err(KeyError::Duplicate(definition.issuer));
        }
        let keys: Result<_, _> = definition.keys.into_iter().map(|key| load_key(folder, key)).collect();
        issuers.push(Issuer {
            name: definition.issuer,
            audience: definition.audience,
            keys: KeySource::Static(keys?),
            tenant_claim: definition.tenant_claim.map_or(TenantClaimName::TenantOrSubject, TenantClaimName::Named),
            roles_claim: definition.roles_claim,
        });
    }
    Ok(issuers)
}

fn load_key(folder: &Path, definition: KeyDefinition) -> Result<Key, KeyError> {
    let path = folder.join(definition.file);
    let text = std::fs::read(&path).map_err(|error| KeyError::Read(path.clone(), error))?;
    let families: Vec<Option<Family>> = definition.algorithms.iter().map(|a| family(*a)).collect();
    let one_family = families.windows(2).all(|pair| pair[0] == pair[1]);
    let Some(&Some(family)) = families.first().filter(|_| one_family) else { return Err(KeyError::Algorithms(path)) };
    let decoding = match family {
        Family::Secret if text.trim_ascii_end().len() < SECRET_MIN => return Err(KeyError::ShortSecret(path)),
        // Editors add a line break at the end; it is no part of the secret.
        Family::Secret => Ok(DecodingKey::from_secret(text.trim_ascii_end())),
        Family::Rsa => DecodingKey::from_rsa_pem(&text),
        Family::Ec => DecodingKey::from_ec_pem(&text),
        Family::Ed => DecodingKey::from_ed_pem(&text),
    };
    let decoding = decoding.map_err(|error| KeyError::Key(path, error))?;
    Ok(Key { kid: definition.kid, algorithms: definition.algorithms, decoding })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Secret,
    Rsa,
    Ec,
    Ed,
}

/// None for an algorithm that this program has never heard of.
fn family(algorithm: Algorithm) -> Option<Family> {
    Some(match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Family::Secret,
        Algorithm::ES256 | Algorithm::ES384 => Family::Ec,
        Algorithm::EdDSA => Family::Ed,
        Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512 => Family::Rsa,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own, gone afterwards.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("eventflow-keys-{}", uuid::Uuid::new_v4()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn load(&self, keys: &str) -> Result<Vec<Issuer>, KeyError> {
            let text = format!(r#"[{{"issuer": "i", "audience": "a", "keys": [{keys}]}}]"#);
            std::fs::write(self.0.join("issuers.json"), text).unwrap();
            load(&self.0.join("issuers.json"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_family_is_read_from_its_file() {
        let folder = Folder::new();
        let pem = |algorithm| rcgen::KeyPair::generate_for(algorithm).unwrap().public_key_pem();
        std::fs::write(folder.0.join("secret"), "x".repeat(32) + "\n").unwrap();
        std::fs::write(folder.0.join("ec.pem"), pem(&rcgen::PKCS_ECDSA_P256_SHA256)).unwrap();
        std::fs::write(folder.0.join("ed.pem"), pem(&rcgen::PKCS_ED25519)).unwrap();
        let keys = r#"{"algorithms": ["HS256"], "file": "secret"}, {"kid": "e", "algorithms": ["ES256"], "file": "ec.pem"},
            {"algorithms": ["EdDSA"], "file": "ed.pem"}"#;
        let issuers = folder.load(keys).unwrap();
        assert_eq!(issuers[0].keys.candidates(Some("e"), Algorithm::ES256).count(), 1);
        assert_eq!(issuers[0].keys.candidates(Some("f"), Algorithm::ES256).count(), 0);
        assert_eq!(issuers[0].keys.candidates(None, Algorithm::HS384).count(), 0);
    }

    #[test]
    fn bad_definitions_are_named() {
        let folder = Folder::new();
        std::fs::write(folder.0.join("short"), "x".repeat(31) + "\n").unwrap();
        std::fs::write(folder.0.join("text"), "x".repeat(40)).unwrap();
        let load = |keys| folder.load(keys).unwrap_err();
        assert!(matches!(load(""), KeyError::Incomplete(_)));
        assert!(matches!(load(r#"{"algorithms": ["HS256"], "file": "short"}"#), KeyError::ShortSecret(_)));
        assert!(matches!(load(r#"{"algorithms": ["HS256"], "file": "none"}"#), KeyError::Read(..)));
        assert!(matches!(load(r#"{"algorithms": ["RS256"], "file": "text"}"#), KeyError::Key(..)));
        assert!(matches!(load(r#"{"algorithms": [], "file": "text"}"#), KeyError::Algorithms(_)));
        assert!(matches!(load(r#"{"algorithms": ["HS256", "RS256"], "file": "text"}"#), KeyError::Algorithms(_)));
        assert!(matches!(load(r#"{"algorithms": ["none"], "file": "text"}"#), KeyError::Malformed(_)));
    }
}
