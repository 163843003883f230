//! One token: its form, its signature, its claims. Everything is checked before anything is believed; the reason of a
//! refusal goes to the log and never to the caller.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventflow_api::http::Role;
use eventflow_api::names::TenantClaim;
use jsonwebtoken::Algorithm;
use moka::sync::Cache;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::keys::{Issuer, TenantClaimName};

/// Longest token, in bytes.
pub const TOKEN_MAX: usize = 8 * 1024;
/// By how much the clocks of issuers may differ from ours, in seconds.
const LEEWAY: f64 = 30.0;
/// Longest life of a token, in seconds.
const LIFETIME_MAX: f64 = 24.0 * 3600.0;
/// Longest subject, in bytes.
const SUBJECT_MAX: usize = 1024;
/// Most verified tokens remembered.
const TOKENS_KEPT: u64 = 20_000;

/// What a verified token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// `iss`.
    pub issuer: String,
    /// Who names the tenant: the issuer, with `#sub` added when the tenant is a person's own for want of a tenant
    /// claim, so that nobody joins a team by choosing its name as a user name.
    pub tenant_issuer: String,
    /// The value of the claim that names the tenant.
    pub claim: TenantClaim,
    /// `sub`.
    pub subject: String,
    /// Roles within the tenant.
    pub roles: Vec<Role>,
    /// Name, if the token says so.
    pub username: Option<String>,
    /// E-mail address, if the token says so.
    pub email: Option<String>,
    /// `exp`, in seconds since 1970.
    expires: f64,
}

impl Eq for Identity {}

/// Why a token is refused. For the log alone; never holds a part of the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Over the length budget.
    #[error("longer than {TOKEN_MAX} bytes")]
    TooLong,
    /// Not three parts of base64url.
    #[error("not three parts of unpadded base64url")]
    Form,
    /// A part is not a JSON object without repeated keys.
    #[error("{0} is not a JSON object without repeated keys")]
    Json(&'static str),
    /// The header has something that we do not do.
    #[error("the header has {0}")]
    Header(&'static str),
    /// The algorithm is not known.
    #[error("the algorithm is none of ours")]
    Algorithm,
    /// Nobody of this name is trusted.
    #[error("the issuer is not configured")]
    Issuer,
    /// No key verifies it.
    #[error("no key of the issuer verifies it")]
    Signature,
    /// A claim is missing or of the wrong type.
    #[error("the claim {0} is missing or malformed")]
    Claim(&'static str),
    /// Not meant for us.
    #[error("the audience is another one")]
    Audience,
    /// Too late.
    #[error("it has expired")]
    Expired,
    /// Too early.
    #[error("it is not valid yet")]
    NotYet,
    /// It could be used for too long.
    #[error("it lives for more than {LIFETIME_MAX} s")]
    Lifetime,
}

/// Verifies tokens, and remembers those that passed.
#[derive(Debug)]
pub struct Tokens {
    issuers: Vec<Issuer>,
    verified: Cache<[u8; 32], Arc<Identity>>,
}

/// Forgets an identity when its token expires.
struct UntilExpiry;

impl moka::Expiry<[u8; 32], Arc<Identity>> for UntilExpiry {
    fn expire_after_create(&self, _: &[u8; 32], identity: &Arc<Identity>, _: Instant) -> Option<Duration> {
        Some(Duration::try_from_secs_f64(identity.expires - now()).unwrap_or(Duration::ZERO))
    }
}

impl Tokens {
    /// Prepares the verification of these issuers' tokens.
    #[must_use]
    pub fn new(issuers: Vec<Issuer>) -> Self {
        Self { issuers, verified: Cache::builder().max_capacity(TOKENS_KEPT).expire_after(UntilExpiry).build() }
    }

    /// What the token says, if it is to be believed.
    ///
    /// # Errors
    /// The first check that it fails.
    pub fn verify(&self, token: &str) -> Result<Arc<Identity>, Refusal> {
        if token.len() > TOKEN_MAX {
            return Err(Refusal::TooLong);
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(identity) = self.verified.get(&digest).filter(|identity| identity.expires + LEEWAY > now()) {
            return Ok(identity);
        }
        let identity = Arc::new(self.verify_anew(token)?);
        self.verified.insert(digest, Arc::clone(&identity));
        Ok(identity)
    }

    fn verify_anew(&self, token: &str) -> Result<Identity, Refusal> {
        let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Form)?;
        let (header, payload) = message.split_once('.').ok_or(Refusal::Form)?;
        let header = object(header, "the header")?;
        let algorithm = check_header(&header)?;
        let claims = object(payload, "the payload")?;
        if signature.is_empty() || decode(signature).is_none() {
            return Err(Refusal::Form);
        }
        let name = text(&claims, "iss").ok_or(Refusal::Claim("iss"))?;
        let issuer = self.issuers.iter().find(|issuer| issuer.name == name).ok_or(Refusal::Issuer)?;
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.as_str()),
            Some(_) => return Err(Refusal::Header("a kid that is no text")),
        };
        let verified = issuer.keys.candidates(kid, algorithm).any(|key| {
            matches!(jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.decoding, algorithm), Ok(true))
        });
        if !verified {
            return Err(Refusal::Signature);
        }
        check_claims(issuer, &claims, now())
    }
}

