//! Names of tenants and functions. Private fields: a value that exists is valid, and the names derived from it
//! fit Kubernetes' 63 characters by construction. Never talks to anything; never truncates a name silently.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest RFC 1123 label.
const LABEL_MAX: usize = 63;
/// Prefix of every tenant namespace.
pub const NAMESPACE_PREFIX: &str = "tenant-";
/// Prefix of every object made for a function.
pub const FUNCTION_PREFIX: &str = "fn-";
/// Longest tenant id, in bytes.
pub const TENANT_ID_MAX: usize = 56;
/// Longest function name, in bytes.
pub const FUNCTION_NAME_MAX: usize = 60;
/// Longest value of the claim that names a tenant, in bytes.
pub const TENANT_CLAIM_MAX: usize = 1024;
/// Characters of hash that set apart ids that cannot be used as they are (50 bits).
const HASH_LEN: usize = 10;

const _: () = assert!(NAMESPACE_PREFIX.len() + TENANT_ID_MAX <= LABEL_MAX, "the namespace must be a label");
const _: () = assert!(FUNCTION_PREFIX.len() + FUNCTION_NAME_MAX <= LABEL_MAX, "the object name must be a label");

/// Why a name was refused. The text is meant for the person who wrote the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// Over the length budget.
    #[error("is {actual} characters long; at most {max} are allowed")]
    TooLong {
        /// The budget, in bytes.
        max: usize,
        /// What came, in bytes.
        actual: usize,
    },
    /// Not an RFC 1123 label.
    #[error("must consist of lower-case letters, digits and '-', and start and end with a letter or digit")]
    NotALabel,
    /// Holds a control character.
    #[error("must not contain control characters")]
    Control,
    /// Not a name for an environment variable.
    #[error("must consist of letters, digits and '_', and not start with a digit")]
    NotAnEnvName,
    /// A name the platform keeps for itself.
    #[error("must not start with EVENTFLOW_, which the platform sets itself")]
    Reserved,
}

/// Whether `s` is an RFC 1123 label of at most `max` bytes.
fn label(s: &str, max: usize) -> Result<(), NameError> {
    if s.is_empty() {
        return Err(NameError::Empty);
    }
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = s.as_bytes();
    if !bytes.iter().all(|&b| alnum(b) || b == b'-') || !alnum(bytes[0]) || !alnum(bytes[bytes.len() - 1]) {
        return Err(NameError::NotALabel);
    }
    if s.len() > max {
        return Err(NameError::TooLong { max, actual: s.len() });
    }
    Ok(())
}

/// The parts every name type has in common: one way in, and reading it as text.
macro_rules! name_type {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                s.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

/// A tenant's id: an RFC 1123 label of at most 56 characters, so that `tenant-{id}` is a namespace name.
/// Chosen once per (issuer, claim) and stored; never computed anew from a token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(String);
name_type!(TenantId);

impl FromStr for TenantId {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        label(s, TENANT_ID_MAX)?;
        Ok(Self(s.to_owned()))
    }
}

impl TenantId {
    /// The namespace that belongs to this tenant and to no other.
    #[must_use]
    pub fn namespace(&self) -> String {
        format!("{NAMESPACE_PREFIX}{}", self.0)
    }

    /// The tenant whose namespace this would be.
    #[must_use]
    pub fn from_namespace(namespace: &str) -> Option<Self> {
        namespace.strip_prefix(NAMESPACE_PREFIX)?.parse().ok()
    }
}

/// The value of the claim that names a tenant, as the issuer wrote it: 1 to 1,024 bytes, no control characters.
/// Anything else a person's identity provider puts there is allowed, and mapped to a [`TenantId`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantClaim(String);
name_type!(TenantClaim);

impl FromStr for TenantClaim {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        if s.is_empty() {
            return Err(NameError::Empty);
        }
        if s.len() > TENANT_CLAIM_MAX {
            return Err(NameError::TooLong { max: TENANT_CLAIM_MAX, actual: s.len() });
        }
        if s.chars().any(char::is_control) {
            return Err(NameError::Control);
        }
        Ok(Self(s.to_owned()))
    }
}

impl TenantClaim {
    /// Ids to try for this claim of `issuer`, best first; the first that is free under the unique key is the
    /// tenant's for ever. The claim itself if it can be an id; then `{slug}-{hash of the claim}`; then the same
    /// with the issuer hashed in, so that one name from two issuers is two tenants.
    #[must_use]
    pub fn candidate_ids(&self, issuer: &str) -> Vec<TenantId> {
        let of_claim = TenantId(format!("{}-{}", self.slug(), hash(&[self.0.as_bytes()])));
        let of_both = TenantId(format!("{}-{}", self.slug(), hash(&[issuer.as_bytes(), self.0.as_bytes()])));
        match self.0.parse() {
            Ok(id) => vec![id, of_both],
            Err(_) => vec![of_claim, of_both],
        }
    }