/// A part of the token: unpadded base64url of a JSON object without repeated keys.
fn object(part: &str, name: &'static str) -> Result<Map<String, Value>, Refusal> {
    let bytes = decode(part).ok_or(Refusal::Form)?;
    match crate::json::parse(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Refusal::Json(name)),
    }
}

/// Strict: no padding, no white space, no stray bits at the end.
fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

/// Refuses headers that ask for anything beyond a plain signature by a key that we already have.
fn check_header(header: &Map<String, Value>) -> Result<Algorithm, Refusal> {
    for name in ["crit", "b64", "jku", "jwk", "x5u", "x5c", "enc", "zip"] {
        if header.contains_key(name) {
            return Err(Refusal::Header(name));
        }
    }
    match header.get("typ").map(|typ| typ.as_str().map(str::to_ascii_lowercase)) {
        None => {}
        Some(Some(typ)) if matches!(typ.trim_start_matches("application/"), "jwt" | "at+jwt") => {}
        Some(_) => return Err(Refusal::Header("another typ")),
    }
    let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Refusal::Algorithm)?;
    algorithm.parse().map_err(|_| Refusal::Algorithm)
}

/// The claims of a token whose signature holds.
fn check_claims(issuer: &Issuer, claims: &Map<String, Value>, now: f64) -> Result<Identity, Refusal> {
    let audience = match claims.get("aud") {
        Some(Value::String(one)) => one == &issuer.audience,
        Some(Value::Array(many)) if many.iter().all(Value::is_string) => {
            many.iter().any(|one| one == issuer.audience.as_str())
        }
        _ => return Err(Refusal::Claim("aud")),
    };
    if !audience {
        return Err(Refusal::Audience);
    }
    let expires = time(claims, "exp")?.ok_or(Refusal::Claim("exp"))?;
    if expires + LEEWAY <= now {
        return Err(Refusal::Expired);
    }
    let issued = time(claims, "iat")?;
    let not_before = time(claims, "nbf")?;
    if [issued, not_before].into_iter().flatten().any(|t| t > now + LEEWAY) {
        return Err(Refusal::NotYet);
    }
    if expires - issued.unwrap_or(now) > LIFETIME_MAX {
        return Err(Refusal::Lifetime);
    }
    let subject = text(claims, "sub").filter(|s| subject_is_sound(s)).ok_or(Refusal::Claim("sub"))?;
    let (tenant_issuer, claim) = tenant(issuer, claims, subject)?;
    Ok(Identity {
        issuer: issuer.name.clone(),
        tenant_issuer,
        claim,
        subject: subject.to_owned(),
        roles: roles(claims.get(&issuer.roles_claim))?,
        username: ["username", "preferred_username", "name"].iter().find_map(|c| text(claims, c)).map(str::to_owned),
        email: text(claims, "email").map(str::to_owned),
        expires,
    })
}

fn subject_is_sound(subject: &str) -> bool {
    !subject.is_empty() && subject.len() <= SUBJECT_MAX && !subject.chars().any(char::is_control)
}

/// Who names the tenant, and how.
fn tenant(issuer: &Issuer, claims: &Map<String, Value>, subject: &str) -> Result<(String, TenantClaim), Refusal> {
    let name = match &issuer.tenant_claim {
        TenantClaimName::Named(name) => name.as_str(),
        TenantClaimName::TenantOrSubject => "tenant",
    };
    let (namer, value) = match claims.get(name) {
        Some(Value::String(value)) => (issuer.name.clone(), value.as_str()),
        None if issuer.tenant_claim == TenantClaimName::TenantOrSubject => (format!("{}#sub", issuer.name), subject),
        _ => return Err(Refusal::Claim("that names the tenant")),
    };
    let claim = value.parse().map_err(|_| Refusal::Claim("that names the tenant"))?;
    Ok((namer, claim))
}

/// Absent means developer; roles that are none of ours count for nothing.
fn roles(claim: Option<&Value>) -> Result<Vec<Role>, Refusal> {
    let words: Vec<&Value> = match claim {
        None => return Ok(vec![Role::Developer]),
        Some(word @ Value::String(_)) => vec![word],
        Some(Value::Array(words)) => words.iter().collect(),
        Some(_) => return Err(Refusal::Claim("that lists the roles")),
    };
    if !words.iter().all(|word| word.is_string()) {
        return Err(Refusal::Claim("that lists the roles"));
    }
    let mut roles: Vec<Role> = words.into_iter().filter_map(|word| serde_json::from_value(word.clone()).ok()).collect();
    roles.sort();
    roles.dedup();
    Ok(roles)
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// A time, which if it is there must be a number.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(time) if time.is_finite() && time >= 0.0 => Ok(Some(time)),
            _ => Err(Refusal::Claim(name)),
        },
        Some(_) => Err(Refusal::Claim(name)),
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod signatures;