    /// The readable part of a made-up id: lower-case letters and digits, single dashes between them.
    fn slug(&self) -> String {
        let mut slug = String::new();
        for c in self.0.chars() {
            if slug.len() == TENANT_ID_MAX - HASH_LEN - 1 {
                break;
            }
            let c = c.to_ascii_lowercase();
            if c.is_ascii_lowercase() || c.is_ascii_digit() {
                slug.push(c);
            } else if !slug.is_empty() && !slug.ends_with('-') {
                slug.push('-');
            }
        }
        match slug.trim_end_matches('-') {
            "" => "t".to_owned(),
            s => s.to_owned(),
        }
    }
}

/// Ten characters of lower-case base32 of the SHA-256 of `parts`, joined by NUL (which no part can contain).
fn hash(parts: &[&[u8]]) -> String {
    let digest = Sha256::digest(parts.join(&0));
    data_encoding::BASE32_NOPAD.encode(&digest)[..HASH_LEN].to_ascii_lowercase()
}

/// A function's name: an RFC 1123 label of at most 60 characters, so that `fn-{name}` names its objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FunctionName(String);
name_type!(FunctionName);

impl FromStr for FunctionName {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        label(s, FUNCTION_NAME_MAX)?;
        Ok(Self(s.to_owned()))
    }
}

impl FunctionName {
    /// Name of the Deployment and the Service made for this function.
    #[must_use]
    pub fn object_name(&self) -> String {
        format!("{FUNCTION_PREFIX}{}", self.0)
    }
}

/// The name of an environment variable: a C identifier of at most 128 characters that the platform does not set itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvName(String);
name_type!(EnvName);

/// Longest name of an environment variable, in bytes.
pub const ENV_NAME_MAX: usize = 128;

impl FromStr for EnvName {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let first = s.bytes().next().ok_or(NameError::Empty)?;
        if first.is_ascii_digit() || !s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(NameError::NotAnEnvName);
        }
        if s.len() > ENV_NAME_MAX {
            return Err(NameError::TooLong { max: ENV_NAME_MAX, actual: s.len() });
        }
        if s.starts_with("EVENTFLOW_") {
            return Err(NameError::Reserved);
        }
        Ok(Self(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(s: &str) -> TenantClaim {
        s.parse().unwrap()
    }

    #[test]
    fn a_label_is_its_own_id() {
        assert_eq!(claim("alice").candidate_ids("iss")[0].as_str(), "alice");
        assert_eq!(claim("alice").candidate_ids("iss")[0].namespace(), "tenant-alice");
    }

    #[test]
    fn hostile_claims_neither_collide_nor_escape() {
        let long = "x".repeat(300);
        let hostile = [
            "system",
            "a_b",
            "a-b",
            "A.B",
            "a.b",
            "a b",
            "../x",
            "x",
            "ä",
            "ö",
            "日本",
            "a-",
            "-a",
            &long,
            &long[..299],
        ];
        let mut seen = std::collections::HashSet::new();
        for h in hostile {
            let ids = claim(h).candidate_ids("iss");
            assert!(seen.insert(ids[0].clone()), "{h} collides");
            assert!(seen.insert(ids[1].clone()), "{h} collides");
        }
    }

    #[test]
    fn one_name_of_two_issuers_gets_two_fallbacks() {
        let c = claim("alice");
        assert_ne!(c.candidate_ids("one")[1], c.candidate_ids("two")[1]);
    }

    #[test]
    fn refuses_what_is_no_name() {
        for bad in ["", "A", "-a", "a-", "a_b", "a.b", "ä", &"a".repeat(61)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad}");
        }
        for bad in ["", "1A", "A-B", "EVENTFLOW_X", "Ä"] {
            assert!(bad.parse::<EnvName>().is_err(), "{bad}");
        }
        assert!("".parse::<TenantClaim>().is_err());
        assert!("a\0b".parse::<TenantClaim>().is_err());
    }

    proptest! {
        #[test]
        fn every_claim_maps_to_valid_ids(s in "\\PC{1,200}", issuer in ".{0,40}") {
            for id in claim(&s).candidate_ids(&issuer) {
                prop_assert_eq!(id.as_str().parse::<TenantId>(), Ok(id.clone()));
                prop_assert!(id.namespace().len() <= 63);
                prop_assert_eq!(TenantId::from_namespace(&id.namespace()), Some(id));
            }
        }
    }
}
